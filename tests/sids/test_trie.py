from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.sids.edge_mask import DeadEdges, EdgeMask, dead_edges, edge_mask
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.trie import Trie, build_trie, load_trie

# Sorted: 0_1_0 (items 1, 4), 0_1_2 (item 0), 1_0_0 (item 3), 1_3_1 (item 2)
SIDS = np.array([[0, 1, 2], [0, 1, 0], [1, 3, 1], [1, 0, 0], [0, 1, 0]])
SIZES = (2, 4, 3)


def test_a_trie_by_hand() -> None:
    trie = build_trie(SIDS, SIZES)
    assert [one.tolist() for one in trie.edge_code] == [[0, 1], [1, 0, 3], [0, 2, 0, 1]]
    assert [one.tolist() for one in trie.first_edge] == [[0, 2], [0, 1, 3], [0, 2, 3, 4]]
    assert trie.item_order.tolist() == [1, 4, 0, 3, 2]
    assert trie.first_item is not None
    assert trie.first_item.tolist() == [0, 2, 3, 4, 5]
    assert trie.width == [2, 2, 2]
    assert (trie.num_items, trie.num_levels) == (5, 3)
    assert trie.leaves()[1].tolist() == [[0, 1, 0], [0, 1, 2], [1, 0, 0], [1, 3, 1]]
    assert trie.walk(np.array([[0, 1, 2], [1, 3, 1], [1, 3, 0], [0, 0, 2]])).tolist() == [
        [0, 0, 1],
        [1, 2, 3],
        [1, 2, -1],
        [0, -1, -1],
    ]
    place, items = trie.items_of(np.array([3, 0]))
    assert (place.tolist(), items.tolist()) == ([0, 1, 1], [2, 1, 4])


def test_a_trie_of_some_items_by_hand() -> None:
    trie = build_trie(SIDS, SIZES, np.array([4, 2]))
    assert trie.leaves()[1].tolist() == [[0, 1, 0], [1, 3, 1]]
    assert trie.item_order.tolist() == [4, 2]
    assert trie.first_item is None


def test_a_trie_of_nothing() -> None:
    trie = build_trie(SIDS, SIZES, np.array([], np.int64))
    assert trie.num_items == 0
    assert [len(one) for one in trie.edge_code] == [0, 0, 0]
    assert trie.first_edge[0].tolist() == [0, 0]
    assert trie.walk(SIDS[:2]).tolist() == [[-1, -1, -1]] * 2
    assert [len(one.row) for one in dead_edges(trie, np.array([0]), np.array([1]), SIDS[[1]])] == [0, 0, 0]


def test_edges_are_as_small_as_their_level_allows() -> None:
    sids = np.array([[255, 256, 70000]])
    types = [one.dtype for one in build_trie(sids, (256, 257, 70001)).edge_code]
    assert types == [np.uint8, np.uint16, np.uint32]


