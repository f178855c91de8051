from __future__ import annotations

import math

import pytest

from pressmark.insight.sizes import LEAST_SIDS_PER_ITEM, suggest


@pytest.mark.parametrize(
    ("num_items", "level_sizes"),
    [
        (2, (2,) * 6),  # 2^6 = 64 SIDs are 32 an item
        (60, (16,) * 4),  # 1,092 an item
        (240, (16,) * 5),  # 4 levels would make 273, which the doctor calls bad
        (2_460, (32,) * 5),  # 426
        (4_000, (64,) * 4),
        (12_101, (256,) * 4),
        (50_000, (1024,) * 4),
        (200_000, (4096,) * 3),  # 343,597 SIDs an item
        (1_000_000, (4096,) * 4),  # 3 levels would make 68,719
    ],
)
def test_the_rule_by_hand(num_items: int, level_sizes: tuple[int, ...]) -> None:
    assert suggest(num_items).level_sizes == level_sizes


@pytest.mark.parametrize("num_items", [1, 3, 15, 100, 999, 9_984, 9_985, 159_743, 159_744, 10**8])
def test_what_is_suggested_can_be_trained_and_has_room(num_items: int) -> None:
    found = suggest(num_items)
    assert max(found.level_sizes) <= max(2, num_items)
    assert math.prod(found.level_sizes) >= LEAST_SIDS_PER_ITEM * num_items
    assert found.sids_per_item == pytest.approx(math.prod(found.level_sizes) / num_items)
    assert found.items_per_prefix[0] == pytest.approx(num_items / found.level_sizes[0])
    assert found.items_per_prefix[-1] == pytest.approx(1 / found.sids_per_item)


def test_codes_follow_what_is_fitted_on_and_room_what_needs_a_sid() -> None:
    assert suggest(12_101, num_fitted=9_984).level_sizes == (256,) * 4
    fewer = suggest(12_101, num_fitted=9_983)
    assert fewer.level_sizes == (128,) * 4
    assert fewer.items_per_code == 9_983 / 128


@pytest.mark.parametrize(("num_items", "num_fitted"), [(0, None), (5, 0)])
def test_nothing_to_suggest_for_nothing(num_items: int, num_fitted: int | None) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        suggest(num_items, num_fitted)
