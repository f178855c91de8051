from __future__ import annotations

from types import SimpleNamespace

import pytest

from pressmark.settings import at_least, shares


@pytest.mark.parametrize("value", [2, 2.5, 10**9])
def test_what_is_enough_passes(value: float) -> None:
    at_least("room", SimpleNamespace(size=value), size=2)


@pytest.mark.parametrize("value", [1, 1.99, -3, float("nan"), float("inf")])
def test_what_is_too_small_or_no_number_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=rf"room\.size is {value}; it must be at least 2\."):
        at_least("room", SimpleNamespace(size=value), size=2)


def test_zero_is_said_as_such() -> None:
    with pytest.raises(ValueError, match=r"room\.weight is -0\.5; it must be 0 or above\."):
        at_least("room", SimpleNamespace(fine=1, weight=-0.5), fine=0, weight=0)


def test_shares() -> None:
    shares("room", SimpleNamespace(a=0, b=1.0), "a", "b")
    shares("room", SimpleNamespace(a=0.99), "a", below_1=True)
    for value in (-0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match=rf"room\.b is {value}; it must be from 0 to 1\."):
            shares("room", SimpleNamespace(a=0.5, b=value), "a", "b")
    with pytest.raises(ValueError, match=r"room\.a is 1; it must be from 0 to below 1\."):
        shares("room", SimpleNamespace(a=1), "a", below_1=True)
