"""Equality of splits and cases, to the last bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


def assert_same(one: Any, other: Any) -> None:
    """Equal bit by bit, NaN included."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a is None or b is None:
            assert a is b, field.name
        elif dataclasses.is_dataclass(a):
            assert_same(a, b)
        elif isinstance(a, np.ndarray) and a.dtype != object:
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field.name
            assert b.flags.writeable, field.name
        else:
            assert (list(a), type(a)) == (list(b), type(b)), field.name
