"""How good a tokenization is: use of the codes, collisions, reconstruction, agreement with the vectors.

All figures are plain numbers in one flat dict, so that runs can be compared by key. `coherence` has those that
look at categories and shoppers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pressmark.catalog.taxonomy import Taxonomy
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.coherence import cooccurrence, entropy, tree_agreement
from pressmark.tokenizer.collisions import Resolution
from pressmark.tokenizer.quantizer import prefix_number

CLOSE_COSINE = 0.9
# Cosines looked at for neighbours: all pairs of 20,000 items, about a minute of one core; a sample beyond.
MAX_COSINES = 20_000**2
MAX_TREE_LENGTH = 3


def code_use(codes: np.ndarray, level_sizes: Sequence[int]) -> dict[str, float]:
    """How evenly each level is used, levels counted from 1.

    Args:
        codes: (N, L) int64, N >= 1.
        level_sizes: Codes a level.

    Returns:
        usage_<level>: share of the level's codes that some item has.
        perplexity_<level>: exp of the entropy of the codes; the number of codes if all are used alike. Equal
            usage can hide a collapse: one code may hold most items.
        gini_<level>: Gini coefficient of items a code, unused codes included; 0 if all are used alike.
        largest_share_<level>: share of the items on the level's commonest code.
        branches_<level>: perplexity of the code given the codes before it: how many ways a prefix goes on.
        num_prefixes_<level>: distinct prefixes up to this level.
        sandglass: see `sandglass`; for three levels or more.
    """
    use, before = {}, 0.0
    for level, size in enumerate(level_sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        prefixes = np.bincount(prefix_number(codes[:, : level + 1]))
        use[f"usage_{level + 1}"] = int((counts > 0).sum()) / size
        use[f"perplexity_{level + 1}"] = float(np.exp(entropy(counts)))
        use[f"gini_{level + 1}"] = _gini(counts)
        use[f"largest_share_{level + 1}"] = float(counts.max() / max(1, len(codes)))
        use[f"branches_{level + 1}"] = float(np.exp(entropy(prefixes) - before))
        use[f"num_prefixes_{level + 1}"] = len(prefixes)
        before = entropy(prefixes)
    if len(level_sizes) > 2:
        use["sandglass"] = sandglass(
            [use[f"perplexity_{level + 1}"] for level in range(len(level_sizes))], level_sizes
        )
    return use


def sandglass(perplexity: Sequence[float], level_sizes: Sequence[int]) -> float:
    """How far the middle concentrates while the levels before and after it do not.

    For each middle level: 1 - its perplexity share (perplexity / size) over the smaller of the largest share
    before it and the largest after it. The figure is the largest of these, at least 0. A share that only falls
    from level to level (as in residual k-means) is no sandglass and gives 0.

    Source: Kuai et al. 2024, Breaking the Hourglass Phenomenon of Residual Quantization (arXiv 2407.21488):
    middle codes concentrate, so paths grow sparse and long-tailed and the generator loses. They show entropy,
    Gini coefficient and deviation a level; the one number is ours.

    >>> sandglass([8, 2, 4], (8, 8, 8)), sandglass([8, 4, 2], (8, 8, 8))
    (0.5, 0.0)
    """
    share = np.asarray(perplexity) / np.asarray(level_sizes)
    around = [min(share[:middle].max(), share[middle + 1 :].max()) for middle in range(1, len(share) - 1)]
    return max(0.0, *(float(1 - own / most) for own, most in zip(share[1:-1], around, strict=True)))


def _gini(counts: np.ndarray) -> float:
    """Sum of all differences of two counts over twice their number and mean."""
    size, total = len(counts), counts.sum()
    ranks = 2 * np.arange(1, size + 1) - size - 1
    return float((ranks * np.sort(counts)).sum() / (size * total)) if total else 0.0


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
    mean, error, spread = vectors.mean(axis=0, dtype=np.float64), 0.0, 0.0
    for start in range(0, len(vectors), 65_536):  # a whole float64 copy of a million vectors would be 3 GB
        rows = slice(start, start + 65_536)
        error += np.square(vectors[rows].astype(np.float64) - decoded[rows]).sum()
        spread += np.square(vectors[rows] - mean).sum()
    return float(1 - error / spread) if spread > 0 else float(error == 0)


def shared_prefix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Number of leading codes that are equal: (..., L) int64 twice -> (...) int64."""
    return np.cumprod(a == b, axis=-1).sum(axis=-1)


