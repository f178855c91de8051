"""The ranges that settings keep, and what is said where one does not."""

from __future__ import annotations

import math
from typing import Any


def at_least(room: str, config: Any, **least: float) -> None:
    """Raises ValueError where one of a config's numbers is below its least, not finite, or no number."""
    for name, low in least.items():
        if not low <= getattr(config, name) < math.inf:
            rule = f"at least {low}" if low else "0 or above"
            raise ValueError(f"{room}.{name} is {getattr(config, name)}; it must be {rule}.")


def shares(room: str, config: Any, *names: str, below_1: bool = False) -> None:
    """Raises ValueError where one of a config's numbers does not lie from 0 to 1, or to below 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1 or (below_1 and value == 1):
            rule = "from 0 to below 1" if below_1 else "from 0 to 1"
            raise ValueError(f"{room}.{name} is {value}; it must be {rule}.")
