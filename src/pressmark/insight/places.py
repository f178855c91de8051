"""Items in two dimensions: t-SNE of a sample of their vectors, for maps."""

from __future__ import annotations

import numpy as np

MAP_ITEMS, LEAST_ITEMS = 2_000, 10


def place_items(vectors: np.ndarray, seed: int, most: int = MAP_ITEMS) -> tuple[np.ndarray, np.ndarray]:
    """Draws items with a vector and places them, near ones side by side.

    Args:
        vectors: (N, D) float32.
        seed: Of the sample and the placement.
        most: Items to draw at most.

    Returns:
        items: (n,) int64 item_index, ascending; none where fewer than LEAST_ITEMS have a vector.
        place: (n, 2) float within the unit disc.
    """
    known = np.flatnonzero(np.linalg.norm(vectors, axis=1) > 0)
    if len(known) < LEAST_ITEMS:
        return np.empty(0, np.int64), np.empty((0, 2))
    items = np.sort(np.random.default_rng(seed).permutation(known)[:most])
    return items, _tsne(vectors[items], seed)


def _tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    """(n, D) -> (n, 2) within the unit disc, by cosine."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    # 50 components first, as is usual: it saves most of the time. A little noise parts equal vectors.
    width = min(50, *units.shape)
    reduced = PCA(width, svd_solver="full").fit_transform(units)
    reduced += 1e-6 * np.random.default_rng(seed).normal(size=reduced.shape)
    perplexity = min(30.0, (len(units) - 1) / 3)
    place = TSNE(2, perplexity=perplexity, init="random", random_state=seed, n_jobs=1).fit_transform(reduced)
    place -= place.mean(axis=0)
    return place / np.linalg.norm(place, axis=1).max()
