"""Where the rows of new tokens start: from the codebooks' geometry, in the scale of the rows that are there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def drawn_rows(known: Tensor, num: int) -> Tensor:
    """(num, D) random rows with the mean and the scale of known ones (V, D)."""
    mean, std = _mean_and_std(known)
    return mean + std * torch.randn(num, known.shape[1], dtype=known.dtype)


def rows_of_codebooks(known: Tensor, codebooks: Sequence[np.ndarray], axes: Tensor) -> Tensor:
    """A row for each code: its codebook entry, turned into the embedding space.

    Entries are centred a level and spread as the known rows are about their mean, so that near codes are near
    and a norm tells no code from a word. A level whose entries are all alike (a suffix level) is drawn.

    Args:
        known: (V, D) float32 rows of the vocabulary that was pretrained.
        codebooks: L arrays (K, d) float32, the effective codebooks.
        axes: (d, D), from `axes_for`.

    Returns:
        (sum of K, D) float32, level after level.
    """
    mean, std = _mean_and_std(known)
    rows = []
    for book in codebooks:
        turned = torch.from_numpy(book - book.mean(axis=0)).to(known.dtype) @ axes
        spread = turned.square().mean().sqrt()
        rows.append(mean + turned * (std / spread) if spread > 0 else drawn_rows(known, len(book)))
    return torch.cat(rows)


def axes_for(codebooks: Sequence[np.ndarray], width: int) -> Tensor:
    """(d, width) orthonormal directions: a drawn rotation, of principal axes where d > width.

    One for all levels: entries of two levels stand to each other as in the tokenizer's space.
    """
    centred = np.concatenate([book - book.mean(axis=0) for book in codebooks])
    dim = centred.shape[1]
    kept = torch.eye(dim)
    if dim > width:
        kept = torch.linalg.svd(torch.from_numpy(centred), full_matrices=False).Vh[:width].T
    drawn = torch.linalg.qr(torch.randn(width, kept.shape[1])).Q
    return kept @ drawn.T


def _mean_and_std(known: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) mean of rows (V, D), and the root of the mean square about it, one number."""
    mean = known.mean(0)
    return mean, (known - mean).square().mean().sqrt()
