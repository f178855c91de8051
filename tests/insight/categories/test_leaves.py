"""Labels in the tree: who is near whom, by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pressmark.catalog.items import Catalog
from pressmark.insight.categories.leaves import Leaves, leaves_of

MILK, BUTTER, CANDY, DAIRY = (
    ("Shop", "Dairy", "Milk"),
    ("Shop", "Dairy", "Butter"),
    ("Shop", "Candy"),
    ("Shop", "Dairy"),
)


def catalog(*category: tuple) -> Catalog:
    num = len(category)
    names = np.array([f"P{one}" for one in range(num)], object)
    return Catalog(names, np.array(["x"] * num, object), np.array([""] * num, object), tuple(category))


def test_leaves_and_labels() -> None:
    leaves = leaves_of(catalog((MILK,), (BUTTER,), (), (CANDY, MILK), (DAIRY,), (("Shop",),)))
    assert leaves.stripped == ("Shop",)
    assert leaves.paths == (("Candy",), ("Dairy",), ("Dairy", "Butter"), ("Dairy", "Milk"))
    assert leaves.label.tolist() == [3, 2, -1, 0, 1, -1]  # nothing but the shared name is no label
    assert leaves.also == (frozenset(),) * 3 + (frozenset({3}),) + (frozenset(),) * 2
    assert leaves.name(3) == "Shop > Dairy > Milk"
    assert leaves.name(-1) == ""
    assert leaves.counts.tolist() == [1, 1, 1, 1]
    # A short path keeps its own number below its end.
    assert leaves.groups.tolist() == [[0, 1, 1, 1], [0, 1, 2, 3]]
    # Milk's siblings are what else ends at or under Dairy; Candy's and Dairy's are all.
    assert leaves.family.tolist() == [[0, 4], [0, 4], [1, 4], [1, 4]]


def test_severity_is_the_share_below_the_common_ancestor() -> None:
    leaves = leaves_of(catalog((MILK,), (MILK,), (BUTTER,), (CANDY,)))
    butter, milk, candy = (
        leaves.paths.index(one) for one in (("Dairy", "Butter"), ("Dairy", "Milk"), ("Candy",))
    )
    one, other = np.array([milk, milk, milk]), np.array([milk, butter, candy])
    assert leaves.severity(one, other).tolist() == [0.0, 0.75, 1.0]


def test_labels_move_and_never_stay() -> None:
    leaves = leaves_of(
        catalog(*[(MILK,)] * 5, (BUTTER,), (CANDY,), (("Shop", "Pets", "Cat"),), (("Shop", "Pets", "Dog"),))
    )
    label, rng = leaves.label.repeat(200), np.random.default_rng(0)
    for move in (leaves.moved_anywhere, leaves.moved_by_size, leaves.moved_to_sibling):
        moved = move(label, rng)
        assert (moved != label).all()
        assert (moved >= 0).all()
        assert (moved < len(leaves)).all()
    dairy = [leaves.paths.index(("Dairy", one)) for one in ("Butter", "Milk")]
    of_dairy = np.isin(label, dairy)
    assert np.isin(leaves.moved_to_sibling(label, rng)[of_dairy], dairy).all()
    assert not np.isin(leaves.moved_anywhere(label, rng)[of_dairy], dairy).all()


def slow_family(leaves: Leaves) -> list[list[int]]:
    """Outwards from each leaf, ancestor by ancestor."""
    found = []
    for leaf, path in enumerate(leaves.paths):
        first, last = leaf, leaf + 1
        for depth in range(len(path) - 1, -1, -1):
            while first and leaves.paths[first - 1][:depth] == path[:depth]:
                first -= 1
            while last < len(leaves) and leaves.paths[last][:depth] == path[:depth]:
                last += 1
            if last - first > 1:
                break
        found.append([first, last])
    return found


def test_families_are_those_of_the_slow_way() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        paths = sorted({tuple(map(str, rng.integers(0, 3, rng.integers(1, 5)))) for _ in range(seed + 1)})
        leaves = Leaves((), tuple(paths), np.arange(len(paths)), (frozenset(),) * len(paths))
        assert leaves.family.tolist() == slow_family(leaves)


def test_a_flat_tree_is_no_slower() -> None:
    num = 20_000
    leaves = Leaves((), tuple((f"{one:05}",) for one in range(num)), np.arange(num), (frozenset(),) * num)
    start = time.process_time()
    assert (leaves.family == [0, num]).all()
    assert time.process_time() - start < 2


def test_more_leaves_hold_nobody() -> None:
    leaves = leaves_of(catalog((MILK,), (CANDY,)), [("Shop", "Dairy", "Kefir")])
    assert ("Dairy", "Kefir") in leaves.paths
    assert leaves.counts[leaves.paths.index(("Dairy", "Kefir"))] == 0


def test_nothing_to_audit() -> None:
    with pytest.raises(ValueError, match="no product of the run has a category"):
        leaves_of(catalog((), ()))
    with pytest.raises(ValueError, match="all products of the run stand in one category, 'Shop > Candy'"):
        leaves_of(catalog((CANDY,), (CANDY,)))
