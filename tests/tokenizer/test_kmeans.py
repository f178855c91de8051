from __future__ import annotations

import numpy as np
import pytest
import torch

from pressmark.tokenizer.kmeans import ROWS_PER_CLUSTER, kmeans, residual_kmeans, sample_rows


def test_finds_the_means_of_separate_heaps() -> None:
    rows = torch.tensor([[0.0], [1.0], [10.0], [11.0], [100.0], [102.0]])
    centres = kmeans(rows, 3, seed=0)
    assert sorted(centres.squeeze(1).tolist()) == [0.5, 10.5, 101.0]


def test_no_cluster_stays_empty() -> None:
    # k-means++ draws different rows as long as there are some; the mean of each is the row itself.
    rows = torch.tensor([[0.0]] * 50 + [[1.0], [2.0], [3.0]])
    assert sorted(kmeans(rows, 4, seed=3).squeeze(1).tolist()) == [0.0, 1.0, 2.0, 3.0]


def test_the_same_seed_gives_the_same_centres_and_another_one_others() -> None:
    rows = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kmeans(rows, 8, seed=1), kmeans(rows, 8, seed=1))
    assert not torch.equal(kmeans(rows, 8, seed=1), kmeans(rows, 8, seed=2))


def test_a_sample_serves_for_many_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat(
        [torch.randn(5000, 2, generator=generator), 50 + torch.randn(5000, 2, generator=generator)]
    )
    centres = kmeans(rows, 2, seed=0, max_rows_per_cluster=100)
    assert sorted(centres.mean(dim=1).round().tolist()) == [0.0, 50.0]


def test_fewer_rows_than_clusters_names_the_number() -> None:
    with pytest.raises(ValueError, match=r"3 items cannot start 4 codes.*level_sizes to at most 3"):
        kmeans(torch.zeros(3, 2), 4, seed=0)


def test_levels_code_what_is_left_over() -> None:
    rows = torch.tensor([[-11.0], [-9.0], [9.0], [11.0]])
    first, second = residual_kmeans(rows, (2, 2), seed=0)
    assert sorted(first.squeeze(1).tolist()) == [-10.0, 10.0]
    assert sorted(second.squeeze(1).tolist()) == [-1.0, 1.0]


def test_a_large_catalog_is_sampled_once_and_keeps_its_order() -> None:
    vectors = np.arange(5000, dtype=np.float32)[:, None]
    sample = sample_rows(vectors, (4, 2), seed=0)
    assert sample.shape == (4 * ROWS_PER_CLUSTER * 4, 1)
    assert (np.diff(sample[:, 0]) > 0).all()
    assert (sample_rows(vectors, (4, 2), seed=0) == sample).all()
    assert sample_rows(vectors, (5, 2), seed=0) is vectors
