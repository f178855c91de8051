"""Lloyd's k-means in torch: seeded, without empty clusters, the same result every time.

Plain k-means spends its later codebooks on a few outliers: on Beauty the perplexity of the fourth level is 26
to 51 of 256 (eval/results/tokenizer-beauty.json). With `balance` a centre pays for its size while the centres
are found, so that a crowded one shrinks and an idle one grows. That is used for finding centres only: a row
is always coded by its nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pressmark.tokenizer.residual import lowest, nearest, squared_distances

CHUNK = 4096
"""Rows of one matrix product: their distances stay in the cache."""
ROWS_PER_CLUSTER = 256
"""A mean of this many rows is off by a sixteenth of the cluster's own spread; more would not show."""
START_ROWS_PER_CLUSTER = 64
"""The same for the draw of the starting centres, which Lloyd's steps then move."""
TEMPERATURE = 0.05
"""Of the transport, in mean nearest distances: rows go to one of their few nearest centres."""
SINKHORN_STEPS = 5


def kmeans(
    rows: Tensor,
    num_clusters: int,
    seed: int,
    iterations: int = 20,
    max_rows_per_cluster: int = ROWS_PER_CLUSTER,
    balance: float = 0.0,
) -> Tensor:
    """Cluster centres.

    Args:
        rows: (N, d) float.
        num_clusters: K.
        seed: Of the starting centres and of the sample.
        iterations: Lloyd steps at most; stops when no row changes its cluster.
        max_rows_per_cluster: A larger N is sampled down to this many rows a cluster.
        balance: See `size_price`; 0 is plain k-means.

    Returns:
        (K, d) float centres. Where there are fewer different rows than clusters some centres are equal.

    Raises:
        ValueError: If N < K.
    """
    if len(rows) < num_clusters:
        raise ValueError(
            f"k-means: {len(rows)} items cannot start {num_clusters} codes. "
            f"Set tokenizer.level_sizes to at most {len(rows)} a level, or bring more items."
        )
    generator = torch.Generator().manual_seed(seed)
    rows = _sample(rows, num_clusters * max_rows_per_cluster, generator)
    few = torch.randperm(len(rows), generator=generator)[: num_clusters * START_ROWS_PER_CLUSTER]
    return lloyd(rows, _plus_plus(rows[few.to(rows.device)], num_clusters, generator), iterations, balance)


def lloyd(rows: Tensor, centres: Tensor, iterations: int, balance: float = 0.0) -> Tensor:
    """Moves (K, d) centres to the means of the (N, d) rows assigned to them; arguments as for `kmeans`."""
    previous, price = None, rows.new_zeros(len(centres))
    for _ in range(iterations):
        assigned, distance, wanted = _assign(rows, centres, price, balance)
        if previous is not None and torch.equal(assigned, previous):
            break
        centres = _means(rows, assigned, distance, centres)
        previous, price = assigned, wanted
    return centres


def size_price(distances: Tensor, balance: float) -> Tensor:
    """What each centre adds to its distances so that rows leave the crowded ones: (K,) float.

    `balance` times the prices at which an optimal transport with entropy hands every centre the same number of
    rows; 0 makes all prices 0, and 1 nearly evens the sizes out.

    Source: Cuturi, "Sinkhorn Distances" (2013); for clusters Asano et al. (2020), section 3.2.

    Args:
        distances: (N, K) float, squared.
        balance: Strength, 0 to 1.
    """
    nearest_distance = distances.min(dim=1, keepdim=True).values
    temperature = (TEMPERATURE * nearest_distance.mean()).clamp_min(torch.finfo(distances.dtype).tiny)
    kernel = ((nearest_distance - distances) / temperature).exp()
    scale = torch.ones_like(kernel[0])
    for _ in range(SINKHORN_STEPS):
        mass = kernel.T @ (1.0 / (kernel @ scale))
        # A centre that no row is near to gets a large discount, not an infinite one.
        scale = scale / (scale * mass * (len(scale) / len(kernel))).clamp_min(1e-4)
    return -balance * temperature * scale.log()


def at_level(numbers: Sequence[float], level: int) -> float:
    """A level's number, where the last one holds for the levels beyond.

    >>> [at_level((0.1, 0.4), level) for level in range(3)]
    [0.1, 0.4, 0.4]
    """
    return numbers[min(level, len(numbers) - 1)]


