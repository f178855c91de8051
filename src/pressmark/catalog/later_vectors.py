"""Vectors of items that come after a run was prepared, from the embedding that made the run's own."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from pressmark.catalog.embeddings import Config, embed
from pressmark.catalog.items import Catalog, join_catalogs
from pressmark.catalog.precomputed import read_precomputed

TOLERANCE = 1e-3
"""Largest difference of a number in a vector that is made again. The same texts give the same bits on the same
machine; another number of threads moves TF-IDF + SVD by 1e-4 (measured on the grocery store, whose vectors
have length 1), a text model on another device about as much. Another model or text moves them by 0.1
and more."""
_NUM_CHECKED = 16
"""Known items that a text model embeds again, evenly spaced, to see that it is the same model."""


def embed_later(
    later: Catalog,
    known: Catalog,
    known_vectors: np.ndarray,
    fitted_on: np.ndarray,
    config: Config,
    cache: Path,
    path: Path | None = None,
) -> np.ndarray:
    """Vectors of new items, in the space of the known ones.

    A sentence-transformers model reads the new texts, and a few known ones as a check. TF-IDF + SVD is fitted
    again, on the same items; so all known vectors are checked. Items without text get zeros, as in `embed`.

    Args:
        later: n items.
        known: N items of the run.
        known_vectors: (N, D) float32.
        fitted_on: (N,) bool, as in `embed`.
        config: The run's.
        cache: Folder of cached vectors; an interrupted text model goes on from there.
        path: The new items' vectors where the run's are precomputed; formats as vectors.path.

    Returns:
        (n, D) float32, all finite.

    Raises:
        ValueError: If known items come out otherwise than the run has them, widths differ, or a file is
            missing, not wanted, or lacks an item.
    """
    if (config.model == "precomputed") != (path is not None):
        raise ValueError(
            f"the run's vectors.model is {config.model!r}: --vectors FILE, the vectors of the new items, "
            "goes with precomputed, and only with it."
        )
    if path is not None:
        return _same_width(read_precomputed(path, later), known_vectors, str(path))
    if config.model == "tfidf":
        joined = join_catalogs(known, later)
        hidden = np.append(fitted_on, np.zeros(len(later), bool))
        with tempfile.TemporaryDirectory() as folder:
            as_cut = replace(config, dim=known_vectors.shape[1])
            vectors, _ = embed(joined, as_cut, Path(folder), hidden)
        checked = np.arange(len(known))
    else:
        checked = np.unique(np.linspace(0, len(known) - 1, _NUM_CHECKED).astype(np.int64))
        joined = join_catalogs(known.take(checked), later)
        vectors, _ = embed(joined, config, cache, np.ones(len(joined), bool))
    _same_width(vectors, known_vectors, f"vectors.model {config.model}")
    _check_same(vectors[: len(checked)], known_vectors[checked], known.item_id[checked], config.model)
    return vectors[len(checked) :]


def _same_width(vectors: np.ndarray, known_vectors: np.ndarray, name: str) -> np.ndarray:
    if vectors.shape[1] != known_vectors.shape[1]:
        raise ValueError(
            f"{name}: the new vectors have {vectors.shape[1]} numbers, the run's have "
            f"{known_vectors.shape[1]}. Use the embedding that the run was prepared with."
        )
    return vectors


def _check_same(again: np.ndarray, before: np.ndarray, item_id: np.ndarray, model: str) -> None:
    worst = np.abs(again - before).max(axis=1)
    if worst.max(initial=0.0) > TOLERANCE:
        row = int(worst.argmax())
        raise ValueError(
            f"vectors.model {model}: the vector of item_id {item_id[row]!r} comes out {worst[row]:.2g} away "
            f"from the run's (at most {TOLERANCE:g} is rounding): new vectors would not fit the old ones. "
            "Use the model and the library versions of the run's config.yaml, or train a new run."
        )
