"""Content vectors that have not seen the category: what is audited must not vouch for itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from pressmark.catalog.embeddings import Config, embed, texts_of, unit_rows
from pressmark.catalog.text_models import encoder, model_folder
from pressmark.tokenizer.state import Living

NUMBER, WORD = r"\d+(?:[.,]\d+)*", r"[^\W\d]+"
"""1.5 is a number, L a word; 2L is both."""


@dataclass(frozen=True)
class Content:
    """What N products are, without what they are filed under.

    Attributes:
        texts: N texts without the category.
        vectors: (N, D) float32 of length 1; zeros for a product without text.
        statement: Where the vectors come from, for the reader of a report.
        config: How texts become vectors, or None for vectors that were brought along.
    """

    texts: list[str]
    vectors: np.ndarray
    statement: str
    config: Config | None

    @property
    def told(self) -> np.ndarray:
        """(N,) bool: products that their content says something of."""
        return np.asarray(self.vectors.any(axis=1))

    def word_vectors(self) -> sparse.csr_matrix | None:
        """(N, V) float32 of length 1: TF-IDF of every word, number and unit; None where `vectors` are none.

        A TF-IDF that is reduced to some dimensions keeps what is common in a catalog: it takes two products of
        one kind for one.
        """
        if self.config is None or self.config.model != "tfidf":
            return None
        from sklearn.feature_extraction.text import TfidfVectorizer

        reader = TfidfVectorizer(
            sublinear_tf=True, strip_accents="unicode", token_pattern=f"{NUMBER}|{WORD}", dtype=np.float32
        )
        return reader.fit_transform(self.texts)

    def numbers(self) -> sparse.csr_matrix:
        """(N, M) float32: 1 for each number that a text says."""
        column: dict[str, int] = {}
        said = [
            {column.setdefault(one, len(column)) for one in re.findall(NUMBER, text)} for text in self.texts
        ]
        row = np.repeat(np.arange(len(said)), [len(one) for one in said])
        place = np.array([number for one in said for number in sorted(one)], np.int64)
        return sparse.csr_matrix(
            (np.ones(len(row), np.float32), (row, place)), (len(said), max(len(column), 1))
        )

    def embed_names(self, names: Sequence[str]) -> np.ndarray | None:
        """Names of categories beside the products: n names -> (n, D) float32 of length 1.

        None where the same space cannot be reached: vectors brought along, or TF-IDF, whose words are the
        catalog's own; `texts` are compared word by word there.
        """
        if self.config is None or self.config.model == "tfidf":
            return None
        return unit_rows(encoder(model_folder(self.config.model), self.config.batch_size)(list(names)))


def content_of(
    living: Living, rows: np.ndarray, config: Config, cache: Path, own: np.ndarray | None = None
) -> Content:
    """Embeds a run's products again without their category, through the cache of its vectors.

    Args:
        living: M products, appended ones included.
        rows: (N,) int64 those to embed.
        config: The run's embedding. The category leaves its columns.
        cache: Folder of cached vectors.
        own: (M, D) the run's own vectors, to be read as they are where they were brought along. Without them
            the texts are read by TF-IDF, since nobody here knows whether the category went into those vectors.

    Raises:
        ValueError: If no column but the category was embedded, or not one product has any text.
    """
    brought = config.model == "precomputed"
    columns = tuple(name for name in config.columns if name != "category")
    if not columns:
        raise ValueError(
            "vectors.columns of the run is category alone: without it nothing is left to judge by. "
            "Prepare a run with title in vectors.columns."
        )
    catalog = living.catalog.take(rows)
    texts = texts_of(catalog, columns)
    if not any(texts):
        raise ValueError(
            f"no product of the run has any text in {', '.join(columns)}: there is nothing to judge by."
        )
    if brought and own is not None:
        said = (
            "the run's own vectors, which were brought along, as they are: was the category in them, it vouches"
        )
        return Content(texts, unit_rows(own[rows]), said, None)
    used = replace(config, columns=columns, path="", model="tfidf" if brought else config.model)
    if used.model == "tfidf":
        vectors, _ = embed(catalog, used, cache, np.ones(len(catalog), bool))
    else:  # a text at a time: what was read before is found in the cache, whatever came or went since
        parts = [living.own, *(batch.catalog for batch in living.batches)]
        read = [embed(one, used, cache, np.ones(len(one), bool))[0] for one in parts]
        vectors = np.concatenate(read)[rows]
    said = f"{used.model} over {', '.join(columns)}, without the category"
    if brought:
        said += " (the run's vectors were brought along and may have seen it; --trust-vectors reads them)"
    return Content(texts, vectors, said, used)
