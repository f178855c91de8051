from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.coherence import above_chance, cooccurrence, tree_agreement


def shop() -> Taxonomy:
    paths = [("Shop", "Food", "Bread"), ("Shop", "Food", "Milk"), ("Shop", "Pets"), ("Shop", "Food", "Milk")]
    return build_taxonomy([*((path,) for path in paths), ()])


def test_purity_counts_the_shared_root_and_the_deepest_node() -> None:
    # Code 0: Food, Food, Pets (and one unknown, left out); code 1: Food.
    found = tree_agreement(np.array([[0], [0], [0], [1], [0]]), shop())
    assert found["purity1_depth2"] == pytest.approx(3 / 4)
    assert found["purity1_depth3"] == found["purity1_leaf"] == pytest.approx(2 / 4)
    assert "purity1_depth1" not in found


def test_no_category_no_figure() -> None:
    assert tree_agreement(np.zeros((5, 1), np.int64), build_taxonomy([()] * 5)) == {}


def test_nmi_by_hand_and_against_sklearn() -> None:
    # Groups of 3 and 1; labels Food, Food, Pets | Food.
    found = tree_agreement(np.array([[0], [0], [0], [1], [0]]), shop())
    entropy = -(3 / 4 * np.log(3 / 4) + 1 / 4 * np.log(1 / 4))  # of the groups, and of the labels
    joint = -(2 / 4 * np.log(2 / 4) + 2 / 4 * np.log(1 / 4))
    assert found["nmi1_depth2"] == pytest.approx((2 * entropy - joint) / entropy)

    rng = np.random.default_rng(0)
    codes, top, leaf = rng.integers(4, size=(200, 3)), rng.integers(3, size=200), rng.integers(5, size=200)
    codes[:100, 0] = top[:100]
    tree = build_taxonomy([((f"t{one}", f"l{other}"),) for one, other in zip(top, leaf, strict=True)])
    for length in (1, 2, 3):
        found = tree_agreement(codes, tree, length)
        group = codes[:, :length] @ [100, 10, 1][:length]
        assert found[f"nmi{length}_depth1"] == pytest.approx(normalized_mutual_info_score(top, group))
        assert found[f"nmi{length}_leaf"] == pytest.approx(normalized_mutual_info_score(top * 10 + leaf, group))


def test_one_group_and_one_category_say_nothing_of_each_other() -> None:
    tree = build_taxonomy([(("a",),), (("a",),)])
    assert tree_agreement(np.zeros((2, 1), np.int64), tree) == {}


def test_chance_rises_with_the_length_of_the_prefix_and_random_codes_reach_no_more() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(8, size=(600, 3))
    tree = build_taxonomy([((f"c{one}",),) for one in rng.integers(4, size=600)])
    found = {name: one for length in (1, 2, 3) for name, one in tree_agreement(codes, tree, length, 5).items()}
    assert found["purity1_leaf"] < 0.4 < 0.7 < found["purity3_leaf"]
    for length in (1, 2, 3):
        for figure in ("purity", "nmi"):
            key = f"{figure}{length}_leaf"
            assert abs(above_chance(found[key], found[f"{key}_chance"])) < 0.08
    follows = tree_agreement(tree.item_leaf[:, :1], tree)
    assert follows["purity1_leaf"] == follows["nmi1_leaf"] == pytest.approx(1.0)
    assert above_chance(follows["nmi1_leaf"], follows["nmi1_leaf_chance"]) == pytest.approx(1.0)
    assert follows["purity1_leaf_chance"] < 0.4


def test_figures_depend_on_the_seed_alone() -> None:
    codes = np.array([[0], [0], [0], [1], [0]])
    assert tree_agreement(codes, shop(), 1, 3) == tree_agreement(codes, shop(), 1, 3)


def test_cooccurrence_by_hand() -> None:
    # Items 0, 1 share both codes; 2 shares the first with them; 3 nothing.
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]])
    # Pairs 0-1, 1-2, 2-3 and 3-0; the repeated 3 makes none, nor do two users side by side.
    found = cooccurrence(codes, Histories.from_lists([[0, 1, 2, 3, 3], [], [3, 0], [1]]))
    assert found["num_pairs"] == 4
    assert found["cooccurrence_share_1"] == 2 / 4
    # First places: codes 0, 0, 0, 1; second: 0, 0, 1, 0.
    assert found["lift_1"] == pytest.approx((2 / 4) / (3 / 4 * 3 / 4 + 1 / 4 * 1 / 4))
    assert found["cooccurrence_share_2"] == 1 / 4
    # First places: 00, 00, 01, 10; second: 00, 01, 10, 00.
    assert found["lift_2"] == pytest.approx((1 / 4) / (2 / 4 * 2 / 4 + 1 / 4 * 1 / 4 + 1 / 4 * 1 / 4))


def test_cooccurrence_without_a_pair() -> None:
    codes = np.array([[0], [1]])
    assert cooccurrence(codes, Histories.from_lists([[0], [1, 1], []])) == {}
    assert cooccurrence(codes, Histories.from_lists([])) == {}
    # Nothing that stands first ever stands second: a share of 0, and no lift.
    assert cooccurrence(codes, Histories.from_lists([[0, 1]])) == {"num_pairs": 1, "cooccurrence_share_1": 0.0}
