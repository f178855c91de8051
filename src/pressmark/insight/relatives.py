"""Whom a product's SID puts it beside: substitutes, and cousins in other categories."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pressmark.catalog.embeddings import unit_rows
from pressmark.catalog.taxonomy import COUSIN, UNRELATED, Taxonomy
from pressmark.insight.prefixes import Prefixes


def deep(num_levels: int) -> int:
    """Codes that substitutes share at least: half of them, rounded up.

    >>> [deep(levels) for levels in (2, 3, 4, 8)]
    [1, 2, 2, 4]
    """
    return -(-num_levels // 2)


def relatives(
    prefixes: Prefixes, taxonomy: Taxonomy, vectors: np.ndarray, items: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Substitutes and cousins of some items; more shared codes first, then the greater cosine.

    A substitute shares at least `deep` codes. A cousin shares at least the first code, and its category shares
    no name with the item's but, at most, one further up than the last but one; items without a category have
    none and are none. What is named as a substitute is not named again as a cousin.

    Args:
        prefixes: Of N items.
        taxonomy: Their tree.
        vectors: (N, D) float32.
        items: (n,) int64 whose relatives are wanted.
        most: How many of each.

    Returns:
        Two (n, most) int64 of item_index, padded with -1.
    """
    units = unit_rows(vectors)
    substitutes, cousins = (np.full((len(items), most), -1, np.int64) for _ in range(2))
    place = {int(item): row for row, item in enumerate(items)}
    for own, near in _by_first_code(prefixes, items):
        # In one number: codes shared weigh more than any cosine can.
        shared = _shared(prefixes.sids, own, near)
        score = 4.0 * shared + units[own] @ units[near].T
        score[own[:, None] == near[None, :]] = -np.inf
        relation = taxonomy.relation(own[:, None], near[None, :])
        rows = [place[int(one)] for one in own]
        substitutes[rows] = _best(np.where(shared >= deep(prefixes.sids.shape[1]), score, -np.inf), near, most)
        elsewhere = (relation == COUSIN) | (relation == UNRELATED)
        for named in substitutes[rows].T:
            elsewhere &= near[None, :] != named[:, None]
        cousins[rows] = _best(np.where(elsewhere, score, -np.inf), near, most)
    return substitutes, cousins


def _by_first_code(
    prefixes: Prefixes, items: np.ndarray, at_once: int = 512
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some of the items at a time, and all those with their first code."""
    code = prefixes.of_item[items, 1]
    for one in np.unique(code):
        own = items[code == one]
        for start in range(0, len(own), at_once):
            yield own[start : start + at_once], prefixes.items(int(one))


def _shared(sids: np.ndarray, own: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(a, b) how many first codes two items share."""
    shared = np.zeros((len(own), len(near)), np.float32)
    equal = np.ones(shared.shape, bool)
    for level in range(sids.shape[1]):
        equal &= sids[own, level][:, None] == sids[near, level][None, :]
        shared += equal
    return shared


def _best(score: np.ndarray, near: np.ndarray, most: int) -> np.ndarray:
    """(a, most) the best of `near` in each row, equals by their order there; -1 behind the last."""
    ranked = np.argsort(-score, axis=1, kind="stable")[:, :most]
    best = np.where(np.take_along_axis(score, ranked, axis=1) > -np.inf, near[ranked], -1)
    return np.pad(best, ((0, 0), (0, most - best.shape[1])), constant_values=-1)
