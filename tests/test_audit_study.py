"""The arithmetic of eval/audit.py and eval/categorize.py."""

from __future__ import annotations

import numpy as np
import pytest
from tests.scripts import load_script

from pressmark.insight.categories.leaves import Leaves

audit, categorize = load_script("audit"), load_script("categorize")
LEAVES = Leaves((), (("A", "a"), ("A", "b"), ("B",)), np.array([0, 0, 1, 2, -1]), (frozenset(),) * 5)


def test_labels_are_moved_and_known() -> None:
    for kind in audit.KINDS:
        leaves, moved = audit.inject(LEAVES, 0.5, kind, 0)
        assert moved.sum() == 2
        assert leaves.label[4] == -1
        assert (leaves.label[~moved] == LEAVES.label[~moved]).all()


def test_precision_by_hand() -> None:
    found = audit.figures(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False]))
    assert found["precision_at_recall_0.5"] == 1.0
    assert found["precision_at_recall_0.7"] == pytest.approx(2 / 3)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_make_a_step() -> None:
    # One wrong of one, then three wrong of the ten that score alike: half of that recall is not to be had.
    score, wrong = np.repeat([2.0, 1.0], [1, 10]), np.repeat([True, False], [4, 7])
    recall, precision = audit.curve(score, wrong)
    assert [precision[recall.index(one)] for one in (0.0, 0.25, 0.26, 1.0)] == [1.0, 1.0, 0.3636, 0.3636]
    # All alike: what chance gives, at every recall.
    assert set(audit.curve(np.ones(11), wrong)[1]) == {0.3636}


def test_prefix_majority_leaves_the_product_itself_out() -> None:
    codes, label = np.array([[0, 0], [0, 0], [0, 1], [1, 0]]), np.array([0, 0, 1, 0])
    # The longest prefix with one other: 0_0 for the first two, 0 for the third, none for the last.
    assert audit.prefix_scores(codes, label, least=1).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_accuracy_at_depth_counts_paths_that_are_so_deep() -> None:
    rows = categorize.accuracy(LEAVES, np.array([1, 0, 2]), np.array([0, 0, 2]))
    assert [(one["depth"], one["num"], one["accuracy"]) for one in rows] == [
        ("leaf", 3, pytest.approx(2 / 3)),
        ("1", 3, 1.0),
        ("2", 2, 0.5),
    ]
