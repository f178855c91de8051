"""A batch of which a process holds its own share alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Own:
    """This process's share of a global batch, where each process reads its own samples.

    Attributes:
        source: What the numbers count in.
        numbers: (n,) int64, at least one.
    """

    source: Any
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, places: slice) -> Own:
        return Own(self.source, self.numbers[places])
