"""Nearest products by content, by rows at a time: no N x N matrix is ever held."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

ROWS_AT_ONCE = 1024
WINDOW = 5
"""Steps within a history that count as near."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other products of N.

    Attributes:
        item_index: (N, k) int64, nearest first, -1 beyond the last.
        weight: (N, k) float32: a cosine, or whatever the nearness is measured in; 0 where there is none.
    """

    item_index: np.ndarray
    weight: np.ndarray


def nearest(vectors: np.ndarray, k: int) -> Neighbours:
    """By cosine; a product whose vector is zero has no neighbours and is nobody's.

    Args:
        vectors: (N, D) float32 of length 1, or 0.
        k: Neighbours a product; fewer where there are not so many products.
    """
    num, rows = len(vectors), torch.from_numpy(np.ascontiguousarray(vectors))
    blank = torch.from_numpy(~vectors.any(axis=1))
    k = min(k, num - 1)
    index, cosine = np.empty((num, k), np.int64), np.empty((num, k), np.float32)
    for start in tqdm(range(0, num, ROWS_AT_ONCE), desc="nearest products", unit="block", disable=None):
        block = rows[start : start + ROWS_AT_ONCE] @ rows.T
        block[:, blank] = -2.0
        block[torch.arange(len(block)), torch.arange(start, start + len(block))] = -3.0
        block[blank[start : start + ROWS_AT_ONCE]] = -2.0
        best = block.topk(k)
        index[start : start + len(block)] = best.indices.numpy()
        cosine[start : start + len(block)] = best.values.numpy()
    none = cosine < -1.5
    return Neighbours(np.where(none, -1, index), np.where(none, 0.0, cosine).astype(np.float32))


def bought_together(values: np.ndarray, rows: np.ndarray, num_items: int, k: int) -> Neighbours:
    """Products that stand near each other in training histories, often for how often either is bought.

    Args:
        values: (T,) int64 item_index, histories end to end, oldest first.
        rows: (T,) int64 history of each.
        num_items: N.
        k: Neighbours a product.
    """
    from scipy import sparse

    first, second = [], []
    for step in range(1, WINDOW + 1):
        same = rows[step:] == rows[:-step]
        first.append(values[:-step][same])
        second.append(values[step:][same])
    a, b = np.concatenate(first), np.concatenate(second)
    pairs = sparse.coo_matrix((np.ones(2 * len(a), np.float32), (np.r_[a, b], np.r_[b, a])), (num_items,) * 2)
    near = pairs.tocsr()
    near.setdiag(0)
    near.eliminate_zeros()
    # A few purchases of either say little of both.
    scale = sparse.diags(1 / np.sqrt(np.bincount(values, minlength=num_items) + 5.0))
    near = (scale @ near @ scale).tocsr()
    near.sort_indices()  # equals: the lower item first
    index = np.full((num_items, k), -1, np.int64)
    weight = np.zeros((num_items, k), np.float32)
    for item in range(num_items):
        own = slice(near.indptr[item], near.indptr[item + 1])
        best = np.argsort(-near.data[own], kind="stable")[:k]
        index[item, : len(best)], weight[item, : len(best)] = near.indices[own][best], near.data[own][best]
    return Neighbours(index, weight)
