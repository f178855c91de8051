from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pressmark.hybrid import fusion
from pressmark.hybrid.experts import SOLD
from pressmark.hybrid.fusion import Fusion, as_json, fit, from_json, hidden_items
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories

NUM_ITEMS = 60
UNBOUGHT = np.arange(NUM_ITEMS) % 4 == 0
TRUE = Fusion((1.0, 0.0, 0.5, 0.2, 0.4, 0.0, 0.3), (0.3, 0.8, 0.0, 0.4, 0.5, 0.2, 0.1), (-2.5, 0.4, -0.2))


class World:
    """Experts that say something of every (shopper, item), and shoppers who go by `TRUE`."""

    def __init__(self, num: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.table = torch.from_numpy(rng.normal(size=(len(SOLD), num, NUM_ITEMS)).astype(np.float32)) * 1.5
        # The shopper's number stands in the history, as its length: scores are looked up by it.
        histories = Histories.from_lists([[1] * shopper for shopper in range(num)])
        joined = TRUE.join(self.table, torch.from_numpy(UNBOUGHT), hidden_items(histories, NUM_ITEMS))
        joined[1:, 1] = -torch.inf
        chance = joined.double().softmax(1).numpy()
        target = np.array([rng.choice(NUM_ITEMS, p=row) for row in chance])
        names = np.array([str(one) for one in range(num)], object)
        self.cases = Cases(np.arange(num), names, histories, target, UNBOUGHT[target])

    def fit(self, cases: Cases, *asked, **options) -> Fusion:
        shopper = torch.from_numpy(cases.histories.lengths)

        def score(rows: np.ndarray, kind: bool | None) -> Tensor:
            scores = self.table[:, shopper[torch.from_numpy(rows)]]
            return scores if kind is None else scores[:, :, torch.from_numpy(kind == UNBOUGHT)]

        return fit(score, cases, UNBOUGHT, *asked, **options)


def test_probabilities_sum_to_one_and_split_as_the_route_says() -> None:
    world = World(5)
    histories = world.cases.histories
    hidden = hidden_items(histories, NUM_ITEMS)
    assert hidden.sum(1).tolist() == [0, 1, 1, 1, 1]
    joined = TRUE.join(world.table, torch.from_numpy(UNBOUGHT), hidden)
    chance = joined.exp().masked_fill(hidden, 0)
    torch.testing.assert_close(chance.sum(1), torch.ones(5))
    # By hand, for the first shopper.
    mixed = [sum(w * world.table[e, 0] for e, w in enumerate(one)) for one in (TRUE.unbought, TRUE.sold)]
    new, sold = torch.from_numpy(UNBOUGHT), ~torch.from_numpy(UNBOUGHT)
    masses = [float(mixed[0][new].logsumexp(0)), float(mixed[1][sold].logsumexp(0))]
    means = [mass - np.log(kind.sum()) for mass, kind in zip(masses, (new, sold), strict=True)]
    odds = np.exp(TRUE.route[0] + TRUE.route[1] * means[0] + TRUE.route[2] * means[1]) * 15 / 45
    share = odds / (1 + odds)
    assert float(chance[0][new].sum()) == pytest.approx(float(share), rel=1e-4)
    torch.testing.assert_close(chance[0][new] / share, mixed[0][new].softmax(0), rtol=1e-4, atol=1e-6)


def test_a_new_product_is_as_likely_among_few_as_among_many() -> None:
    kinds, route = torch.from_numpy(UNBOUGHT), (-1.5, 0.4, -0.3)
    alike = Fusion((0.0,) * len(SOLD), (0.0,) * len(SOLD), route)
    histories = Histories.from_lists([[], np.flatnonzero(UNBOUGHT)[1:].tolist()])
    joined = alike.join(torch.zeros(len(SOLD), 2, NUM_ITEMS), kinds, hidden_items(histories, NUM_ITEMS))
    torch.testing.assert_close(joined[:, 0] - joined[:, 1], torch.full((2,), route[0]))


@pytest.mark.parametrize("unbought", [np.zeros(NUM_ITEMS, bool), np.ones(NUM_ITEMS, bool)])
def test_a_catalog_of_one_kind_is_one_distribution(unbought: np.ndarray) -> None:
    world = World(3)
    hidden = hidden_items(world.cases.histories, NUM_ITEMS)
    joined = TRUE.join(world.table, torch.from_numpy(unbought), hidden)
    torch.testing.assert_close(joined.exp().masked_fill(hidden, 0).sum(1), torch.ones(3))


def test_the_weights_that_shoppers_go_by_are_found() -> None:
    world = World(4000)
    found = world.fit(world.cases, np.ones(4000), chunk=700)
    np.testing.assert_allclose(found.sold, TRUE.sold, atol=0.06)
    np.testing.assert_allclose(found.unbought, TRUE.unbought, atol=0.15)
    joined = [
        one.join(world.table, torch.from_numpy(UNBOUGHT), hidden_items(world.cases.histories, NUM_ITEMS))
        for one in (TRUE, found)
    ]
    shares = [one.exp()[:, torch.from_numpy(UNBOUGHT)].sum(1) for one in joined]
    assert float((shares[1] - shares[0]).abs().mean()) < 0.01
    again = world.fit(world.cases, np.ones(4000), chunk=4000)
    np.testing.assert_allclose(again.sold, found.sold, atol=1e-4)


def test_a_step_that_overshoots_is_taken_back() -> None:
    """One expert, sure of one item, right in seven of ten: the first step lands where all is flat."""
    num, sure, rng = 200, 20.0, np.random.default_rng(0)
    favourite = np.stack([rng.choice(np.flatnonzero(kind), num) for kind in (UNBOUGHT, ~UNBOUGHT)])
    target = np.where(np.arange(num) % 2, *favourite)
    wrong = np.arange(num) // 2 % 10 >= 7
    target[wrong] = (target[wrong] + 4) % NUM_ITEMS  # another of its kind
    table = torch.zeros(len(SOLD), num, NUM_ITEMS)
    for one in favourite:
        table[0, torch.arange(num), torch.from_numpy(one)] = sure
    histories = Histories.from_lists([[]] * num)
    cases = Cases(np.arange(num), np.array(["a"] * num, object), histories, target, UNBOUGHT[target])

    def score(rows: np.ndarray, kind: bool | None) -> Tensor:
        scores = table[:, torch.from_numpy(rows)]
        return scores if kind is None else scores[:, :, torch.from_numpy(kind == UNBOUGHT)]

    found = fit(score, cases, UNBOUGHT, np.ones(num), 64)
    for kind, weight in ((UNBOUGHT, found.unbought[0]), (~UNBOUGHT, found.sold[0])):
        others = kind.sum() - 1
        assert weight == pytest.approx(np.log(others * 0.7 / 0.3) / sure, rel=0.02)


def test_a_weight_counts_cases() -> None:
    world = World(300)
    twice = np.concatenate([np.arange(300), np.arange(0, 300, 2)])
    weight = np.where(np.arange(300) % 2 == 0, 2.0, 1.0)
    one = world.fit(world.cases, weight, chunk=100)
    other = world.fit(world.cases.take(twice), np.ones(450), chunk=100)
    np.testing.assert_allclose(one.sold, other.sold, atol=1e-4)
    np.testing.assert_allclose(one.route, other.route, atol=2e-2)


def test_what_is_absent_counts_for_nothing() -> None:
    world = World(600)
    absent = np.zeros(NUM_ITEMS, bool)
    absent[[2, 4]] = True
    kept = world.cases.take(~absent[world.cases.target])
    one = world.fit(kept, np.ones(len(kept)), 200, absent)
    loud = world.table.clone()
    loud[:, :, absent] = 50.0
    world.table = loud
    other = world.fit(kept, np.ones(len(kept)), 200, absent)
    np.testing.assert_allclose(one.sold, other.sold, atol=1e-4)
    np.testing.assert_allclose(one.route, other.route, atol=2e-2)


def test_new_products_are_pushed_as_far_as_it_costs_what_may_be_given_up() -> None:
    world, kinds = World(1500), torch.from_numpy(UNBOUGHT)
    hidden = hidden_items(world.cases.histories, NUM_ITEMS)
    ndcg = {}
    for given_up in (0.0, 0.05, 0.5):
        found = world.fit(world.cases, np.ones(1500), 500, given_up=given_up)
        joined = found.join(world.table, kinds, hidden).masked_fill(hidden, -torch.inf)
        own = joined.gather(1, torch.from_numpy(world.cases.target)[:, None])
        rank = 1 + (joined > own).sum(1)
        gain = torch.where(rank <= 10, 1 / torch.log2(1.0 + rank), 0.0).numpy()
        usable = world.cases.target != 1  # all that histories hold
        ndcg[given_up] = [
            gain[usable & (UNBOUGHT[world.cases.target] == kind)].mean() for kind in (False, True)
        ]
    assert 0.94 * ndcg[0.0][0] < ndcg[0.05][0] < 0.99 * ndcg[0.0][0]
    assert ndcg[0.5][0] < ndcg[0.05][0]
    assert ndcg[0.0][1] < ndcg[0.05][1] < ndcg[0.5][1]


def test_a_history_that_holds_all_of_a_kind_leaves_finite_scores() -> None:
    world = World(1)
    for kind in (UNBOUGHT, ~UNBOUGHT, np.ones(NUM_ITEMS, bool)):
        histories = Histories.from_lists([np.flatnonzero(kind)])
        hidden = hidden_items(histories, NUM_ITEMS)
        steep = replace(TRUE, route=(-2.5, 1.4, 1.2))
        for one in (TRUE, steep):
            joined = one.join(world.table, torch.from_numpy(UNBOUGHT), hidden)
            assert bool(joined.isfinite().all())
            assert float(joined.abs().max()) < 100
            if not kind.all():
                torch.testing.assert_close(joined.exp().masked_fill(hidden, 0).sum(), torch.tensor(1.0))


def test_nothing_is_pushed_where_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(200)
    natural = world.fit(world.cases, np.ones(200), 200)
    none = torch.zeros(len(fusion.PUSHES), dtype=torch.float64)
    monkeypatch.setattr(fusion, "_gains_by_push", lambda *_: none)
    assert world.fit(world.cases, np.ones(200), 200, given_up=0.5) == natural


def test_cases_of_one_kind_alone_are_refused() -> None:
    world = World(50)
    sold = world.cases.take(~UNBOUGHT[world.cases.target])
    with pytest.raises(ValueError, match="none is of a product that nobody has bought"):
        world.fit(sold, np.ones(len(sold)), 50)


def test_json_there_and_back() -> None:
    assert from_json(as_json(TRUE)) == TRUE
    made = as_json(TRUE)
    del made["sold"]["bm25"]
    with pytest.raises(ValueError, match="bm25"):
        from_json(made)
    with pytest.raises(ValueError, match="not know"):
        from_json({**as_json(TRUE), "sold": {**as_json(TRUE)["sold"], "sasrec": 1.0}})
    with pytest.raises(ValueError, match="finite"):
        replace(TRUE, route=(float("nan"), 0.0, 0.0))
    with pytest.raises(ValueError, match="weights of what sells"):
        replace(TRUE, sold=(1.0,))
