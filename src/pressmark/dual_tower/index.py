"""Nearest items by inner product: the one place that knows FAISS."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from pressmark.files import replacing
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations


def faiss_installed() -> bool:
    """Whether a FAISS build is there; it is an optional dependency."""
    return importlib.util.find_spec("faiss") is not None


def _faiss() -> Any:
    if not faiss_installed():
        raise ValueError(
            "FAISS is not installed, and the dual tower searches with it: pip install 'pressmark[cpu]' "
            "(or [gpu], [gpu-cu13]; one of them only)."
        )
    import faiss

    return faiss


class ItemIndex:
    """Exact search over the embeddings of a whole catalog; row = item_index.

    Args:
        embeddings: (N, d) float32, finite.

    Raises:
        ValueError: If FAISS is not installed, or an embedding is not finite.
    """

    def __init__(self, embeddings: np.ndarray) -> None:
        if not np.isfinite(embeddings).all():
            row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise ValueError(f"the embedding of item_index {row} is not finite. Train the dual tower again.")
        self._index = _faiss().IndexFlatIP(embeddings.shape[1])
        self._index.add(np.ascontiguousarray(embeddings, np.float32))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def save(self, path: Path) -> None:
        """Writes the index in FAISS's own format."""
        with replacing(path) as partial:
            _faiss().write_index(self._index, str(partial))

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray) -> ItemIndex:
        """Reads an index and checks that it holds these embeddings.

        Args:
            path: File written by `save`.
            embeddings: (N, d) float32, the model's own.

        Raises:
            ValueError: If the file is no index, or one of another model.
        """
        try:
            index = _faiss().read_index(str(path))
        except RuntimeError as error:
            raise ValueError(
                f"{path}: not a FAISS index ({error}). Delete it: it is built from the model."
            ) from error
        same_shape = (index.ntotal, index.d) == embeddings.shape
        if not same_shape or not np.array_equal(index.reconstruct_n(0, index.ntotal), embeddings):
            raise ValueError(
                f"{path}: this index belongs to another model: it holds {index.ntotal} vectors of width "
                f"{index.d}, which are not the embeddings {embeddings.shape} of the model beside it. "
                "Delete it: it is built from the model."
            )
        loaded = cls.__new__(cls)
        loaded._index = index
        return loaded

    def search(
        self, queries: np.ndarray, k: int, exclude: Histories | None = None, allowed: np.ndarray | None = None
    ) -> Recommendations:
        """The k items with the largest inner product; of equals the lower item_index.

        Args:
            queries: (B, d) float32.
            k: Items a query; the catalog may hold fewer.
            exclude: B sets of item_index that a query must not get.
            allowed: (N,) bool, the items that any query may get.
        """
        banned = _pairs(exclude, len(self))
        most = int(np.bincount(banned // len(self), minlength=1).max()) if len(banned) else 0
        num_allowed = len(self) if allowed is None else int(allowed.sum())
        if not len(queries) or not num_allowed:
            return _padded(np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32), k)
        # FAISS cannot leave out other items for each query: ask for as many more as may have to go, and one
        # to see whether the k-th place is tied.
        width = min(k + most + 1, num_allowed)
        while True:
            items, scores = self._nearest(queries, width, allowed)
            fetched_last = scores[:, -1].copy()
            scores[np.isin(np.arange(len(queries))[:, None] * len(self) + items, banned)] = -np.inf
            order = np.lexsort((items, -scores), axis=-1)[:, :k]
            items, scores = np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
            # Equals of the last item fetched may lie beyond it, with a lower item_index.
            if width == num_allowed or not (scores[:, -1] <= fetched_last).any():
                return _padded(items, scores, k)
            width = min(2 * width, num_allowed)

    def _nearest(
        self, queries: np.ndarray, width: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, width) int64 and float32; `width` items are allowed, so every place is filled."""
        faiss = _faiss()
        parameters = None
        if allowed is not None:
            # One bit an item, as the selector wants it; `bits` must outlive the search.
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)
        scores, items = self._index.search(np.ascontiguousarray(queries, np.float32), width, params=parameters)
        return items, scores


def _pairs(exclude: Histories | None, num_items: int) -> np.ndarray:
    """Distinct (row, item) pairs as row * num_items + item, ascending int64."""
    if exclude is None:
        return np.empty(0, np.int64)
    return np.unique(exclude.row_of_value() * num_items + exclude.values)


def _padded(items: np.ndarray, scores: np.ndarray, k: int) -> Recommendations:
    """Ranked items, with those at -inf at the end, as k places."""
    valid = np.isfinite(scores)
    missing = ((0, 0), (0, k - items.shape[1]))
    items = np.pad(np.where(valid, items, -1), missing, constant_values=-1)
    scores = np.pad(np.where(valid, scores, -np.inf).astype(np.float32), missing, constant_values=-np.inf)
    return Recommendations(items, scores, valid.sum(axis=1).astype(np.int64))
