"""Nearest items by inner product: the one place that knows FAISS."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from pressmark.dual_tower.config import Kind
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


FLAT_ITEMS = 200_000
"""Catalogs up to here are searched whole: a fraction of a millisecond a shopper."""

FEW_ITEMS = 50_000
"""A filter that leaves no more is answered exactly whatever the index: approximate ones get lost in few."""

AT_ONCE = 2**22
"""Scores held in memory at a time by a search by brute force (16 MiB, and the order twice that)."""

PROBES, WIDTH = 16, 64
"""Lists that IVF looks into, and candidates that HNSW keeps: recall about .99 of the flat index's."""


class ItemIndex:
    """Search over the embeddings of a whole catalog; row = item_index.

    Args:
        embeddings: (N, d) float32, finite.
        kind: "flat" compares with every item, exactly. "ivf" looks into the nearest of 4 sqrt(N) lists, "hnsw"
            walks a graph: approximate, and faster on large catalogs. "auto" is flat up to 200,000 items and ivf
            beyond.

    Raises:
        ValueError: If FAISS is not installed, or an embedding is not finite.
    """

    def __init__(self, embeddings: np.ndarray, kind: Kind = "auto") -> None:
        if not np.isfinite(embeddings).all():
            row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise ValueError(f"the embedding of item_index {row} is not finite. Train the dual tower again.")
        self.embeddings = np.ascontiguousarray(embeddings, np.float32)
        num_items, width = embeddings.shape
        if kind == "auto":
            kind = "flat" if num_items <= FLAT_ITEMS else "ivf"
        faiss = _faiss()
        if kind == "flat":
            self._index = faiss.IndexFlatIP(width)
        elif kind == "ivf":
            num_lists = max(1, min(round(4 * num_items**0.5), num_items // 39))
            lists = faiss.IndexFlatIP(width)
            self._index = faiss.IndexIVFFlat(lists, width, num_lists, faiss.METRIC_INNER_PRODUCT)
            self._index.own_fields, _ = True, lists.this.disown()
            self._index.train(self.embeddings[:: max(1, num_items // (64 * num_lists))])
        else:
            self._index = faiss.IndexHNSWFlat(width, 16, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = 80
        self._index.add(self.embeddings)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def kind(self) -> str:
        """ "flat", "ivf" or "hnsw"."""
        name = type(self._index).__name__
        return {"IndexFlatIP": "flat", "IndexIVFFlat": "ivf", "IndexHNSWFlat": "hnsw"}.get(name, "flat")

    def add(self, embeddings: np.ndarray) -> None:
        """Puts (n, d) float32 more items behind those known; nothing is built again."""
        more = np.ascontiguousarray(embeddings, np.float32)
        self._index.add(more)
        self.embeddings = np.concatenate([self.embeddings, more])

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
        same = (index.ntotal, index.d) == embeddings.shape
        if same and hasattr(index, "make_direct_map"):
            index.make_direct_map()
        if not same or not np.array_equal(index.reconstruct_n(0, index.ntotal), embeddings):
            raise ValueError(
                f"{path}: this index belongs to another model: it holds {index.ntotal} vectors of width "
                f"{index.d}, which are not the embeddings {embeddings.shape} of the model beside it. "
                "Delete it: it is built from the model."
            )
        loaded = cls.__new__(cls)
        loaded._index, loaded.embeddings = index, np.ascontiguousarray(embeddings, np.float32)
        return loaded

    def recall_at(self, k: int, queries: np.ndarray) -> float:
        """Share of each query's true k nearest items that the index finds; 1 for a flat one."""
        found = self.search(queries, k).item_index
        true = _padded(*_exactly(queries, self.embeddings, np.arange(len(self)), k), k).item_index
        return float(np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(true, found, strict=True)]))

    def search(
        self,
        queries: np.ndarray,
        k: int,
        exclude: Histories | None = None,
        allowed: np.ndarray | None = None,
        any_of_equals: bool = False,
    ) -> Recommendations:
        """The k items with the largest inner product; of equals the lower item_index.

        An approximate index may leave items out, and have fewer than k though there are more.

        Args:
            queries: (B, d) float32.
            k: Items a query; the catalog may hold fewer.
            exclude: B sets of item_index that a query must not get.
            allowed: (N,) bool, the items that any query may get.
            any_of_equals: Of items that tie for the last place take any: looking for all of them costs a search
                of everything where there are many, as behind a query of zeros.
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
            items, scores = self._nearest(queries, width, allowed, num_allowed)
            fetched_last = scores[:, -1].copy()
            scores[np.isin(np.arange(len(queries))[:, None] * len(self) + items, banned)] = -np.inf
            order = np.lexsort((items, -scores), axis=-1)[:, :k]
            items, scores = np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
            # Equals of the last item fetched may lie beyond it, with a lower item_index.
            tied = (scores[:, -1] <= fetched_last) & np.isfinite(fetched_last)
            if width == num_allowed or any_of_equals or not tied.any():
                return _padded(items, scores, k)
            width = min(2 * width, num_allowed)

    def _nearest(
        self, queries: np.ndarray, width: int, allowed: np.ndarray | None, num_allowed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, width) int64 and float32; what an approximate index does not find is -1 at -inf."""
        queries = np.ascontiguousarray(queries, np.float32)
        if allowed is not None and self.kind != "flat" and num_allowed <= FEW_ITEMS:
            few = np.flatnonzero(allowed)
            return _exactly(queries, self.embeddings[few], few, width)
        faiss = _faiss()
        settings: dict[str, Any] = {}
        if self.kind == "ivf":
            kind, settings["nprobe"] = faiss.SearchParametersIVF, PROBES
        elif self.kind == "hnsw":
            kind, settings["efSearch"] = faiss.SearchParametersHNSW, max(WIDTH, width)
        else:
            kind = faiss.SearchParameters
        if allowed is not None:
            # One bit an item, as the selector wants it; `bits` must outlive the search.
            bits = np.packbits(allowed, bitorder="little")
            settings["sel"] = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        scores, items = self._index.search(queries, width, params=kind(**settings))
        return items, np.where(items < 0, -np.inf, scores).astype(np.float32)


def _exactly(
    queries: np.ndarray, embeddings: np.ndarray, items: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest (B, width) of some items by brute force; of equals the lower item_index."""
    found, best = [], []
    for part in np.split(queries, range(AT_ONCE // len(items) + 1, len(queries), AT_ONCE // len(items) + 1)):
        scores = part @ embeddings.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        found.append(items[order])
        best.append(np.take_along_axis(scores, order, axis=1))
    return np.concatenate(found), np.concatenate(best)


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
