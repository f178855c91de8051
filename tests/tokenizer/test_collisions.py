from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.tokenizer.collisions import relocate, suffix
from pressmark.tokenizer.quantizer import quantize_rows

# One dimension: level 0 tells tens, level 1 ones.
TENS = np.array([[0.0], [10.0]], np.float32)
ONES = np.array([[-2.0], [0.0], [2.0]], np.float32)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_the_item_that_loses_least_moves() -> None:
    latents = column(0.1, 0.4, 9.9)
    codes = quantize_rows(latents, [TENS, ONES])
    assert codes.tolist() == [[0, 1], [0, 1], [1, 1]]
    resolution = relocate(latents, codes, [TENS, ONES])
    # 0.4 to 2: 2.56 instead of 0.16 costs 2.40; 0.1 to 2 would cost 3.61 - 0.01, to -2 4.41 - 0.01.
    assert resolution.sids.tolist() == [[0, 1], [0, 2], [1, 1]]
    assert resolution.moved.tolist() == [False, True, False]
    np.testing.assert_allclose(resolution.extra_distance, [0.0, 2.4, 0.0], atol=1e-5)
    assert resolution.share_relocated == pytest.approx(1 / 3)
    assert resolution.level_sizes == (2, 3)


def test_items_alone_on_their_code_stay() -> None:
    latents = column(0.1, 0.4, 1.9)
    codes = quantize_rows(latents, [TENS, ONES])
    resolution = relocate(latents, codes, [TENS, ONES])
    assert resolution.sids.tolist() == [[0, 1], [0, 0], [0, 2]] or resolution.sids.tolist() == [
        [0, 0],
        [0, 1],
        [0, 2],
    ]
    # 0.1 to -2 and 0.4 at 0: 4.41 + 0.16 = 4.57; 0.4 to -2 and 0.1 at 0: 5.76 + 0.01 = 5.77.
    assert resolution.sids.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_a_full_prefix_sends_its_cheapest_item_to_the_neighbour() -> None:
    latents = column(0.0, 0.2, 1.0, 3.0, 9.0)
    codes = quantize_rows(latents, [TENS, ONES])
    assert codes[:, 0].tolist() == [0, 0, 0, 0, 1]
    resolution = relocate(latents, codes, [TENS, ONES])
    # Four items for three SIDs; 3.0 loses least: (3 - 10)^2 - 3^2 = 40, against 80 and more.
    assert resolution.sids[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert len(np.unique(resolution.sids, axis=0)) == 5


def test_more_items_than_sids_names_the_size_needed() -> None:
    latents = column(*np.linspace(0, 10, 7))
    with pytest.raises(ValueError, match=r"7 items.*make only 6.*to 4 or more"):
        relocate(latents, quantize_rows(latents, [TENS, ONES]), [TENS, ONES])


def test_every_sid_is_used_when_there_are_as_many_items() -> None:
    latents = column(0, 0, 0, 0, 0, 0)
    sids = relocate(latents, quantize_rows(latents, [TENS, ONES]), [TENS, ONES]).sids
    assert sorted(map(tuple, sids.tolist())) == list(itertools.product(range(2), range(3)))


def test_an_overfull_catalog_of_equal_items_spills_over_every_level() -> None:
    books = [np.arange(3, dtype=np.float32)[:, None] * scale for scale in (100, 10, 1)]
    latents = np.zeros((27, 1), np.float32)
    sids = relocate(latents, quantize_rows(latents, books), books).sids
    assert len(np.unique(sids, axis=0)) == 27


@pytest.mark.parametrize("books", [[ONES], [TENS, ONES]])
def test_one_level_is_enough(books: list[np.ndarray]) -> None:
    latents = column(0.1, 0.2, 0.3)
    sids = relocate(latents, quantize_rows(latents, books), books).sids
    assert len(np.unique(sids, axis=0)) == 3


def test_suffix_numbers_the_nearest_first() -> None:
    latents = column(0.4, 0.1, 9.9, -0.2)
    codes = quantize_rows(latents, [TENS, ONES])
    resolution = suffix(latents, codes, [TENS, ONES])
    assert resolution.sids.tolist() == [[0, 1, 2], [0, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert resolution.level_sizes == (2, 3, 3)
    assert resolution.share_relocated == 0.0


def test_suffix_keeps_its_level_without_collisions() -> None:
    latents = column(0.0, 10.0)
    resolution = suffix(latents, quantize_rows(latents, [TENS, ONES]), [TENS, ONES])
    assert resolution.sids.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert resolution.level_sizes == (2, 3, 1)


def spread(seed: int, num_items: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    books = [rng.normal(size=(size, 2)).astype(np.float32) * scale for size, scale in ((3, 4), (3, 2), (4, 1))]
    return rng.normal(size=(num_items, 2)).astype(np.float32), books


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 36))
def test_sids_are_unique_and_do_not_depend_on_the_order(seed: int, num_items: int) -> None:
    latents, books = spread(seed, num_items)
    codes = quantize_rows(latents, books)
    order = np.random.default_rng(seed).permutation(num_items)
    for how in (relocate, suffix):
        resolution = how(latents, codes, books)
        assert len(np.unique(resolution.sids, axis=0)) == num_items
        assert (resolution.sids >= 0).all()
        assert (resolution.sids < resolution.level_sizes).all()
        assert (how(latents[order], codes[order], books).sids == resolution.sids[order]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 36), st.integers(0, 36))
def test_who_comes_later_takes_what_is_left(seed: int, num_items: int, num_old: int) -> None:
    latents, books = spread(seed, num_items)
    codes = quantize_rows(latents, books)
    old, new = slice(0, min(num_old, num_items)), slice(min(num_old, num_items), num_items)
    for how in (relocate, suffix):
        settled = how(latents[old], codes[old], books)
        later = how(latents[new], codes[new], books, settled.sids)
        sids = np.concatenate([settled.sids, later.sids])
        assert len(np.unique(sids, axis=0)) == num_items
        assert (sids >= 0).all()
        assert (sids < np.maximum(settled.level_sizes, later.level_sizes)).all()
        if new.start == 0:
            assert (later.sids == how(latents, codes, books).sids).all()


def test_a_taken_sid_is_not_given_up() -> None:
    latents = column(0.1)
    codes = quantize_rows(latents, [TENS, ONES])
    assert codes.tolist() == [[0, 1]]
    resolution = relocate(latents, codes, [TENS, ONES], np.array([[0, 1], [0, 2], [1, 0]]))
    assert resolution.sids.tolist() == [[0, 0]]
    taken = np.array([[0, 1, 0], [0, 1, 1], [1, 1, 0]])
    assert suffix(latents, codes, [TENS, ONES], taken).sids.tolist() == [[0, 1, 2]]


def test_taken_sids_count_against_the_room() -> None:
    latents = column(0.0, 1.0)
    codes = quantize_rows(latents, [TENS, ONES])
    full = np.array([[0, 0], [0, 1], [0, 2], [1, 0]])
    assert (relocate(latents, codes, [TENS, ONES], full).sids[:, 0] == 1).all()
    with pytest.raises(ValueError, match="7 items need their own SIDs"):
        relocate(latents, codes, [TENS, ONES], np.concatenate([full, [[1, 1]]]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_a_cell_is_settled_at_the_least_cost(seed: int, num_items: int) -> None:
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(num_items, 2)).astype(np.float32)
    book = rng.normal(size=(5, 2)).astype(np.float32)
    codes = quantize_rows(latents, [book])
    sids = relocate(latents, codes, [book]).sids[:, 0]

    alone = np.bincount(codes[:, 0], minlength=5)[codes[:, 0]] == 1
    assert (sids[alone] == codes[alone, 0]).all()
    crowded = np.flatnonzero(~alone)
    free = [code for code in range(5) if code not in set(codes[alone, 0].tolist())]
    cost = np.square(latents[:, None] - book[None]).sum(axis=2)
    least = min(
        sum(cost[item, code] for item, code in zip(crowded, choice, strict=True))
        for choice in itertools.permutations(free, len(crowded))
    )
    assert cost[crowded, sids[crowded]].sum() == pytest.approx(least, abs=1e-4)


def crowded(seed: int, num_items: int, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Few different latents, most of them in one place, for `size` ** 3 SIDs."""
    rng = np.random.default_rng(seed)
    books = [rng.normal(size=(size, 2)).astype(np.float32) * scale for scale in (4, 2, 1)]
    places = rng.normal(size=(3, 2)).astype(np.float32)
    return places[np.minimum(rng.geometric(0.7, num_items) - 1, 2)], books


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 3), st.data())
def test_skewed_catalogs_fill_up_to_the_last_sid(seed: int, size: int, data: st.DataObject) -> None:
    num_items = data.draw(st.integers(1, size**3))
    latents, books = crowded(seed, num_items, size)
    codes = quantize_rows(latents, books)
    everything = np.array(list(itertools.product(range(size), repeat=3)))
    num_taken = data.draw(st.integers(0, size**3 - num_items))
    taken = everything[np.random.default_rng(seed).permutation(size**3)[:num_taken]]
    resolution = relocate(latents, codes, books, taken)
    assert len(np.unique(np.concatenate([resolution.sids, taken]), axis=0)) == num_items + num_taken
    assert ((resolution.sids >= 0) & (resolution.sids < size)).all()
    assert (resolution.moved == (resolution.sids != codes).any(axis=1)).all()
    assert (resolution.extra_distance[~resolution.moved] == 0).all()
    # Whoever is alone on a free SID of a prefix that is not too full stays.
    sid, count = np.unique(np.concatenate([codes, taken]), axis=0, return_counts=True)
    alone = np.array([count[(sid == one).all(axis=1)][0] == 1 for one in codes])
    tight = any(
        (
            np.unique(np.concatenate([codes, taken])[:, :level], axis=0, return_counts=True)[1]
            > size ** (3 - level)
        ).any()
        for level in (1, 2)
    )
    assert tight or not resolution.moved[alone].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4))
def test_cells_are_settled_at_the_least_cost_around_what_is_taken(
    seed: int, num_items: int, num_taken: int
) -> None:
    rng = np.random.default_rng(seed)
    books = [np.array([[-50.0, 0.0], [50.0, 0.0]], np.float32), rng.normal(size=(4, 2)).astype(np.float32)]
    # One cell, far from the other: nobody may leave it as long as it has room.
    num_taken = min(num_taken, 4 - num_items)
    latents = (books[0][0] + 0.1 * rng.normal(size=(num_items, 2))).astype(np.float32)
    codes = quantize_rows(latents, books)
    taken = np.column_stack([np.zeros(num_taken, np.int64), rng.permutation(4)[:num_taken]])
    resolution = relocate(latents, codes, books, taken)

    held = np.concatenate([codes[:, 1], taken[:, 1]])
    alone = np.bincount(held, minlength=4)[codes[:, 1]] == 1
    assert (resolution.sids[alone] == codes[alone]).all()
    movers = np.flatnonzero(~alone)
    free = sorted(set(range(4)) - set(codes[alone, 1].tolist()) - set(taken[:, 1].tolist()))
    cost = np.square(latents[:, None] - books[0][0] - books[1][None]).sum(axis=2)
    least = min(
        sum(cost[item, code] for item, code in zip(movers, choice, strict=True))
        for choice in itertools.permutations(free, len(movers))
    )
    assert cost[movers, resolution.sids[movers, 1]].sum() == pytest.approx(least, abs=1e-4)
