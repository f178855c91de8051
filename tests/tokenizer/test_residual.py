from __future__ import annotations

import torch

from pressmark.tokenizer.residual import dequantize, nearest, quantize, squared_distances

# Level 0 tells left from right, level 1 how far up.
BOOKS = [torch.tensor([[-4.0, 0.0], [4.0, 0.0]]), torch.tensor([[0.0, -1.0], [0.0, 0.0], [0.5, 2.0]])]


def test_squared_distances_by_hand() -> None:
    rows, book = torch.tensor([[0.0, 3.0], [1.0, 0.0]]), torch.tensor([[4.0, 0.0], [1.0, 1.0]])
    assert squared_distances(rows, book).tolist() == [[25.0, 5.0], [9.0, 1.0]]


def test_codes_by_hand() -> None:
    # (4.6, 1.8): nearest (4, 0); residual (0.6, 1.8): nearest (0.5, 2).
    # (-3, -0.9): nearest (-4, 0); residual (1, -0.9): distance 1.01 to (0, -1), 1.81 to (0, 0).
    codes = quantize(torch.tensor([[4.6, 1.8], [-3.0, -0.9]]), BOOKS)
    assert codes.tolist() == [[1, 2], [0, 0]]
    assert dequantize(codes, BOOKS).tolist() == [[4.5, 2.0], [-4.0, -1.0]]


def test_a_prefix_decodes_to_the_sum_of_its_levels() -> None:
    assert dequantize(torch.tensor([[1]]), BOOKS).tolist() == [[4.0, 0.0]]


def test_of_equal_entries_the_lowest_code_wins() -> None:
    assert nearest(torch.tensor([[0.0]]), torch.tensor([[1.0], [-1.0], [1.0]])).tolist() == [0]


def test_distances_carry_gradient_to_both_sides() -> None:
    rows = torch.tensor([[1.0, 2.0]], requires_grad=True)
    book = torch.tensor([[0.0, 0.0]], requires_grad=True)
    squared_distances(rows, book).sum().backward()
    assert rows.grad is not None
    assert book.grad is not None
    assert rows.grad.tolist() == [[2.0, 4.0]]
    assert book.grad.tolist() == [[-2.0, -4.0]]
