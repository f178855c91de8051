from __future__ import annotations

import numpy as np
import pytest

from pressmark import metrics
from pressmark.evaluation import intervals
from pressmark.evaluation.intervals import bootstrap_ranks, bootstrap_values

GAINS = metrics.accuracy(np.arange(51))


def some_ranks(num_rankings: int, num_seeds: int, num_cases: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    shape = (num_rankings, num_seeds, num_cases)
    return np.where(rng.random(shape) < 0.3, rng.integers(1, 51, shape), 0)


def test_the_stream_is_the_documented_one() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    found = bootstrap_values(values, 25, seed=7)
    drawn = np.random.default_rng(7).integers(0, 40, (25, 40))
    np.testing.assert_allclose(found.draws, values[drawn].mean(axis=1), rtol=1e-12)
    low, high = found.limits()
    np.testing.assert_allclose([low, high], np.percentile(values[drawn].mean(axis=1), [2.5, 97.5], axis=0))


def test_the_stream_does_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rank = some_ranks(2, 1, 60)
    whole = bootstrap_ranks(rank, GAINS, 30, seed=1).draws
    monkeypatch.setattr(intervals, "_COUNTS_AT_ONCE", 60 * 7)
    assert (bootstrap_ranks(rank, GAINS, 30, seed=1).draws == whole).all()


@pytest.mark.parametrize("clustered", [False, True])
def test_ranks_and_values_agree(clustered: bool) -> None:
    rank = some_ranks(num_rankings=3, num_seeds=2, num_cases=80)
    clusters = np.arange(80) // 3 if clustered else None
    values = np.concatenate([GAINS[one].mean(axis=0) for one in rank], axis=1)
    from_ranks = bootstrap_ranks(rank, GAINS, 50, 0, clusters)
    from_values = bootstrap_values(values, 50, 0, clusters)
    np.testing.assert_allclose(from_ranks.mean, values.mean(axis=0), rtol=1e-14)
    assert (from_ranks.mean == from_values.mean).all()
    np.testing.assert_allclose(from_ranks.draws, from_values.draws, rtol=1e-12)


def test_clusters_are_resampled_whole() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0], [5.0]])
    clusters = np.array([30, 30, 30, 10, 20])
    found = bootstrap_values(values, 200, 4, clusters)
    # Units in ascending order of the cluster: 10 -> one case of 0, 20 -> one of 5, 30 -> three of 1.
    drawn = np.random.default_rng(4).integers(0, 3, (200, 3))
    sums, sizes = np.array([0.0, 5.0, 3.0]), np.array([1, 1, 3])
    np.testing.assert_allclose(found.draws[:, 0], sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    assert found.mean[0] == 8 / 5


def test_repeating_a_case_narrows_cases_but_not_clusters() -> None:
    rng = np.random.default_rng(0)
    once = (rng.random((300, 1)) < 0.2).astype(float)
    fourfold, clusters = np.repeat(once, 4, axis=0), np.repeat(np.arange(300), 4)

    def width(found: intervals.Estimates) -> float:
        low, high = found.limits()
        return float(high[0] - low[0])

    alone = width(bootstrap_values(once, 2000, 0))
    assert width(bootstrap_values(fourfold, 2000, 0, clusters)) == pytest.approx(alone, rel=1e-12)
    assert width(bootstrap_values(fourfold, 2000, 0)) == pytest.approx(alone / 2, rel=0.1)


def test_interval_has_the_width_of_the_normal_approximation() -> None:
    hits = (np.random.default_rng(1).random((2000, 1)) < 0.1).astype(float)
    low, high = bootstrap_values(hits, 4000, 0).limits()
    mean = hits.mean()
    expected = 2 * 1.96 * np.sqrt(mean * (1 - mean) / 2000)
    assert high[0] - low[0] == pytest.approx(expected, rel=0.06)
    assert (low[0] + high[0]) / 2 == pytest.approx(mean, abs=0.002)


def test_ninety_five_percent_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(150):
        low, high = bootstrap_values((rng.random((200, 1)) < 0.3).astype(float), 300, trial).limits()
        covered += int(low[0] <= 0.3 <= high[0])
    assert 0.88 <= covered / 150 <= 0.99


def test_values_that_are_missing_are_left_out() -> None:
    values = np.array([[1.0, 2.0], [np.nan, 4.0], [3.0, 6.0], [np.nan, 8.0]])
    found = bootstrap_values(values, 50, 0)
    assert found.mean.tolist() == [2.0, 5.0]
    drawn = np.random.default_rng(0).integers(0, 4, (50, 4))
    with np.errstate(invalid="ignore"):
        counted = (~np.isnan(values[drawn])).sum(axis=1)
        expected = np.nansum(values[drawn], axis=1) / counted
    np.testing.assert_allclose(found.draws, expected)
    assert np.isfinite(found.limits()).all()


def test_a_column_without_values_has_no_interval() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    low, high = bootstrap_values(values, 20, 0).limits()
    assert np.isnan([low[1], high[1]]).all()
    assert (low[0], high[0]) == (1.0, 3.0)


def test_means_do_not_depend_on_the_order_of_cases() -> None:
    rank = some_ranks(1, 1, 5000)
    shuffled = rank[:, :, np.random.default_rng(0).permutation(5000)]
    assert (bootstrap_ranks(rank, GAINS, 1, 0).mean == bootstrap_ranks(shuffled, GAINS, 1, 0).mean).all()


def test_no_case_is_refused() -> None:
    with pytest.raises(ValueError, match="no case"):
        bootstrap_values(np.empty((0, 1)), 10, 0)
