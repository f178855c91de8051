from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.contract.recommender_contract import check_recommender

from pressmark.baselines.oracle import Oracle, load_oracle
from pressmark.catalog.grocery import Config, Truth, read_truth, write_grocery
from pressmark.catalog.grocery_shoppers import (
    Moment,
    _fill_basket,
    liking,
    past_purchases,
    recipe_share,
    recipe_wish,
    weight_on_day,
)
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests, allowed_items, top_k


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grocery")
    write_grocery(folder, Config(num_products=800, num_shoppers=250))
    return folder


@pytest.fixture(scope="module")
def truth(folder: Path) -> Truth:
    return read_truth(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    folder = tmp_path_factory.mktemp("tiny")
    write_grocery(folder, Config(num_products=60, num_shoppers=30))
    return read_truth(folder)


def _last_purchases(truth: Truth, num_users: int = 60) -> tuple[Histories, np.ndarray, np.ndarray]:
    """Leave-one-out: histories, user ids, targets; without targets that were bought before."""
    bought = truth.purchases
    histories, users, targets = [], [], []
    for shopper, user_id in enumerate(truth.user_id[:num_users]):
        items = bought.item[bought.shopper == shopper]
        if len(items) >= 3 and items[-1] not in items[:-1]:
            histories.append(items[:-1])
            users.append(user_id)
            targets.append(items[-1])
    return Histories.from_lists(histories), np.array(users, object), np.array(targets)


def _recall_at_10(item_index: np.ndarray, targets: np.ndarray) -> float:
    return float((item_index[:, :10] == targets[:, None]).any(axis=1).mean())


def test_it_beats_popularity_by_far(truth: Truth) -> None:
    histories, users, targets = _last_purchases(truth, 250)
    requests = Requests(histories, user_id=users)
    oracle = Oracle(truth, truth.item_id)
    # Even a popularity that has counted the targets too.
    count = np.bincount(truth.purchases.item, minlength=800).astype(np.float32)
    popular = top_k(np.repeat(count[None], len(users), 0), allowed_items({}, requests, 800), 10)
    best = oracle.recommend(requests, 10)
    assert _recall_at_10(best.item_index, targets) > 3 * _recall_at_10(popular.item_index, targets)
    assert _recall_at_10(best.item_index, targets) > 0.2
    # What it gains comes from knowing who asks.
    nobody = oracle.recommend(Requests(histories), 10)
    assert _recall_at_10(best.item_index, targets) > 2 * _recall_at_10(nobody.item_index, targets)


def test_probabilities_are_calibrated(truth: Truth) -> None:
    """The probability it gives its ten best adds up to how often one of them is bought."""
    bought = truth.purchases
    last = np.searchsorted(bought.shopper, np.arange(251))[1:] - 1
    histories = Histories.from_lists(
        [bought.item[bought.shopper == shopper][:-1] for shopper in range(len(last))]
    )
    requests = Requests(histories, mask_history=False, user_id=truth.user_id)
    best = Oracle(truth, truth.item_id).recommend(requests, 10)
    claimed = np.exp(best.scores.astype(float)).sum(axis=1)
    hit = (best.item_index == bought.item[last][:, None]).any(axis=1)
    error = np.sqrt((claimed * (1 - claimed)).sum()) / len(last)
    assert claimed.mean() == pytest.approx(hit.mean(), abs=4 * error)
    assert 0.2 < claimed.mean() < 0.6


@pytest.mark.parametrize("with_past", [False, True])
def test_its_distribution_is_the_one_that_shoppers_draw_from(tiny: Truth, with_past: bool) -> None:
    """Draws many baskets of three and compares the third pick, given the likeliest first two, by chi-square."""
    oracle, store, shopper, day = Oracle(tiny, tiny.item_id), tiny.store, 7, 200
    wanted = np.exp(liking(store, tiny.shoppers, shopper, tiny.habits))
    recipes = recipe_share(store, recipe_wish(store, wanted), day, tiny.habits)
    times = np.zeros(60, np.int64)
    if with_past:
        times[np.argsort(wanted)[-6:]] = [1, 1, 2, 1, 3, 1]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(8_000):
        moment = Moment(weight_on_day(store, wanted, day), *past_purchases(store, times))
        _fill_basket(moment, 3, recipes, store, oracle._groups, tiny.habits, rng)
        drawn.append(moment.basket)
    baskets = np.array(drawn)
    pairs = baskets[:, 0] * 60 + baskets[:, 1]
    pair = np.bincount(pairs).argmax()
    for shown, third in (
        ([], baskets[:, 0]),
        ([pair // 60], baskets[baskets[:, 0] == pair // 60, 1]),
        ([pair // 60, pair % 60], baskets[pairs == pair, 2]),
    ):
        moment = Moment(weight_on_day(store, wanted, day), *past_purchases(store, times))
        belief = {(): 1.0}
        for item in shown:
            belief = oracle._updated(belief, moment, int(item), recipes)
            moment.add(int(item))
        expected = oracle._mixture(belief, moment, recipes)
        assert expected.sum() == pytest.approx(1)
        assert (expected[shown] == 0).all()
        assert _chi_square(np.bincount(third, minlength=60), expected * len(third)) < 4.5


def _chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """Standard deviations above what chance gives; cells that expect fewer than 5 are put together."""
    large = expected >= 5
    observed = np.append(observed[large], observed[~large].sum())
    expected = np.append(expected[large], max(expected[~large].sum(), 1e-9))
    freedom = max(len(expected) - 1, 1)
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1)).sum()
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def test_it_reads_no_purchase_that_the_history_does_not_show(truth: Truth) -> None:
    histories, users, _ = _last_purchases(truth)
    shown = np.zeros(len(truth.purchases.item), bool)
    for user_id, length in zip(users, histories.lengths, strict=True):
        shopper = int(np.flatnonzero(truth.user_id == user_id)[0])
        rows = np.flatnonzero(truth.purchases.shopper == shopper)
        shown[rows[:length]] = True
    other = np.where(shown, truth.purchases.item, (truth.purchases.item + 300) % 800)
    changed = dataclasses.replace(truth, purchases=dataclasses.replace(truth.purchases, item=other))
    requests = Requests(histories, user_id=users)
    before = Oracle(truth, truth.item_id).recommend(requests, 20)
    after = Oracle(changed, truth.item_id).recommend(requests, 20)
    np.testing.assert_array_equal(before.item_index, after.item_index)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_hidden_items_and_shuffled_baskets_are_answered(truth: Truth) -> None:
    histories, users, targets = _last_purchases(truth, 150)
    cold = np.random.default_rng(0).random(800) < 0.05
    rng = np.random.default_rng(1)
    lists = []
    for row in range(len(histories)):
        shopper = int(np.flatnonzero(truth.user_id == users[row])[0])
        day = truth.purchases.day[truth.purchases.shopper == shopper][: len(histories[row])]
        order = np.lexsort((rng.random(len(day)), day))
        lists.append([item for item in histories[row][order].tolist() if not cold[item]])
    answer = Oracle(truth, truth.item_id).recommend(Requests(Histories.from_lists(lists), user_id=users), 10)
    assert _recall_at_10(answer.item_index, targets) > 0.15


def test_cold_items_are_scored_like_others(truth: Truth) -> None:
    histories, users, _ = _last_purchases(truth)
    answer = Oracle(truth, truth.item_id).recommend(Requests(histories, user_id=users), 800)
    count = np.bincount(truth.purchases.item, minlength=800)
    never = np.flatnonzero(count == 0)
    assert len(never) > 5
    scores = answer.scores[np.isin(answer.item_index, never)]
    assert np.median(scores) > np.log(1e-9)


def test_it_follows_the_catalogs_order(truth: Truth) -> None:
    histories, users, _ = _last_purchases(truth)
    order = np.random.default_rng(0).permutation(800)
    place = np.argsort(order)
    shuffled = Histories(place[histories.values], histories.offsets)
    plain = Oracle(truth, truth.item_id).recommend(Requests(histories, user_id=users), 3)
    moved = Oracle(truth, truth.item_id[order]).recommend(Requests(shuffled, user_id=users), 3)
    np.testing.assert_allclose(plain.scores, moved.scores)
    assert (order[moved.item_index] == plain.item_index).mean() > 0.99


def test_contract(tiny: Truth) -> None:
    check_recommender(Oracle(tiny, tiny.item_id), 60)


def test_a_stranger_gets_the_share_before_tastes(tiny: Truth) -> None:
    requests = Requests(Histories.from_lists([[]]), user_id=np.array(["nobody"], object))
    answer = Oracle(tiny, tiny.item_id).recommend(requests, 1)
    assert answer.item_index[0, 0] == tiny.store.appeal.argmax()


def test_errors(folder: Path, truth: Truth) -> None:
    with pytest.raises(ValueError, match="'milk'"):
        load_oracle(folder, ["milk"])
    oracle = load_oracle(folder, truth.item_id)
    user = truth.user_id[:1]
    never = np.setdiff1d(np.arange(800), truth.purchases.item[truth.purchases.shopper == 0])[0]
    with pytest.raises(ValueError, match=str(truth.item_id[never])):
        oracle.recommend(Requests(Histories.from_lists([[int(never)]]), user_id=user), 3)
    with pytest.raises(ValueError, match="1 user_ids for 2 histories"):
        oracle.recommend(Requests(Histories.from_lists([[], []]), user_id=user), 3)
