"""The dual tower as a recommender: encode the history, search the index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pressmark.catalog.lexicon import Lexicon
from pressmark.dual_tower.index import ItemIndex
from pressmark.dual_tower.text import tokens_of
from pressmark.dual_tower.towers import DualTower
from pressmark.interactions.histories import Histories
from pressmark.recommender import (
    Recommendations,
    Requests,
    check_request,
    filter_by_filter,
    filter_mask,
    grown_filters,
    known_items,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

REQUESTS_AT_ONCE = 1024
"""Requests encoded and searched together, which bounds memory for a batch of any size."""


class DualTowerRecommender:
    """Ranks items by cosine to the shopper's vector.

    Args:
        model: In eval mode, with the embeddings of all items.
        index: Over the same embeddings.
        tokenizer: Of a model that reads text.
        lexicon: Of a model that reads words.

    Attributes:
        num_items: Items in the catalog, withdrawn ones too.
        filters: name -> (num_items,) bool.
        index: Over all items' embeddings, those inserted too.
    """

    def __init__(
        self,
        model: DualTower,
        index: ItemIndex,
        tokenizer: Tokenizer | None = None,
        lexicon: Lexicon | None = None,
    ) -> None:
        self.model, self.index, self.tokenizer, self.lexicon = model, index, tokenizer, lexicon
        self.num_items = len(index)
        self.filters: dict[str, np.ndarray] = {}
        self._embeddings, self._tokens = model.item_embeddings, model.item_tokens
        self._gone = np.zeros(len(index), bool)

    def insert(
        self,
        vectors: np.ndarray,
        passes: Mapping[str, np.ndarray] | None = None,
        texts: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Puts products that nobody has bought yet into the index as it stands.

        Args:
            vectors: (n, D) float32 content vectors; a model that reads text passes over them.
            passes: Filter name -> (n,) bool; a new product passes no filter that is not named here.
            texts: n texts as `catalog.embeddings.item_texts` gives them, for a model that reads text or words.

        Returns:
            (n,) int64 their item_index, behind those known.

        Raises:
            ValueError: For vectors of another width or not finite, missing texts, or a filter that is unknown
                or of another shape; nothing is added then.
        """
        grown = grown_filters(self.filters, self.num_items, len(vectors), passes)
        words = None
        if self.tokenizer is not None or self.lexicon is not None:
            if texts is None or len(texts) != len(vectors):
                raise ValueError(
                    f"the dual tower reads text: give the texts of the {len(vectors)} new products."
                )
            if self.lexicon is not None:
                words = self.lexicon.rows(texts, self.model.config.words)
            else:
                vectors = self._tokens_of(texts)
                if len(self._tokens):
                    self._tokens = torch.cat([self._tokens, torch.from_numpy(vectors)])
        found = self.model.embed_new(vectors, words)
        self.index.add(found.cpu().numpy())
        self._embeddings = torch.cat([self._embeddings, found])
        self._gone = np.concatenate([self._gone, np.zeros(len(found), bool)])
        self.filters.update(grown)
        self.num_items += len(found)
        return np.arange(self.num_items - len(found), self.num_items)

    def withdraw(self, item_index: np.ndarray | Sequence[int]) -> None:
        """Takes products out of every answer; histories may go on naming them.

        Raises:
            ValueError: If one is unknown; nothing is taken away then.
        """
        self._gone[known_items(item_index, self.num_items)] = True

    def restore(self, item_index: np.ndarray | Sequence[int]) -> None:
        """Brings withdrawn products back; errors as `withdraw`."""
        self._gone[known_items(item_index, self.num_items)] = False

    def users(self, histories: Histories) -> np.ndarray:
        """(B, d) float32 of length 1."""
        return self.model.embed_users(histories, self._embeddings, self._tokens).cpu().numpy()

    def _tokens_of(self, texts: Sequence[str]) -> np.ndarray:
        assert self.tokenizer is not None
        return tokens_of(self.tokenizer, texts, self.model.config.vector_dim)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Whatever somebody types, n texts -> (n, d) float32 of length 1, beside items and shoppers.

        Raises:
            ValueError: If the model reads no text.
        """
        if self.tokenizer is None:
            raise ValueError(
                "this dual tower reads content vectors, not text; train one with dual_tower.text.encoder."
            )
        return self.model.embed_new(self._tokens_of(texts)).cpu().numpy()

    def find(self, texts: Sequence[str], k: int, filter: str | None = None) -> Recommendations:
        """The k allowed items nearest to each text: search with the same model.

        Raises:
            ValueError: If the model reads no text, k < 1 or the filter is unknown.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1.")
        return self.index.search(self.embed_texts(texts), k, None, self._allowed(filter))

    def _allowed(self, name: str | None) -> np.ndarray | None:
        allowed = filter_mask(self.filters, name, self.num_items)
        if self._gone.any():
            allowed = ~self._gone if allowed is None else allowed & ~self._gone
        return allowed

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items nearest to each shopper."""
        check_request(self, requests, k)
        return filter_by_filter(requests, lambda part, name: self._answer(part, name, k))

    def _answer(self, requests: Requests, name: str | None, k: int) -> Recommendations:
        allowed, parts = self._allowed(name), []
        # An empty batch still makes one part, for its shapes.
        for start in range(0, max(1, len(requests)), REQUESTS_AT_ONCE):
            rows = np.arange(start, min(start + REQUESTS_AT_ONCE, len(requests)))
            histories = requests.histories.take(rows)
            exclude = histories if requests.mask_history else None
            parts.append(self.index.search(self.users(histories), k, exclude, allowed))
        return Recommendations(
            np.concatenate([part.item_index for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.num_valid for part in parts]),
        )


def load_dual_tower(run: Path) -> DualTowerRecommender:
    """Loads a trained dual tower from a run folder; reads nothing but `dual_tower/`.

    Raises:
        ValueError: If it has not been trained, its training was not finished, or the index is another model's.
    """
    folder = run / "dual_tower"
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no dual tower: run src/train_dual_tower.py for this run first.")
    model = DualTower.from_pretrained(folder).eval()
    if not model.config.holds_items:
        raise ValueError(
            f"{folder}: the model holds no item embeddings (holds_items is false); train it again."
        )
    embeddings = model.item_embeddings.numpy()
    # A folder trained where FAISS was missing has no index; a flat one takes no time to build.
    path = folder / "index.faiss"
    index = ItemIndex.load(path, embeddings) if path.is_file() else ItemIndex(embeddings)
    tokenizer = None
    lexicon = Lexicon.load(folder, model.config.num_words) if model.config.words else None
    if model.config.encoder is not None:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return DualTowerRecommender(model, index, tokenizer, lexicon)
