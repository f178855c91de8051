from __future__ import annotations

import numpy as np
import pytest

from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.tokenizer import quality


def test_perplexity_shows_a_collapse_that_usage_hides() -> None:
    codes = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [0, 0], [0, 1], [0, 2], [0, 3]])
    use = quality.code_use(codes, (4, 8))
    assert use["usage_1"] == 1.0
    assert use["usage_2"] == 0.5
    # Shares 5/8, 1/8, 1/8, 1/8 on both levels.
    expected = float(np.exp(-(5 / 8 * np.log(5 / 8) + 3 / 8 * np.log(1 / 8))))
    assert use["perplexity_1"] == pytest.approx(expected)
    assert use["perplexity_2"] == pytest.approx(expected)


def test_shared_sids_by_hand() -> None:
    found = quality.shared_sids(np.array([[0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [2, 0]]))
    assert found == {"items_sharing_a_sid": 5 / 6, "num_item_collisions": 3, "largest_sid": 3}


def test_r2_by_hand() -> None:
    vectors = np.array([[0.0], [2.0]])
    assert quality.reconstruction_r2(vectors, vectors) == 1.0
    assert quality.reconstruction_r2(vectors, np.array([[1.0], [1.0]])) == 0.0
    assert quality.reconstruction_r2(vectors, np.array([[0.5], [2.0]])) == pytest.approx(0.875)


def test_shared_prefix_stops_at_the_first_difference() -> None:
    assert quality.shared_prefix(
        np.array([[1, 2, 3], [1, 2, 3]]), np.array([[1, 0, 3], [1, 2, 3]])
    ).tolist() == [1, 3]


def test_codes_that_follow_the_vectors_agree_with_them() -> None:
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0, np.pi / 2, 200))
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    rank = np.arange(200)
    good = np.stack([rank // 50, rank // 10 % 5], axis=1)
    bad = good[rng.permutation(200)]
    near = {
        name: quality.neighbour_agreement(vectors, codes, 0) for name, codes in (("good", good), ("bad", bad))
    }
    assert near["good"]["spearman_random"] > 0.6
    assert abs(near["bad"]["spearman_random"]) < 0.1
    assert (
        near["good"]["share_cosine90_code1"]
        > near["good"]["share_cosine90_code2"]
        > near["bad"]["share_cosine90_code2"]
    )


def test_zero_vectors_and_one_sid_for_all_leave_figures_out() -> None:
    assert quality.neighbour_agreement(np.zeros((5, 3), np.float32), np.zeros((5, 2), np.int64), 0) == {}
    vectors = np.eye(4, dtype=np.float32)
    assert quality.neighbour_agreement(vectors, np.zeros((4, 2), np.int64), 0) == {}


def test_purity_counts_the_shared_root_and_the_deepest_node() -> None:
    paths = [("Shop", "Food", "Bread"), ("Shop", "Food", "Milk"), ("Shop", "Pets"), ("Shop", "Food", "Milk")]
    tree = build_taxonomy([*((path,) for path in paths), ()])
    codes = np.array([[0], [0], [0], [1], [0]])
    # Code 0: Food, Food, Pets (and one unknown, left out); code 1: Food.
    assert quality.purity(codes, tree) == {
        "purity1_depth2": pytest.approx(3 / 4),
        "purity1_depth3": pytest.approx(2 / 4),
        "purity1_leaf": pytest.approx(2 / 4),
    }
    assert quality.purity(codes, build_taxonomy([()] * 5)) == {}
