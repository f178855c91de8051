from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.dual_tower.test_train import NUM_ITEMS, config, content, learner, task

from pressmark.dual_tower.auxiliary import ItemGraph, part_of, swapped_assignments, twins, without_some
from pressmark.dual_tower.config import AuxiliaryConfig
from pressmark.dual_tower.geometry import alignment, uniformity
from pressmark.dual_tower.loss import gather_candidates, info_nce, more_candidates
from pressmark.interactions.histories import Histories
from pressmark.training import loop

CPU = torch.device("cpu")
LISTS = [[1, 2, 3, 4], [2, 5, 6], [9, 1, 2], [7, 8], [4, 5]]
SAMPLES = np.array([1, 2, 3, 5, 6, 8, 9, 11, 13, 0])


def test_twins_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # One way the logits are (.6, 0) and (.8, 1), the other way (.6, .8) and (0, 1), all over .5.
    rows = [math.log(1 + math.exp(-(a - b) / 0.5)) for a, b in [(0.6, 0.0), (1.0, 0.8), (0.6, 0.8), (1.0, 0.0)]]
    assert float(twins(first, second, torch.tensor([3, 4]), 0.5)) == pytest.approx(sum(rows) / 4)
    # The same thing twice has no negatives left.
    assert float(twins(first, second, torch.tensor([3, 3]), 0.5)) == 0.0


def test_a_part_of_a_history_keeps_its_order_and_something() -> None:
    torch.manual_seed(0)
    history = torch.tensor([[4, 7, 9, 2], [5, -1, -1, -1], [-1, -1, -1, -1]])
    lengths = torch.tensor([4, 1, 0])
    seen = set()
    for _ in range(50):
        part, num = part_of(history, lengths, 0.6)
        assert num.tolist()[1:] == [1, 0]
        kept = part[0, : num[0]].tolist()
        assert kept == [item for item in (4, 7, 9, 2) if item in kept] != []
        assert (part[0, num[0] :] == -1).all()
        assert part[1].tolist() == [5, -1, -1, -1]
        seen.add(tuple(kept))
    assert len(seen) > 8
    whole, num = part_of(history, lengths, 0.0)
    assert whole.tolist() == history.tolist()
    assert num.tolist() == lengths.tolist()


def test_features_are_left_out_at_random() -> None:
    torch.manual_seed(0)
    found = without_some(torch.ones(50, 40), 0.25)
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(found.mean()) == pytest.approx(1, abs=0.03)
    assert without_some(torch.ones(2, 2), 0.0).tolist() == [[1, 1], [1, 1]]


def test_prototypes_are_used_evenly_and_agreed_views_cost_least() -> None:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(32, 8), dim=1)
    prototypes = torch.randn(4, 8, requires_grad=True)
    same = swapped_assignments(rows, rows, prototypes, 0.1)
    other = swapped_assignments(rows, rows[torch.randperm(32)], prototypes, 0.1)
    assert float(same.detach()) < float(other.detach())
    same.backward()
    assert prototypes.grad is not None
    assert bool((prototypes.grad.abs().sum(1) > 0).all())


def test_the_graph_by_hand() -> None:
    # Users {0, 1} and {1, 2}; item 3 was never bought. Degrees: users 2, items 1 2 1.
    graph = ItemGraph(Histories.from_lists([[0, 1, 0], [1, 2]]), 4)
    weight = {(int(a), int(b)): float(w) for a, b, w in zip(graph.start, graph.end, graph.weight, strict=True)}
    expected = 1 / (2 * math.sqrt(2))
    assert weight == {pair: pytest.approx(expected) for pair in [(0, 1), (1, 0), (1, 2), (2, 1)]}
    embed = torch.eye(4)
    once = graph.seen_from(embed, 0.0, "edges", 1)
    torch.testing.assert_close(once[0], torch.nn.functional.normalize(torch.tensor([1, expected, 0, 0]), dim=0))
    twice = graph.seen_from(embed, 0.0, "walk", 2)
    assert float(twice[0, 2]) > 0
    assert twice[3].tolist() == [0, 0, 0, 1]
    torch.manual_seed(0)
    for view in ("edges", "nodes", "walk"):
        looks = torch.stack([graph.seen_from(embed, 0.5, view, 1)[0, 1] for _ in range(40)])  # type: ignore[arg-type]
        assert 0 < int((looks > 0).sum()) < 40


def test_only_the_strongest_neighbours_are_kept() -> None:
    lists = [[0, 1]] * 3 + [[0, 2]] * 2 + [[0, 3]]
    graph = ItemGraph(Histories.from_lists(lists), 4, max_neighbours=2)
    assert graph.end[graph.start == 0].tolist() == [1, 2]


