from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from pressmark.tokenizer import running
from pressmark.tokenizer.config import Config
from pressmark.tokenizer.residual import squared_distances
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig, RQVAEOutput
from pressmark.tokenizer.running import RunningCodebooks


def line(*books: list[float]) -> RQVAE:
    """One-dimensional codebooks."""
    model = RQVAE(RQVAEConfig(1, [len(book) for book in books], hidden_sizes=(), latent_dim=1))
    with torch.no_grad():
        for book, entries in zip(model.books, books, strict=True):
            book.copy_(torch.tensor(entries).unsqueeze(1))
    model.books.requires_grad_(False)
    return model


def passed(model: RQVAE, *levels: list[float]) -> RQVAEOutput:
    """A forward pass with these residuals at each level."""
    residuals = [torch.tensor(one).unsqueeze(1) for one in levels]
    distances = [squared_distances(*pair) for pair in zip(residuals, model.books, strict=True)]
    return RQVAEOutput(
        inputs=residuals[0],
        reconstruction=residuals[0],
        codes=torch.stack([one.argmin(dim=1) for one in distances], dim=1),
        residuals=tuple(residuals),
        quantized=(),
        error=residuals[0],
        distances=tuple(distances),
        mean_square=torch.ones(()),
    )


def config(codebooks: str = "ema", balance: tuple[float, ...] = (0.0,)) -> Config:
    return Config(level_sizes=(2,), codebooks=codebooks, balance=balance)  # type: ignore[arg-type]


def test_one_step_by_hand() -> None:
    model = line([0.0, 10.0])
    books = RunningCodebooks(config())
    books.observe(model, passed(model, [1.0, 2.0, 9.0]))
    assert model.books[0].tolist() == [[0.0], [10.0]], "observing moves nothing"
    books.update(model)
    # Three rows of a window of 2 * 100: momentum 0.015. Code 0 has 0.4925 of its usage left at 0 and takes
    # 0.015 * 2 / 3 at 1.5; code 1 has 0.4925 left at 10 and takes 0.015 / 3 at 9.
    expected = torch.tensor([[0.01 * 1.5 / 0.5025], [(4.925 + 0.045) / 0.4975]])
    torch.testing.assert_close(model.books[0], torch.nn.Parameter(expected, requires_grad=False))
    torch.testing.assert_close(model.usage(0), torch.tensor([0.5025, 0.4975]))


def test_micro_batches_are_one_step_and_are_then_forgotten() -> None:
    parts, whole = line([0.0, 10.0], [-1.0, 1.0]), line([0.0, 10.0], [-1.0, 1.0])
    books = RunningCodebooks(config())
    books.observe(parts, passed(parts, [1.0, 2.0], [0.5, -2.0]))
    books.observe(parts, passed(parts, [9.0], [0.8]))
    books.update(parts)
    other = RunningCodebooks(config())
    other.observe(whole, passed(whole, [1.0, 2.0, 9.0], [0.5, -2.0, 0.8]))
    other.update(whole)
    for level in (0, 1):
        torch.testing.assert_close(parts.books[level], whole.books[level])
        torch.testing.assert_close(parts.usage(level), whole.usage(level))
    # A fresh object and one that has stepped go on alike: nothing is held between steps.
    for one in (books, RunningCodebooks(config())):
        model = line([0.0, 10.0], [-1.0, 1.0])
        model.load_state_dict(whole.state_dict())
        one.observe(model, passed(model, [3.0], [1.0]))
        one.update(model)
        if one is books:
            expected = model.state_dict()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())


def test_gradient_mode_moves_usage_and_leaves_the_books_alone() -> None:
    model = line([0.0, 10.0])
    books = RunningCodebooks(config("gradient"))
    books.observe(model, passed(model, [1.0, 2.0, 9.0]))
    books.update(model)
    assert model.books[0].tolist() == [[0.0], [10.0]]
    torch.testing.assert_close(model.usage(0), torch.tensor([0.5025, 0.4975]))


def test_a_step_of_more_rows_than_a_tenth_of_the_window_moves_a_tenth() -> None:
    model = line([0.0, 10.0])
    books = RunningCodebooks(config())
    books.observe(model, passed(model, [1.0] * 50))
    books.update(model)
    torch.testing.assert_close(model.usage(0), torch.tensor([0.55, 0.45]))
    torch.testing.assert_close(float(model.books[0][0]), 0.1 / 0.55)


def test_an_entry_that_nobody_chooses_stays_where_it_is() -> None:
    model = line([0.0, 10.0])
    books = RunningCodebooks(config())
    for _ in range(3):
        books.observe(model, passed(model, [1.0] * 50))
        books.update(model)
    assert float(model.books[0][1]) == pytest.approx(10.0, rel=1e-6)
    assert float(model.usage(0)[1]) == pytest.approx(0.5 * 0.9**3)


