"""Leaves that hold no product yet can be named, and no surer than it is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pressmark.insight.categories import empty, sources
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import Leaves
from pressmark.insight.categories.neighbours import nearest
from pressmark.insight.categories.predict import predict

GROUPS, SIZE, EACH, WIDTH = 8, 6, 20, 32
NUM = GROUPS * SIZE * EACH
EMPTY = [4, 17, 30]


@pytest.fixture(scope="module")
def shop() -> tuple[Leaves, np.ndarray, np.ndarray]:
    """Leaves, vectors of their products, and of their names, which point roughly where the products are."""
    rng = np.random.default_rng(0)
    paths = tuple((f"{group}", f"{leaf}") for group in range(GROUPS) for leaf in range(SIZE))
    label = np.repeat(np.arange(len(paths)), EACH)
    places = rng.normal(0, 1, (len(paths), WIDTH)) + 1.5 * np.repeat(rng.normal(0, 1, (GROUPS, WIDTH)), SIZE, 0)
    vectors = places[label] + rng.normal(0, 0.6, (NUM, WIDTH))
    names = places + rng.normal(0, 1.2, places.shape)
    unit = [(one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in (vectors, names)]
    return Leaves((), paths, label, (frozenset(),) * NUM), unit[0], unit[1]


def fit(leaves: Leaves, vectors: np.ndarray, names: np.ndarray):
    near = nearest(vectors, 10)

    def ask(labels: Leaves) -> list[sources.Source]:
        folds = make_folds(labels.label, 0)
        votes = sources.nearness_votes(near.weight)
        return [
            sources.Content(vectors, folds, len(labels), names),
            sources.Votes("neighbours", near, votes, labels.label, len(labels)),
            sources.Names(vectors, names),
        ]

    return empty.fit(ask, leaves, 0)


def test_an_empty_leaf_is_named_and_the_others_as_before(shop: tuple[Leaves, np.ndarray, np.ndarray]) -> None:
    right, vectors, names = shop
    gone = np.isin(right.label, EMPTY)
    leaves = replace(right, label=np.where(gone, -1, right.label))
    pool, rehearsal = fit(leaves, vectors, names)
    hidden, others = np.flatnonzero(gone), np.flatnonzero(~gone)
    plain = replace(pool, empty=None)
    before = (plain(hidden).argmax(axis=1) == right.label[hidden]).mean()
    found = predict(pool, rehearsal, leaves, hidden)
    hit = found.leaf == right.label[hidden]
    assert hit.mean() > before + 0.15
    assert found.confidence[:, -1].mean() == pytest.approx(hit.mean(), abs=0.2)
    kept = (pool(others).argmax(axis=1) == right.label[others]).mean()
    assert kept > (plain(others).argmax(axis=1) == right.label[others]).mean() - 0.03
    # What is known of the rehearsal was not shown to who answered it.
    assert rehearsal.pool.empty is not None
    assert not set(np.flatnonzero(rehearsal.pool.empty.leaf)).isdisjoint(right.label[rehearsal.rows])
    assert rehearsal.weight.sum() == pytest.approx(len(others))


def test_without_empty_leaves_nothing_is_rehearsed_on_purpose(
    shop: tuple[Leaves, np.ndarray, np.ndarray],
) -> None:
    pool, rehearsal = fit(*shop)
    assert pool.empty is None
    assert rehearsal.pool is pool
    assert len(rehearsal.rows) == NUM


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_how_many_belong_to_empty_leaves_is_read_off_the_products(
    share: float, shop: tuple[Leaves, np.ndarray, np.ndarray]
) -> None:
    right, vectors, names = shop
    gone = np.isin(right.label, EMPTY)
    leaves = replace(right, label=np.where(gone, -1, right.label))
    pool, rehearsal = fit(leaves, vectors, names)
    inside, outside = np.flatnonzero(gone), np.flatnonzero(~gone)
    num = round(share * 60)
    rows = np.concatenate([inside[:num], outside[:: len(outside) // 60][: 60 - num]])
    expected, _ = empty.expecting(pool, rehearsal, rows)
    assert pool.empty is not None
    assert expected(rows)[:, pool.empty.leaf].sum(axis=1).mean() == pytest.approx(share, abs=0.15)


def test_a_share_is_believed_as_far_as_products_tell_it() -> None:
    assert empty.share_of(np.repeat([6.0, -6.0], [20, 40]), 0.004) == pytest.approx(20 / 70, abs=0.01)
    for before in (1e-5, 0.004, 0.5):
        assert empty.share_of(np.zeros(66), before) == pytest.approx(before, rel=0.01)
    # As in a catalog whose leaves' names say little: the likeliest share is .03 on average, .15 at most.
    weak = [np.random.default_rng(seed).normal(-0.025, 0.5, 66) for seed in range(40)]
    found = np.array([empty.share_of(one, 0.004) for one in weak])
    assert found.mean() < 0.01
    assert found.max() < 0.03


def test_an_empty_leaf_that_nobody_belongs_to_takes_nothing(
    shop: tuple[Leaves, np.ndarray, np.ndarray],
) -> None:
    right, vectors, names = shop
    rng = np.random.default_rng(9)
    gone = right.label == EMPTY[1]
    rows = rng.choice(np.flatnonzero(~gone), 66, replace=False)
    label = np.where(gone, -1, right.label)
    label[rows] = -1
    leaves = replace(right, label=label)
    says_nothing = rng.normal(size=names.shape).astype(np.float32)
    says_nothing /= np.linalg.norm(says_nothing, axis=1, keepdims=True)
    for named in (names, says_nothing):
        found = predict(*fit(leaves, vectors, named), leaves, rows)
        assert not (found.leaf == EMPTY[1]).any()
        assert (found.sure_depth(leaves, 0.8) == 2).mean() > 0.9


def test_nothing_asked_for_changes_nothing(shop: tuple[Leaves, np.ndarray, np.ndarray]) -> None:
    pool, rehearsal = fit(*shop)
    assert empty.expecting(pool, rehearsal, np.arange(5)) == (pool, rehearsal)
