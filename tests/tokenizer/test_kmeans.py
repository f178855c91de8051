from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pressmark.tokenizer.kmeans import (
    ROWS_PER_CLUSTER,
    TEMPERATURE,
    kmeans,
    lloyd,
    refine,
    residual_kmeans,
    sample_rows,
    size_price,
)
from pressmark.tokenizer.residual import nearest, squared_distances


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


def skewed(seed: int = 0) -> torch.Tensor:
    """A dense heap and a few far rows: plain k-means spends its centres on the latter."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2000, 4, generator=generator)
    return rows * torch.rand(2000, 1, generator=generator).pow(-0.4)


def perplexity(rows: torch.Tensor, centres: torch.Tensor) -> float:
    share = torch.bincount(nearest(rows, centres), minlength=len(centres)) / len(rows)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def test_balance_evens_the_sizes_of_nearest_assignment() -> None:
    rows = skewed()
    plain, some, more = (
        perplexity(rows, kmeans(rows, 16, 0, iterations=30, balance=balance)) for balance in (0.0, 0.3, 1.0)
    )
    assert plain < 10
    assert plain + 0.5 < some < more - 0.5


def test_without_balance_it_is_plain_lloyd() -> None:
    rows = skewed()
    centres = rows[:8].clone()
    expected = centres
    for _ in range(4):
        assigned = torch.cdist(rows, expected).argmin(dim=1)
        expected = torch.stack([rows[assigned == code].mean(dim=0) for code in range(8)])
    torch.testing.assert_close(lloyd(rows, centres, 4), expected)
    assert torch.equal(lloyd(rows, centres, 4, balance=0.0), lloyd(rows, centres, 4))
    assert not torch.equal(lloyd(rows, centres, 4, balance=0.3), lloyd(rows, centres, 4))
    assert torch.equal(centres, rows[:8])


def exact_prices(distances: torch.Tensor, temperature: float) -> torch.Tensor:
    """Prices at which soft assignments give each of two centres half of the rows, by bisection."""
    low, high = -100.0, 100.0
    for _ in range(200):
        gap = (low + high) / 2
        share = torch.sigmoid((distances[:, 1] - distances[:, 0] - gap) / temperature).mean()
        low, high = (gap, high) if share > 0.5 else (low, gap)
    return torch.tensor([gap / 2, -gap / 2])


def test_size_price_of_two_centres_by_hand() -> None:
    # Two rows at distances 1 and 1 + a: both like centre 0. By symmetry of the rows a price gap of a leaves
    # every row undecided, and each centre gets half of them.
    distances = torch.tensor([[1.0, 1.1], [1.0, 1.1]], dtype=torch.float64)
    price = size_price(distances, 1.0)
    assert float(price[0] - price[1]) == pytest.approx(0.1, rel=1e-6)
    # After one step: scale_k = 1 / (2 share_k), share by a softmax at a twentieth of the mean nearest distance.
    share = 1 / (1 + math.exp(-0.1 / TEMPERATURE))
    assert price.tolist() == pytest.approx(
        [TEMPERATURE * math.log(2 * share), TEMPERATURE * math.log(2 * (1 - share))]
    )
    assert size_price(distances, 0.25).tolist() == pytest.approx((0.25 * price).tolist())
    assert size_price(distances, 0.0).tolist() == [0.0, 0.0]


def test_size_price_comes_to_that_of_the_even_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(40, 2, generator=generator, dtype=torch.float64) + torch.tensor([1.0, 1.05])
    temperature = TEMPERATURE * float(distances.min(dim=1).values.mean())

    def share_of_the_first(price: torch.Tensor) -> float:
        return float(torch.softmax(-(distances + price) / temperature, dim=1)[:, 0].mean())

    few_steps = size_price(distances, 1.0)
    assert few_steps[0] > 0 > few_steps[1]
    before = share_of_the_first(torch.zeros(2)) - 0.5
    assert 0 < share_of_the_first(few_steps) - 0.5 < before / 2
    monkeypatch.setattr("pressmark.tokenizer.kmeans.SINKHORN_STEPS", 300)
    price, expected = size_price(distances, 1.0), exact_prices(distances, temperature)
    assert float(price[0] - price[1]) == pytest.approx(float(expected[0] - expected[1]), rel=1e-6)


def test_a_centre_that_no_row_is_near_gets_a_discount_that_is_finite() -> None:
    price = size_price(torch.tensor([[0.1, 1e6], [0.2, 1e6]]), 1.0)
    assert price.isfinite().all()
    assert price[1] < price[0]
    # Rows that stand on their centres: there is no unit to price in.
    assert size_price(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), 1.0).isfinite().all()


def test_refine_keeps_codebooks_that_are_right_and_mends_those_that_are_not() -> None:
    rows = torch.tensor([[-11.0], [-9.0], [9.0], [11.0]])
    right = [torch.tensor([[-10.0], [10.0]]), torch.tensor([[-1.0], [1.0]])]
    for found, book in zip(refine(rows, right, 5, (0.0,)), right, strict=True):
        assert torch.equal(found, book)
    # Levels before `start` are left as they are, and the next sees what they leave.
    kept, moved = refine(
        rows, [torch.tensor([[-8.0], [13.0]]), torch.tensor([[-3.4], [-1.4]])], 5, (0.0,), start=1
    )
    assert kept.tolist() == [[-8.0], [13.0]]
    assert moved.tolist() == [[-3.5], [-1.5]]
    # In place of its codes each level keeps its order: a code still means what it meant.
    off = [torch.tensor([[-8.0], [13.0]]), torch.tensor([[-0.3], [3.0]])]
    for found, book in zip(refine(rows, off, 5, (0.0,)), right, strict=True):
        assert torch.equal(found, book)
    assert off[0].tolist() == [[-8.0], [13.0]]


def test_refine_of_fitted_codebooks_on_random_rows_moves_nothing() -> None:
    rows = skewed()[:300]
    books = residual_kmeans(rows, (6, 6), seed=0, iterations=100)
    for found, book in zip(refine(rows, books, 3, (0.0,)), books, strict=True):
        torch.testing.assert_close(found, book, rtol=1e-4, atol=1e-4)


def test_each_level_has_its_balance_and_the_last_holds_beyond() -> None:
    rows = skewed()
    books = residual_kmeans(rows, (8, 8, 8), seed=0, balance=(0.0, 0.4))
    residual = rows
    for level, (book, balance) in enumerate(zip(books, (0.0, 0.4, 0.4), strict=True)):
        assert torch.equal(book, kmeans(residual, 8, level, balance=balance))
        residual = residual - book[squared_distances(residual, book).argmin(dim=1)]
    mended = refine(rows, books, 2, (0.0, 0.4))
    assert torch.equal(mended[0], lloyd(rows, books[0], 2, 0.0))
    left = rows - mended[0][nearest(rows, mended[0])]
    assert torch.equal(mended[1], lloyd(left, books[1], 2, 0.4))
