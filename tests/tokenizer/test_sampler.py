from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pressmark.catalog import grocery
from pressmark.catalog.grocery_products import fill_shelves
from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.tokenizer.sampler import Config, HierarchicalSampler, equal_shares, pair_counts

BEAUTY = Path(__file__).parents[3] / "shared/data/amazon2014-beauty/items.parquet"


def shop(num_tops: int = 3, num_aisles: int = 3, num_shelves: int = 4, per_shelf: int = 5) -> Taxonomy:
    """A regular tree; a huge leaf, a parent with one child, single-product leaves, items without category."""
    category = [
        ((f"top{top}", f"aisle{aisle}", f"shelf{shelf}"),)
        for top in range(num_tops)
        for aisle in range(num_aisles)
        for shelf in range(num_shelves)
        for _ in range(per_shelf)
    ]
    category += [(("top0", "aisle0", "huge"),)] * 300
    category += [(("top1", "lonely", "child"),)] * 6
    category += [(("top2", "tiny", f"single{number}"),) for number in range(5)]
    category += [()] * 9
    return build_taxonomy(category)


def sampler(taxonomy: Taxonomy, batch_size: int = 32, seed: int = 0, **options: float) -> HierarchicalSampler:
    items = np.arange(len(taxonomy.item_leaf))
    return HierarchicalSampler(taxonomy, items, batch_size, replace(Config(), **options), seed)  # type: ignore[arg-type]


def test_every_batch_holds_all_three_pair_classes() -> None:
    taxonomy = shop()
    counts = pair_counts(taxonomy, sampler(taxonomy).plan(0))
    for name in ("same_leaf", "sibling", "unrelated"):
        assert min(counts[name]) > 0, name


@pytest.mark.parametrize("batch_size", [4, 8])
def test_tiny_batches_hold_them_too(batch_size: int) -> None:
    taxonomy = shop()
    counts = pair_counts(
        taxonomy, sampler(taxonomy, batch_size, sibling_share=0.75, uniform_share=0.25).plan(0)
    )
    assert min(counts["same_leaf"]) > 0
    if batch_size == 8:
        assert min(counts["sibling"]) > 0


def test_an_epoch_shows_every_item_those_without_category_too() -> None:
    taxonomy = shop()
    seen = np.unique(np.concatenate(sampler(taxonomy).plan(3)))
    assert seen.tolist() == list(range(len(taxonomy.item_leaf)))


def test_batches_are_full_and_hold_no_item_twice() -> None:
    for batch in sampler(shop()).plan(0):
        assert len(batch) == 32
        assert len(np.unique(batch)) == 32


def test_half_of_the_batch_comes_from_parents_with_two_children() -> None:
    taxonomy = shop()
    for batch in sampler(taxonomy, 32, slots_per_parent=4).plan(0):
        # The shuffled quarter stands first, then the siblings: four shelves of one aisle, four of another.
        parents = np.unique(taxonomy.parent[taxonomy.item_leaf[batch[8:24], 0]])
        assert 1 <= len(parents) <= 2
        assert not {taxonomy.node_path[parent][1] for parent in parents} & {"lonely", "tiny"}


def test_the_rest_is_unrelated_to_the_parent() -> None:
    taxonomy = shop()
    for batch in sampler(taxonomy, 32, products_per_slot=8).plan(0):
        tops = taxonomy.item_nodes[batch, 0, 0]
        parent_tops, others = np.unique(tops[8:24]), tops[24:]
        if len(parent_tops) == 1:
            assert (others != parent_tops[0]).all()


def test_the_same_seed_and_epoch_give_the_same_batches() -> None:
    taxonomy = shop()
    one, same = sampler(taxonomy).plan(2), sampler(taxonomy).plan(2)
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    for other in (sampler(taxonomy).plan(1), sampler(taxonomy, seed=1).plan(2)):
        assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_a_plan_does_not_depend_on_the_epochs_planned_before() -> None:
    taxonomy = shop()
    used = sampler(taxonomy)
    used.plan(0)
    assert all((a == b).all() for a, b in zip(used.plan(5), sampler(taxonomy).plan(5), strict=True))


def test_leaf_size_power_tames_huge_leaves() -> None:
    taxonomy = shop()

    huge = np.arange(180, 480)

    def share_of_huge(power: float) -> float:
        # Two slots of two: the leaf is drawn or not.
        options = {"parent_size_power": 0.0, "slots_per_parent": 2, "products_per_slot": 2}
        plan = sampler(taxonomy, 16, leaf_size_power=power, **options).plan(0)
        return float(np.mean(np.isin(np.concatenate([batch[4:12] for batch in plan]), huge)))

    assert share_of_huge(0.0) < share_of_huge(1.0)


