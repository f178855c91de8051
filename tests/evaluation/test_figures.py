from __future__ import annotations

import numpy as np

from pressmark.evaluation.figures import Judged, measure
from pressmark.evaluation.page import render

NUM_CASES = 60


def judged(seed: int, share: float) -> Judged:
    rng = np.random.default_rng(seed)
    rank = np.where(rng.random((1, NUM_CASES)) < share, rng.integers(1, 11, (1, NUM_CASES)), 0)
    return Judged(rank, None, {})


def test_targets_that_nobody_bought_are_resampled_by_item() -> None:
    """60 cases of 4 items are 4 draws of luck and not 60."""
    target = np.arange(NUM_CASES) % 4
    every = np.ones(NUM_CASES, bool)
    one = judged(0, 0.4)
    slices = {"all": every, "warm": every, "cold": ~every, "warm_unbought": every, "warm_tail": every}
    for users, unit in ((None, "case"), (np.arange(NUM_CASES) // 2, "user")):
        protocols, _ = measure({"full": {"generator": one}}, slices, target, [], 300, 0, users)
        found = protocols["full"]["models"]["generator"]["warm_unbought"]["recall_at_10"]
        hits = np.bincount(target, one.rank[0] > 0)
        drawn = np.random.default_rng(0).integers(0, 4, (300, 4))
        expected = np.percentile(hits[drawn].sum(axis=1) / NUM_CASES, [2.5, 97.5])
        np.testing.assert_allclose([found["low"], found["high"]], expected, rtol=1e-12)
        units = protocols["full"]["units"]
        assert units["warm_unbought"] == {"unit": "target item", "num": 4}
        assert units["warm_tail"] == {"unit": unit, "num": NUM_CASES // (1 if users is None else 2)}
        assert units["cold"] == {"unit": "target item", "num": 0}


def test_the_hybrid_under_a_quota_against_the_generator_under_full() -> None:
    hybrid, generator = judged(1, 0.5), judged(2, 0.3)
    every = np.ones(NUM_CASES, bool)
    slices = {"all": every, "warm": every, "cold": ~every}
    models = {"generator": generator, "hybrid": hybrid}
    lists = {"full": models, "quota_0.1": {"generator": generator, "hybrid": generator}}
    pairs = [("hybrid", "generator")]
    protocols, paired = measure(lists, slices, np.arange(NUM_CASES), pairs, 300, 0)
    rows = {(row["protocol"], row["slice"], row["metric"]): row for row in paired}
    row = rows["quota_0.1:full", "all", "recall_at_10"]
    assert {"a": "hybrid", "b": "generator", "difference": 0.0, "low": 0.0, "high": 0.0}.items() <= row.items()
    lists["quota_0.1"]["hybrid"] = hybrid
    protocols, paired = measure(lists, slices, np.arange(NUM_CASES), pairs, 300, 0)
    rows = {(row["protocol"], row["slice"], row["metric"]): row for row in paired}
    row = rows["quota_0.1:full", "all", "recall_at_10"]
    gain = (hybrid.rank[0] > 0).astype(float) - (generator.rank[0] > 0)
    assert abs(row["difference"] - gain.mean()) < 1e-15
    drawn = np.random.default_rng(0).integers(0, NUM_CASES, (300, NUM_CASES))
    expected = np.percentile(gain[drawn].mean(axis=1), [2.5, 97.5])
    np.testing.assert_allclose([row["low"], row["high"]], expected, rtol=1e-12)
    report = {
        "title": "Across",
        "statement": {},
        "num_cases": {name: int(inside.sum()) for name, inside in slices.items()},
        "protocols": protocols,
        "paired": paired,
    }
    html, _ = render(report)
    assert "<p>Over all cases, hybrid under quota 0.1 against generator under full: " in html
    assert html.count("hybrid against generator") == 1