def test_sids_too_long_for_one_number_are_sorted_alike() -> None:
    sids = np.random.default_rng(0).integers(0, 4, (300, 8)) * 70_000
    wide, narrow = build_trie(sids, (280_001,) * 8), build_trie(sids // 70_000, (4,) * 8)
    np.testing.assert_array_equal(wide.item_order, narrow.item_order)
    for one, other in zip(wide.first_edge, narrow.first_edge, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shared", [False, True])
def test_a_saved_trie_is_the_same_and_memory_mapped(tmp_path: Path, shared: bool) -> None:
    sids = SIDS if shared else np.unique(SIDS, axis=0)
    trie = build_trie(sids, SIZES)
    trie.save(tmp_path / "trie.safetensors")
    loaded = load_trie(tmp_path / "trie.safetensors")
    assert walk(loaded) == walk(trie)
    assert (loaded.level_sizes, loaded.width) == (trie.level_sizes, trie.width)
    assert (loaded.first_item is None) == (not shared)


def test_a_changed_trie_is_saved_as_it_stands(tmp_path: Path) -> None:
    living = LivingTrie(build_trie(SIDS, SIZES))
    living.withdraw(np.array([1, 2]), SIDS[[1, 2]])
    living.save(tmp_path / "trie.safetensors")
    assert walk(load_trie(tmp_path / "trie.safetensors")) == by_sid(SIDS, {0, 3, 4})
    assert living.nbytes > living.built.nbytes


def test_a_file_without_a_trie(tmp_path: Path) -> None:
    (tmp_path / "trie.safetensors").write_bytes(b"no trie at all")
    with pytest.raises(ValueError, match="no trie in it"):
        load_trie(tmp_path / "trie.safetensors")


def test_dead_edges_by_hand() -> None:
    trie = build_trie(SIDS, SIZES)
    # Row 0 excludes both items of 0_1_0 (one of them twice); row 1 all of subtree 0; row 2 one of two.
    row = np.array([0, 0, 0, 1, 1, 1, 2])
    items = np.array([1, 4, 1, 0, 1, 4, 4])
    found = dead_edges(trie, row, items, SIDS[items])
    assert [one.row.tolist() for one in found] == [[1], [1], [0, 1, 1]]
    assert [one.parent.tolist() for one in found] == [[0], [0], [0, 0, 0]]
    assert [one.slot.tolist() for one in found] == [[0], [0], [0, 0, 1]]


def test_live_edges_by_hand() -> None:
    mask = edge_mask(build_trie(SIDS, SIZES), np.array([True, False, False, False, True]))
    assert [np.unpackbits(one, bitorder="little")[:4].tolist() for one in mask.bits] == [
        [1, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 0, 0],
    ]


@pytest.mark.parametrize("allowed", [np.ones(5), np.ones((5, 1), bool)])
def test_masks_that_are_none(allowed: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"it must be \(items,\) bool"):
        edge_mask(build_trie(SIDS, SIZES), allowed)


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


def walk(trie: Trie, mask: EdgeMask | None = None, dead: list[DeadEdges] | None = None) -> dict[Any, list[int]]:
    """Every SID and its items, the way a search goes: down from the root, edge by edge, those of row 0."""

    def below(node: int, level: int) -> dict[Any, list[int]]:
        if level == trie.num_levels:
            items = trie.items_of(np.array([node]))[1]
            return {(): items.tolist()}
        first, end = trie.first_edge[level][node : node + 2].tolist()
        codes = trie.edge_code[level][first:end].tolist()
        assert codes == sorted(set(codes))
        assert len(codes) <= trie.width[level]
        found = {}
        for slot, code in enumerate(codes):
            edge = np.array([first + slot])
            closed = mask is not None and not mask.live(level, edge)[0]
            if dead is not None:
                one = dead[level]
                closed |= bool(((one.row == 0) & (one.parent == node) & (one.slot == slot)).any())
            if not closed:
                rest_of = below(int(trie.child(level, edge)[0]), level + 1)
                assert rest_of or (mask is None and dead is None), "an open edge leads to nothing"
                found |= {(code, *rest): items for rest, items in rest_of.items()}
        return found

    return below(trie.root, 0)


def by_sid(sids: np.ndarray, items: Iterable[int]) -> dict[Any, list[int]]:
    """What `walk` must find."""
    expected: dict[Any, list[int]] = {}
    for item in sorted(items):
        expected.setdefault(tuple(sids[item].tolist()), []).append(item)
    return expected


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
    trie = build_trie(sids, sizes)
    assert walk(trie) == by_sid(sids, range(len(sids)))
    np.testing.assert_array_equal(trie.leaves()[1], np.unique(sids, axis=0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(catalogs(), st.data())
def test_a_search_under_filter_and_history_sees_what_they_leave(
    catalog: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject
) -> None:
    sids, sizes = catalog
    item = st.integers(0, len(sids) - 1)
    held, allowed, excluded = (data.draw(st.sets(item)) for _ in range(3))
    mask = np.zeros(len(sids), bool)
    mask[list(allowed)] = True
    trie = build_trie(sids, sizes, np.array(sorted(held), np.int64))
    edges = edge_mask(trie, mask)
    # Rows 1 and 2 have another filter and other exclusions, none of row 0's business.
    pairs = [(0, one) for one in excluded] + [(1, one) for one in held] + [(2, one) for one in allowed]
    row, items = np.array(sorted(pairs, key=lambda one: one[1]), np.int64).reshape(-1, 2).T
    dead = dead_edges(trie, row, items, sids[items], [None, edges], np.array([1, 0, 0]))
    left = by_sid(sids, held & allowed - excluded)
    # A leaf stays open for one allowed item; which of its items are is told apart later.
    expected = {sid: every for sid, every in by_sid(sids, held).items() if sid in left}
    assert walk(trie, edges, dead) == expected
    assert walk(trie, edges) == {
        sid: every for sid, every in by_sid(sids, held).items() if sid in by_sid(sids, held & allowed)
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(catalogs(), st.data())
def test_a_living_trie_is_a_fresh_build_of_what_it_holds(
    catalog: tuple[np.ndarray, tuple[int, ...]], data: st.DataObject
) -> None:
    sids, sizes = catalog
    num = len(sids)
    held = data.draw(st.sets(st.integers(0, num - 1)))
    built = build_trie(sids, sizes, np.array(sorted(held), np.int64))
    before = walk(built)
    living = LivingTrie(built)
    allowed = np.random.default_rng(num).random(num) < 0.5
    base = edge_mask(built, allowed)
    for item in data.draw(st.lists(st.integers(0, num - 1), max_size=25)):
        one = np.array([item])
        if item in held:
            living.withdraw(one, sids[one])
        else:
            living.insert(one, sids[one])
        held ^= {item}
        assert walk(living) == by_sid(sids, held)
        assert living.num_items == len(held)
        mask = edge_mask(living, allowed, base)
        open_ = {sid for sid, items in by_sid(sids, held).items() if allowed[items].any()}
        assert set(walk(living, mask)) == open_
        if held:
            row, items = np.zeros(len(held), np.int64), np.array(sorted(held))
            dead = dead_edges(living, row[1:], items[1:], sids[items[1:]], [mask])
            assert set(walk(living, mask, dead)) == (
                {tuple(sids[items[0]].tolist())} if allowed[items[0]] else set()
            )
    assert walk(built) == before
    fresh = living.fresh()
    assert walk(fresh) == by_sid(sids, held)
    np.testing.assert_array_equal(
        fresh.item_order, build_trie(sids, sizes, np.array(sorted(held), np.int64)).item_order
    )


def test_many_changes_fold_the_copies_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pressmark.sids.living_trie.FOLD_LEAST", 200)
    rng = np.random.default_rng(0)
    sids = rng.integers(0, 6, (400, 4))
    living = LivingTrie(build_trie(sids, (6,) * 4, np.arange(50)))
    folds = 0
    for item in range(50, 400):
        built = living.built
        living.insert(np.array([item]), sids[[item]])
        folds += living.built is not built
    assert folds > 1
    assert walk(living) == by_sid(sids, range(400))
    living.withdraw(np.arange(0, 400, 2), sids[::2])
    assert walk(living) == by_sid(sids, range(1, 400, 2))


def test_changes_that_cannot_be_made_change_nothing() -> None:
    living = LivingTrie(build_trie(SIDS, SIZES))
    before = walk(living)
    for item, sid, message in (
        (4, [0, 0, 0], "item_index 4 is in the trie"),
        (9, [0, 4, 0], "item_index 9 with SID"),
        (-1, [0, 0, 0], "must be 0 or above"),
    ):
        with pytest.raises(ValueError, match=message):
            living.insert(np.array([8, item]), np.array([[0, 0, 0], sid]))
    with pytest.raises(ValueError, match="twice"):
        living.insert(np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 1]]))
    for item, sid in ((7, [0, 1, 0]), (4, [0, 1, 2]), (4, [0, 0, 0])):
        with pytest.raises(ValueError, match=f"item_index {item} is not in the trie under its SID"):
            living.withdraw(np.array([0, item]), np.array([SIDS[0], sid]))
    with pytest.raises(ValueError, match=r"must be \(1, 3\)"):
        living.insert(np.array([8]), np.array([[0, 0]]))
    assert walk(living) == before
