from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.catalog import grocery
from pressmark.catalog.grocery_products import fill_shelves
from pressmark.catalog.taxonomy import COUSIN, SIBLING, UNRELATED, Taxonomy, build_taxonomy
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.config import SamplerConfig
from pressmark.tokenizer.pairs import LeafGroups, pair_counts
from pressmark.tokenizer.sampler import HierarchicalSampler, equal_shares

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


def sampler(
    taxonomy: Taxonomy, batch_size: int = 32, seed: int = 0, **options: float | str
) -> HierarchicalSampler:
    items = np.arange(len(taxonomy.item_leaf))
    return HierarchicalSampler(taxonomy, items, batch_size, replace(SamplerConfig(), **options), seed)  # type: ignore[arg-type]


def test_every_batch_holds_all_three_pair_classes() -> None:
    taxonomy = shop()
    counts = pair_counts(LeafGroups(taxonomy), sampler(taxonomy).plan(0))
    for name in ("same_leaf", "sibling", "unrelated"):
        assert min(counts[name]) > 0, name


@pytest.mark.parametrize("batch_size", [4, 8])
def test_tiny_batches_hold_them_too(batch_size: int) -> None:
    taxonomy = shop()
    counts = pair_counts(
        LeafGroups(taxonomy), sampler(taxonomy, batch_size, sibling_share=0.75, uniform_share=0.25).plan(0)
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
    plan = HierarchicalSampler(taxonomy, items, 32, SamplerConfig(), 0).plan(0)
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
    counts = pair_counts(LeafGroups(taxonomy), sampler(taxonomy, 16).plan(0))
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
    assert pair_counts(LeafGroups(taxonomy), [np.arange(6)]) == {
        "same_leaf": [1], "sibling": [2], "cousin": [3], "unrelated": [4], "unknown": [5]
    }  # fmt: skip


def ragged(seed: int, num_items: int = 120) -> Taxonomy:
    """Random paths of one to four names, so that inner nodes hold items and parents have one child or many."""
    rng = np.random.default_rng(seed)
    names = [tuple(map(str, rng.integers(3, size=rng.integers(1, 5)))) for _ in range(num_items // 4)]
    return build_taxonomy([(names[pick],) for pick in rng.integers(len(names), size=num_items)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["far", "near", "any"]), st.sampled_from(["skip", "climb"]))
def test_negatives_stand_where_they_should(seed: int, negatives: str, single_child: str) -> None:
    taxonomy = ragged(seed)
    one = sampler(taxonomy, negatives=negatives, single_child=single_child)
    for number, children in enumerate(one._children):
        found = one._negative_leaves(np.random.default_rng(seed), np.full(40, number))
        first = (taxonomy.item_leaf[:, 0] == one.leaf_node[:, None]).argmax(axis=1)
        own, other = first[children], first
        # The closest that each leaf of the tree is to any child of the parent.
        closest = taxonomy.relation(own[:, None], other).max(axis=0)
        allowed = {"far": closest == UNRELATED, "near": closest == COUSIN, "any": closest < SIBLING}[negatives]
        if negatives == "near" and not allowed.any():
            allowed = closest == UNRELATED
        assert allowed[found].all()
        # 40 draws reach at least one of the leaves that may come, if there is any.
        assert len(found) == (40 if allowed.any() else 0)


def test_near_negatives_are_cousins_in_the_batch() -> None:
    taxonomy = shop(num_tops=2, num_aisles=4, per_shelf=8)
    far = pair_counts(LeafGroups(taxonomy), sampler(taxonomy, slots_per_parent=4, negatives="far").plan(0))
    near = pair_counts(LeafGroups(taxonomy), sampler(taxonomy, slots_per_parent=4, negatives="near").plan(0))
    assert np.mean(near["cousin"]) > 1.3 * np.mean(far["cousin"])


def first_parents(power: float, num_batches: int = 2000) -> np.ndarray:
    """How often each of three parents of 6, 12 and 54 products is drawn first."""
    category = [((f"top{top}", f"leaf{leaf}"),) for top, size in enumerate((3, 6, 27)) for leaf in (0, 1)
                for _ in range(size)]  # fmt: skip
    one = sampler(build_taxonomy(category), 8, parent_size_power=power)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(num_batches):
        taken, parents = one._siblings(rng, one._pair_item, 4)
        one._mask[np.concatenate(taken)] = False
        drawn.append(parents[0])
    return np.bincount(drawn, minlength=3) / num_batches


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_parents_are_drawn_by_a_power_of_their_size(power: float) -> None:
    expected = np.array([6.0, 12.0, 54.0]) ** power
    # Four standard deviations of a share of 2,000 draws are at most 0.045.
    np.testing.assert_allclose(first_parents(power), expected / expected.sum(), atol=0.045)


def test_slots_hold_as_many_products_as_asked() -> None:
    taxonomy = shop(per_shelf=20)
    for per_slot in (2, 8):
        batch = sampler(taxonomy, 64, products_per_slot=per_slot, leaf_size_power=0.0).plan(0)[0]
        siblings = taxonomy.item_leaf[batch[16:48], 0]
        assert len(np.unique(siblings)) == 32 // per_slot


def test_a_leaf_without_siblings_is_skipped_or_climbs() -> None:
    # One shelf below aisle "lonely": its nearest company is the shelf that stands straight below the top.
    category = (
        [(("a", "lonely", "shelf"),)] * 4 + [(("a", "b"),)] * 4 + [(("c", "d"),)] * 4 + [(("c", "e"),)] * 4
    )
    taxonomy = build_taxonomy(category)

    def parents(single_child: str) -> list[list[tuple[str, ...]]]:
        one = sampler(taxonomy, 8, single_child=single_child)
        return [[taxonomy.node_path[node] for node in one.leaf_node[leaves]] for leaves in one._children]

    assert parents("skip") == [[("c", "d"), ("c", "e")]]
    assert parents("climb") == [[("a", "b"), ("a", "lonely", "shelf")], [("c", "d"), ("c", "e")]]


def test_lonely_leaves_meet_where_their_paths_do() -> None:
    category = [(("a", "x", "y", "1"),)] * 3 + [(("a", "x", "z", "2"),)] * 3 + [(("b",),)] * 3
    one = sampler(build_taxonomy(category), 8, single_child="climb")
    # 1 and 2 climb to x and stay; b has nowhere to go.
    assert [leaves.tolist() for leaves in one._children] == [[0, 1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 4]), st.sampled_from(["far", "near", "any"]))
def test_the_shares_of_all_processes_are_the_batch_of_one(seed: int, world: int, negatives: str) -> None:
    taxonomy = shop()
    plan = sampler(taxonomy, 24, seed, negatives=negatives).plan(1)
    for whole, batch in zip(plan, equal_shares(plan, world), strict=True):
        shares = [batch[rank::world] for rank in range(world)]
        assert len({len(share) for share in shares}) == 1
        assert sorted(np.concatenate(shares).tolist()) == sorted(whole.tolist())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["far", "near", "any"]), st.sampled_from(["skip", "climb"]),
       st.integers(2, 6), st.integers(2, 4), st.sampled_from([0.0, 0.3, 0.7]), st.integers(2, 60))  # fmt: skip
