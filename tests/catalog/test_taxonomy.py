from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.catalog.items import Columns, load_items
from pressmark.catalog.paths import CategoryPath
from pressmark.catalog.taxonomy import COUSIN, SAME_LEAF, SIBLING, UNKNOWN, UNRELATED, build_taxonomy

BEAUTY = Path(__file__).parents[3] / "shared" / "data" / "amazon2014-beauty"
Category = tuple[tuple[CategoryPath, ...], ...]


def path(text: str) -> CategoryPath:
    return tuple(text.split("/"))


def shop(*items: str) -> Category:
    """Items as "path path ..."; "" for an item without category."""
    return tuple(tuple(path(one) for one in item.split()) for item in items)


# Every path begins with Shop; Oil stands under two parents; item 6 has two paths, item 7 none, item 8 ends
# at an inner node.
STORE = shop(
    "Shop/Food/Oil/Olive",
    "Shop/Food/Oil/Olive",
    "Shop/Food/Oil/Sunflower",
    "Shop/Food/Bread",
    "Shop/Car/Oil",
    "Shop/Car",
    "Shop/Food/Bread Shop/Gifts",
    "",
    "Shop/Food/Oil",
)


def test_shared_leading_nodes_are_stripped_and_nodes_are_whole_paths() -> None:
    tree = build_taxonomy(STORE)
    assert tree.num_stripped == 1
    assert tree.node_path == tuple(
        map(
            path,
            [
                "Car",
                "Car/Oil",
                "Food",
                "Food/Bread",
                "Food/Oil",
                "Food/Oil/Olive",
                "Food/Oil/Sunflower",
                "Gifts",
            ],
        )
    )
    assert tree.parent.tolist() == [-1, 0, -1, 2, 2, 4, 4, -1]
    assert tree.depth.tolist() == [1, 2, 1, 2, 2, 3, 3, 1]


def test_items_hang_on_their_paths() -> None:
    tree = build_taxonomy(STORE)
    assert tree.item_nodes.shape == (9, 2, 3)
    assert tree.item_nodes[0].tolist() == [[2, 4, 5], [-1, -1, -1]]
    assert tree.item_nodes[6].tolist() == [[2, 3, -1], [7, -1, -1]]
    assert tree.path_length[:, 0].tolist() == [3, 3, 3, 2, 2, 1, 2, 0, 2]
    assert tree.item_leaf[:, 0].tolist() == [5, 5, 6, 3, 1, 0, 3, -1, 4]
    assert tree.item_leaf[:, 1].tolist() == [-1] * 6 + [7, -1, -1]


def test_relations_by_hand() -> None:
    tree = build_taxonomy(STORE)
    pairs = {
        (0, 1): (SAME_LEAF, 1.0),
        (0, 2): (SIBLING, 2 / 3),
        (0, 3): (COUSIN, 1 / 3),
        (0, 4): (UNRELATED, 0.0),  # two nodes called Oil
        (4, 5): (SIBLING, 1 / 2),
        (0, 8): (SIBLING, 2 / 3),
        (3, 6): (SAME_LEAF, 1.0),  # by the first of two paths
        (6, 4): (UNRELATED, 0.0),
        (0, 7): (UNKNOWN, np.nan),
        (7, 7): (UNKNOWN, np.nan),
    }
    a, b = np.array(list(pairs)).T
    relations, similarities = zip(*pairs.values(), strict=True)
    assert tree.relation(a, b).tolist() == list(relations)
    np.testing.assert_allclose(tree.similarity(a, b), similarities, rtol=1e-6)
    assert tree.relation(a, b).dtype == np.int8
    assert tree.similarity(a, b).dtype == np.float32


def test_a_catalog_of_one_path_keeps_its_last_node() -> None:
    tree = build_taxonomy(shop("A/B", "A/B", ""))
    assert tree.num_stripped == 1
    assert tree.node_path == (("B",),)
    assert tree.relation(np.array([0, 0]), np.array([1, 2])).tolist() == [SAME_LEAF, UNKNOWN]


