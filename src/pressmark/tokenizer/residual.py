"""Residual quantization: a vector becomes one code a level, each level coding what the last left over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def squared_distances(rows: Tensor, codebook: Tensor) -> Tensor:
    """Squared Euclidean distances, with gradient to both sides.

    Written as x^2 - 2xc + c^2: one matrix product, and `torch.export` cannot take `torch.cdist`.

    Args:
        rows: (N, d) float.
        codebook: (K, d) float.

    Returns:
        (N, K) float. Rounding may leave values a little below zero.
    """
    norms = rows.square().sum(dim=1, keepdim=True)
    return torch.addmm(norms + codebook.square().sum(dim=1), rows, codebook.T, alpha=-2.0)


def nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """The nearest codebook entry of each row: (N,) int64; of equals the lowest code."""
    # x^2 is the same for all entries of a row.
    return lowest(torch.addmm(codebook.square().sum(dim=1), rows, codebook.T, alpha=-2.0))


def lowest(distances: Tensor) -> Tensor:
    """`argmin(dim=1)` without gradient: (N, K) float -> (N,) int64; of equals the lowest code."""
    distances = distances.detach()
    if distances.device.type != "cpu" or torch.compiler.is_compiling():
        return distances.argmin(dim=1)
    return torch.from_numpy(distances.numpy().argmin(axis=1))  # six times as fast as torch's, and the same


def quantize(latents: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Greedy residual quantization.

    Args:
        latents: (N, d) float.
        codebooks: One (K, d) float a level.

    Returns:
        (N, L) int64 codes, coarse to fine.

    >>> books = [torch.tensor([[0.0], [10.0]]), torch.tensor([[-1.0], [1.0]])]
    >>> quantize(torch.tensor([[9.2], [0.4]]), books).tolist()
    [[1, 0], [0, 1]]
    """
    codes = []
    residual = latents
    for codebook in codebooks:
        code = nearest(residual, codebook)
        codes.append(code)
        if len(codes) < len(codebooks):
            residual = residual - codebook.index_select(0, code)
    return torch.stack(codes, dim=1)


def dequantize(codes: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """The sum of the coded entries: (N, L) int64 -> (N, d) float. Fewer codes than levels is a prefix."""
    total = codebooks[0][codes[:, 0]]
    for level in range(1, codes.shape[1]):
        total = total + codebooks[level][codes[:, level]]
    return total
