"""The training benchmark's own arithmetic."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from tests.scripts import load_script

from pressmark.generator.samples import prefix_samples
from pressmark.interactions.histories import Histories


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script("bench_training")


def test_both_are_timed_to_the_level_that_both_reached(bench: ModuleType) -> None:
    def row(*points: tuple[float, float]) -> dict[str, object]:
        return {
            "curve": [{"seconds": at, "ndcg_at_10": ndcg} for at, ndcg in points],
            "best_ndcg_at_10": max(ndcg for _, ndcg in points),
            "samples_per_second": 100.0,
            "gflop_a_sample": 0.5,
            "peak_gflops": 200.0,
        }

    hf = row((100, 0.01), (200, 0.03), (300, 0.02))
    ours = row((10, 0.02), (20, 0.03), (30, 0.05))
    found = {one["engine"]: one for one in bench.compare({"hf": hf, "pressmark": ours})}
    assert found["hf"]["seconds_to_it"] == 200
    assert found["pressmark"]["seconds_to_it"] == 20
    assert found["pressmark"]["speedup"] == 10
    assert found["hf"]["utilisation"] == 0.25


def test_hf_reads_the_same_samples(bench: ModuleType) -> None:
    samples = prefix_samples(Histories.from_lists([[0, 1, 2]]), 5, False, True)
    tokens = torch.tensor([[2, 5], [3, 6], [4, 7]])
    data = bench.Prefixes(samples, tokens)
    assert [data[number] for number in range(len(data))] == [
        {"input_ids": [2, 5, 1], "labels": [3, 6]},
        {"input_ids": [2, 5, 3, 6, 1], "labels": [4, 7]},
    ]
    batch = bench.padded([data[0], data[1]])
    assert batch["input_ids"].tolist() == [[2, 5, 1, 0, 0], [2, 5, 3, 6, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["labels"].tolist() == [[3, 6], [4, 7]]


def test_a_products_operations_are_counted(bench: ModuleType) -> None:
    left, right = torch.ones(3, 4), torch.ones(4, 5, requires_grad=True)
    # Forward, and the gradient of the right side.
    assert bench.flops_of(lambda: (left @ right).sum().backward()) == 2 * 2 * 3 * 4 * 5
    assert np.isfinite(bench.peak_gflops())
