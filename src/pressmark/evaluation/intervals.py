"""How sure a figure is: percentile bootstrap over cases or over clusters of cases.

The random stream is part of the definition, so that an outsider reaches our limits too. The units (cases in
order of case_id, or distinct target items in order of item_id) are numbered 0 .. U - 1; resample r takes the
units in row r of `numpy.random.default_rng(seed).integers(0, U, (num_resamples, U))`. Every slice begins that
stream anew, and all protocols, models and metrics of a slice share it: differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

LIMITS = (2.5, 97.5)
"""Percentiles of a 95 % interval."""

# Units times resamples in work at once: 4 MB, which stays in a core's cache.
_COUNTS_AT_ONCE = 2**19


@dataclass(frozen=True)
class Estimates:
    """Means of M columns with their resamples.

    Attributes:
        mean: (M,) float64; NaN where no case has a value.
        draws: (num_resamples, M) float64, the mean in each resample.
    """

    mean: np.ndarray
    draws: np.ndarray

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper 95 % limits, (M,) float64 each."""
        return percentiles(self.draws)


def percentiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5th and 97.5th percentile (linear interpolation) of (R, M) draws; NaN draws are left out.

    NaN where a column has no draw at all.
    """
    low, high = np.percentile(draws, LIMITS, axis=0)
    missing = np.isnan(draws)
    some = missing.any(axis=0) & ~missing.all(axis=0)
    if some.any():
        low[some], high[some] = np.nanpercentile(draws[:, some], LIMITS, axis=0)
    return low, high


def bootstrap_ranks(
    rank: np.ndarray, gains: np.ndarray, num_resamples: int, seed: int, clusters: np.ndarray | None = None
) -> Estimates:
    """Resamples metrics that depend on the rank of the target alone.

    What a resample needs of a ranking is how often each rank occurs in it. These histograms are sparse (most
    targets are missed) and exact (whole numbers in whatever order they are added); metrics follow from them.

    Args:
        rank: (L, S, C) int64 ranks of C cases in L rankings by S model seeds, over which values are averaged;
            counted from 1, 0 = missed.
        gains: (K + 1, M) float64, value of each metric at rank 0 .. K; 0 at rank 0.
        num_resamples: Resamples R.
        seed: Seed of the stream described above.
        clusters: (C,) integers that name each case's cluster, or None to resample cases.

    Returns:
        L * M columns, those of a ranking together.
    """
    num_rankings, num_seeds, num_cases = rank.shape
    depth = len(gains) - 1
    unit, num_units = _units(num_cases, clusters)
    ranking, model_seed, case = np.nonzero(rank)
    row = ranking * depth + rank[ranking, model_seed, case] - 1
    histograms = sparse.csr_array(
        (np.ones(len(row)), (row, unit[case])), shape=(num_rankings * depth, num_units)
    )
    sizes = np.bincount(unit, minlength=num_units).astype(np.float64)
    draws = np.empty((num_resamples, num_rankings * gains.shape[1]))
    for done, counts in _resample_counts(num_units, num_resamples, seed):
        found = (histograms @ counts).reshape(num_rankings, depth, -1)
        totals = np.zeros((num_rankings, gains.shape[1], counts.shape[1]))
        # Rank by rank, not as a product: a library may add up in an order that depends on the chunk's width.
        for place in range(depth):
            totals += gains[place + 1, :, None] * found[:, None, place]
        shares = totals.reshape(draws.shape[1], -1) / (num_seeds * (sizes @ counts))
        draws[done : done + counts.shape[1]] = shares.T
    means = np.concatenate([_exact_means(gains[one].mean(axis=0)) for one in rank])
    return Estimates(means, draws)


def bootstrap_values(
    values: np.ndarray, num_resamples: int, seed: int, clusters: np.ndarray | None = None
) -> Estimates:
    """Resamples any values of cases.

    A resample's mean is the sum of its values over the number of its values, so clusters count by their size.

    Args:
        values: (C, M) float64, one row a case; NaN where a case has no value in a column.
        num_resamples: Resamples R.
        seed: Seed of the stream described above.
        clusters: (C,) integers that name each case's cluster, or None to resample cases.
    """
    unit, num_units = _units(len(values), clusters)
    member = sparse.csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))))
    defined = ~np.isnan(values)
    totals = np.ascontiguousarray((member @ np.where(defined, values, 0.0)).T)
    # Columns without a gap share one denominator: half the work.
    gaps = np.flatnonzero(~defined.all(axis=0))
    sizes = np.bincount(unit, minlength=num_units).astype(np.float64)
    sizes_with_gaps = np.ascontiguousarray((member @ defined[:, gaps].astype(np.float64)).T)
    draws = np.empty((num_resamples, values.shape[1]))
    for done, counts in _resample_counts(num_units, num_resamples, seed):
        under = np.repeat((sizes @ counts)[None], len(totals), axis=0)
        under[gaps] = sizes_with_gaps @ counts
        with np.errstate(invalid="ignore"):
            draws[done : done + counts.shape[1]] = (totals @ counts / under).T
    return Estimates(_exact_means(values), draws)


def _units(num_cases: int, clusters: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Number of each case's unit, (C,) int64, and the number of units."""
    if num_cases == 0:
        raise ValueError("bootstrap: there is no case to resample; leave an empty slice out of the report.")
    if clusters is None:
        return np.arange(num_cases), num_cases
    names, unit = np.unique(clusters, return_inverse=True)
    return unit, len(names)


def _resample_counts(num_units: int, num_resamples: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number of the first resample and (U, chunk) float64: how often each unit occurs in each."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(256, _COUNTS_AT_ONCE // num_units))
    for start in range(0, num_resamples, chunk):
        drawn = rng.integers(0, num_units, (min(chunk, num_resamples - start), num_units))
        counts = np.empty(drawn.shape)
        for row, units in enumerate(drawn):
            counts[row] = np.bincount(units, minlength=num_units)
        yield start, np.ascontiguousarray(counts.T)


def _exact_means(values: np.ndarray) -> np.ndarray:
    """Correctly rounded column means of (C, M), NaN left out: the same last digit in any order of the cases."""
    means = np.full(values.shape[1], np.nan)
    for column, one in enumerate(values.T):
        kept = one[~np.isnan(one)]
        if len(kept):
            # Zeros add nothing to an exact sum, and most values are zeros.
            means[column] = math.fsum(kept[kept != 0].tolist()) / len(kept)
    return means
