"""Which labels look wrong, on labels that were moved on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pressmark.insight.categories import sources
from pressmark.insight.categories.empty import Rehearsal
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import Leaves
from pressmark.insight.categories.pool import fit_pool
from pressmark.insight.categories.predict import descend, predict
from pressmark.insight.categories.suspicion import (
    MOST_UNTOLD,
    judge,
    probability,
    suggestions_of,
    wrong_share,
)

PATHS = (("A", "a"), ("A", "b"), ("A", "c"), ("B", "d"), ("B", "e"), ("C",))
NUM = 900


@pytest.fixture(scope="module")
def shelves() -> tuple[Leaves, np.ndarray]:
    rng = np.random.default_rng(1)
    label = np.arange(NUM) % len(PATHS)
    vectors = np.eye(12)[label] + rng.normal(0, 0.18, (NUM, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Leaves((), PATHS, label, (frozenset(),) * NUM), vectors.astype(np.float32)


def judged(leaves: Leaves, vectors: np.ndarray):
    folds = make_folds(leaves.label, 0)
    pool = fit_pool([sources.Content(vectors, folds, len(leaves))], leaves.label, 0)
    return pool, judge(leaves, pool, folds.fold, 0)


@pytest.mark.parametrize("kind", [Leaves.moved_anywhere, Leaves.moved_to_sibling])
def test_moved_labels_are_found(kind, shelves: tuple[Leaves, np.ndarray]) -> None:
    right, vectors = shelves
    rows = np.random.default_rng(2).choice(NUM, 45, replace=False)
    label = right.label.copy()
    label[rows] = kind(right, label[rows], np.random.default_rng(3))
    _, found = judged(replace(right, label=label), vectors)
    wrong = np.zeros(NUM, bool)
    wrong[rows] = True
    first = np.argsort(-found.harm)[:45]
    assert wrong[first].mean() > 0.9
    assert (found.suggested[wrong, 0] == right.label[wrong]).mean() > 0.9
    # Confidence is a probability: as many are wrong as it says.
    assert found.confidence.sum() == pytest.approx(45, rel=0.5)
    assert found.confidence[~wrong].mean() < 0.05
    assert (found.suggested_confidence.sum(axis=1) <= found.confidence + 1e-9).all()


def test_a_tidy_shop_is_left_alone(shelves: tuple[Leaves, np.ndarray]) -> None:
    _, found = judged(*shelves)
    assert found.rates.max() < 0.02
    assert (found.confidence > 0.5).sum() <= 3


def test_further_places_of_a_product_are_never_suggested(shelves: tuple[Leaves, np.ndarray]) -> None:
    leaves, vectors = shelves
    label = leaves.label.copy()
    label[0] = 4  # is a product of leaf 0, which it stands on too
    _, found = judged(replace(leaves, label=label, also=(frozenset({0}), *leaves.also[1:])), vectors)
    assert 0 not in found.suggested[0]
    assert 4 not in found.suggested[0]


def test_products_without_text_do_not_count_as_wrong(shelves: tuple[Leaves, np.ndarray]) -> None:
    leaves, vectors = shelves
    told = np.arange(NUM) % 2 == 0
    vectors = np.where(told[:, None], vectors, 0).astype(np.float32)
    folds = make_folds(leaves.label, 0)
    source = sources.Content(vectors, folds, len(leaves))
    pool = fit_pool([source], np.where(told, leaves.label, -1), 0)
    found = judge(leaves, pool, folds.fold, 0, told)
    assert found.rates.max() < 0.05
    assert found.confidence.mean() < 0.05
    assert found.confidence[~told].max() <= MOST_UNTOLD


def test_probability_by_hand() -> None:
    # A fifth of the labels looks like the moved ones: one of two components, which it is altogether.
    given, moved = np.repeat([0.0, 1.0], [800, 200]), np.ones(1000)
    assert wrong_share(given, moved) == pytest.approx(0.201)
    assert probability(given, moved, np.ones(1000), 0.0) == pytest.approx(
        np.repeat([0.0, 1.0], [800, 200]), abs=0.01
    )
    # Right labels that look the same make all of them doubtful: half of the moved ones look like right ones.
    moved = np.repeat([0.0, 1.0], [500, 500])
    assert wrong_share(np.repeat([0.0, 1.0], [975, 25]), moved) == pytest.approx(0.052)


def test_suggestions_by_hand() -> None:
    likely = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    leaf, share = suggestions_of(likely, np.array([0, 3]), (frozenset(), frozenset({2})))
    assert leaf.tolist() == [[1, 2, -1], [1, 0, -1]]
    assert share == pytest.approx(np.array([[0.6, 0.4, 0], [2 / 3, 1 / 3, 0]]))
    assert likely[0, 0] == 0.5  # the pool's answer is left as it was


def test_descend_by_hand() -> None:
    leaves = Leaves((), PATHS, np.arange(6), (frozenset(),) * 6)
    # A has most together, though the largest leaf is in B; the path C ends at once.
    leaf, share = descend(np.array([[0.2, 0.25, 0.05, 0.3, 0.0, 0.2], [0.1, 0, 0, 0, 0, 0.9]]), leaves)
    assert leaf.tolist() == [1, 5]
    assert share == pytest.approx(np.array([[0.5, 0.25], [0.9, 0.9]]))


def test_predictions_are_as_sure_as_they_are_right(shelves: tuple[Leaves, np.ndarray]) -> None:
    right, vectors = shelves
    hidden = np.arange(0, NUM, 5)
    label = right.label.copy()
    label[hidden] = -1
    leaves = replace(right, label=label)
    pool, _ = judged(leaves, vectors)
    known = np.flatnonzero(leaves.labelled)
    found = predict(pool, Rehearsal(pool, known, np.ones(len(known)), known < 0), leaves, hidden)
    assert (found.leaf == right.label[hidden]).mean() > 0.9
    assert (np.diff(found.confidence, axis=1) <= 1e-12).all()
    assert found.confidence[:, -1].mean() == pytest.approx((found.leaf == right.label[hidden]).mean(), abs=0.05)
    assert found.sure_depth(leaves, 0.0).tolist() == leaves.depth[found.leaf].tolist()
    assert found.sure_depth(leaves, 1.1).max() == 0
