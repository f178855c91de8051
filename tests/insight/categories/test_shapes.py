"""Split and merged categories, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pressmark.catalog.embeddings import Config
from pressmark.insight.categories.content import Content
from pressmark.insight.categories.duplicates import MOST_PAIRS, duplicates
from pressmark.insight.categories.leaves import Leaves
from pressmark.insight.categories.shapes import shapes


def test_split_and_merged() -> None:
    # Leaf 0: half under code 0, half under code 1, alone there. 1 and 2: all under code 2. 3 is small.
    label = np.repeat([0, 1, 2, 3], [40, 30, 20, 4])
    codes = np.concatenate([np.repeat([0, 1], 20), np.full(50, 2), [0, 0, 1, 1]])
    found = shapes(codes, Leaves((), (("a",), ("b",), ("c",), ("d",)), label, (frozenset(),) * len(label)))
    assert [(one.kind, one.leaf, one.other, one.share, one.codes) for one in found] == [
        ("split", 0, -1, 1.0, (0, 1)),
        ("merged", 1, 2, 1.0, (2,)),
    ]
    assert found[0].examples == (0, 20)
    assert found[1].examples == (40, 70)


def test_duplicates_stay_within_a_cell() -> None:
    vectors = np.array([[1, 0], [0.96, 0.28], [0, 1], [1, 0], [0, 0], [0, 0]], np.float32)
    codes = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [0, 0], [0, 0]])
    found = duplicates(codes, vectors, 0.95)
    assert [(one.first, one.second, one.sid) for one in found] == [(0, 1, (0, 0))]
    assert abs(found[0].cosine - 0.96) < 1e-6
    assert not duplicates(codes, vectors, 0.97)
    # A product without content is nobody's duplicate, however little is asked.
    assert all({one.first, one.second}.isdisjoint({4, 5}) for one in duplicates(codes, vectors, 0.0))


def test_of_equal_products_the_first_stands_for_all() -> None:
    vectors = np.zeros((3000, 4), np.float32)
    vectors[:, 0] = 1
    vectors[[5, 9]] = [0.96, 0.28, 0, 0]
    found = duplicates(np.zeros((3000, 2), np.int64), vectors, 0.95)
    assert len(found) == 2999
    assert {(one.first, one.second) for one in found if one.cosine == 1.0} == {
        *((0, item) for item in range(1, 3000) if item not in (5, 9)),
        (5, 9),
    }
    assert [(one.first, one.second) for one in found if one.cosine < 1.0] == [(0, 5)]


def test_a_product_brings_a_bounded_number_of_pairs() -> None:
    vectors = np.stack([np.full(300, 1.0), np.linspace(0, 0.1, 300)], axis=1)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = duplicates(np.zeros((300, 1), np.int64), vectors, 0.95)
    brought = np.bincount([one.first for one in found], minlength=300)
    assert brought.max() == MOST_PAIRS
    assert brought.sum() == 280 * MOST_PAIRS + MOST_PAIRS * (MOST_PAIRS - 1) // 2
    assert {one.second for one in found if one.first == 0} == set(range(1, MOST_PAIRS + 1))  # the closest


def content_of(*texts: str) -> Content:
    return Content(list(texts), np.ones((len(texts), 1), np.float32), "", Config(model="tfidf"))


def test_sizes_make_two_products_of_one() -> None:
    content = content_of("Whole Milk 1.5 L", "Whole Milk 2 L", "Whole Milk 2L", "Whole Milk", "Oat Drink 2 L")
    words, codes = content.word_vectors(), np.zeros((5, 1), np.int64)
    assert words is not None
    assert (words[0] @ words[1].T).toarray() < (words[1] @ words[2].T).toarray() == pytest.approx(1)
    # The reduced vectors take all five for one product.
    assert len(duplicates(codes, content.vectors, 0.95)) == 4
    found = duplicates(codes, content.vectors, 0.95, words, content.numbers())
    assert [(one.first, one.second) for one in found] == [(1, 2)]
    # However much else they have in common, 1.5 is not 2; who says no number at all may be either.
    found = duplicates(codes, content.vectors, 0.3, words, content.numbers())
    pairs = {(one.first, one.second) for one in found}
    assert {(0, 1), (0, 2), (0, 4)}.isdisjoint(pairs)
    assert {(0, 3), (1, 3)} <= pairs
    assert content_of("a").word_vectors() is not None
    assert replace(content, config=Config(model="minilm")).word_vectors() is None
