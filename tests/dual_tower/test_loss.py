from __future__ import annotations

import math
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pressmark import distributed
from pressmark.dual_tower.loss import Candidates, gather_candidates, info_nce, log_shares

NONE = torch.zeros(9)


def batch(
    item_index: list[int], users: list[list[float]], items: list[list[float]]
) -> tuple[Tensor, Candidates]:
    candidates = gather_candidates(torch.tensor(items), torch.tensor(item_index))
    return torch.tensor(users), candidates


def test_info_nce_by_hand() -> None:
    users, candidates = batch([4, 7], [[1.0, 0.0], [0.6, 0.8]], [[1.0, 0.0], [0.0, 1.0]])
    rows = info_nce(users, candidates, NONE, temperature=0.5)
    # Logits: row 0 (2, 0), row 1 (1.2, 1.6).
    assert rows.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-0.4))])


@pytest.mark.parametrize(("logq", "expected"), [(0.0, 1.0), (1.0, 3.0), (0.5, 3**0.5)])
def test_logq_divides_by_the_share(logq: float, expected: float) -> None:
    # Item 0 is drawn three times as often as item 1; all cosines are equal.
    log_q = torch.tensor([0.75, 0.25]).log()
    users, candidates = batch([0, 1], [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]])
    odds_of_item_1 = torch.exp(-info_nce(users, candidates, log_q, 1.0, logq)[1])
    assert float(odds_of_item_1 / (1 - odds_of_item_1)) == pytest.approx(expected)


def test_the_users_own_item_in_another_row_is_no_negative() -> None:
    users, candidates = batch(
        [4, 4, 7], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    )
    rows = info_nce(users, candidates, NONE, 1.0)
    # Rows 0 and 1 see themselves and item 7; row 2 sees itself and item 4 twice.
    one, two = math.log(1 + math.exp(-1)), math.log(1 + 2 * math.exp(-1))
    assert rows.tolist() == pytest.approx([one, one, two])


def test_the_history_may_be_spared_but_never_the_target() -> None:
    users, candidates = batch([4, 7], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    history = torch.tensor([[7, 4], [-1, -1]])
    rows = info_nce(users, candidates, NONE, 1.0, history=history)
    assert rows.tolist() == pytest.approx([0.0, math.log(1 + math.exp(-1))])


def test_a_batch_whose_rows_share_one_item_has_a_loss_of_zero() -> None:
    users, candidates = batch([4, 4], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]])
    assert info_nce(users, candidates, NONE, 0.1).tolist() == [0, 0]


def test_a_batch_of_one_is_refused() -> None:
    users, candidates = batch([4], [[1.0, 0.0]], [[1.0, 0.0]])
    with pytest.raises(ValueError, match="batch of one"):
        info_nce(users, candidates, NONE, 0.1)


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    users, candidates = batch([4, 7], [[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2)
    with pytest.raises(ValueError, match="temperature"):
        info_nce(users, candidates, NONE, temperature)


def test_log_shares() -> None:
    found = log_shares(np.array([3.0, 0.0, 1.0]))
    assert found.tolist() == pytest.approx([math.log(0.75), math.log(0.25), math.log(0.25)])
    assert log_shares(np.zeros(3)).isfinite().all()


# The rows that two processes share between them, and that one process holds alone.
ROWS = 6
ITEM_INDEX = [0, 3, 1, 3, 2, 0]


def rows_of(start: int, stop: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(2, ROWS, 4, generator=generator)
    return users[start:stop:step], items[start:stop:step], torch.tensor(ITEM_INDEX)[start:stop:step]


def gradient(rank: int, world: int, detach: bool) -> tuple[float, Tensor, Tensor]:
    """Loss sum over this process's rows and its gradients to the towers' outputs."""
    users, items, item_index = rows_of(rank, ROWS, world)
    users.requires_grad_()
    items.requires_grad_()
    unit = torch.nn.functional.normalize(items, dim=1)
    candidates = gather_candidates(unit, item_index)
    if detach:
        constant = candidates.embeddings.detach().clone()
        constant[candidates.target] = unit
        candidates = Candidates(constant, candidates.item_index, candidates.target)
    log_q = log_shares(np.bincount(ITEM_INDEX).astype(np.float64))
    loss = info_nce(torch.nn.functional.normalize(users, dim=1), candidates, log_q, 0.1).sum()
    loss.backward()
    assert users.grad is not None
    assert items.grad is not None
    return loss.item(), users.grad, items.grad


def one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name, detach in (("gathered", False), ("detached", True)):
        loss, users, items = gradient(rank, 2, detach)
        torch.save({"loss": torch.tensor(loss), "users": users, "items": items}, f"{folder}/{name}{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gather")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(one_of_two, (port, str(folder)), nprocs=2)
    return folder


def together(folder: Path, name: str) -> tuple[float, Tensor, Tensor]:
    parts = [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in range(2)]
    users, items = torch.empty(ROWS, 4), torch.empty(ROWS, 4)
    for rank, part in enumerate(parts):
        users[rank::2], items[rank::2] = part["users"], part["items"]
    return float(parts[0]["loss"] + parts[1]["loss"]), users, items


def test_two_processes_have_the_loss_and_gradient_of_one(two_processes: Path) -> None:
    assert not distributed.is_distributed()
    loss, users, items = gradient(0, 1, detach=False)
    found_loss, found_users, found_items = together(two_processes, "gathered")
    assert found_loss == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(found_users, users, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_items, items, rtol=1e-5, atol=1e-6)


def test_holding_the_others_constant_gives_a_wrong_gradient(two_processes: Path) -> None:
    _, _, items = gradient(0, 1, detach=False)
    loss, users, wrong = together(two_processes, "detached")
    right_loss, right_users, _ = together(two_processes, "gathered")
    assert loss == pytest.approx(right_loss)
    torch.testing.assert_close(users, right_users)
    # The loss says nothing of it; the gradient of the items lacks what the other process's users say.
    assert (wrong - items).norm() > 0.1 * items.norm()
