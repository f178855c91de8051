from __future__ import annotations

import numpy as np
import pytest

from pressmark.hybrid.trend import AT_ONCE, LATELY, ONCE, count_sales

DAY = 86_400.0


def test_by_hand() -> None:
    """Of item 0 the oldest and the newest purchase, of 2 the second, of 1 the third; 3 was never bought."""
    found = count_sales(np.array([0, 1, 2, 0]), np.array([1.0, 3.0, 2.0, 4.0]) * DAY, 4)
    assert found.purchases.tolist() == [2, 1, 1, 0]
    assert found.trends.dtype == np.float32
    later = np.array([0.75, 0.25, 0.5, 0.0])  # of the purchases as they stand
    lately = [sum(np.exp(-later[[0, 3]] / LATELY)), *np.exp(-later[[1, 2]] / LATELY), 0.0]
    np.testing.assert_allclose(found.trends[0], np.log(np.array(lately) + ONCE), rtol=1e-5)
    np.testing.assert_allclose(found.trends[1], np.log(np.array([0.75, 0.25, 0.5, 0.0]) + AT_ONCE), rtol=1e-5)


def test_what_sold_of_late_stands_above_what_sold_as_often_before() -> None:
    found = count_sales(np.repeat([0, 1], 500), np.arange(1000) * DAY, 2)
    assert found.trends[0, 1] > found.trends[0, 0] + 3
    assert found.trends[1, 1] < found.trends[1, 0]


def test_a_shop_is_as_quick_as_its_sales() -> None:
    """A week or a year between the same purchases: the same trend; equal times share it."""
    rng = np.random.default_rng(0)
    item, days = rng.integers(0, 9, 200), rng.integers(0, 30, 200).astype(float)
    one, other = (count_sales(item, start + days * unit, 9) for start, unit in ((0, DAY), (1e9, DAY / 50)))
    np.testing.assert_array_equal(one.trends, other.trends)
    moved = rng.permutation(200)
    swapped = count_sales(item[moved], days[moved] * DAY, 9)
    np.testing.assert_allclose(swapped.trends, one.trends, rtol=1e-6)


@pytest.mark.parametrize("num", [3, 0])
def test_without_times_there_is_none(num: int) -> None:
    assert not count_sales(np.arange(num), np.full(num, np.nan), 4).trends.any()


def test_a_purchase_without_a_time_is_an_old_one() -> None:
    found = count_sales(np.arange(3), np.array([np.nan, 1.0, 2.0]), 3)
    assert found.trends[0, 0] < found.trends[0, 2]
    assert found.trends[1, 0] > found.trends[1, 1] > found.trends[1, 2]