def test_any_options_on_any_tree_give_full_batches_and_every_item(
    seed: int, negatives: str, single_child: str, per_slot: int, slots: int, share: float, batch_size: int
) -> None:
    taxonomy = ragged(seed)
    plan = sampler(
        taxonomy, batch_size, seed, negatives=negatives, single_child=single_child, products_per_slot=per_slot,
        slots_per_parent=slots, sibling_share=share,
    ).plan(0)  # fmt: skip
    assert {len(batch) for batch in plan} == {batch_size}
    assert all(len(np.unique(batch)) == batch_size for batch in plan)
    assert len(np.unique(np.concatenate(plan))) == 120


def test_shares_are_equal_for_every_number_of_processes() -> None:
    batches = [np.arange(10), np.arange(7)]
    assert [len(batch) for batch in equal_shares(batches, 1)] == [10, 7]
    assert [len(batch) for batch in equal_shares(batches, 4)] == [8, 4]


def test_no_item_is_an_error() -> None:
    with pytest.raises(ValueError, match="no item to train"):
        HierarchicalSampler(shop(), np.empty(0, np.int64), 8, SamplerConfig(), 0)


@pytest.mark.parametrize(
    "options",
    [
        {"uniform_share": 0.0},
        {"sibling_share": 0.9},
        {"companion_share": 0.6},
        {"companion_share": -0.1},
        {"products_per_slot": 1},
        {"slots_per_parent": 1},
    ],
)
def test_wrong_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        replace(SamplerConfig(), **options)


def with_companions(
    lists: list[list[list[int]]], batch_size: int = 32, seed: int = 0, **options: float | str
) -> HierarchicalSampler:
    taxonomy = shop()
    items = np.arange(len(taxonomy.item_leaf))
    packed = [Histories.from_lists(one) for one in lists]
    return HierarchicalSampler(taxonomy, items, batch_size, replace(SamplerConfig(), **options), seed, packed)  # type: ignore[arg-type]


def ring(step: int) -> list[list[int]]:
    """Of 500 items: each one's companions are those `step` and twice `step` behind it."""
    return [[(one + step) % 500, (one + 2 * step) % 500] for one in range(500)]


