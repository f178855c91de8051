"""Every prefix of a catalog's SIDs and which items have it: sorted SIDs, and ranges of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prefixes:
    """The P prefixes of N SIDs with L codes: no code first, then as a walk down the tree meets them.

    Items with a prefix stand side by side in ascending order of SID, so a prefix is a range.

    Attributes:
        order: (N,) int64 item_index in ascending order of SID, items with the same one by index.
        sids: (N, L) int64, row = item_index.
        length: (P,) int64 codes of each prefix; 0 for the first, which every item has.
        start: (P,) int64: `order[start:end]` are its items.
        end: (P,) int64.
        parent: (P,) int64 prefix of one code less; -1 for the first.
        of_item: (N, L + 1) int64: an item's prefix of each length, row = item_index.
    """

    order: np.ndarray
    sids: np.ndarray
    length: np.ndarray
    start: np.ndarray
    end: np.ndarray
    parent: np.ndarray
    of_item: np.ndarray

    def __len__(self) -> int:
        return len(self.length)

    @property
    def num_items(self) -> np.ndarray:
        """(P,) int64 items with each prefix."""
        return self.end - self.start

    def items(self, prefix: int) -> np.ndarray:
        """Rows of the items with a prefix, in order of SID."""
        return self.order[self.start[prefix] : self.end[prefix]]

    def codes(self, prefix: int) -> tuple[int, ...]:
        """The codes of a prefix."""
        first = self.order[self.start[prefix]]
        return tuple(self.sids[first, : self.length[prefix]].tolist())

    def find(self, codes: Sequence[int]) -> int:
        """The prefix with these codes, -1 where no item has it."""
        low, high = 0, len(self.order)
        for level, code in enumerate(codes):
            column = self.sids[self.order[low:high], level]
            low, high = (
                low + int(np.searchsorted(column, code)),
                low + int(np.searchsorted(column, code, "right")),
            )
            if low == high:
                return -1
        return int(self.of_item[self.order[low], len(codes)])


def find_prefixes(sids: np.ndarray) -> Prefixes:
    """All prefixes of (N, L) int64 SIDs, N at least 1.

    >>> found = find_prefixes(np.array([[3, 1], [0, 9], [3, 2]]))
    >>> [found.codes(one) for one in range(len(found))]
    [(), (0,), (0, 9), (3,), (3, 1), (3, 2)]
    """
    num_items, num_levels = sids.shape
    order = np.lexsort(sids.T[::-1])
    ordered = sids[order]
    begins = np.zeros((num_items, num_levels + 1), bool)
    begins[0] = True
    begins[1:, 1:] = np.logical_or.accumulate(ordered[1:] != ordered[:-1], axis=1)
    start, length = np.nonzero(begins)  # row by row, shorter prefixes first: the walk's order
    # The number of an item's prefix is that of the last one of its length that began at or before it.
    number = np.where(begins, np.cumsum(begins.ravel()).reshape(begins.shape) - 1, 0)
    of_ordered = np.maximum.accumulate(number, axis=0)
    end = np.empty_like(start)
    for one in range(num_levels + 1):
        own = np.flatnonzero(length == one)
        end[own] = np.append(start[own][1:], num_items)
    parent = np.where(length > 0, of_ordered[start, np.maximum(length - 1, 0)], -1)
    of_item = np.empty_like(of_ordered)
    of_item[order] = of_ordered
    return Prefixes(order, sids, length, start, end, parent, of_item)
