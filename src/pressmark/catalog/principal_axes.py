"""The principal axes of content vectors: where the tokenizer, the generator and the dual tower start from."""

from __future__ import annotations

import numpy as np

ROWS_AT_ONCE = 65_536
"""Vectors that are held as doubles at a time."""


def principal_axes(
    vectors: np.ndarray, mean: np.ndarray, scale: np.ndarray | float, num_axes: int
) -> tuple[np.ndarray, float]:
    """First principal axes of the standardised vectors, and the root mean square of the projections on them.

    Args:
        vectors: (N, D) float32.
        mean: (D,) float32.
        scale: (D,) float32, or one number for all.
        num_axes: d; axes beyond D are zero.

    Returns:
        (d, D) float32 orthonormal rows, each with its largest entry positive so that the sign is settled.
    """
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        chunk = ((vectors[start : start + ROWS_AT_ONCE] - mean) / scale).astype(np.float64)
        covariance += chunk.T @ chunk / len(vectors)
    values, vectors = np.linalg.eigh(covariance)
    found = vectors.T[::-1][:num_axes]
    found = found * np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])[:, None]
    axes = np.zeros((num_axes, len(mean)), np.float32)
    axes[: len(found)] = found
    return axes, float(np.sqrt(values[::-1][:num_axes].clip(min=0).mean()))
