"""Cold against warm: does a product that nobody has bought yet get a SID as good as the others'?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pressmark.tokenizer.quantizer import prefix_number


def cold_against_warm(
    vectors: np.ndarray,
    codes: np.ndarray,
    decoded: np.ndarray,
    cold: np.ndarray,
    categories: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """The same figures of cold and of warm items. An item is compared with the warm items other than itself.

    Args:
        vectors: (N, D) float32.
        codes: (N, L) int64 nearest codes.
        decoded: (N, D) float32, the quantizer's reconstruction.
        cold: (N,) bool.
        categories: Name -> (N,) int64 node of each item, -1 where unknown; as `tree_categories` gives them.

    Returns:
        With <side> cold or warm, and <side>_gap the warm figure less the cold one (above 0: cold is worse):

        reconstruction_r2_<side>: 1 - the side's squared errors over its squared distances to the mean of the
            warm items.
        prefix_shared_<l>_<side>: share of the side's items whose first l codes some other, warm item has. The
            generator has met only such prefixes.
        majority_<name>_<side>: share of the side's items that belong to the commonest category of the other,
            warm items with their first code (the lowest node of several); none there counts as a miss. It is
            purity without the item's own vote, which would flatter small groups.

        {} where one of the sides has no item. A figure is left out where a side cannot have it.
    """
    if not cold.any() or cold.all():
        return {}
    found: dict[str, float] = {}
    mean = vectors[~cold].mean(axis=0, dtype=np.float64)
    error, spread = np.empty(len(vectors)), np.empty(len(vectors))
    for start in range(0, len(vectors), 65_536):
        rows = slice(start, start + 65_536)
        error[rows] = np.square(vectors[rows].astype(np.float64) - decoded[rows]).sum(axis=1)
        spread[rows] = np.square(vectors[rows] - mean).sum(axis=1)
    for side, mask in (("cold", cold), ("warm", ~cold)):
        if spread[mask].sum() > 0:
            found[f"reconstruction_r2_{side}"] = float(1 - error[mask].sum() / spread[mask].sum())
    for length in range(1, codes.shape[1] + 1):
        prefix = prefix_number(codes[:, :length])
        others = np.bincount(prefix[~cold], minlength=int(prefix.max()) + 1)[prefix] - ~cold
        for side, mask in (("cold", cold), ("warm", ~cold)):
            found[f"prefix_shared_{length}_{side}"] = float((others[mask] > 0).mean())
    first = prefix_number(codes[:, :1])
    for name, category in categories.items():
        known = category >= 0
        hit = _majority_hit(first[known], category[known], ~cold[known])
        for side, mask in (("cold", cold[known]), ("warm", ~cold[known])):
            if mask.any():
                found[f"majority_{name}_{side}"] = float(hit[mask].mean())
    gaps = {
        name.removesuffix("_warm") + "_gap": value - found[name.removesuffix("_warm") + "_cold"]
        for name, value in found.items()
        if name.endswith("_warm") and name.removesuffix("_warm") + "_cold" in found
    }
    return {**found, **gaps}


def _majority_hit(group: np.ndarray, label: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """(n,) bool: whether each item has the commonest label among the others of its group that vote."""
    counts = np.zeros((int(group.max(initial=-1)) + 1, int(label.max(initial=-1)) + 1), np.int32)
    np.add.at(counts, (group[votes], label[votes]), 1)
    hit = np.empty(len(group), bool)
    for item, (row, own) in enumerate(zip(group, label, strict=True)):
        others = counts[row].copy()
        others[own] -= votes[item]
        hit[item] = others[own] > 0 and others.argmax() == own
    return hit
