"""Protocols: what one list of 50 may hold, and the quota merge of cold and warm rankings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from pressmark.recommender import Recommendations

LIST_LENGTH = 50
"""Places of every list; one list serves every k."""

TWIN = "full_unmasked"
"""`full` again, with the items of the history left in the ranking."""


def quota_of(protocol: str) -> Fraction | None:
    """The exact epsilon of `quota_<epsilon>`, or None for the other protocols.

    A Fraction because floor(0.3 * 10) must be 3, and a float 0.29 * 100 is 28.999999999999996.

    Raises:
        ValueError: If the name is no protocol.

    >>> quota_of("quota_0.3")
    Fraction(3, 10)
    """
    if protocol in {"full", "cold_only"}:
        return None
    # The name becomes a folder, so only a plain decimal will do.
    if not re.fullmatch(r"quota_0\.\d*[1-9]", protocol):
        raise ValueError(
            f"evaluation.protocols: {protocol!r} is not known. "
            "Use full, cold_only, or quota_<share> with a share between 0 and 1 such as quota_0.1."
        )
    return Fraction(protocol.removeprefix("quota_"))


def describe(protocol: str) -> str:
    """One sentence for the report."""
    if protocol == "full":
        return "The model's own ranking of the whole catalog."
    if protocol == TWIN:
        return "As full, with the items of the history left in the ranking and every case kept."
    if protocol == "cold_only":
        return "Cold items alone: ranking quality apart from routing; a warm target is always a miss here."
    share = protocol.removeprefix("quota_")
    return (
        f"The model ranks cold and warm items apart; a prefix of length j holds at most floor({share} * j) "
        "cold items, and a slot that is allowed is filled by the best remaining cold item."
    )


def cold_up_to(epsilon: Fraction, length: int) -> np.ndarray:
    """floor(epsilon * j) for j = 1 .. length, exactly: (length,) int64.

    >>> cold_up_to(Fraction(3, 10), 10).tolist()
    [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    """
    return np.arange(1, length + 1, dtype=np.int64) * epsilon.numerator // epsilon.denominator


def merge_quota(cold: Recommendations, warm: Recommendations, epsilon: Fraction) -> Recommendations:
    """Merges rankings of cold and of warm items into lists under a quota.

    Every prefix of length j holds at most floor(epsilon * j) cold items; an allowed slot is filled by the best
    remaining cold item, any other by the best remaining warm item; where a side runs out the other fills.

    Args:
        cold: (C, K) rankings of cold items.
        warm: (C, K) rankings of warm items.
        epsilon: Share between 0 and 1.

    Returns:
        (C, K) lists. Each item keeps its own score, so the scores of a list fall within the cold and within the
        warm items but not across them.
    """
    length = cold.item_index.shape[1]
    place = np.arange(1, length + 1, dtype=np.int64)
    num_cold, num_warm = cold.num_valid[:, None], warm.num_valid[:, None]
    # Cold items among the first j: what the quota allows, or more where the warm items have run out.
    used = np.minimum(np.maximum(cold_up_to(epsilon, length), place - num_warm), num_cold)
    is_cold = np.diff(used, axis=1, prepend=0) > 0
    source = np.where(is_cold, used, place - used) - 1
    num_valid = np.minimum(cold.num_valid + warm.num_valid, length)
    filled = place <= num_valid[:, None]
    source = np.where(filled, source, 0)

    def pick(of_cold: np.ndarray, of_warm: np.ndarray, padding: float) -> np.ndarray:
        chosen = np.where(
            is_cold, np.take_along_axis(of_cold, source, axis=1), np.take_along_axis(of_warm, source, axis=1)
        )
        return np.where(filled, chosen, padding).astype(of_cold.dtype)

    return Recommendations(
        item_index=pick(cold.item_index, warm.item_index, -1),
        scores=pick(cold.scores, warm.scores, -np.inf),
        num_valid=num_valid,
    )


def check_protocols(protocols: Iterable[str]) -> None:
    """Raises ValueError for a name that is no protocol."""
    for protocol in protocols:
        quota_of(protocol)
