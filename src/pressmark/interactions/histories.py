"""Histories: many variable-length sequences of items as two flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Histories:
    """N sequences of item_index, oldest first, end to end in one array.

    Attributes:
        values: (total,) int64 item_index.
        offsets: (N + 1,) int64; sequence i is values[offsets[i]:offsets[i + 1]].
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, lists: Iterable[Sequence[int] | np.ndarray]) -> Histories:
        """Packs sequences.

        >>> Histories.from_lists([[3, 1], [], [2]]).offsets.tolist()
        [0, 2, 2, 3]
        """
        arrays = [np.asarray(one, dtype=np.int64) for one in lists]
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in arrays])]).astype(np.int64)
        values = np.concatenate(arrays) if arrays else np.empty(0, np.int64)
        return cls(values.astype(np.int64), offsets)

    @classmethod
    def join(cls, parts: Sequence[Histories]) -> Histories:
        """One after the other; at least one part.

        >>> Histories.join([Histories.from_lists([[3, 1]]), Histories.from_lists([[], [2]])]).offsets.tolist()
        [0, 2, 2, 3]
        """
        starts = np.cumsum([0, *(len(part.values) for part in parts)])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([*offsets, starts[-1:]]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64 items a sequence."""
        return np.diff(self.offsets)

    def row_of_value(self) -> np.ndarray:
        """(total,) int64: the sequence that each value belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    def take(self, rows: np.ndarray) -> Histories:
        """The sequences at `rows`, in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Histories(self.values[np.repeat(self.offsets[:-1][rows], lengths) + within], offsets)

    def followed_by(self, other: Histories) -> Histories:
        """Each sequence with the other's of the same number behind it.

        >>> Histories.from_lists([[3], [1]]).followed_by(Histories.from_lists([[], [2]])).values.tolist()
        [3, 1, 2]
        """
        row = np.concatenate([self.row_of_value(), other.row_of_value()])
        order = np.argsort(row, kind="stable")
        return Histories(np.concatenate([self.values, other.values])[order], self.offsets + other.offsets)

    def newest(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The newest `width` items of each sequence, left-aligned and oldest first.

        Returns:
            items: (N, width) int64, padded with -1 on the right.
            lengths: (N,) int64, min(length, width).
        """
        lengths = np.minimum(self.lengths, width)
        column = np.arange(width)
        inside = column < lengths[:, None]
        items = np.full((len(self), width), -1, np.int64)
        items[inside] = self.values[((self.offsets[1:] - lengths)[:, None] + column)[inside]]
        return items, lengths
