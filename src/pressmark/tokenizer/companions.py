"""Who comes with whom: for every item its nearest ones by content, or those bought with it.

Both are lists of items in the shape of `Histories`: the companions of item i are
values[offsets[i]:offsets[i + 1]].
"""

from __future__ import annotations

import numpy as np
import torch

from pressmark.catalog.embeddings import unit_rows
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.kmeans import kmeans
from pressmark.tokenizer.quantizer import CHUNK
from pressmark.tokenizer.residual import squared_distances

# Up to this many items every pair is looked at; above, the pairs within cells of about CELL items.
EXACT = 50_000
CELL = 1_000


def neighbours(vectors: np.ndarray, items: np.ndarray, count: int, min_cosine: float, seed: int) -> Histories:
    """The nearest items of `items` by cosine, among `items`.

    Exact up to 50,000 items. Beyond, an item looks at the items that share one of its two nearest cells out of
    len(items) / 1,000 k-means cells: near duplicates lie in the same cells, and others do not matter here.

    Args:
        vectors: (N, D) float32 of the catalog; rows of zeros have no neighbours.
        items: (n,) int64 item_index.
        count: Most neighbours of an item.
        min_cosine: Items further away are none.
        seed: Of the cells.

    Returns:
        N lists, empty for items outside `items`.
    """
    units = torch.from_numpy(unit_rows(vectors[items]))
    count = min(count, len(items) - 1)
    found = np.full((len(items), count), -1, np.int64)
    if count > 0:
        for asking, among in _blocks(units, seed):
            for rows in np.array_split(asking, -(-len(asking) // CHUNK)):
                cosine = units[rows] @ units[among].T
                cosine[torch.from_numpy(rows[:, None] == among[None, :])] = -1.0
                width = min(count, len(among))
                best = cosine.topk(width, dim=1)
                near = np.where(best.values.numpy() >= min_cosine, among[best.indices.numpy()], -1)
                found[rows, :width] = near
    kept = found >= 0
    sizes = np.zeros(len(vectors), np.int64)
    sizes[items] = kept.sum(axis=1)
    by_item = np.argsort(items, kind="stable")
    values = items[found[by_item][kept[by_item]]]
    return Histories(values, np.concatenate([[0], np.cumsum(sizes)]))


def _blocks(units: torch.Tensor, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows that ask, and the rows that each block of them is compared with."""
    everyone = np.arange(len(units))
    if len(units) <= EXACT:
        return [(everyone, everyone)]
    centres = kmeans(units, len(units) // CELL, seed, iterations=5, max_rows_per_cluster=64)
    two = torch.cat(
        [(-squared_distances(chunk, centres)).topk(2, dim=1).indices for chunk in units.split(CHUNK)]
    ).numpy()
    cells = np.arange(len(centres) + 1)
    first = np.argsort(two[:, 0], kind="stable")
    begin = np.searchsorted(two[first, 0], cells)
    both = np.argsort(two.T.ravel(), kind="stable") % len(units)
    start = np.concatenate([[0], np.cumsum(np.bincount(two.ravel(), minlength=len(centres)))])
    return [
        (first[begin[cell] : begin[cell + 1]], np.unique(both[start[cell] : start[cell + 1]]))
        for cell in cells[:-1]
        if begin[cell] < begin[cell + 1]
    ]


def bought_together(histories: Histories, num_items: int, items: np.ndarray) -> Histories:
    """The items that stand straight before or after each item in training histories.

    Args:
        histories: Training sequences of item_index.
        num_items: N, items of the catalog.
        items: (n,) int64: only pairs of these count.

    Returns:
        N lists; an item stands in a list as often as the two met, so that a random draw follows the counts.
    """
    owner = histories.row_of_value()
    last = np.append(owner[1:] != owner[:-1], True)
    first, second = histories.values[:-1][~last[:-1]], histories.values[1:][~last[:-1]]
    allowed = np.zeros(num_items, bool)
    allowed[items] = True
    kept = allowed[first] & allowed[second] & (first != second)
    one = np.concatenate([first[kept], second[kept]])
    other = np.concatenate([second[kept], first[kept]])
    order = np.argsort(one, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(one, minlength=num_items))])
    return Histories(other[order], offsets)


def pair_matrix(lists: Histories, items: np.ndarray) -> np.ndarray:
    """(B, B) bool: whether item j of a batch stands in item i's list.

    Args:
        lists: N lists.
        items: (B,) int64 item_index, each once.
    """
    place = np.full(len(lists), -1, np.int64)
    place[items] = np.arange(len(items))
    own = lists.take(items)
    row, column = own.row_of_value(), place[own.values]
    matrix = np.zeros((len(items), len(items)), bool)
    matrix[row[column >= 0], column[column >= 0]] = True
    return matrix