def test_an_item_with_nothing_but_the_shared_nodes_is_unknown() -> None:
    tree = build_taxonomy(shop("A", "A/B", "A/C"))
    assert tree.num_stripped == 1
    assert tree.path_length[:, 0].tolist() == [0, 1, 1]
    assert tree.relation(np.array([0, 1]), np.array([1, 2])).tolist() == [UNKNOWN, UNRELATED]


@pytest.mark.parametrize("num_items", [0, 2])
def test_a_catalog_without_categories(num_items: int) -> None:
    tree = build_taxonomy(((),) * num_items)
    assert (tree.num_nodes, tree.num_stripped) == (0, 0)
    items = np.arange(num_items)
    assert tree.relation(items, items).tolist() == [UNKNOWN] * num_items


# ---- against a slow oracle that knows only the definitions ----

names = st.sampled_from("abc")
paths = st.lists(names, min_size=1, max_size=4).map(tuple)
categories = st.lists(st.lists(paths, max_size=3, unique=True).map(tuple), min_size=1, max_size=12).map(tuple)


def stripped(category: Category) -> list[list[CategoryPath]]:
    every = [one for item in category for one in item]
    count = 0
    while every and all(len(one) > count and one[: count + 1] == every[0][: count + 1] for one in every):
        count += 1
    if every and all(len(one) == count for one in every):
        count -= 1
    return [[one[count:] for one in item if len(one) > count] for item in category]


def shared(a: CategoryPath, b: CategoryPath) -> int:
    depth = 0
    while depth < min(len(a), len(b)) and a[depth] == b[depth]:
        depth += 1
    return depth


def relation_of(a: CategoryPath, b: CategoryPath) -> int:
    depth, longer = shared(a, b), max(len(a), len(b))
    if a == b:
        return SAME_LEAF
    if depth == 0:
        return UNRELATED
    return SIBLING if depth >= longer - 1 else COUSIN


@settings(deadline=None)
@given(categories)
def test_pairs_agree_with_the_oracle(category: Category) -> None:
    tree, items = build_taxonomy(category), stripped(category)
    index = np.arange(len(items))
    relation = tree.relation(index[:, None], index[None, :])
    similarity = tree.similarity(index[:, None], index[None, :])
    for i, one in enumerate(items):
        for j, other in enumerate(items):
            pairs = [(a, b) for a in one for b in other]
            assert relation[i, j] == max((relation_of(a, b) for a, b in pairs), default=UNKNOWN)
            best = max((shared(a, b) / max(len(a), len(b)) for a, b in pairs), default=np.nan)
            assert similarity[i, j] == pytest.approx(best, nan_ok=True)


@settings(deadline=None)
@given(categories)
def test_the_tree_agrees_with_the_oracle(category: Category) -> None:
    tree, items = build_taxonomy(category), stripped(category)
    nodes = {one[:end] for item in items for one in item for end in range(1, len(one) + 1)}
    assert set(tree.node_path) == nodes
    assert len(tree.node_path) == len(nodes)


@pytest.mark.skipif(not BEAUTY.is_dir(), reason="../shared/data/amazon2014-beauty is not there")
def test_beauty_has_every_kind_of_pair_once_its_root_is_stripped() -> None:
    catalog, counts = load_items(BEAUTY, Columns())
    assert (len(catalog), counts["items_without_title"]) == (12101, 15)
    tree = build_taxonomy(catalog.category)
    assert tree.num_stripped == 1
    assert tree.depth.max() == 8
    a, b = np.random.default_rng(0).integers(0, len(catalog), (2, 100_000))
    share = np.bincount(tree.relation(a, b), minlength=4) / 100_000
    np.testing.assert_allclose(share, [0.766, 0.182, 0.036, 0.017], atol=0.005)