def test_looked_up_candidates_are_corrected_as_if_drawn_for_certain() -> None:
    log_q = torch.tensor([0.5, 0.25, 0.25]).log()
    users = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    candidates = gather_candidates(users.clone(), torch.tensor([0, 1]))
    more = more_candidates(candidates, torch.tensor([[0.0, 1.0]]), torch.tensor([2]), sought=True)
    rows = info_nce(users, more, log_q, 1.0, 1.0)
    # exp(logits): e / .5, e / .25 and 1 / (1 / 2).
    e = math.e
    assert rows.tolist() == pytest.approx(
        [-math.log(2 * e / (2 * e + 4 * e + 2)), -math.log(4 * e / (2 * e + 4 * e + 2))]
    )
    past = more_candidates(candidates, torch.tensor([[0.0, 1.0]]), torch.tensor([2]))
    assert info_nce(users, past, log_q, 1.0, 1.0)[0].item() == pytest.approx(-math.log(2 * e / (6 * e + 4)))


def test_the_queue_holds_the_newest_targets_of_a_slow_tower() -> None:
    one, model = task(LISTS, queue=12), learner(queue=12, momentum=0.5)
    assert model.slow is not None
    batch = one.collate(SAMPLES, CPU)
    assert len(model.with_past(gather_candidates(torch.eye(2), torch.tensor([0, 1]))).item_index) == 2
    with torch.no_grad():
        model.tower.item_tower.projection.weight.add_(1.0)
    before = model.slow.projection.weight.clone()
    for _ in range(2):
        model.remember(batch.vectors[batch.target], batch.target_index)
    moved = model.slow.projection.weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.75))
    # Ten and ten into twelve places: the second ten stand behind the first, wrapped around.
    targets = batch.target_index.tolist()
    assert model.queue_item.tolist() == targets[2:10] + targets[8:10] + targets[:2]
    assert int(model.queue_end) == 8
    torch.testing.assert_close(model.queue.norm(dim=1), torch.ones(12))
    loss, _ = one.loss(model, batch)
    loss.backward()
    assert all(parameter.grad is None for parameter in model.slow.parameters())


def test_what_nobody_bought_is_no_hard_negative() -> None:
    sold = torch.arange(NUM_ITEMS) < 6
    one, model = task(LISTS), learner(hard_negatives=3)
    model.sold.copy_(sold)
    model.refresh(torch.from_numpy(content()))
    batch = one.collate(SAMPLES, CPU)
    output = model(batch)
    plain = gather_candidates(output.targets, batch.target_index)
    more = model.with_nearest(plain, output.users, batch, torch.from_numpy(content()))
    assert bool(sold[more.item_index[len(SAMPLES) :]].all())


def test_hard_negatives_are_near_and_neither_own_nor_past() -> None:
    one, model = task(LISTS, hard_negatives=3), learner(hard_negatives=3)
    batch = one.collate(SAMPLES[:1], CPU)
    output = model(batch)
    plain = gather_candidates(output.targets, batch.target_index)
    vectors = torch.from_numpy(content())
    assert model.with_nearest(plain, output.users, batch, vectors) is plain  # nothing is known yet
    model.sold[:] = True
    model.refresh(vectors)
    torch.testing.assert_close(model.known, model.tower.embed_items(content()))
    more = model.with_nearest(plain, output.users, batch, vectors)
    scores = model.known @ output.users[0]
    scores[[1, 2]] = -torch.inf  # its history and its target
    assert set(more.item_index[1:].tolist()) == set(scores.topk(3).indices.tolist())
    assert more.sought is not None
    assert more.sought.tolist() == [False, True, True, True]


OPTIONS = {
    "item_views": {"auxiliary": AuxiliaryConfig(item_views=0.5)},
    "user_views": {"auxiliary": AuxiliaryConfig(user_views=0.5)},
    "prototypes": {"auxiliary": AuxiliaryConfig(prototypes=0.5, num_prototypes=8)},
    "graph": {"auxiliary": AuxiliaryConfig(graph=0.5, graph_view="walk")},
    "queue": {"queue": 32},
    "hard_negatives": {"hard_negatives": 2, "refresh_every": 3},
    "temperature": {"learn_temperature": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_trains(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    first = np.random.default_rng(0).integers(0, NUM_ITEMS, 60).tolist()
    lists = [[(item + more) % NUM_ITEMS for more in range(3)] for item in first]
    one, model = task(lists, **OPTIONS[name]), learner(**OPTIONS[name])
    record = loop.fit(model, one, config().training, tmp_path, 0, name)
    assert record["losses"][-1] < record["losses"][0]
    _, logged = one.loss(model, one.collate(one.plan(0)[0], CPU))
    expected = {"info_nce", "alignment"} | ({name} if name not in {"queue", "hard_negatives"} else set())
    assert logged.keys() == expected
    if name == "queue":
        assert bool((model.queue_item >= 0).all())


def test_geometry() -> None:
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert alignment(corners, corners.flip(0)) == 4
    assert uniformity(corners) == pytest.approx(-8)
    assert math.isnan(uniformity(corners[:1]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"item_views": -1.0},
        {"graph": float("nan")},
        {"masked": 1.0},
        {"num_prototypes": 1},
        {"temperature": 0.0},
    ],
    ids=lambda one: next(iter(one)),
)
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"auxiliary.*{next(iter(wrong))}"):
        AuxiliaryConfig(**wrong)  # type: ignore[arg-type]
