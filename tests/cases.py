"""Cases made by hand, for the tests of every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories


def cases(histories: Sequence[Sequence[int]], target: Sequence[int]) -> Cases:
    """Cases of users u0, u1 and so on, none of them cold."""
    num = len(target)
    names = np.array([f"u{one}" for one in range(num)], object)
    packed = Histories.from_lists(histories)
    return Cases(np.arange(num), names, packed, np.array(target, np.int64), np.zeros(num, bool))
