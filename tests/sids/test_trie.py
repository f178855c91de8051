from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.sids.trie import Trie, build_trie, dead_edges

# Sorted: 0_1_0 (items 1, 4), 0_1_2 (item 0), 1_0_0 (item 3), 1_3_1 (item 2)
SIDS = np.array([[0, 1, 2], [0, 1, 0], [1, 3, 1], [1, 0, 0], [0, 1, 0]])
SIZES = (2, 4, 3)


def test_a_trie_by_hand() -> None:
    trie = build_trie(SIDS, SIZES)
    assert [one.tolist() for one in trie.edge_code] == [[0, 1], [1, 0, 3], [0, 2, 0, 1]]
    assert [one.tolist() for one in trie.first_edge] == [[0, 2], [0, 1, 3], [0, 2, 3, 4]]
    assert [one.tolist() for one in trie.first_place] == [[0, 3, 5], [0, 3, 4, 5], [0, 2, 3, 4, 5]]
    assert trie.item_order.tolist() == [1, 4, 0, 3, 2]
    assert trie.place.tolist() == [2, 0, 4, 3, 1]
    assert [trie.widest(level) for level in range(3)] == [2, 2, 2]
    assert (trie.num_items, trie.num_leaves, trie.num_levels) == (5, 4, 3)
    assert trie.edge_of_item(1, np.array([0, 2, 3])).tolist() == [0, 2, 1]
    assert trie.sids().tolist() == [[0, 1, 0], [0, 1, 2], [1, 0, 0], [1, 3, 1]]


def test_a_filtered_trie_by_hand() -> None:
    trie = build_trie(SIDS, SIZES, np.array([4, 2]))
    assert trie.sids().tolist() == [[0, 1, 0], [1, 3, 1]]
    assert trie.item_order.tolist() == [4, 2]
    assert trie.place.tolist() == [-1, -1, 1, -1, 0]


def test_a_trie_of_nothing() -> None:
    trie = build_trie(SIDS, SIZES, np.array([], np.int64))
    assert (trie.num_items, trie.num_leaves) == (0, 0)
    assert [len(one) for one in trie.edge_code] == [0, 0, 0]
    assert trie.first_edge[0].tolist() == [0, 0]
    assert [len(one.row) for one in dead_edges(trie, np.array([0]), np.array([1]))] == [0, 0, 0]


def test_edges_are_as_small_as_their_level_allows() -> None:
    sids = np.array([[255, 256, 70000]])
    types = [one.dtype for one in build_trie(sids, (256, 257, 70001)).edge_code]
    assert types == [np.uint8, np.uint16, np.uint32]


def test_dead_edges_by_hand() -> None:
    trie = build_trie(SIDS, SIZES)
    # Row 0 excludes both items of 0_1_0 (one of them twice); row 1 all of subtree 0; row 2 one of two.
    row = np.array([0, 0, 0, 1, 1, 1, 2])
    items = np.array([1, 4, 1, 0, 1, 4, 4])
    found = dead_edges(trie, row, items)
    assert [one.row.tolist() for one in found] == [[1], [1], [0, 1, 1]]
    assert [one.parent.tolist() for one in found] == [[0], [0], [0, 0, 0]]
    assert [one.edge.tolist() for one in found] == [[0], [0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("sids", "sizes", "items", "message"),
    [
        (SIDS, (2, 4), None, "shape"),
        (SIDS, (2, 3, 3), None, "outside level_sizes"),
        (SIDS, SIZES, np.array([5]), "item_index 0 to 4"),
    ],
)
def test_bad_input(sids: np.ndarray, sizes: tuple[int, ...], items: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_trie(sids, sizes, items)


def walk(trie: Trie, node: int = 0, level: int = 0) -> dict[tuple[int, ...], list[int]]:
    """Every SID and its items, the way a search goes: down from the root, edge by edge."""
    if level == trie.num_levels:
        first, last = trie.first_place[-1][node : node + 2]
        return {(): trie.item_order[first:last].tolist()}
    found = {}
    first, last = trie.first_edge[level][node : node + 2]
    codes = trie.edge_code[level][first:last].tolist()
    assert codes == sorted(set(codes))
    for code, edge in zip(codes, range(first, last), strict=True):
        assert trie.parent(level, np.array([edge])).tolist() == [node]
        found |= {(code, *rest): items for rest, items in walk(trie, edge, level + 1).items()}
    return found


@st.composite
def catalogs(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    sizes = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 300]), min_size=1, max_size=5)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num = draw(st.integers(1, 40))
    skew = draw(st.sampled_from([1, 3]))
    return np.stack([(size * rng.random(num) ** skew).astype(np.int64) for size in sizes], 1), sizes


@settings(max_examples=40, deadline=None, derandomize=True)
@given(catalogs())
def test_walking_the_trie_finds_every_item_once(catalog: tuple[np.ndarray, tuple[int, ...]]) -> None:
    sids, sizes = catalog
    expected: dict[tuple[int, ...], list[int]] = {}
    for item, sid in enumerate(sids.tolist()):
        expected.setdefault(tuple(sid), []).append(item)
    trie = build_trie(sids, sizes)
    assert walk(trie) == expected
    np.testing.assert_array_equal(trie.sids(), np.unique(sids, axis=0))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(catalogs(), st.data())
def test_an_edge_is_dead_where_all_its_items_are_excluded(
    catalog: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject
) -> None:
    sids, sizes = catalog
    kept = data.draw(st.sets(st.integers(0, len(sids) - 1)))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, len(sids) - 1))))
    row, items = np.array(pairs, np.int64).reshape(-1, 2).T
    trie = build_trie(sids, sizes, np.array(sorted(kept), np.int64))
    found = dead_edges(trie, row, items)
    for level in range(len(sizes)):
        below = Counter(tuple(sids[item, : level + 1]) for item in kept)
        expected = set()
        for one in range(3):
            lost = Counter(tuple(sids[item, : level + 1]) for item in {i for r, i in pairs if r == one} & kept)
            expected |= {(one, prefix) for prefix, count in lost.items() if count == below[prefix]}
        prefixes = [tuple(sid) for sid in np.unique(sids[sorted(kept)][:, : level + 1], axis=0)]
        got = found[level]
        assert {(r, prefixes[e]) for r, e in zip(got.row, got.edge, strict=True)} == expected
        np.testing.assert_array_equal(trie.parent(level, got.edge), got.parent)