def same_batches(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_companions_of_the_shuffled_items_come_in_place_of_negatives() -> None:
    taxonomy, lists = shop(), ring(37)
    plan = with_companions([lists], slots_per_parent=4).plan(0)
    full, seconds = 0, 0
    for batch in plan:
        assert len(np.unique(batch)) == len(batch) == 32
        run, after = batch[:8], list(batch[8:])
        # In the order of the shuffled items, one companion each, but for those that the batch held already.
        held = 0
        for one in run:
            if after[held] in lists[one]:
                seconds += after[held] == lists[one][1]
                held += 1
        assert held >= 6
        if held == 8:  # then the rest is the siblings' half, and there are no negatives
            full += 1
            parents = np.unique(taxonomy.parent[taxonomy.item_leaf[batch[16:], 0]])
            assert 1 <= len(parents) <= 2
    assert full > len(plan) / 2
    assert 0.35 < seconds / (8 * len(plan)) < 0.65, "a companion is drawn at random from its list"


def test_without_negatives_to_give_way_siblings_do() -> None:
    # Two kinds of companions, a quarter each, beside a quarter of shuffle: half of the siblings are left.
    plan = with_companions([ring(37), ring(111)]).plan(0)
    for batch in plan:
        assert len(np.unique(batch)) == len(batch) == 32
        for step, part in ((37, batch[8:16]), (111, batch[16:24])):
            assert np.isin(part, [(one + k * step) % 500 for one in batch[:8] for k in (1, 2)]).sum() >= 5


def test_companions_stop_at_their_share_and_absent_ones_leave_room() -> None:
    # Items 491 to 499 have no category: neither siblings nor negatives draw them.
    apart = np.arange(491, 500)
    lists = [apart.tolist() if one < 491 else [] for one in range(500)]

    def from_apart(share: float) -> list[int]:
        plan = with_companions([lists], companion_share=share).plan(0)
        assert all(len(np.unique(batch)) == len(batch) == 32 for batch in plan)
        return [int(np.isin(batch[8:], apart).sum()) for batch in plan]

    # Eight draws out of nine hit about five or six different ones.
    assert 4 < np.mean(from_apart(0.25)) < 7
    assert np.mean(np.array(from_apart(0.0625)) == 2) > 0.9
    assert max(from_apart(0.0625)) == 2
    assert from_apart(0.0) == [0] * len(from_apart(0.0))


def test_share_zero_and_no_lists_are_the_batches_without_companions() -> None:
    taxonomy = shop()
    plain = sampler(taxonomy).plan(2)
    assert same_batches(with_companions([ring(37)], companion_share=0.0).plan(2), plain)
    assert same_batches(with_companions([]).plan(2), plain)
    assert not same_batches(with_companions([ring(37)]).plan(2), plain)


def test_companions_come_without_a_tree_too() -> None:
    lists = Histories.from_lists([[(one + 7) % 40] for one in range(40)])
    plan = HierarchicalSampler(build_taxonomy([()] * 40), np.arange(40), 16, SamplerConfig(), 0, [lists]).plan(
        0
    )
    for batch in plan:
        assert len(np.unique(batch)) == len(batch) == 16
        assert set((batch[:4] + 7) % 40) <= set(batch)


def test_companions_are_drawn_by_seed_and_epoch() -> None:
    used = with_companions([ring(37)])
    used.plan(0)
    plan = used.plan(2)
    assert same_batches(plan, with_companions([ring(37)]).plan(2))
    assert not same_batches(plan, used.plan(1))
    assert not same_batches(plan, with_companions([ring(37)], seed=1).plan(2))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([0.1, 0.25, 0.5]), st.integers(1, 2))
def test_companions_on_any_tree_give_full_batches_and_every_item(
    seed: int, batch_size: int, share: float, num_kinds: int
) -> None:
    rng = np.random.default_rng(seed)
    kinds = [
        Histories.from_lists([rng.integers(120, size=rng.integers(0, 4)) for _ in range(120)])
        for _ in range(num_kinds)
    ]
    shape = SamplerConfig(companion_share=share)
    plan = HierarchicalSampler(ragged(seed), np.arange(120), batch_size, shape, seed, kinds).plan(0)
    assert {len(batch) for batch in plan} == {batch_size}
    assert all(len(np.unique(batch)) == batch_size for batch in plan)
    assert len(np.unique(np.concatenate(plan))) == 120


@pytest.mark.parametrize("batch_size", [128, 512])
def test_grocery_batches_hold_all_three_pair_classes(batch_size: int) -> None:
    store = grocery.Config()
    products = fill_shelves(store.num_products, 365, store.seed)
    taxonomy = build_taxonomy(products.category)
    assert_every_class(pair_counts(LeafGroups(taxonomy), sampler(taxonomy, batch_size).plan(0)))


@pytest.mark.skipif(not BEAUTY.exists(), reason="../shared/data is absent")
@pytest.mark.parametrize("batch_size", [128, 512])
def test_beauty_batches_hold_all_three_pair_classes(batch_size: int) -> None:
    import pyarrow.parquet as pq

    column = pq.read_table(BEAUTY)["category"].to_pylist()
    taxonomy = build_taxonomy([(tuple(path),) if path else () for path in column])
    assert_every_class(pair_counts(LeafGroups(taxonomy), sampler(taxonomy, batch_size).plan(0)[:20]))


def assert_every_class(counts: dict[str, list[int]]) -> None:
    for name in ("same_leaf", "sibling", "unrelated"):
        assert min(counts[name]) > 0, name