def test_an_entry_with_nothing_left_of_its_usage_stays_too_and_is_a_plain_mean_once_chosen() -> None:
    model = line([0.0, 10.0])
    model.usage(0).copy_(torch.tensor([1.0, 0.0]))
    books = RunningCodebooks(config())
    books.observe(model, passed(model, [1.0]))
    books.update(model)
    assert float(model.books[0][1]) == 10.0
    books.observe(model, passed(model, [8.0, 9.0]))
    books.update(model)
    assert float(model.books[0][1]) == pytest.approx(8.5)


def test_the_running_mean_comes_to_the_mean_of_what_chooses_it() -> None:
    model = line([0.0, 10.0])
    books = RunningCodebooks(config())
    for _ in range(200):
        books.observe(model, passed(model, [1.0] * 30 + [3.0] * 10 + [8.0] * 20))
        books.update(model)
    torch.testing.assert_close(model.books[0].detach(), torch.tensor([[1.5], [8.0]]), rtol=1e-4, atol=0)
    torch.testing.assert_close(model.usage(0), torch.tensor([2 / 3, 1 / 3]), rtol=1e-4, atol=0)


def crowded() -> RQVAE:
    model = line([0.0, 10.0])
    with torch.no_grad():
        model.usage(0).copy_(torch.tensor([0.9, 0.1]))
    return model


@pytest.mark.parametrize(("balance", "moves"), [(0.0, False), (0.15, False), (0.25, True)])
def test_a_crowded_codes_rows_count_for_the_idle_one(balance: float, moves: bool) -> None:
    # Squared distances 24.01 and 26.01. The crowded code's price above the other's is
    # 4 * 0.05 * 24.01 * log(0.9 / 0.1) = 10.55 times the balance; 2.0 are needed.
    model = crowded()
    books = RunningCodebooks(config(balance=(balance,)))
    output = passed(model, [4.9])
    assert output.codes.tolist() == [[0]]
    assert 0.2 * 24.01 * math.log(9) == pytest.approx(10.55, abs=0.01)
    books.observe(model, output)
    books.update(model)
    momentum = 1 / 200
    expected = 0.1 * (1 - momentum) + momentum * moves
    assert float(model.usage(0)[1]) == pytest.approx(expected)
    where = (0.1 * (1 - momentum) * 10 + momentum * 4.9) / expected if moves else 10.0
    assert float(model.books[0][1]) == pytest.approx(where)


def test_each_level_has_its_balance_and_the_last_holds_beyond() -> None:
    model = line([0.0, 10.0], [0.0, 10.0], [0.0, 10.0])
    with torch.no_grad():
        for level in range(3):
            model.usage(level).copy_(torch.tensor([0.9, 0.1]))
    books = RunningCodebooks(config(balance=(0.0, 1.0)))
    books.observe(model, passed(model, [4.9], [4.9], [4.9]))
    books.update(model)
    assert [float(model.usage(level)[1]) > 0.1 for level in range(3)] == [False, True, True]


class Together:
    """Two threads in place of two processes: a sum waits for both."""

    def __init__(self) -> None:
        self.meeting = threading.Barrier(2, timeout=20)
        self.given: list[Tensor] = [torch.zeros(())] * 2
        self.me = threading.local()

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        self.given[self.me.rank] = tensor.detach().clone()
        self.meeting.wait()
        total = self.given[0] + self.given[1]
        self.meeting.wait()
        return total


def test_two_shares_move_the_books_as_the_whole_batch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 6 + 3
    second = rows.flip(0) / 5

    def stepped(first: Tensor, other: Tensor) -> RQVAE:
        model = line([0.0, 4.0, 8.0], [-1.0, 0.0, 1.0])
        with torch.no_grad():
            model.usage(0).copy_(torch.tensor([0.8, 0.1, 0.1]))
        books = RunningCodebooks(config(balance=(0.6,)))
        for _ in range(2):
            books.observe(model, passed(model, first.tolist(), other.tolist()))
            books.update(model)
        return model

    whole = stepped(rows, second)
    together, found = Together(), [whole, whole]

    def process(rank: int) -> None:
        together.me.rank = rank
        found[rank] = stepped(rows[rank::2], second[rank::2])

    monkeypatch.setattr(running, "all_reduce_sum", together.all_reduce_sum)
    monkeypatch.setattr(running, "num_processes", lambda: 2)
    threads = [threading.Thread(target=process, args=(rank,)) for rank in (0, 1)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    states: list[dict[str, Any]] = [one.state_dict() for one in found]
    for name, value in whole.state_dict().items():
        if not name.startswith(("books", "usage")):
            continue
        assert torch.equal(states[0][name], states[1][name]), name
        torch.testing.assert_close(states[0][name], value, msg=name)
    assert found[0] is not whole