def test_only_the_given_items_are_drawn() -> None:
    taxonomy = shop()
    items = np.arange(0, len(taxonomy.item_leaf), 2)
    plan = HierarchicalSampler(taxonomy, items, 32, Config(), 0).plan(0)
    assert np.unique(np.concatenate(plan)).tolist() == items.tolist()


@pytest.mark.parametrize(
    "category",
    [
        [()] * 40,
        [(("only",),)] * 40,
        [(("only", "one"),)] * 39 + [()],
        [(("a",),)] * 20 + [(("b",),)] * 20,
        [(("a", f"leaf{number}"),) for number in range(40)],
        [(("a", "x"), ("b", "y"))] * 20 + [(("b", "z"),)] * 20,
    ],
    ids=["no category", "one category", "one path", "flat", "one product a leaf", "two paths"],
)
def test_poor_trees_still_give_full_batches(category: list) -> None:
    plan = sampler(build_taxonomy(category), 16).plan(0)
    assert {len(batch) for batch in plan} == {16}
    assert all(len(np.unique(batch)) == 16 for batch in plan)
    assert len(np.unique(np.concatenate(plan))) == 40


def test_a_flat_tree_still_gives_same_leaf_and_unrelated_pairs() -> None:
    taxonomy = build_taxonomy([((f"leaf{number % 50}",),) for number in range(200)])
    counts = pair_counts(taxonomy, sampler(taxonomy, 16).plan(0))
    assert min(counts["same_leaf"]) >= 8
    assert min(counts["unrelated"]) > 0
    assert max(counts["sibling"]) == 0


def test_a_small_catalog_is_one_batch() -> None:
    plan = sampler(build_taxonomy([(("a",),)] * 5 + [(("b",),)] * 5), 64).plan(0)
    assert [sorted(batch.tolist()) for batch in plan] == [list(range(10))]


def test_uniform_share_one_is_a_plain_shuffle() -> None:
    plan = sampler(shop(), 32, uniform_share=1.0).plan(0)
    assert len(plan) == int(np.ceil(500 / 32))
    assert len(np.unique(np.concatenate(plan[:-1]))) == 32 * (len(plan) - 1)


def test_pair_counts_by_hand() -> None:
    taxonomy = build_taxonomy(
        [(("a", "x", "1"),), (("a", "x", "1"),), (("a", "x", "2"),), (("a", "y", "3"),), (("b", "z", "4"),), ()]
    )
    assert pair_counts(taxonomy, [np.arange(6)]) == {
        "same_leaf": [1], "sibling": [2], "cousin": [3], "unrelated": [4], "unknown": [5]
    }  # fmt: skip


def test_shares_are_equal_for_every_number_of_processes() -> None:
    batches = [np.arange(10), np.arange(7)]
    assert [len(batch) for batch in equal_shares(batches, 1)] == [10, 7]
    assert [len(batch) for batch in equal_shares(batches, 4)] == [8, 4]


def test_no_item_is_an_error() -> None:
    with pytest.raises(ValueError, match="no item to train"):
        HierarchicalSampler(shop(), np.empty(0, np.int64), 8, Config(), 0)


@pytest.mark.parametrize(
    "options",
    [{"uniform_share": 0.0}, {"sibling_share": 0.9}, {"products_per_slot": 1}, {"slots_per_parent": 1}],
)
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        replace(Config(), **options)


@pytest.mark.parametrize("batch_size", [128, 512])
def test_grocery_batches_hold_all_three_pair_classes(batch_size: int) -> None:
    store = grocery.Config()
    products = fill_shelves(store.num_products, 365, store.seed)
    taxonomy = build_taxonomy(products.category)
    assert_every_class(pair_counts(taxonomy, sampler(taxonomy, batch_size).plan(0)))


@pytest.mark.skipif(not BEAUTY.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize("batch_size", [128, 512])
def test_beauty_batches_hold_all_three_pair_classes(batch_size: int) -> None:
    import pyarrow.parquet as pq

    column = pq.read_table(BEAUTY)["category"].to_pylist()
    taxonomy = build_taxonomy([(tuple(path),) if path else () for path in column])
    assert_every_class(pair_counts(taxonomy, sampler(taxonomy, batch_size).plan(0)[:20]))


def assert_every_class(counts: dict[str, list[int]]) -> None:
    for name in ("same_leaf", "sibling", "unrelated"):
        assert min(counts[name]) > 0, name
