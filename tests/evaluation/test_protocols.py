from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.evaluation.protocols import LIST_LENGTH, cold_up_to, describe, merge_quota, quota_of
from pressmark.recommender import Recommendations


def ranking(items: list[int]) -> Recommendations:
    """One list of 50 places."""
    item_index = np.full((1, LIST_LENGTH), -1, np.int64)
    item_index[0, : len(items)] = items
    scores = np.where(item_index >= 0, -item_index.astype(np.float32), -np.inf).astype(np.float32)
    return Recommendations(item_index, scores, np.array([len(items)]))


def literal_merge(cold: list[int], warm: list[int], epsilon: Fraction) -> list[int]:
    """evaluation.md read word by word, one slot at a time."""
    cold, warm, result, num_cold = list(cold), list(warm), [], 0
    for j in range(1, LIST_LENGTH + 1):
        allowed = num_cold + 1 <= math.floor(epsilon * j)
        if cold and (allowed or not warm):
            result.append(cold.pop(0))
            num_cold += 1
        elif warm:
            result.append(warm.pop(0))
    return result


@given(
    num_cold=st.integers(0, LIST_LENGTH),
    num_warm=st.integers(0, LIST_LENGTH),
    share=st.sampled_from(["0.1", "0.3", "0.29", "0.5", "0.07", "0.99"]),
)
@settings(max_examples=200, deadline=None)
def test_merge_is_the_definition(num_cold: int, num_warm: int, share: str) -> None:
    cold, warm = list(range(num_cold)), list(range(100, 100 + num_warm))
    epsilon = quota_of(f"quota_{share}")
    assert epsilon is not None
    merged = merge_quota(ranking(cold), ranking(warm), epsilon)
    expected = literal_merge(cold, warm, epsilon)
    assert merged.item_index[0, : merged.num_valid[0]].tolist() == expected
    assert (merged.item_index[0, merged.num_valid[0] :] == -1).all()
    is_cold = np.array(expected, int) < 100
    if num_warm == LIST_LENGTH:
        assert (np.cumsum(is_cold) <= cold_up_to(epsilon, LIST_LENGTH)[: len(expected)]).all()


def test_first_cold_slot_at_a_tenth_is_the_tenth() -> None:
    merged = merge_quota(ranking([0, 1, 2, 3, 4, 5]), ranking(list(range(100, 150))), Fraction(1, 10))
    assert np.flatnonzero(merged.item_index[0] < 100).tolist() == [9, 19, 29, 39, 49]
    assert merged.item_index[0, 9] == 0
    assert merged.scores[0, 9] == 0.0
    assert merged.scores[0, 10] == -109.0


def test_rows_are_merged_apart() -> None:
    cold = Recommendations(
        *(np.concatenate(pair) for pair in zip(_parts(ranking([1])), _parts(ranking([2, 3])), strict=True))
    )
    warm = Recommendations(
        *(np.concatenate(pair) for pair in zip(_parts(ranking([100])), _parts(ranking([])), strict=True))
    )
    merged = merge_quota(cold, warm, Fraction(3, 10))
    assert merged.item_index[:, :3].tolist() == [[100, 1, -1], [2, 3, -1]]
    assert merged.num_valid.tolist() == [2, 2]


def _parts(one: Recommendations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return one.item_index, one.scores, one.num_valid


@pytest.mark.parametrize(("share", "length", "expected"), [("0.1", 10, 1), ("0.3", 10, 3), ("0.29", 100, 29)])
def test_quota_is_exact_where_floats_are_not(share: str, length: int, expected: int) -> None:
    epsilon = quota_of(f"quota_{share}")
    assert epsilon is not None
    assert cold_up_to(epsilon, length)[-1] == expected
    assert math.floor(0.29 * 100) == 28


@pytest.mark.parametrize(
    "name", ["quota", "quota_1", "quota_0", "quota_0.0", "quota_1/3", "Full", "full_unmasked"]
)
def test_unknown_protocols_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not known"):
        quota_of(name)


def test_every_protocol_is_described() -> None:
    texts = {describe(name) for name in ("full", "quota_0.1", "quota_0.3", "cold_only", "full_unmasked")}
    assert len(texts) == 5
