"""Hierarchical batches: so that the contrastive loss meets same-leaf, sibling and unrelated pairs in each.

Drawn uniformly from a large catalog, nearly all pairs of a batch are unrelated. Here a batch is built from
the tree: part of it comes from the children of randomly drawn parent categories, part from categories that
are no siblings of theirs (the negatives), several products from each leaf; the rest is a plain shuffle.

Rules for trees that are not even:
- A parent is any category with two leaves straight below it. A leaf may stand at any depth, and an inner
  category with products of its own is a leaf too. Parents whose leaves all hold one product are left out as
  long as there are others: they cannot make a same-leaf pair.
- A category with one leaf has no siblings to offer: its products come by the shuffle and as negatives, or
  with `single_child: climb` as children of the nearest category above that has two leaves.
- Several small parents share a batch that one could not fill; where the tree runs out, any products do.
- Companions (near duplicates, products bought together) come with the items of the shuffled part, in place of
  negatives: without them two neighbours hardly ever meet in a batch.
- A product under several paths counts for each, so it may be closer to another than the path it was drawn by.

Source: the hierarchical batch sampling of seed 001 ("pick a parent, half from its children, half from
unrelated categories, several products a slot"), with its open caveats as options. We add the shuffled part,
which shows every item, those without category too, once an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.config import SamplerConfig


class HierarchicalSampler:
    """Plans epochs of global batches. The same (seed, epoch) gives the same batches on every process.

    Args:
        taxonomy: The tree over the whole catalog.
        items: (n,) int64 item_index of the items to train on.
        batch_size: Items a batch; smaller catalogs make one batch of all their items.
        config: Shares and slots.
        seed: Of every draw.
        companions: Lists of companions, one for each kind: for every item_index who may come with it.

    Raises:
        ValueError: If there are no items.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        items: np.ndarray,
        batch_size: int,
        config: SamplerConfig,
        seed: int,
        companions: Sequence[Histories] = (),
    ) -> None:
        if len(items) == 0:
            raise ValueError(
                "there is no item to train the tokenizer on; every item is cold or the catalog empty."
            )
        self.items = np.asarray(items, np.int64)
        self.batch_size = min(batch_size, len(items))
        self.config, self.seed = config, seed
        self._companions = companions if config.companion_share else ()
        self._mask = np.zeros(len(taxonomy.item_leaf), bool)
        self._place = np.empty(len(taxonomy.item_leaf), np.int64)
        self._index_leaves(taxonomy)
        self._index_parents(taxonomy)

    def _index_leaves(self, taxonomy: Taxonomy) -> None:
        """Leaf number -> its trained items, its parent and top-level node, its weight."""
        rows, paths = np.nonzero(taxonomy.item_leaf[self.items] >= 0)
        nodes = taxonomy.item_leaf[self.items[rows], paths]
        self.leaf_node, leaf = np.unique(nodes, return_inverse=True)
        self._pair_leaf, self._pair_item = leaf, self.items[rows]
        self.leaf_size = np.bincount(leaf, minlength=len(self.leaf_node))
        self._offsets = np.concatenate([[0], np.cumsum(self.leaf_size)])
        self._leaf_parent = taxonomy.parent[self.leaf_node]
        self._leaf_log_weight = self.config.leaf_size_power * np.log(self.leaf_size)
        self._leaf_mass = np.concatenate([[0.0], np.cumsum(np.exp(self._leaf_log_weight))])
        top = np.empty(len(self.leaf_node), np.int64)
        top[leaf] = taxonomy.item_nodes[self.items[rows], paths, 0]
        # Nodes below one follow it without a gap, and so do the leaves of a top level.
        self._top_start, self._top_stop = np.searchsorted(top, top, "left"), np.searchsorted(top, top, "right")

    def _index_parents(self, taxonomy: Taxonomy) -> None:
        """Parents with at least two child leaves, one of which has two products.

        Else parents with two leaves; else each leaf alone, which at least gives same-leaf pairs.
        """
        parent = self._leaf_parent.copy()
        if self.config.single_child == "climb":
            _climb(parent, taxonomy)
        groups = [np.flatnonzero(parent == node) for node in np.unique(parent[parent >= 0])]
        groups = [leaves for leaves in groups if len(leaves) >= 2]
        alone = list(np.arange(len(self.leaf_node))[:, None])
        self._children = [leaves for leaves in groups if self.leaf_size[leaves].max() >= 2] or groups or alone
        size = np.array([self.leaf_size[leaves].sum() for leaves in self._children], np.float64)
        self._parent_log_weight = self.config.parent_size_power * np.log(size)
        # The least that a parent gives, as far as the batch does not hold its products already.
        slot = np.minimum(self.leaf_size, self.config.products_per_slot)
        self._least = np.array(
            [np.sort(slot[leaves])[: self.config.slots_per_parent].sum() for leaves in self._children], np.int64
        )
        self._first_child = np.array([leaves[0] for leaves in self._children], np.int64)
        self._relatives: dict[int, np.ndarray] = {}

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The epoch's global batches: int64 item_index, all of one length, no item twice in a batch.

        They depend on (seed, epoch) alone. Process r of k takes [r::k] of each, so that the k shares together
        are the batch that one process sees; see `equal_shares` for a length that k does not divide.
        """
        rng = np.random.default_rng((self.seed, epoch))
        shuffled = rng.permutation(self.items)
        mixed = (len(self.leaf_node) > 0 or self._companions) and self.batch_size < len(self.items)
        width = max(1, round(self.config.uniform_share * self.batch_size)) if mixed else self.batch_size
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
        for lists in self._companions:
            room = self.batch_size - sum(map(len, taken))
            quota = min(room, round(self.config.companion_share * self.batch_size))
            taken.append(self._companions_of(rng, run, lists, quota))
        room = self.batch_size - sum(map(len, taken))
        siblings, parents = self._siblings(
            rng, members, min(room, round(self.config.sibling_share * self.batch_size))
        )
        taken += siblings
        taken += self._negatives(rng, members, parents, self.batch_size - sum(map(len, taken)))
        room = self.batch_size - sum(map(len, taken))
        if room:  # the tree ran out of products: fill up with any
            # So long a stretch of the shuffle holds enough that the batch does not.
            stretch = rng.integers(len(filler)) + np.arange(min(len(filler), room + self.batch_size))
            free = np.take(filler, stretch, mode="wrap")
            taken.append(free[~self._mask[free]][:room])
        batch = np.concatenate(taken)
        self._mask[batch] = False
        return batch

    def _companions_of(
        self, rng: np.random.Generator, run: np.ndarray, lists: Histories, quota: int
    ) -> np.ndarray:
        """A random companion of each item of `run` that has one, `quota` at most, none that the batch holds."""
        begin, size = lists.offsets[run], np.diff(lists.offsets)[run]
        draw = (rng.random(len(run)) * size).astype(np.int64)
        drawn = lists.values[(begin + draw)[size > 0]]
        drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        drawn = drawn[~self._mask[drawn]][:quota]
        self._mask[drawn] = True
        return drawn

    def _siblings(
        self, rng: np.random.Generator, members: np.ndarray, quota: int
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """`quota` products of the children of random parents, and the numbers of these parents."""
        # Sorted by log weight + Gumbel noise: drawn by weight without replacement.
        drawn = np.argsort(-(self._parent_log_weight + rng.gumbel(size=len(self._children))))
        taken: list[np.ndarray] = []
        num_drawn = 0
        while quota > 0 and num_drawn < len(drawn):
            enough = int(np.searchsorted(np.cumsum(self._least[drawn[num_drawn:]]), quota)) + 1
            block = drawn[num_drawn : num_drawn + enough]
            leaves, owner = self._child_slots(rng, block)
            items, slot = self._fill_slots(rng, members, leaves, quota, first=not taken)
            taken.append(items)
            quota -= len(items)
            # Parents behind the last one that was needed are as if they had not been drawn.
            num_drawn += len(block) if quota or not len(slot) else int(owner[slot[-1]]) + 1
        return taken, drawn[:num_drawn]

    def _child_slots(self, rng: np.random.Generator, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Random leaves of each parent, at most `slots_per_parent`, and which of `parents` each belongs to."""
        groups = [self._children[number] for number in parents]
        leaves = np.concatenate(groups)
        owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        keys = -(self._leaf_log_weight[leaves] + rng.gumbel(size=len(leaves)))
        order = np.lexsort((keys, owner))
        # One leaf with two products first, so that even a tiny share has a same-leaf pair.
        pairs = order[self.leaf_size[leaves[order]] >= 2]
        keys[pairs[np.unique(owner[pairs], return_index=True)[1]]] = -np.inf
        order = np.lexsort((keys, owner))
        start = np.searchsorted(owner, owner)  # owner is ascending, and stays so when sorted
        order = order[np.arange(len(order)) - start < self.config.slots_per_parent]
        return leaves[order], owner[order]

    def _negatives(
        self, rng: np.random.Generator, members: np.ndarray, parents: np.ndarray, quota: int
    ) -> list[np.ndarray]:
        """Products of leaves that are no siblings of the parents', each parent in turn."""
        taken: list[np.ndarray] = []
        # Half as many slots again as full ones would take: some are short, of leaves drawn twice or products
        # that the batch holds. A round may be short all the same; then another.
        for _ in range(8):
            if quota <= 0:
                break
            num_slots = 1 + 3 * quota // (2 * self.config.products_per_slot)
            turns = parents[np.arange(num_slots) % len(parents)] if len(parents) else parents
            items, _ = self._fill_slots(rng, members, self._negative_leaves(rng, turns), quota)
            taken.append(items)
            quota -= len(items)
        return taken

    def _negative_leaves(self, rng: np.random.Generator, parents: np.ndarray) -> np.ndarray:
        """A leaf for the negatives of each of `parents`; none for one that everything is close to."""
        if self.config.negatives == "far":
            return self._far_leaves(rng, parents)
        found = []
        for number, count in zip(*np.unique(parents, return_counts=True), strict=True):
            relatives = self._relatives_of(int(number))
            one = self._first_child[number]
            near = self.config.negatives == "near"
            start, stop = (self._top_start[one], self._top_stop[one]) if near else (0, len(self.leaf_node))
            if len(relatives) < stop - start:
                found.append(self._draw(rng, count, start, stop, relatives))
            elif near:
                found.append(self._far_leaves(rng, np.full(count, number)))
        # The slots that come first must not be all of one parent.
        return rng.permutation(np.concatenate(found)) if found else np.empty(0, np.int64)

    def _far_leaves(self, rng: np.random.Generator, parents: np.ndarray) -> np.ndarray:
        """A leaf of another top level for each parent, by weight, where there is another."""
        one = self._first_child[parents]
        start, stop = self._top_start[one], self._top_stop[one]
        exists = stop - start < len(self.leaf_node)
        mass, start, stop = self._leaf_mass, start[exists], stop[exists]
        gone = mass[stop] - mass[start]
        draw = rng.random(len(start)) * (mass[-1] - gone)
        draw += np.where(draw >= mass[start], gone, 0.0)
        return np.minimum(np.searchsorted(mass, draw, side="right") - 1, len(self.leaf_node) - 1)

    def _relatives_of(self, number: int) -> np.ndarray:
        """Ascending leaf numbers: the leaves of a parent and all siblings of theirs (see `Taxonomy.relation`).

        A category with products of its own is a sibling of the leaves straight below it.
        """
        if number not in self._relatives:
            leaves = self._children[number]
            start, stop = self._top_start[leaves[0]], self._top_stop[leaves[0]]
            node, above = self.leaf_node[start:stop], self._leaf_parent[start:stop]
            own, parents = self.leaf_node[leaves], self._leaf_parent[leaves]
            parents = parents[parents >= 0]
            close = np.isin(node, np.concatenate([own, parents])) | np.isin(
                above, np.concatenate([own, parents])
            )
            self._relatives[number] = start + np.flatnonzero(close)
        return self._relatives[number]

    def _draw(
        self, rng: np.random.Generator, count: int, start: int, stop: int, left_out: np.ndarray
    ) -> np.ndarray:
        """Leaves of `start` to `stop` - 1 by weight, with replacement, none of `left_out` (ascending)."""
        mass = self._leaf_mass
        gone = np.concatenate([[0.0], np.cumsum(mass[left_out + 1] - mass[left_out])])
        # Where on the line of masses without the gaps each gap stood.
        gap = mass[left_out] - mass[start] - gone[:-1]
        draw = rng.random(count) * (mass[stop] - mass[start] - gone[-1])
        draw += mass[start] + gone[np.searchsorted(gap, draw, side="right")]
        return np.minimum(np.searchsorted(mass, draw, side="right") - 1, stop - 1)

    def _fill_slots(
        self, rng: np.random.Generator, members: np.ndarray, leaves: np.ndarray, quota: int, first: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Up to `products_per_slot` products of each leaf that the batch does not hold yet, `quota` in all.

        Args:
            rng: The epoch's.
            members: Items by leaf.
            leaves: (S,) leaf of each slot.
            quota: Products wanted.
            first: These are the first slots: half of a small quota is then left for a second leaf.

        Returns:
            The products, marked as held, and the slot of each, both in the order of slots.
        """
        most = np.full(len(leaves), self.config.products_per_slot)
        if first:
            most[:1] = min(self.config.products_per_slot, max(2, quota // 2))
        size = self.leaf_size[leaves]
        begin = (rng.random(len(leaves)) * size).astype(np.int64)
        column = np.arange(2 * self.config.products_per_slot)
        items = members[self._offsets[leaves, None] + (begin[:, None] + column) % size[:, None]]
        free = (column < size[:, None]) & ~self._mask[items]
        # Of an item that comes in two slots the first place counts: written backwards, it is written last.
        place = np.arange(items.size).reshape(items.shape)
        self._place[items[free][::-1]] = place[free][::-1]
        free &= self._place[items] == place
        free &= free.cumsum(axis=1) <= most[:, None]
        chosen = items[free][:quota]
        self._mask[chosen] = True
        return chosen, np.nonzero(free)[0][:quota]


def _climb(parent: np.ndarray, taxonomy: Taxonomy) -> None:
    """Moves leaves that are alone under their parent, in place, up to where they are not, or to -1.

    Args:
        parent: (leaves,) int64 node.
        taxonomy: The tree.
    """
    # From the deepest level up: who arrives may be company to who is there.
    for depth in range(int(taxonomy.depth.max(initial=0)), 0, -1):
        _, which, count = np.unique(parent, return_inverse=True, return_counts=True)
        alone = (parent >= 0) & (count[which] == 1)
        alone[alone] = taxonomy.depth[parent[alone]] == depth
        parent[alone] = taxonomy.parent[parent[alone]]


def equal_shares(batches: Sequence[np.ndarray], num_processes: int) -> list[np.ndarray]:
    """Drops the few last items of a batch that would give processes unequal shares.

    None where the number of processes divides the batch size: k processes then train on the batches of one.
    """
    return [batch[: len(batch) - len(batch) % num_processes] for batch in batches]
