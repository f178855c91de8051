"""The arithmetic of eval/bounds.py."""

from __future__ import annotations

import numpy as np
from tests.scripts import load_script

from pressmark.recommender import Recommendations

bounds = load_script("bounds")


def test_hits_count_the_items_that_are_kept() -> None:
    items = np.array([[*range(12), -1], [5, -1, *[-1] * 11]])
    lists = Recommendations(items, np.where(items < 0, -np.inf, -items).astype(np.float32), (items >= 0).sum(1))
    assert bounds.hits(lists, np.array([9, 5])).tolist() == [True, True]
    assert bounds.hits(lists, np.array([10, 4])).tolist() == [False, False]
    # Without the first of them the eleventh moves up to the tenth place.
    kept = np.arange(20) != 0
    assert bounds.hits(lists, np.array([10, 5]), kept).tolist() == [True, True]
    assert bounds.hits(lists, np.array([0, 5]), kept).tolist() == [False, True]
