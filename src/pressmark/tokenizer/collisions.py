"""Every item its own SID: who moves where when several items have the same nearest codes.

`relocate` keeps the number of levels. Within a cell (the items that share all codes but the last) it is an
assignment problem, solved exactly. `suffix` adds a level that numbers the items of a shared SID.
Both depend on the items' latents alone, not on the order in which they come. SIDs that are taken stay: items
that come later, above all the cold ones of an evaluation, must not move those that were there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from pressmark.tokenizer.quantizer import prefix_number, quantize_rows


@dataclass(frozen=True)
class Resolution:
    """SIDs without collisions.

    Attributes:
        sids: (N, L) int64; (N, L + 1) with a suffix level.
        level_sizes: Codes a level.
        moved: (N,) bool: items whose codes are not their nearest ones.
        extra_distance: (N,) float32: by how much the squared distance between latent and coded sum grew.
    """

    sids: np.ndarray
    level_sizes: tuple[int, ...]
    moved: np.ndarray
    extra_distance: np.ndarray

    @property
    def share_relocated(self) -> float:
        """Share of items that moved."""
        return float(self.moved.mean()) if len(self.moved) else 0.0


def unmoved(sids: np.ndarray, level_sizes: tuple[int, ...]) -> Resolution:
    """SIDs (N, L) int64 that stay as they are, shared ones too."""
    return Resolution(sids, level_sizes, np.zeros(len(sids), bool), np.zeros(len(sids), np.float32))


def relocate(
    latents: np.ndarray, codes: np.ndarray, codebooks: Sequence[np.ndarray], taken: np.ndarray | None = None
) -> Resolution:
    """Gives every item its own SID without further levels.

    1. From the first level down: where more items share a prefix than SIDs begin with it, the items that
       lose least by it move to the nearest sibling prefix with room, and are coded afresh below it.
    2. In each cell the items that share a SID are assigned to the codes that they hold and the codes that
       are free, at the least sum of squared distances. Items alone on their code stay.

    Args:
        latents: (N, d) float32.
        codes: (N, L) int64, nearest codes.
        codebooks: L arrays (K, d) float32.
        taken: (M, L) int64 distinct SIDs that other items have and keep.

    Raises:
        ValueError: If there are more items than SIDs.
    """
    level_sizes = tuple(len(book) for book in codebooks)
    taken = codes[:0] if taken is None else taken
    _check_capacity(len(codes) + len(taken), level_sizes)
    order = _canonical_order(latents)
    # The items that may move first: whatever has no row in `rows` stays.
    sids, rows = np.concatenate([codes[order], taken]), latents[order]
    for level in range(len(level_sizes) - 1):
        _drain_full_prefixes(rows, sids, codebooks, level)
    _spread_cells(rows, sids, codebooks)

    back = np.argsort(order)
    sids = sids[back]
    return Resolution(
        sids, level_sizes, (sids != codes).any(axis=1), _extra_distance(latents, sids, codes, codebooks)
    )


def suffix(
    latents: np.ndarray, codes: np.ndarray, codebooks: Sequence[np.ndarray], taken: np.ndarray | None = None
) -> Resolution:
    """Appends a level that numbers the items of a shared SID, nearest first.

    The level is there even when no SID is shared, with one code. Its codebook is all zeros: it says nothing
    about the content.

    Args:
        latents: (N, d) float32.
        codes: (N, L) int64, nearest codes.
        codebooks: L arrays (K, d) float32.
        taken: (M, L + 1) int64 SIDs that other items have and keep; numbers go on behind theirs.
    """
    taken = np.empty((0, codes.shape[1] + 1), np.int64) if taken is None else taken
    order = _canonical_order(latents)
    residual = latents[order] - _summed(codes[order], codebooks)
    both = prefix_number(np.concatenate([codes[order], taken[:, :-1]]))
    sid, sid_taken = both[: len(order)], both[len(order) :]
    near_first = np.lexsort((np.arange(len(sid)), np.square(residual, dtype=np.float64).sum(axis=1), sid))
    counts = np.bincount(sid, minlength=int(both.max(initial=-1)) + 1)
    first = np.zeros(len(counts), np.int64)
    np.maximum.at(first, sid_taken, taken[:, -1] + 1)
    number = np.empty(len(sid), np.int64)
    number[order[near_first]] = np.arange(len(sid)) + np.repeat(first - np.cumsum(counts) + counts, counts)
    level_sizes = (*(len(book) for book in codebooks), int((first + counts).max(initial=1)))
    unmoved = np.zeros(len(codes), bool)
    return Resolution(np.column_stack([codes, number]), level_sizes, unmoved, unmoved.astype(np.float32))


def _check_capacity(num_items: int, level_sizes: Sequence[int]) -> None:
    if num_items <= math.prod(level_sizes):
        return
    needed = math.ceil(num_items / math.prod(level_sizes[:-1]))
    raise ValueError(
        f"{num_items} items need their own SIDs, but level sizes {tuple(level_sizes)} make only "
        f"{math.prod(level_sizes)}. Set the last of tokenizer.level_sizes to {needed} or more, add a level, "
        "or set tokenizer.collisions suffix."
    )


def _canonical_order(latents: np.ndarray) -> np.ndarray:
    """Rows sorted by their bytes: ties in an assignment must not be broken by the order of arrival.

    Only items with equal latents are told apart by their row, which is the order of item_id.
    """
    rows = np.ascontiguousarray(latents)
    return rows.view(f"V{rows.dtype.itemsize * rows.shape[1]}").ravel().argsort(kind="stable")


def _summed(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros((len(codes), codebooks[0].shape[1]), np.float32)
    for level in range(codes.shape[1]):
        total += codebooks[level][codes[:, level]]
    return total


def _distances(rows: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """(n, K) float32 squared distances, without a matrix product, whose rounding depends on the other rows."""
    out = np.empty((len(rows), len(entries)), np.float32)
    step = max(1, 2**18 // entries.size)  # differences that stay in the cache
    for start in range(0, len(rows), step):
        difference = rows[start : start + step, None] - entries
        np.einsum("nkd,nkd->nk", difference, difference, out=out[start : start + step])
    return out


def _extra_distance(
    latents: np.ndarray, sids: np.ndarray, codes: np.ndarray, codebooks: Sequence[np.ndarray]
) -> np.ndarray:
    extra = np.zeros(len(latents), np.float32)
    moved = np.flatnonzero((sids != codes).any(axis=1))
    now = np.square(latents[moved] - _summed(sids[moved], codebooks)).sum(axis=1)
    extra[moved] = now - np.square(latents[moved] - _summed(codes[moved], codebooks)).sum(axis=1)
    return extra


def _drain_full_prefixes(
    rows: np.ndarray, sids: np.ndarray, codebooks: Sequence[np.ndarray], level: int
) -> None:
    """Moves items, in place, until no prefix of `level` + 1 codes has more items than SIDs.

    Only the items that stand first in `sids`, those with a row in `rows`, may move; here and below.
    """
    num_children = len(codebooks[level])
    capacity = math.prod(len(book) for book in codebooks[level + 1 :])
    if len(sids) <= capacity:
        return
    parent = prefix_number(sids[:, :level])
    key = parent * num_children + sids[:, level]
    full = np.flatnonzero(np.bincount(key) > capacity)
    for one in np.unique(full // num_children):
        members = np.flatnonzero(parent == one)
        _drain(rows, sids, codebooks, level, members, capacity)


def _drain(
    rows: np.ndarray,
    sids: np.ndarray,
    codebooks: Sequence[np.ndarray],
    level: int,
    members: np.ndarray,
    capacity: int,
) -> None:
    """Settles the items of one parent prefix: cheapest moves first."""
    room = capacity - np.bincount(sids[members, level], minlength=len(codebooks[level]))
    crowded = members[(room[sids[members, level]] < 0) & (members < len(rows))]
    residual = rows[crowded] - _summed(sids[crowded, :level], codebooks)
    distances = _distances(residual, codebooks[level])
    own = sids[crowded, level]
    cost = distances - distances[np.arange(len(crowded)), own][:, None]
    cost[:, room <= 0] = np.inf
    settled = np.zeros(len(crowded), bool)
    excess = -int(room[room < 0].sum())
    moved: list[int] = []
    for place in np.argsort(cost, axis=None, kind="stable"):
        item, child = divmod(int(place), cost.shape[1])
        if len(moved) == excess:
            break
        if not settled[item] and room[own[item]] < 0 and room[child] > 0:
            settled[item] = True
            room[own[item]] += 1
            room[child] -= 1
            sids[crowded[item], level] = child
            moved.append(item)
    below = residual[moved] - codebooks[level][sids[crowded[moved], level]]
    sids[crowded[moved], level + 1 :] = quantize_rows(below, codebooks[level + 1 :])


def _spread_cells(rows: np.ndarray, sids: np.ndarray, codebooks: Sequence[np.ndarray]) -> None:
    """Assigns, in place, the items that share a SID to last codes of their own."""
    sid, cell = prefix_number(sids), prefix_number(sids[:, :-1])
    moves = (np.bincount(sid)[sid] > 1) & (np.arange(len(sids)) < len(rows))
    if not moves.any():
        return
    residual = np.empty_like(rows)
    movers = np.flatnonzero(moves)
    residual[movers] = rows[movers] - _summed(sids[movers, :-1], codebooks)
    concerned = np.flatnonzero(np.isin(cell, cell[moves]))
    concerned = concerned[np.argsort(cell[concerned], kind="stable")]
    for members in np.split(concerned, np.flatnonzero(np.diff(cell[concerned])) + 1):
        crowded = members[moves[members]]
        free = np.ones(len(codebooks[-1]), bool)
        free[sids[members[~moves[members]], -1]] = False
        candidates = np.flatnonzero(free)
        item, column = linear_sum_assignment(_distances(residual[crowded], codebooks[-1][candidates]))
        sids[crowded[item], -1] = candidates[column]
