"""The generator as a recommender: histories in, ranked items out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import T5ForConditionalGeneration

from pressmark.generator.beam_search import Normalizer, SearchTrie, search
from pressmark.generator.model import history_tokens, item_tokens, load_model
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests, check_request
from pressmark.sids.table import SidTable, read_sids
from pressmark.sids.trie import Trie, build_trie, dead_edges
from pressmark.sids.vocabulary import Vocabulary


class GeneratorRecommender:
    """Spells the best SIDs of the catalog and resolves them to items.

    Items that share a SID share its score and come in ascending item_index. History is excluded before the
    search, not after: a user gets min(k, items left) items whatever the history holds.

    Args:
        model: The generator; its weights are copied.
        table: SIDs of the catalog, of the codebooks that the model was trained on.
        beam: Beams a user; a larger k raises it.
        batch_size: Users decoded together at that beam.
        normalizer: See `beam_search.search`.
        dtype: Of the decoder. bfloat16 is faster on machines that multiply in it, and rounds scores.

    Attributes:
        num_items: Items in the catalog.
        filters: name -> (num_items,) bool mask of allowed items; each gets a trie when first asked for.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        table: SidTable,
        beam: int = 50,
        batch_size: int = 64,
        normalizer: Normalizer = "full",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if beam < 1 or batch_size < 1:
            raise ValueError(f"beam ({beam}) and batch_size ({batch_size}) must be at least 1.")
        self.num_items = len(table)
        self.filters: dict[str, np.ndarray] = {}
        self.table, self.beam, self.batch_size, self.normalizer = table, beam, batch_size, normalizer
        self.history_length, self.history_input = model.config.history_length, model.config.history_input
        self.decoder = T5Decoder(model, dtype)
        self.device = model.device
        self._tokens = item_tokens(table, self.device)
        self._first_recency = Vocabulary(table.level_sizes).size
        self._tries: dict[str | None, tuple[np.ndarray, SearchTrie]] = {}

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """Answers each request with its k best items; `exact` where the beam search can prove them.

        Raises:
            ValueError: If k < 1, an item_index is out of range, the filter unknown or of the wrong shape.
        """
        check_request(self, requests, k)
        trie = self._trie(requests.filter)
        items, lengths = requests.histories.newest(self.history_length)
        item_index = np.full((len(requests), k), -1, np.int64)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        exact = np.ones(len(requests), bool)
        beam = max(k, self.beam)
        width = max(1, self.batch_size * self.beam // beam)
        # Users with histories of about one length together: little padding.
        order = np.argsort(lengths, kind="stable")
        for rows in np.split(order, np.arange(width, len(order), width)) if len(order) else []:
            longest = int(lengths[rows].max())
            banned = _excluded(requests.histories, rows) if requests.mask_history else None
            item_index[rows], scores[rows], exact[rows] = self._answer(
                items[rows, :longest], lengths[rows], trie, beam, banned, k
            )
        return Recommendations(item_index, scores, (item_index >= 0).sum(axis=1), exact)

    def _answer(
        self,
        items: np.ndarray,
        lengths: np.ndarray,
        trie: SearchTrie,
        beam: int,
        banned: tuple[np.ndarray, np.ndarray] | None,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One batch: (B, k) items, (B, k) scores, (B,) exact."""
        input_ids, attention_mask = history_tokens(
            self._tokens,
            torch.from_numpy(items).to(self.device),
            torch.from_numpy(lengths).to(self.device),
            self.history_input,
            self._first_recency,
        )
        dead = None if banned is None else dead_edges(trie.trie, *banned)
        beams = search(self.decoder, input_ids, attention_mask, trie, beam, dead, self.normalizer)
        found, scores = _items_of_leaves(
            trie.trie, beams.leaf.cpu().numpy(), beams.score.cpu().numpy(), banned, k
        )
        pruned = beams.pruned.cpu().numpy()
        return found, scores, np.isneginf(pruned) | (scores[:, -1] > pruned)

    def _trie(self, name: str | None) -> SearchTrie:
        """The trie of a filter, built when first asked for and again when its mask has changed."""
        mask = None if name is None else self.filters[name]
        if mask is not None and (mask.shape != (self.num_items,) or mask.dtype != bool):
            raise ValueError(
                f"filter {name!r} has the shape {mask.shape} and type {mask.dtype}; it must be a bool mask of "
                f"the {self.num_items} items of this catalog."
            )
        mask = np.ones(self.num_items, bool) if mask is None else mask
        if name not in self._tries or not np.array_equal(mask, self._tries[name][0]):
            trie = build_trie(self.table.sids, self.table.level_sizes, np.flatnonzero(mask))
            self._tries[name] = (mask.copy(), SearchTrie.of(trie, self.device))
        return self._tries[name][1]


def load_generator(
    run: Path,
    beam: int = 0,
    batch_size: int = 64,
    device: str = "auto",
    item_id: Sequence[str] | np.ndarray | None = None,
) -> GeneratorRecommender:
    """Loads the generator of a run.

    Args:
        run: The run folder; reads generator/, tokenizer/sids.parquet and data/items.parquet.
        beam: Beams a user; 0 takes what the generator was saved with.
        batch_size: Users decoded together.
        device: "auto" takes a GPU where there is one.
        item_id: The items to recommend, row = item_index; None takes data/items.parquet. Appended items
            have SIDs too and may stand behind those.

    Raises:
        ValueError: If something is missing, or generator and SIDs are of different codebooks.
    """
    from pressmark.catalog.items import read_catalog

    if item_id is None:
        item_id = read_catalog(run / "data" / "items.parquet").item_id
    table = read_sids(run / "tokenizer" / "sids.parquet", item_id)
    model = load_model(run / "generator", table)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    saved = model.generation_config
    beam = beam or (saved.num_beams if saved and saved.num_beams else 50)
    nn.Module.to(model, device)
    return GeneratorRecommender(model, table, beam, batch_size)


def _excluded(histories: Histories, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All items of the histories at `rows`: (n,) place in `rows` and (n,) item_index."""
    lengths = histories.lengths[rows]
    row = np.repeat(np.arange(len(rows)), lengths)
    within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, histories.values[histories.offsets[rows][row] + within]


def _items_of_leaves(
    trie: Trie,
    leaf: np.ndarray,
    score: np.ndarray,
    banned: tuple[np.ndarray, np.ndarray] | None,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the items of (B, M) leaves: (B, k) item_index padded with -1, (B, k) float32 with -inf."""
    first = trie.first_place[-1]
    count = np.where(leaf >= 0, first[leaf + 1] - first[leaf], 0)
    offset = np.arange(count.max(initial=0))
    place = first[leaf][..., None] + offset
    inside = offset < count[..., None]
    items = trie.item_order[np.where(inside, place, 0)]
    if banned is not None and len(offset) > 1:
        # A live leaf may hold excluded items beside the allowed ones.
        num_items = len(trie.place)
        row = np.arange(len(leaf))[:, None, None]
        inside &= ~np.isin(row * num_items + items, banned[0] * num_items + banned[1])
    items = np.where(inside, items, -1).reshape(len(leaf), -1)
    scores = np.where(inside, score[..., None], -np.inf).astype(np.float32).reshape(len(leaf), -1)
    best = np.lexsort((items, -scores))[:, :k]
    found = np.full((len(leaf), k), -1, np.int64)
    ranked = np.full((len(leaf), k), -np.inf, np.float32)
    found[:, : best.shape[1]] = np.take_along_axis(items, best, axis=1)
    ranked[:, : best.shape[1]] = np.take_along_axis(scores, best, axis=1)
    return found, ranked
