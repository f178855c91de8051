from __future__ import annotations

import math

import pytest
import torch

from pressmark.tokenizer.contrastive import Config, contrastive_loss, level_weights, pair_targets

NAN = float("nan")


def test_level_weights_fall_and_sum_to_one() -> None:
    assert level_weights(4, 0.5) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])
    assert level_weights(3, 1.0) == pytest.approx([1 / 3] * 3)


def test_targets_by_hand() -> None:
    # Item 0: a twin in its leaf, a sibling, an unrelated one, one unknown.
    similarity = torch.tensor(
        [
            [1.0, 1.0, 0.5, 0.0, NAN],
            [1.0, 1.0, 0.5, 0.0, NAN],
            [0.5, 0.5, 1.0, 0.0, NAN],
            [0.0, 0.0, 0.0, 1.0, NAN],
            [NAN, NAN, NAN, NAN, NAN],
        ]
    )
    targets, valid = pair_targets(similarity, torch.arange(5))
    expected = [[0, 2 / 3, 1 / 3, 0, 0], [2 / 3, 0, 1 / 3, 0, 0], [0.5, 0.5, 0, 0, 0], [0] * 5, [0] * 5]
    torch.testing.assert_close(targets, torch.tensor(expected))
    assert valid[0].tolist() == [False, True, True, True, False]
    assert not valid[4].any()


def test_an_item_drawn_twice_is_no_pair() -> None:
    _, valid = pair_targets(torch.ones(3, 3), torch.tensor([7, 7, 8]))
    assert valid.tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def three_items() -> tuple[torch.Tensor, torch.Tensor]:
    """Items 0 and 1 share a leaf, item 2 is unrelated."""
    similarity = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return pair_targets(similarity, torch.arange(3))


def loss_of(quantized: list, temperature: float = 1.0) -> torch.Tensor:
    entries = torch.tensor(quantized, dtype=torch.float32)
    targets, valid = three_items()
    return contrastive_loss(torch.zeros_like(entries), entries, targets, valid, Config(temperature, 0.5))


def test_loss_by_hand() -> None:
    # One level. Anchor 0 sees cosine 0 to 1 and 1 to 2; anchor 1 sees 0 and 0; anchor 2 has no relative.
    loss = loss_of([[[2.0, 0.0]], [[0.0, 3.0]], [[1.0, 0.0]]])
    share_0 = 1 / (1 + math.e)
    expected = torch.tensor([-math.log(share_0), -math.log(0.5), 0.0]) * 3 / 2
    torch.testing.assert_close(loss, expected)


def test_levels_are_cumulative_and_weighted() -> None:
    # Level 1 alone would be opposite for items 0 and 1; the sums are equal.
    quantized = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, -1.0]]]
    first = [math.log(math.exp(0) + math.exp(-1)) - 0, math.log(math.exp(0) + math.exp(0)) - 0]
    second = [math.log(math.exp(1) + math.exp(-1)) - 1] * 2
    expected = [(2 / 3 * a + 1 / 3 * b) * 3 / 2 for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(loss_of(quantized), torch.tensor([*expected, 0.0]))


def test_the_loss_is_zero_where_codes_mirror_the_targets() -> None:
    similarity = torch.tensor([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]])
    targets, valid = pair_targets(similarity, torch.arange(3))
    entries = torch.eye(3).unsqueeze(1)
    loss = contrastive_loss(torch.zeros_like(entries), entries, targets, valid, Config())
    torch.testing.assert_close(loss, torch.zeros(3), atol=1e-6, rtol=0)


def test_pulling_relatives_together_lowers_it() -> None:
    apart = loss_of([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]]).sum()
    close = loss_of([[[1.0, 0.0]], [[0.9, 0.4]], [[-1.0, 0.0]]]).sum()
    assert close < apart


def test_gradient_reaches_entries_of_every_level_and_the_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    quantized = torch.randn(3, 2, 4, generator=generator).requires_grad_()
    residuals = torch.randn(3, 2, 4, generator=generator).requires_grad_()
    targets, valid = three_items()
    contrastive_loss(residuals, quantized, targets, valid, Config()).sum().backward()
    assert quantized.grad is not None
    assert residuals.grad is not None
    # Item 2 has no relative, yet it is pushed: it stands among the pairs of 0 and 1.
    assert (quantized.grad.abs().sum(dim=2) > 1e-4).all()
    assert (residuals.grad[:, 0].abs().sum(dim=1) > 1e-4).all()
    assert (residuals.grad[:, 1] == 0).all()


@pytest.mark.parametrize("similarity", [0.0, NAN])
def test_a_batch_without_relatives_costs_nothing(similarity: float) -> None:
    targets, valid = pair_targets(torch.full((4, 4), similarity), torch.arange(4))
    entries = torch.randn(4, 2, 3).requires_grad_()
    loss = contrastive_loss(torch.zeros(4, 2, 3), entries, targets, valid, Config())
    loss.sum().backward()
    assert loss.tolist() == [0.0] * 4
    assert entries.grad is not None
    assert entries.grad.isfinite().all()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Config(temperature=0.0)
    with pytest.raises(ValueError, match="level_decay"):
        Config(level_decay=1.5)
