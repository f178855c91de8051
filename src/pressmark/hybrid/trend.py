"""What sells now: how much of each product was bought lately, and for how long it has sold.

Generator, tower and words know what goes with a history, and nothing of the calendar. Asked ahead of its time
a shop's next purchases are told much better with it (eval/LOG.md). Time is counted in purchases of the whole
shop, not in days: the newest fiftieth of them is a week of one shop and a year of another.
"""

from __future__ import annotations

import numpy as np

LATELY = 0.02
"""A purchase counts 1/e for each such share of all purchases that was made since."""

ONCE = 0.1
"""Purchases that every product is taken to have had besides, so that the logarithm of none is finite."""

AT_ONCE = 0.01
"""The same for the age, as a share of all purchases."""


def trends(item: np.ndarray, timestamp: np.ndarray, num_items: int) -> np.ndarray:
    """Two scores of each item, from the times of purchases.

    trend: log of the purchases, each counted exp(- share of all purchases made after it / `LATELY`).
    age: log of the share of all purchases made after the item's first.

    Purchases without a time count as the oldest.

    Args:
        item: (P,) int64, what was bought.
        timestamp: (P,) float64 seconds, NaN where unknown.
        num_items: N.

    Returns:
        (2, N) float32; 0 where no purchase has a time.
    """
    known = ~np.isnan(timestamp)
    if not known.any():
        return np.zeros((2, num_items), np.float32)
    ordered = np.sort(timestamp[known])
    later = np.ones(len(timestamp))
    later[known] = 1 - np.searchsorted(ordered, timestamp[known], side="right") / len(ordered)
    lately = np.bincount(item, np.exp(-later / LATELY), num_items)
    age = np.zeros(num_items)
    np.maximum.at(age, item, later)
    return np.log(np.stack([lately + ONCE, age + AT_ONCE])).astype(np.float32)