def neighbour_agreement(
    vectors: np.ndarray, codes: np.ndarray, seed: int, num_anchors: int | None = None, num_neighbours: int = 50
) -> dict[str, float]:
    """Do items with similar vectors share codes?

    Args:
        vectors: (N, D) float32; rows of zeros (items without text) are left out.
        codes: (N, L) int64.
        seed: Of the random pairs, and of the anchors where not all items are looked at.
        num_anchors: Items whose neighbours are looked at; None is all of them in a catalog of up to 20,000
            items, and beyond as many as make 4e8 cosines, but 1,000 at least.
        num_neighbours: Nearest items by cosine taken for each anchor.

    Returns:
        spearman_random: rank correlation (average ranks for ties) of cosine and shared prefix length over
            50,000 random pairs.
        spearman_neighbours: the same over the pairs of each anchor and its nearest items, all in one ranking.
        share_cosine90_code<l>: of the pairs of an anchor with any other item at cosine >= 0.9, the share
            with equal codes up to level l.
        num_anchors: items whose neighbours were looked at.

        A figure that is undefined (no such pair, all equal) is left out.
    """
    norms = np.linalg.norm(vectors, axis=1)
    known = np.flatnonzero(norms > 0)
    if len(known) < 3:
        return {}
    rng = np.random.default_rng(seed)
    a, b = known[rng.integers(len(known), size=(2, 50_000))]
    a, b = a[a != b], b[a != b]
    cosine = np.einsum("nd,nd->n", vectors[a], vectors[b]) / (norms[a] * norms[b])
    found = {"spearman_random": _spearman(cosine, shared_prefix(codes[a], codes[b]))}

    if num_anchors is None:
        num_anchors = max(1_000, MAX_COSINES // len(known))
    anchors = known[np.sort(rng.permutation(len(known))[:num_anchors])]
    width = min(num_neighbours, len(known) - 1)
    near_cosine, near_shared = [], []
    num_close = np.zeros(codes.shape[1] + 1, np.int64)  # by length of the shared prefix
    for rows in np.array_split(anchors, 1 + len(anchors) * len(vectors) // 2**23):
        cosine = _cosines(vectors, norms, rows)
        near = np.argpartition(cosine, len(vectors) - width, axis=1)[:, len(vectors) - width :]
        near_cosine.append(np.take_along_axis(cosine, near, axis=1).ravel())
        near_shared.append(shared_prefix(codes[rows][:, None], codes[near]).ravel())
        row, other = np.nonzero(cosine >= CLOSE_COSINE)
        num_close += np.bincount(shared_prefix(codes[rows[row]], codes[other]), minlength=len(num_close))
    found["spearman_neighbours"] = _spearman(np.concatenate(near_cosine), np.concatenate(near_shared))
    if num_close.any():
        for level in range(codes.shape[1]):
            found[f"share_cosine90_code{level + 1}"] = float(num_close[level + 1 :].sum() / num_close.sum())
    return {**{name: one for name, one in found.items() if np.isfinite(one)}, "num_anchors": len(anchors)}


def _cosines(vectors: np.ndarray, norms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n, N) cosines of some rows to all; -inf to themselves and to vectors of zeros."""
    unit = vectors[rows] / norms[rows, None]
    cosine = unit @ vectors.T
    cosine /= np.where(norms > 0, norms, 1)
    cosine[:, norms == 0] = -np.inf
    cosine[np.arange(len(rows)), rows] = -np.inf
    return cosine


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    return (
        float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")
    )


def quality(
    vectors: np.ndarray,
    codes: np.ndarray,
    decoded: np.ndarray,
    level_sizes: Sequence[int],
    taxonomy: Taxonomy,
    seed: int,
    histories: Histories | None = None,
    resolution: Resolution | None = None,
) -> dict[str, float]:
    """Every figure of this file and of `coherence`, of nearest codes, before collisions are resolved.

    Args:
        vectors: (N, D) float32.
        codes: (N, L) int64 nearest codes.
        decoded: (N, D) float32, the quantizer's reconstruction.
        level_sizes: Codes a level.
        taxonomy: The tree of the same N items.
        seed: Of sampled pairs and shuffles.
        histories: Training histories, for co-occurrence.
        resolution: The SIDs made of the codes, for what became of the collisions.

    Returns:
        One flat dict. Figures that are not defined, or whose argument is not given, are not there.
    """
    found = {
        **code_use(codes, level_sizes),
        **shared_sids(codes),
        "reconstruction_r2": reconstruction_r2(vectors, decoded),
        **neighbour_agreement(vectors, codes, seed),
    }
    for length in range(1, min(codes.shape[1], MAX_TREE_LENGTH) + 1):
        found.update(tree_agreement(codes, taxonomy, length, seed))
    if histories is not None:
        found.update(cooccurrence(codes, histories))
    if resolution is not None:
        found.update(after_resolution(resolution))
    return found


def after_resolution(resolution: Resolution) -> dict[str, float]:
    """What became of the collisions.

    Returns:
        num_item_collisions_after: items beyond the first of each final SID.
        share_relocated: share of items whose codes are not their nearest.
        mean_extra_distance: of those items, by how much the squared distance between latent and coded sum grew.
    """
    moved = resolution.moved
    return {
        "num_item_collisions_after": shared_sids(resolution.sids)["num_item_collisions"],
        "share_relocated": resolution.share_relocated,
        "mean_extra_distance": float(resolution.extra_distance[moved].mean()) if moved.any() else 0.0,
    }
