from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from pressmark import metrics

LISTS = np.array([[5, 3, 9, 1], [2, 7, -1, -1], [4, 6, 8, 0], [-1, -1, -1, -1]])


def test_rank_counts_from_one_and_a_miss_is_zero() -> None:
    assert metrics.rank_of_target(LISTS, np.array([9, 2, 7, 3])).tolist() == [3, 1, 0, 0]
    assert metrics.rank_of_target(LISTS, np.array([9, 2, 7, 3])).dtype == np.int64


def test_padding_is_never_a_hit() -> None:
    # A target of -1 does not exist, but an item equal to the padding must not be counted by any metric.
    assert metrics.accuracy(np.array([0])).sum() == 0


def test_metrics_by_hand() -> None:
    rank = np.array([1, 3, 10, 11, 0])
    assert metrics.recall_at_k(rank, 10).tolist() == [1, 1, 1, 0, 0]
    assert metrics.ndcg_at_k(rank, 10).tolist() == [1.0, 0.5, 1 / math.log2(11), 0, 0]
    assert metrics.mrr_at_k(rank, 10).tolist() == [1.0, 1 / 3, 0.1, 0, 0]


def test_accuracy_has_a_column_a_name() -> None:
    table = metrics.accuracy(np.array([2]))[0]
    named = dict(zip(metrics.ACCURACY, table, strict=True))
    assert named["recall_at_1"] == 0
    assert named["recall_at_5"] == 1
    assert named["ndcg_at_50"] == 1 / math.log2(3)
    assert named["mrr_at_20"] == 0.5
    assert len(metrics.ACCURACY) == 15


@pytest.mark.parametrize("k", metrics.CUTOFFS)
def test_agrees_with_ir_measures(k: int) -> None:
    rng = np.random.default_rng(k)
    lists = np.stack([rng.permutation(70)[:50] for _ in range(60)])
    target = rng.integers(0, 70, 60)
    qrels = [ir_measures.Qrel(f"q{case}", f"d{item}", 1) for case, item in enumerate(target)]
    run = [
        ir_measures.ScoredDoc(f"q{case}", f"d{item}", 50.0 - place)
        for case, row in enumerate(lists)
        for place, item in enumerate(row)
    ]
    found: dict[tuple[str, str], float] = {
        (one.query_id, str(one.measure)): one.value
        for one in ir_measures.iter_calc([nDCG @ k, R @ k, RR @ k], qrels, run)
    }
    rank = metrics.rank_of_target(lists, target)
    ours = {f"nDCG@{k}": metrics.ndcg_at_k, f"R@{k}": metrics.recall_at_k, f"RR@{k}": metrics.mrr_at_k}
    assert (rank > 0).any()
    assert (rank == 0).any()
    for name, metric in ours.items():
        theirs = [found[f"q{case}", name] for case in range(60)]
        np.testing.assert_allclose(metric(rank, k), theirs, rtol=1e-6)


def test_coverage_and_gini_by_hand() -> None:
    assert metrics.catalog_coverage(LISTS, 20) == 10 / 20
    # Exposures 3, 1, 0, 0: Gini = (2 * (3*1 + 4*3) / 4 - 5) / 4.
    assert metrics.exposure_gini(np.array([[0, 1], [0, -1], [0, -1]]), 4) == pytest.approx(0.625)
    assert math.isnan(metrics.exposure_gini(np.array([[-1]]), 4))


def test_popularity_percentile_has_mean_one_half() -> None:
    counts = np.random.default_rng(0).zipf(1.5, 1000)
    assert metrics.popularity_percentile(counts).mean() == pytest.approx(0.5, abs=1e-12)


def test_means_over_slots_leave_padding_out() -> None:
    percentile = np.array([0.1, 0.5, 0.9])
    found = metrics.mean_popularity_percentile(np.array([[0, 2], [1, -1], [-1, -1]]), percentile)
    np.testing.assert_allclose(found, [0.5, 0.5, np.nan])
    cold = np.array([True, False, False])
    np.testing.assert_allclose(
        metrics.cold_share(np.array([[0, 2], [0, -1], [-1, -1]]), cold), [0.5, 1, np.nan]
    )


def test_diversity_by_hand() -> None:
    # Items 0 and 1 share a label through their second path; item 3 has none.
    labels = np.array([[0, 1], [2, 1], [3, -1], [-1, -1], [0, -1]])
    lists = np.array([[0, 1, 2], [0, 3, 4], [1, 2, 4], [3, -1, -1]])
    np.testing.assert_allclose(metrics.intra_list_diversity(lists, labels), [2 / 3, 0, 1, np.nan])
