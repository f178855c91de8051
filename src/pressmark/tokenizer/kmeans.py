"""Lloyd's k-means in torch: seeded, without empty clusters, the same result every time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pressmark.tokenizer.residual import nearest

CHUNK = 4096
"""Rows of one matrix product: their distances stay in the cache."""
ROWS_PER_CLUSTER = 256
"""A mean of this many rows is off by a sixteenth of the cluster's own spread; more would not show."""
START_ROWS_PER_CLUSTER = 64
"""The same for the draw of the starting centres, which Lloyd's steps then move."""


def kmeans(
    rows: Tensor,
    num_clusters: int,
    seed: int,
    iterations: int = 20,
    max_rows_per_cluster: int = ROWS_PER_CLUSTER,
) -> Tensor:
    """Cluster centres.

    Args:
        rows: (N, d) float.
        num_clusters: K.
        seed: Of the starting centres and of the sample.
        iterations: Lloyd steps at most; stops when no row changes its cluster.
        max_rows_per_cluster: A larger N is sampled down to this many rows a cluster.

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
    if len(rows) > num_clusters * max_rows_per_cluster:
        chosen = torch.randperm(len(rows), generator=generator)[: num_clusters * max_rows_per_cluster]
        rows = rows[chosen.sort().values.to(rows.device)]
    few = torch.randperm(len(rows), generator=generator)[: num_clusters * START_ROWS_PER_CLUSTER]
    centres = _plus_plus(rows[few.to(rows.device)], num_clusters, generator)
    previous = None
    for _ in range(iterations):
        assigned = torch.cat([nearest(chunk, centres) for chunk in rows.split(CHUNK)])
        if previous is not None and torch.equal(assigned, previous):
            break
        centres = _means(rows, assigned, centres)
        previous = assigned
    return centres


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


def _means(rows: Tensor, assigned: Tensor, centres: Tensor) -> Tensor:
    """The clusters' means; a cluster left empty takes one of the rows that are served worst."""
    counts = torch.bincount(assigned, minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, assigned, rows)
    means = sums / counts.clamp_min(1).unsqueeze(1)
    empty = (counts == 0).nonzero().squeeze(1)
    if len(empty):
        distance = torch.cat(
            [
                (chunk - centres[own]).square().sum(dim=1)
                for chunk, own in zip(rows.split(CHUNK), assigned.split(CHUNK), strict=True)
            ]
        )
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
    rows: Tensor, level_sizes: tuple[int, ...], seed: int, iterations: int = 20
) -> list[Tensor]:
    """Codebooks level by level, each fitted to the residuals that the levels before it leave.

    Args:
        rows: (N, d) float.
        level_sizes: Codes a level.
        seed: Level l uses seed + l.
        iterations: Lloyd steps a level.

    Returns:
        One (K, d) float a level.
    """
    codebooks = []
    residual = rows
    for level, size in enumerate(level_sizes):
        codebook = kmeans(residual, size, seed + level, iterations)
        codebooks.append(codebook)
        residual = residual - torch.cat([codebook[nearest(chunk, codebook)] for chunk in residual.split(CHUNK)])
    return codebooks
