"""Hierarchical batches: so that the contrastive loss meets same-leaf, sibling and unrelated pairs in each.

Drawn uniformly from a large catalog, nearly all pairs of a batch are unrelated. Here a batch is built from
the tree: part of it comes from the children of randomly drawn parent categories, part from categories of
other top levels, several products from each leaf; the rest is a plain shuffle.

Source: the hierarchical batch sampling of seed 001 ("pick a parent, half from its children, half from
unrelated categories, several products a slot"). We add the shuffled part, which shows every item, those
without category too, once an epoch; and several small parents share a batch that one could not fill.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pressmark.catalog.taxonomy import COUSIN, SAME_LEAF, SIBLING, UNKNOWN, UNRELATED, Taxonomy


@dataclass(frozen=True)
class Config:
    """How a batch is put together."""

    sibling_share: float = 0.5
    """Share of a batch drawn from the child leaves of parent categories."""
    uniform_share: float = 0.25
    """Share drawn by a plain shuffle of all items. An epoch lasts until that shuffle has shown every item once.
    What is left of the batch comes from categories unrelated to the parents. 1 gives ordinary shuffling."""
    products_per_slot: int = 4
    """Products taken from one leaf."""
    slots_per_parent: int = 8
    """Leaves taken from one parent; further parents are drawn until the share is filled."""
    parent_size_power: float = 0.5
    """A parent is drawn with weight size ** power: 0 draws all parents alike, 1 by their number of products."""
    leaf_size_power: float = 0.5
    """The same for leaves, so that huge leaves do not make all the same-leaf pairs."""

    def __post_init__(self) -> None:
        if not (0 <= self.sibling_share <= 1 and 0 < self.uniform_share <= 1):
            raise ValueError(
                f"tokenizer.sampler: sibling_share ({self.sibling_share}) must lie in 0..1 and uniform_share "
                f"({self.uniform_share}) above 0 and up to 1."
            )
        if self.sibling_share + self.uniform_share > 1 and self.uniform_share < 1:
            raise ValueError(
                f"tokenizer.sampler: sibling_share ({self.sibling_share}) + uniform_share "
                f"({self.uniform_share}) is above 1; a batch cannot hold more."
            )
        if self.products_per_slot < 2 or self.slots_per_parent < 2:
            raise ValueError(
                f"tokenizer.sampler: products_per_slot ({self.products_per_slot}) and slots_per_parent "
                f"({self.slots_per_parent}) must be at least 2, else there are no positive pairs."
            )


class HierarchicalSampler:
    """Plans epochs of global batches. The same (seed, epoch) gives the same batches on every process.

    Args:
        taxonomy: The tree over the whole catalog.
        items: (n,) int64 item_index of the items to train on.
        batch_size: Items a batch; smaller catalogs make one batch of all their items.
        config: Shares and slots.
        seed: Of every draw.

    Raises:
        ValueError: If there are no items.
    """

    def __init__(
        self, taxonomy: Taxonomy, items: np.ndarray, batch_size: int, config: Config, seed: int
    ) -> None:
        if len(items) == 0:
            raise ValueError(
                "there is no item to train the tokenizer on; every item is cold or the catalog empty."
            )
        self.items = np.asarray(items, np.int64)
        self.batch_size = min(batch_size, len(items))
        self.config, self.seed = config, seed
        self._mask = np.zeros(len(taxonomy.item_leaf), bool)
        self._index_leaves(taxonomy)
        self._index_parents(taxonomy)

    def _index_leaves(self, taxonomy: Taxonomy) -> None:
        """Leaf number -> its trained items, its top-level node, its weight."""
        rows, paths = np.nonzero(taxonomy.item_leaf[self.items] >= 0)
        nodes = taxonomy.item_leaf[self.items[rows], paths]
        self.leaf_node, leaf = np.unique(nodes, return_inverse=True)
        self._pair_leaf, self._pair_item = leaf, self.items[rows]
        self.leaf_size = np.bincount(leaf, minlength=len(self.leaf_node))
        self._offsets = np.concatenate([[0], np.cumsum(self.leaf_size)])
        self._top = np.empty(len(self.leaf_node), np.int64)
        self._top[leaf] = taxonomy.item_nodes[self.items[rows], paths, 0]
        self._leaf_log_weight = self.config.leaf_size_power * np.log(self.leaf_size)
        # Leaves of every top level but one: where the products unrelated to a parent come from.
        weight = np.exp(self._leaf_log_weight)
        self._elsewhere = {int(top): np.cumsum(weight * (self._top != top)) for top in np.unique(self._top)}

    def _index_parents(self, taxonomy: Taxonomy) -> None:
        """Parents with at least two child leaves, one of which has two products.

        Else parents with two leaves; else each leaf alone, which at least gives same-leaf pairs.
        """
        parent = taxonomy.parent[self.leaf_node]
        groups = [np.flatnonzero(parent == node) for node in np.unique(parent[parent >= 0])]
        groups = [leaves for leaves in groups if len(leaves) >= 2]
        alone = list(np.arange(len(self.leaf_node))[:, None])
        self._children = [leaves for leaves in groups if self.leaf_size[leaves].max() >= 2] or groups or alone
        size = np.array([self.leaf_size[leaves].sum() for leaves in self._children], np.float64)
        self._parent_log_weight = self.config.parent_size_power * np.log(size)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The epoch's global batches: int64 item_index, all of one length, no item twice in a batch."""
        rng = np.random.default_rng((self.seed, epoch))
        shuffled = rng.permutation(self.items)
        has_tree = len(self.leaf_node) > 0 and self.batch_size < len(self.items)
        width = max(1, round(self.config.uniform_share * self.batch_size)) if has_tree else self.batch_size
        # Each epoch shuffles the items within their leaf; a slot then takes a run from a random start.
        order = np.lexsort((rng.random(len(self._pair_item)), self._pair_leaf))
        members = self._pair_item[order]
        batches = []
        for start in range(0, len(shuffled), width):
            run = np.take(shuffled, np.arange(start, start + width), mode="wrap")
            batches.append(self._batch(rng, run, members, shuffled) if width < self.batch_size else run)
        return batches

    def _batch(
        self, rng: np.random.Generator, run: np.ndarray, members: np.ndarray, filler: np.ndarray
    ) -> np.ndarray:
        taken = [run]
        self._mask[run] = True
        siblings, parents = self._siblings(rng, members)
        room = self.batch_size - len(run) - sum(map(len, siblings))
        unrelated = self._unrelated(rng, members, parents, room)
        taken += siblings + unrelated
        room -= sum(map(len, unrelated))
        if room:  # the tree ran out of products: fill up with any
            free = filler[~self._mask[filler]]
            taken.append(rng.choice(free, room, replace=False))
        batch = np.concatenate(taken)
        self._mask[batch] = False
        return batch

    def _siblings(self, rng: np.random.Generator, members: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
        """Products of the children of random parents, and the top level of each parent drawn."""
        quota = round(self.config.sibling_share * self.batch_size)
        taken: list[np.ndarray] = []
        tops: list[int] = []
        for number in np.argsort(-(self._parent_log_weight + rng.gumbel(size=len(self._children)))):
            if quota <= 0:
                break
            leaves = self._children[number]
            keys = self._leaf_log_weight[leaves] + rng.gumbel(size=len(leaves))
            # One leaf with two products first, so that even a tiny share has a same-leaf pair.
            first = int(np.where(self.leaf_size[leaves] >= 2, keys, -np.inf).argmax())
            keys[first] = np.inf
            for leaf in leaves[np.argsort(-keys)[: self.config.slots_per_parent]]:
                # Half of a small quota is left for a second leaf.
                most = max(2, quota // 2) if not taken else quota
                slot = self._slot(rng, members, leaf, min(self.config.products_per_slot, most, quota))
                taken.append(slot)
                quota -= len(slot)
            tops.append(int(self._top[leaves[0]]))
        return taken, tops

    def _unrelated(
        self, rng: np.random.Generator, members: np.ndarray, parent_tops: list[int], quota: int
    ) -> list[np.ndarray]:
        """Products of leaves in other top levels than the parents', each parent in turn."""
        taken: list[np.ndarray] = []
        misses = 0
        for top in itertools.cycle(parent_tops or [-1]):
            cumulative = self._elsewhere.get(top, np.empty(0))
            if quota <= 0 or misses > 8 or not len(cumulative) or cumulative[-1] <= 0:
                return taken
            leaf = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            slot = self._slot(
                rng, members, min(leaf, len(cumulative) - 1), min(self.config.products_per_slot, quota)
            )
            misses = 0 if len(slot) else misses + 1
            taken.append(slot)
            quota -= len(slot)
        return taken

    def _slot(self, rng: np.random.Generator, members: np.ndarray, leaf: int, count: int) -> np.ndarray:
        """Up to `count` products of a leaf that the batch does not hold yet."""
        start, size = self._offsets[leaf], self.leaf_size[leaf]
        run = start + (rng.integers(size) + np.arange(min(size, 2 * count))) % size
        items = members[run]
        items = items[~self._mask[items]][:count]
        self._mask[items] = True
        return items


def pair_counts(taxonomy: Taxonomy, batches: Iterable[np.ndarray]) -> dict[str, list[int]]:
    """Unordered pairs of each class, one number a batch.

    Returns:
        same_leaf, sibling, cousin, unrelated, unknown (an item without category).
    """
    names = {
        "same_leaf": SAME_LEAF, "sibling": SIBLING, "cousin": COUSIN, "unrelated": UNRELATED, "unknown": UNKNOWN
    }  # fmt: skip
    counts: dict[str, list[int]] = {name: [] for name in names}
    for batch in batches:
        left, right = np.triu_indices(len(batch), k=1)
        relation = taxonomy.relation(batch[left], batch[right])
        for name, constant in names.items():
            counts[name].append(int((relation == constant).sum()))
    return counts


def equal_shares(batches: Sequence[np.ndarray], num_processes: int) -> list[np.ndarray]:
    """Drops the few last items of a batch that would give processes unequal shares."""
    return [batch[: len(batch) - len(batch) % num_processes] for batch in batches]
