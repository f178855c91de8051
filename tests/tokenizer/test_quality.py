from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.interactions.histories import Histories
from pressmark.tokenizer import quality
from pressmark.tokenizer.collisions import Resolution


def test_perplexity_shows_a_collapse_that_usage_hides() -> None:
    codes = np.array([[0, 0], [1, 0], [2, 0], [3, 0], [0, 0], [0, 1], [0, 2], [0, 3]])
    use = quality.code_use(codes, (4, 8))
    assert use["usage_1"] == 1.0
    assert use["usage_2"] == 0.5
    # Shares 5/8, 1/8, 1/8, 1/8 on both levels.
    expected = float(np.exp(-(5 / 8 * np.log(5 / 8) + 3 / 8 * np.log(1 / 8))))
    assert use["perplexity_1"] == pytest.approx(expected)
    assert use["perplexity_2"] == pytest.approx(expected)
    assert use["largest_share_1"] == 5 / 8
    assert "sandglass" not in use


def test_gini_by_hand() -> None:
    use = quality.code_use(np.array([[0, 0], [1, 0], [2, 0], [2, 0]]), (3, 4))
    # Counts 1, 1, 2: differences of ordered pairs 4, over 2 * 3^2 * mean 4/3. Counts 4, 0, 0, 0: one has all.
    assert use["gini_1"] == pytest.approx(4 / (2 * 9 * (4 / 3)))
    assert use["gini_2"] == pytest.approx(3 / 4)


def test_branches_are_the_ways_in_which_a_prefix_goes_on() -> None:
    use = quality.code_use(np.array([[0, 0], [0, 1], [1, 2], [1, 3]]), (2, 4))
    assert (use["branches_1"], use["branches_2"]) == (pytest.approx(2), pytest.approx(2))
    use = quality.code_use(np.array([[0, 0], [0, 0], [1, 1], [1, 1]]), (2, 4))
    assert use["branches_2"] == pytest.approx(1)
    assert (use["num_prefixes_1"], use["num_prefixes_2"]) == (2, 2)


def test_a_sandglass_is_a_middle_below_both_ends() -> None:
    sizes = (256, 256, 256, 256)
    assert quality.sandglass((200, 50, 80, 160), sizes) == pytest.approx(1 - 50 / 160)
    assert quality.sandglass((201, 124, 83, 42), sizes) == 0
    assert quality.sandglass((100, 150, 180, 200), sizes) == 0
    # Shares count, not perplexities: 64 of 128 is no less than 128 of 256.
    assert quality.sandglass((128, 64, 32), (256, 128, 64)) == 0
    codes = np.array([[0, 0, 0], [1, 0, 1], [2, 0, 2], [3, 0, 3]])
    assert quality.code_use(codes, (4, 4, 4))["sandglass"] == pytest.approx(1 - 1 / 4)


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
    assert quality.neighbour_agreement(vectors, np.zeros((4, 2), np.int64), 0) == {"num_anchors": 4}


@pytest.mark.parametrize("num_neighbours", [5, 40])  # of 40 some are further than a vector of zeros would be
def test_every_item_is_an_anchor_unless_asked_otherwise(num_neighbours: int) -> None:
    """Against a loop over all ordered pairs."""
    rng = np.random.default_rng(3)
    vectors, codes = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(3, size=(60, 2))
    vectors[7] = 0
    found = quality.neighbour_agreement(vectors, codes, 0, num_neighbours=num_neighbours)
    assert found["num_anchors"] == 59

    known = [item for item in range(60) if item != 7]
    cosine = {
        (a, b): float(vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b]))
        for a in known
        for b in known
        if a != b
    }
    near = [
        (a, b)
        for a in known
        for b in sorted(known, key=lambda b: -cosine.get((a, b), -np.inf))[:num_neighbours]
    ]
    shared = [int(codes[a, 0] == codes[b, 0]) * (1 + int(codes[a, 1] == codes[b, 1])) for a, b in near]
    expected = scipy.stats.spearmanr([cosine[pair] for pair in near], shared).statistic
    assert found["spearman_neighbours"] == pytest.approx(expected, abs=1e-6)
    close = [pair for pair in cosine if cosine[pair] >= 0.9]
    both = np.mean([(codes[a] == codes[b]).all() for a, b in close])
    assert found["share_cosine90_code2"] == pytest.approx(both)
    assert quality.neighbour_agreement(vectors, codes, 0, num_anchors=10)["num_anchors"] == 10


def test_quality_has_every_figure_that_its_arguments_allow() -> None:
    rng = np.random.default_rng(0)
    vectors, codes = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(3, size=(30, 4))
    tree = build_taxonomy([((f"top{item % 2}", f"leaf{item % 6}"),) for item in range(30)])
    resolution = Resolution(codes, (3, 3, 3, 3), np.arange(30) < 3, np.arange(30, dtype=np.float32))
    histories = Histories.from_lists([[0, 1, 2], [3, 4]])
    least = quality.quality(vectors, codes, vectors, (3, 3, 3, 3), tree, 0)
    full = quality.quality(vectors, codes, vectors, (3, 3, 3, 3), tree, 0, histories, resolution)
    assert {
        "usage_4",
        "gini_4",
        "sandglass",
        "purity3_depth2",
        "nmi3_leaf",
        "reconstruction_r2",
    } <= least.keys()
    assert full.keys() - least.keys() == {
        *(f"{name}_{length}" for name in ("cooccurrence_share", "lift") for length in (1, 2, 3, 4)),
        *("num_pairs", "share_relocated", "num_item_collisions_after", "mean_extra_distance"),
    }
    assert (full["share_relocated"], full["mean_extra_distance"]) == (0.1, 1.0)
    assert all(isinstance(value, (int, float)) for value in full.values())
