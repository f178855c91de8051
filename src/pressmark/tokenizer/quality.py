"""How good a tokenization is: use of the codes, collisions, reconstruction, and whether codes mean something.

All figures are plain numbers in one flat dict, so that runs can be compared by key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.tokenizer.quantizer import prefix_number

CLOSE_COSINE = 0.9


def code_use(codes: np.ndarray, level_sizes: Sequence[int]) -> dict[str, float]:
    """Usage and perplexity of each level, counted from 1.

    Args:
        codes: (N, L) int64.
        level_sizes: Codes a level.

    Returns:
        usage_<level>: share of the level's codes that some item has.
        perplexity_<level>: exp of the entropy of the codes; the number of codes if all are used alike. Equal
            usage can hide a collapse: one code may hold most items.
    """
    use = {}
    for level, size in enumerate(level_sizes):
        share = np.bincount(codes[:, level], minlength=size) / max(1, len(codes))
        used = share[share > 0]
        use[f"usage_{level + 1}"] = len(used) / size
        use[f"perplexity_{level + 1}"] = float(np.exp(-(used * np.log(used)).sum()))
    return use


def shared_sids(codes: np.ndarray) -> dict[str, float]:
    """Items that share their SID with another.

    Returns:
        items_sharing_a_sid: share of the items.
        num_item_collisions: items beyond the first of each SID.
        largest_sid: most items on one SID.
    """
    counts = np.bincount(prefix_number(codes))
    return {
        "items_sharing_a_sid": float(counts[counts > 1].sum() / max(1, len(codes))),
        "num_item_collisions": int(len(codes) - len(counts)),
        "largest_sid": int(counts.max(initial=0)),
    }


def reconstruction_r2(vectors: np.ndarray, decoded: np.ndarray) -> float:
    """1 - sum of squared errors / sum of squares around the mean, over all dimensions of (N, D) arrays."""
    error = np.square(vectors - decoded, dtype=np.float64).sum()
    spread = np.square(vectors - vectors.mean(axis=0), dtype=np.float64).sum()
    return float(1 - error / spread) if spread > 0 else float(error == 0)


def shared_prefix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of leading codes that are equal: (..., L) int64 twice -> (...) int64."""
    return np.cumprod(a == b, axis=-1).sum(axis=-1)


def neighbour_agreement(
    vectors: np.ndarray, codes: np.ndarray, seed: int, num_anchors: int = 1000, num_neighbours: int = 50
) -> dict[str, float]:
    """Do items with similar vectors share codes?

    Args:
        vectors: (N, D) float32; rows of zeros (items without text) are left out.
        codes: (N, L) int64.
        seed: Of the random pairs and of the anchors, where N is above `num_anchors`.
        num_anchors: Items whose neighbours are looked at.
        num_neighbours: Nearest items by cosine taken for each anchor.

    Returns:
        spearman_random: rank correlation (average ranks for ties) of cosine and shared prefix length over
            50,000 random pairs; spearman_neighbours: the same over each anchor's nearest items.
        share_cosine90_code<l>: of the pairs of an anchor with any other item at cosine >= 0.9, the share
            with equal codes up to level l. A figure that is undefined (no such pair, all
            equal) is left out.
    """
    norms = np.linalg.norm(vectors, axis=1)
    known = np.flatnonzero(norms > 0)
    if len(known) < 3:
        return {}
    units, codes = vectors[known] / norms[known, None], codes[known]
    rng = np.random.default_rng(seed)
    a, b = rng.integers(len(known), size=(2, 50_000))
    a, b = a[a != b], b[a != b]
    found = {"spearman_random": _spearman((units[a] * units[b]).sum(axis=1), shared_prefix(codes[a], codes[b]))}

    anchors = np.sort(rng.permutation(len(known))[:num_anchors])
    width = min(num_neighbours, len(known) - 1)
    near_cosine, near_shared, close_shared = [], [], []
    for chunk in np.array_split(anchors, max(1, len(anchors) // 256)):
        cosine = units[chunk] @ units.T
        cosine[np.arange(len(chunk)), chunk] = -np.inf
        near = np.argpartition(-cosine, width - 1, axis=1)[:, :width]
        near_cosine.append(np.take_along_axis(cosine, near, axis=1).ravel())
        near_shared.append(shared_prefix(codes[chunk][:, None], codes[near]).ravel())
        row, other = np.nonzero(cosine >= CLOSE_COSINE)
        close_shared.append(shared_prefix(codes[chunk[row]], codes[other]))
    found["spearman_neighbours"] = _spearman(np.concatenate(near_cosine), np.concatenate(near_shared))
    close = np.concatenate(close_shared)
    if len(close):
        for level in range(codes.shape[1]):
            found[f"share_cosine90_code{level + 1}"] = float((close > level).mean())
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    return (
        float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")
    )


def purity(codes: np.ndarray, taxonomy: Taxonomy, length: int = 1) -> dict[str, float]:
    """How much of each code prefix belongs to its largest category.

    Args:
        codes: (N, L) int64.
        taxonomy: The tree of the same N items; an item counts by its first path, one without is left out.
        length: Codes of the prefix.

    Returns:
        purity<length>_depth<d> for each depth of the tree, 1 the first name of the path as given (names that
        the whole catalog shares count too, as in trees that keep them), and purity<length>_leaf. An item
        whose path ends above d counts by its last node.
    """
    known = np.flatnonzero(taxonomy.path_length[:, 0] > 0) if len(codes) else np.empty(0, np.int64)
    if len(known) == 0:
        return {}
    prefix = prefix_number(codes[known, :length])
    nodes = taxonomy.item_nodes[known, 0]
    leaf = taxonomy.item_leaf[known, 0]
    found = {}
    for level in range(nodes.shape[1]):
        node = np.where(nodes[:, level] >= 0, nodes[:, level], leaf)
        found[f"purity{length}_depth{level + 1 + taxonomy.num_stripped}"] = _purity(prefix, node)
    return {**found, f"purity{length}_leaf": _purity(prefix, leaf)}


def _purity(group: np.ndarray, label: np.ndarray) -> float:
    pairs, counts = np.unique(np.stack([group, label], axis=1), axis=0, return_counts=True)
    largest = np.zeros(int(group.max()) + 1, np.int64)
    np.maximum.at(largest, pairs[:, 0], counts)
    return float(largest.sum() / len(group))


def quality(
    vectors: np.ndarray,
    codes: np.ndarray,
    decoded: np.ndarray,
    level_sizes: Sequence[int],
    taxonomy: Taxonomy,
    seed: int,
) -> dict[str, float]:
    """Every figure of this file for nearest codes, before collisions are resolved.

    Args:
        vectors: (N, D) float32.
        codes: (N, L) int64 nearest codes.
        decoded: (N, D) float32, the quantizer's reconstruction.
        level_sizes: Codes a level.
        taxonomy: The tree of the same N items.
        seed: Of the sampled pairs.
    """
    return {
        **code_use(codes, level_sizes),
        **shared_sids(codes),
        "reconstruction_r2": reconstruction_r2(vectors, decoded),
        **neighbour_agreement(vectors, codes, seed),
        **purity(codes, taxonomy),
    }
