"""A trie that changes while it serves: products come and go without a rebuild.

Nodes as built never change. A node on the way of a change is copied behind the built ones, with room to grow,
and its parent, copied too, leads to the copy: a change costs a few copies of at most one level's codes. Since a
copy's number is not its edge's, edges behind the built ones store their child. When the copies outgrow a share
of the trie, all is built afresh.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pressmark.sids.trie import Trie, build_trie

FOLD_SHARE = 8
"""Built afresh when copies hold more than one edge for this many built ones, and more than `FOLD_LEAST`."""
FOLD_LEAST = 1 << 15


class LivingTrie(Trie):
    """A `Trie` with `insert` and `withdraw`. Every answer is that of a fresh build of the items it holds.

    Nodes of depth d are numbered as built and then, from the end of the built pointers on, in steps of two: a
    copy's first edge and the end of its edges stand in first_edge[n] and first_edge[n + 1] like any node's.

    Args:
        trie: What to start from. It is not changed.

    Attributes:
        built: The trie as last built.
        version: Counts changes; arrays may be other ones afterwards.
        tail: For each level the first number of an edge behind the built ones, a multiple of 8; and for items.
        tail_child: For each level (T_l,) int32: the node that each of those leads to.
        first: `first_edge` of each depth, and `first_item` for depth L.
        built_nodes: For each depth the number of its first copy.
    """

    def __init__(self, trie: Trie) -> None:
        self.version = 0
        size = int(trie.item_order.max(initial=-1)) + 1
        self._holds = np.zeros(size, bool)
        self._holds[trie.item_order] = True
        self._num_items = len(trie.item_order)
        self._build(trie)

    def _build(self, trie: Trie) -> None:
        self.built, self._root = trie, 0
        items = np.arange(len(trie.item_order) + 1, dtype=np.int32)
        first_item = items if trie.first_item is None else trie.first_item
        # Leaves are nodes of depth L; their items stand where other nodes have codes.
        self._content: list[np.ndarray] = [*trie.edge_code, trie.item_order]
        self.first: list[np.ndarray] = [*trie.first_edge, first_item]
        self.tail = [-(-len(one) // 8) * 8 for one in self._content]
        self.built_nodes = [len(one) for one in self.first]
        self.tail_child = [np.empty(0, np.int32) for _ in trie.edge_code]
        self._used = list(self.tail)
        self._num_nodes = list(self.built_nodes)
        self._room: list[list[int]] = [[] for _ in self.first]
        self.width = list(trie.width)
        self.level_sizes = trie.level_sizes

    # The attributes of a Trie, with copies at their ends.

    @property
    def root(self) -> int:
        """The node of depth 0."""
        return self._root

    @property
    def edge_code(self) -> list[np.ndarray]:  # type: ignore[override]
        """See `Trie`; places that no node names hold anything."""
        return self._content[:-1]

    @property
    def first_edge(self) -> list[np.ndarray]:  # type: ignore[override]
        """See `Trie`."""
        return self.first[:-1]

    @property
    def item_order(self) -> np.ndarray:  # type: ignore[override]
        """See `Trie`; no longer in the order of SIDs."""
        return self._content[-1]

    @property
    def first_item(self) -> np.ndarray:  # type: ignore[override]
        """See `Trie`."""
        return self.first[-1]

    @property
    def num_items(self) -> int:
        """Items in the trie."""
        return self._num_items

    def child(self, level: int, edge: np.ndarray) -> np.ndarray:
        """(...) int: the node of depth level + 1 that each edge of `level` leads to."""
        tail, copies = self.tail[level], self.tail_child[level]
        if not len(copies):
            return edge
        return np.where(edge < tail, edge, copies[np.clip(edge - tail, 0, len(copies) - 1)])

    def holds(self, item_index: np.ndarray) -> np.ndarray:
        """(...) bool for items (...)."""
        inside = item_index < len(self._holds)
        return self._holds[np.where(inside, item_index, 0)] & inside

    def insert(self, item_index: np.ndarray, sids: np.ndarray) -> None:
        """Adds items.

        Args:
            item_index: (n,) int64, none of them in the trie.
            sids: (n, L) int64.

        Raises:
            ValueError: If an item is in the trie already, or a code outside its level; nothing is added then.
        """
        self._check(item_index, sids)
        self._reserve(int(item_index.max(initial=-1)) + 1)
        if self._holds[item_index].any() or len(np.unique(item_index)) < len(item_index):
            known = item_index[self._holds[item_index]]
            what = f"item_index {known[0]} is in the trie" if len(known) else "an item_index stands twice"
            raise ValueError(f"{what}: withdraw it before it gets another SID.")
        for item, sid in zip(item_index.tolist(), sids.tolist(), strict=True):
            self._insert(item, sid)
        self._holds[item_index] = True
        self._num_items += len(item_index)
        self._changed()

    def withdraw(self, item_index: np.ndarray, sids: np.ndarray) -> None:
        """Takes items away.

        Args:
            item_index: (n,) int64, all in the trie.
            sids: (n, L) int64, the SID that each stands under.

        Raises:
            ValueError: If an item does not stand under its SID; nothing is taken away then.
        """
        self._check(item_index, sids)
        edges = self.walk(sids)
        found = np.zeros(len(item_index), bool)
        whole = np.flatnonzero(edges[:, -1] >= 0)
        place, items = self.items_of(self.child(self.num_levels - 1, edges[whole, -1]))
        found[whole[place[items == item_index[whole][place]]]] = True
        if not found.all() or len(np.unique(item_index)) < len(item_index):
            lost = item_index[~found]
            what = (
                f"item_index {lost[0]} is not in the trie under its SID"
                if len(lost)
                else "an item stands twice"
            )
            raise ValueError(f"{what}; give items that are there, with their SIDs.")
        for item, sid in zip(item_index.tolist(), sids.tolist(), strict=True):
            self._withdraw(item, sid)
        self._holds[item_index] = False
        self._num_items -= len(item_index)
        self._changed()

    def save(self, path: str | Path) -> None:
        """Writes a fresh build."""
        self.fresh().save(path)

    @property
    def nbytes(self) -> int:
        """Bytes of everything but the items, room included."""
        return sum(one.nbytes for one in (*self.edge_code, *self.first, *self.tail_child))

    def fresh(self) -> Trie:
        """A plain trie of the same items, built now."""
        leaf, sids = self.leaves()
        place, items = self.items_of(leaf)
        by_item = np.argsort(items)
        trie = build_trie(sids[place[by_item]], self.level_sizes)
        trie.item_order = items[by_item][trie.item_order].astype(np.int32)
        return trie

    def _check(self, item_index: np.ndarray, sids: np.ndarray) -> None:
        if sids.shape != (len(item_index), self.num_levels):
            raise ValueError(
                f"sids have the shape {sids.shape}; it must be ({len(item_index)}, {self.num_levels})."
            )
        wrong = (sids < 0) | (sids >= np.array(self.level_sizes))
        if wrong.any() or (item_index < 0).any():
            row = np.argwhere(wrong)[0][0] if wrong.any() else np.flatnonzero(item_index < 0)[0]
            raise ValueError(
                f"item_index {item_index[row]} with SID {sids[row].tolist()}: items must be 0 or above and "
                f"codes inside level_sizes {self.level_sizes}."
            )

    def _reserve(self, num_items: int) -> None:
        if num_items > len(self._holds):
            self._holds = np.concatenate([self._holds, np.zeros(max(num_items, 1024), bool)])

    def _changed(self) -> None:
        self.version += 1
        copies = sum(used - tail for used, tail in zip(self._used, self.tail, strict=True))
        if copies > max(FOLD_LEAST, sum(self.tail) // FOLD_SHARE):
            self._build(self.fresh())

    def _span(self, level: int, node: int) -> tuple[int, int]:
        first = self.first[level]
        return int(first[node]), int(first[node + 1])

    def _way(self, sid: list[int]) -> list[tuple[int, int]]:
        """Node and place of the edge at each level, as far as the SID stands; then where the next belongs."""
        way, node = [], self.root
        for level, code in enumerate(sid):
            first, end = self._span(level, node)
            codes = self._content[level][first:end]
            place = int(np.searchsorted(codes, code))
            way.append((node, place))
            if place == end - first or codes[place] != code:
                break
            node = self._child(level, first + place)
        return way

    def _child(self, level: int, edge: int) -> int:
        tail = self.tail[level]
        return edge if edge < tail else int(self.tail_child[level][edge - tail])

    def _insert(self, item: int, sid: list[int]) -> None:
        way, depth = self._way(sid), self.num_levels
        node, place = way[-1]
        first, end = self._span(len(way) - 1, node)
        stands = place < end - first and self._content[len(way) - 1][first + place] == sid[len(way) - 1]
        if stands:
            leaf = self._child(depth - 1, first + place)
            first, end = self._span(depth, leaf)
            place = int(np.searchsorted(self._content[depth][first:end], item))
            target = self._put(depth, leaf, place, item, 0)
        else:
            target = self._new(depth, np.array([item]), np.zeros(1, np.int32))
            for level in reversed(range(len(way), depth)):
                target = self._new(level, np.array([sid[level]]), np.array([target]))
            level = len(way) - 1
            node, place = way.pop()
            target = self._put(level, node, place, sid[level], target)
        self._aim(way, target)

    def _withdraw(self, item: int, sid: list[int]) -> None:
        way = self._way(sid)
        node, place = way[-1]
        leaf = self._child(self.num_levels - 1, self._span(self.num_levels - 1, node)[0] + place)
        first, end = self._span(self.num_levels, leaf)
        way.append((leaf, int(np.searchsorted(self._content[-1][first:end], item))))
        # A node left empty goes too, up to the root.
        while len(way) > 1:
            first, end = self._span(len(way) - 1, way[-1][0])
            if end - first > 1:
                break
            way.pop()
        level = len(way) - 1
        node, place = way.pop()
        self._aim(way, self._take(level, node, place))

    def _aim(self, way: list[tuple[int, int]], target: int) -> None:
        """Leads the edges of a way to `target`, copying its nodes where they are as built."""
        for level in reversed(range(len(way))):
            node, place = way[level]
            node = self._own(level, node)
            self.tail_child[level][self._span(level, node)[0] + place - self.tail[level]] = target
            if node == way[level][0]:
                return  # a copy before this change: what is above leads to it already
            target = node
        self._root = target

    def _own(self, level: int, node: int) -> int:
        """The node itself if it is a copy, else a copy of it."""
        if node >= self.built_nodes[level]:
            return node
        first, end = self._span(level, node)
        return self._new(level, self._content[level][first:end], np.arange(first, end, dtype=np.int32))

    def _put(self, level: int, node: int, place: int, value: int, child: int) -> int:
        """Adds an edge (or an item, at depth L) to a node; returns the node, or its copy."""
        node = self._own(level, node)
        first, end = self._span(level, node)
        which = (node - self.built_nodes[level]) // 2
        if end - first == self._room[level][which]:
            first = self._move(level, node)
            end = int(self.first[level][node + 1])
        content = self._content[level]
        content[first + place + 1 : end + 1] = content[first + place : end].copy()
        content[first + place] = value
        if level < self.num_levels:
            children, start = self.tail_child[level], first - self.tail[level]
            stop = end - self.tail[level]
            children[start + place + 1 : stop + 1] = children[start + place : stop].copy()
            children[start + place] = child
        self._set(level, node, first, end + 1)
        return node

    def _take(self, level: int, node: int, place: int) -> int:
        """Removes an edge (or an item); returns the node, or its copy."""
        node = self._own(level, node)
        first, end = self._span(level, node)
        content = self._content[level]
        content[first + place : end - 1] = content[first + place + 1 : end].copy()
        if level < self.num_levels:
            children = self.tail_child[level][first - self.tail[level] : end - self.tail[level]]
            children[place:-1] = children[place + 1 :].copy()
        self.first[level][node + 1] = end - 1
        return node

    def _new(self, level: int, content: np.ndarray, children: np.ndarray) -> int:
        """A node behind all others, with room for a few more edges."""
        room = len(content) + max(2, len(content) // 4)
        first = self._allot(level, room)
        self._content[level][first : first + len(content)] = content
        if level < self.num_levels:
            start = first - self.tail[level]
            self.tail_child[level][start : start + len(children)] = children
        node = self._num_nodes[level]
        self._num_nodes[level] += 2
        self.first[level] = _longer(self.first[level], self._num_nodes[level], self.built_nodes[level])
        self._set(level, node, first, first + len(content))
        self._room[level].append(room)
        return node

    def _move(self, level: int, node: int) -> int:
        """Gives a full copy twice the room; returns its first edge."""
        old, end = self._span(level, node)
        num = end - old
        first = self._allot(level, 2 * num)
        content = self._content[level]
        content[first : first + num] = content[old:end]
        if level < self.num_levels:
            children, tail = self.tail_child[level], self.tail[level]
            children[first - tail : first - tail + num] = children[old - tail : end - tail]
        self._set(level, node, first, first + num)
        self._room[level][(node - self.built_nodes[level]) // 2] = 2 * num
        return first

    def _set(self, level: int, node: int, first: int, end: int) -> None:
        self.first[level][node : node + 2] = first, end
        if level < self.num_levels:
            self.width[level] = max(self.width[level], end - first)

    def _allot(self, level: int, num: int) -> int:
        """Room for `num` edges, or items; returns the first."""
        first = self._used[level]
        self._used[level] += num
        self._content[level] = _longer(self._content[level], self._used[level], self.tail[level])
        if level < self.num_levels:
            self.tail_child[level] = _longer(self.tail_child[level], self._used[level] - self.tail[level], 0)
        return first


def _longer(array: np.ndarray, num: int, built: int) -> np.ndarray:
    """The array, or a copy with room for `num` and more; what grows is the part behind `built`."""
    if num <= len(array):
        return array
    grown = np.zeros(built + 2 * max(num - built, 512), array.dtype)
    grown[: len(array)] = array
    return grown