def _sample(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:most].sort().values.to(rows.device)]


def _assign(rows: Tensor, centres: Tensor, price: Tensor, balance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's centre at these prices (N,) int64, its squared distance (N,), and the next prices (K,)."""
    codes, own, wanted = [], [], torch.zeros_like(price)
    for chunk in rows.split(CHUNK):
        distances = squared_distances(chunk, centres).clamp_min(0)
        if balance:
            wanted += size_price(distances, balance) * (len(chunk) / len(rows))
        code = lowest(distances + price)
        codes.append(code)
        own.append(distances.gather(1, code.unsqueeze(1)).squeeze(1))
    return torch.cat(codes), torch.cat(own), wanted


def _plus_plus(rows: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """Starting centres by k-means++ (Arthur and Vassilvitskii 2007): far rows are likelier."""
    first = int(torch.randint(len(rows), (1,), generator=generator))
    norms = rows.square().sum(dim=1)

    def distances(row: int) -> Tensor:
        return torch.addmv(norms + norms[row], rows, rows[row], alpha=-2.0).clamp_min_(0)

    closest = distances(first)
    chosen = [first]
    for _ in range(num_clusters - 1):
        # float64 on the CPU: one generator serves every device, and the sum stays exact enough.
        cumulative = closest.double().cpu().cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
        row = min(int(torch.searchsorted(cumulative, draw, right=True)), len(rows) - 1)
        chosen.append(row)
        closest = torch.minimum(closest, distances(row))
    return rows[torch.tensor(chosen, device=rows.device)].clone()


def _means(rows: Tensor, assigned: Tensor, distance: Tensor, centres: Tensor) -> Tensor:
    """The clusters' means; a cluster left empty takes one of the rows that are served worst."""
    counts = torch.bincount(assigned, minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, assigned, rows)
    means = sums / counts.clamp_min(1).unsqueeze(1)
    empty = (counts == 0).nonzero().squeeze(1)
    if len(empty):
        means[empty] = rows[distance.argsort(descending=True, stable=True)[: len(empty)]]
    return means


def sample_rows(vectors: np.ndarray, level_sizes: tuple[int, ...], seed: int) -> np.ndarray:
    """At most four times the rows that `kmeans` reads for the largest level, in the order they stand.

    Each level draws its own rows from these; what a catalog of millions holds beyond them would cost memory
    and no centre would show it.
    """
    most = 4 * ROWS_PER_CLUSTER * max(level_sizes)
    if len(vectors) <= most:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), most, replace=False))]


def residual_kmeans(
    rows: Tensor,
    level_sizes: tuple[int, ...],
    seed: int,
    iterations: int = 20,
    balance: Sequence[float] = (0.0,),
) -> list[Tensor]:
    """Codebooks level by level, each fitted to the residuals that the levels before it leave.

    Args:
        rows: (N, d) float.
        level_sizes: Codes a level.
        seed: Level l uses seed + l.
        iterations: Lloyd steps a level.
        balance: Of each level; the last number holds for the levels beyond it.

    Returns:
        One (K, d) float a level.
    """
    codebooks = []
    residual = rows
    for level, size in enumerate(level_sizes):
        codebook = kmeans(residual, size, seed + level, iterations, balance=at_level(balance, level))
        codebooks.append(codebook)
        residual = _left_over(residual, codebook)
    return codebooks


def refine(
    rows: Tensor, codebooks: Sequence[Tensor], iterations: int, balance: Sequence[float], start: int = 0
) -> list[Tensor]:
    """`residual_kmeans` from codebooks that are nearly right: Lloyd steps a level, on all (N, d) rows.

    Levels before `start` stay as they are.
    """
    refined = []
    residual = rows
    for level, codebook in enumerate(codebooks):
        if level >= start:
            codebook = lloyd(residual, codebook, iterations, at_level(balance, level))
        refined.append(codebook)
        residual = _left_over(residual, codebook)
    return refined


def _left_over(rows: Tensor, codebook: Tensor) -> Tensor:
    return rows - torch.cat([codebook[nearest(chunk, codebook)] for chunk in rows.split(CHUNK)])
