from __future__ import annotations

import numpy as np
import pytest

from pressmark.evaluation.memory import grown_apart


def hold(mebibytes: int) -> None:
    np.ones(mebibytes * 2**20, np.uint8)


def test_growth_of_one_call_is_not_that_of_another_nor_of_the_parent() -> None:
    held = np.ones(300 * 2**20, np.uint8)
    assert grown_apart(hold, 200) == pytest.approx(200 / 1024, abs=0.05)
    assert grown_apart(hold, 20) == pytest.approx(20 / 1024, abs=0.05)
    assert held.any()
