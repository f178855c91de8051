"""Split and merged categories, by hand."""

from __future__ import annotations

import numpy as np

from pressmark.insight.categories.duplicates import duplicates
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
