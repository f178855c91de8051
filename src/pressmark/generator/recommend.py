"""The generator as a recommender: histories in, ranked items out."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from pressmark.catalog.lexicon import Lexicon
from pressmark.files import check_weights
from pressmark.generator.backbone_data import with_titles
from pressmark.generator.beam_search import Beams, Masks, SearchTrie, search
from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.config import Normalizer
from pressmark.generator.hf_decoder import Renumbered, decoder_of
from pressmark.generator.item_head import TriePrior
from pressmark.generator.model import (
    PROMPT,
    ItemFacts,
    encoder_arguments,
    history_tokens,
    item_tokens,
    load_facts,
    load_lexicon,
    load_model,
    normalizer_of,
)
from pressmark.generator.prompts import Asked, Prompts
from pressmark.generator.saved_backbone import is_backbone, load_backbone
from pressmark.generator.t5_decoder import T5Decoder
from pressmark.interactions.histories import Histories
from pressmark.recommender import (
    Recommendations,
    Requests,
    check_request,
    check_scores,
    filter_mask,
    grown_filters,
    known_items,
)
from pressmark.sids.edge_mask import EdgeMask, dead_edges, edge_mask
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.table import SidTable, read_sids
from pressmark.sids.trie import Trie, build_trie
from pressmark.sids.vocabulary import PAD, Vocabulary

SHOPPERS = 256
"""Histories encoded at once where nothing is spelled."""

KNOWN_MASKS = 64
"""Filters, and joined filters, whose edges are kept."""


class GeneratorRecommender:
    """Spells the best SIDs of the catalog and resolves them to items.

    Items that share a SID share its score and come in ascending item_index. History is excluded before the
    search, not after: a user gets min(k, items left) items whatever history and filter leave. Several threads
    may ask at once; a change to the trie waits for none of them, so keep them away meanwhile.

    Args:
        model: The generator; its weights are copied.
        table: SIDs of the catalog, of the codebooks that the model was trained on.
        beam: Beams a user; a larger k raises it.
        batch_size: Users decoded together at that beam.
        normalizer: See `beam_search.search`; None is the one that the model was trained by.
        dtype: Of the decoder. bfloat16 is faster on machines that multiply in it, and rounds scores; on a GPU
            the kernels of `fused` then do the search.
        max_beam: How far `Requests.certify` may widen the beam for a user whose answer is not yet proven.
        facts: What the model knows of the N items beside their SIDs, where it asks for that.
        popularity_discount: What an item's score loses for each unit of `ItemFacts.log_count`; None is what the
            model was saved with, see `config.Config.popularity_discounts`.
        prompts: How a backbone is asked; it then reads contexts and carts too, where it was trained on some.
        lexicon: Of the words that the model reads; products can be added to such a model with it alone.

    Attributes:
        num_items: Items in the catalog, withdrawn ones too.
        reads: "context" and "cart", where these are read.
        filters: name -> (num_items,) bool mask of allowed items. What a filter means for the trie is found
            when it is first asked for, in time that grows with the items, and again when its mask has changed.
        trie: The SIDs as they stand. Change it through `insert`, `withdraw` and `restore` alone.

    Raises:
        ValueError: If a size is below 1, a weight is not finite, the table is of other codebooks than the
            model, or facts are missing or those of another catalog.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        table: SidTable,
        beam: int = 50,
        batch_size: int = 64,
        normalizer: Normalizer | None = None,
        dtype: torch.dtype = torch.float32,
        max_beam: int = 800,
        facts: ItemFacts | None = None,
        popularity_discount: float | None = None,
        prompts: Prompts | None = None,
        lexicon: Lexicon | None = None,
    ) -> None:
        if min(beam, batch_size, max_beam) < 1:
            raise ValueError(
                f"beam ({beam}), batch_size ({batch_size}) and max_beam ({max_beam}) must be at least 1."
            )
        check_codebooks(model.config, table)
        for name, weight in model.named_parameters():
            # The kernels of `fused` take NaN for a certainty: no score would show it.
            if not weight.isfinite().all():
                raise ValueError(f"the generator's weight {name} holds NaN or an infinity: train it again.")
        self.num_items = len(table)
        self.filters: dict[str, np.ndarray] = {}
        self.beam, self.batch_size = beam, batch_size
        self.normalizer = normalizer or normalizer_of(model)
        self.max_beam = max_beam
        self.history_length, self.history_input = model.config.history_length, model.config.history_input
        self.decoder, self._search = _decoder_of(model, dtype)
        self.device = model.device
        self._prompts = None if prompts is None else prompts.to(self.device)
        self.reads = frozenset() if prompts is None else prompts.reads
        self._head = copy.deepcopy(model.item_head).float().eval() if isinstance(model, CausalT5) else None
        self._lexicon, self._words = lexicon, getattr(model.config, "words", 0)
        self._catalog_lock = threading.Lock()
        self.guided = self.normalizer == "trie" and bool(getattr(model.config, "guided", False))
        if popularity_discount is None:
            popularity_discount = getattr(model.config, "popularity_discount", 0.0)
        self.popularity_discount = popularity_discount if self.guided else 0.0
        prior = getattr(model.config, "popularity_prior", 0.0) if self.guided else 0.0
        self._popularity = prior - self.popularity_discount
        reads = self._head is not None and self._head.read is not None
        if facts is not None and len(facts) != len(table):
            raise ValueError(f"facts are those of {len(facts)} items, the SID table has {len(table)}.")
        if (reads and (facts is None or facts.content is None)) or (self._popularity and facts is None):
            raise ValueError("the generator reads content vectors or counts of its items: give their facts.")
        # Of all of these the last row is that of no item, and there may be room in front of it.
        self._sids, self._tokens = table.sids, item_tokens(table, self.device)
        self._log_count, self._vectors = None, None
        if facts is not None:
            self._log_count = F.pad(facts.log_count, (0, 1), value=facts.typical).to(self.device)
        if self._head is not None:
            content = facts.content if facts is not None and reads else None
            self._vectors = F.pad(self._vectors_of(np.arange(len(table)), content), (0, 0, 0, 1))
        self._vocabulary = Vocabulary(table.level_sizes)
        self.trie = LivingTrie(build_trie(table.sids, table.level_sizes))
        self._show()
        self._masks: dict[str, _KnownMask] = {}
        self._masks_lock = threading.Lock()

    def insert(
        self,
        sids: np.ndarray,
        passes: Mapping[str, np.ndarray] | None = None,
        vectors: np.ndarray | None = None,
        texts: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Adds products to the loaded trie; it is built afresh only once in many thousand changes.

        A model that starts from its item head sorts its vectors anew at the first request after a change, in
        time that grows with the items: change many at once.

        Args:
            sids: (n, L) int64, of the same codebooks.
            passes: Filter name -> (n,) bool; a new product passes no filter that is not named here.
            vectors: (n, vector_dim) float32 content vectors, for a model that reads them.
            texts: n texts as `catalog.embeddings.item_texts` gives them, for a model that reads words.

        Returns:
            (n,) int64 their item_index, behind those known.

        Raises:
            ValueError: If a code is outside its level, a filter unknown or of another shape, or vectors are
                missing; nothing is added then.
        """
        sids = np.asarray(sids)
        if sids.ndim != 2 or sids.dtype.kind != "i":
            raise ValueError(f"sids are {sids.dtype} of the shape {sids.shape}; they must be (n, L) integers.")
        grown = grown_filters(self.filters, self.num_items, len(sids), passes)
        content = None
        if self._head is not None and self._head.read is not None:
            if vectors is None or len(vectors) != len(sids):
                raise ValueError(
                    f"the generator reads content: give the vectors of the {len(sids)} new products."
                )
            content = self._head.content(vectors, _words_of(self._lexicon, texts, self._words))
        items = np.arange(self.num_items, self.num_items + len(sids))
        self.trie.insert(items, sids)
        self.num_items += len(sids)
        self.filters.update(grown)
        if self.num_items > len(self._sids):
            room = self.num_items + max(self.num_items // 8, 1024)
            self._sids = np.concatenate(
                [self._sids, np.zeros((room - len(self._sids), sids.shape[1]), np.int64)]
            )
            self._tokens = F.pad(self._tokens, (0, 0, 0, room + 1 - len(self._tokens)), value=PAD)
            if self._vectors is not None:
                self._vectors = F.pad(self._vectors, (0, 0, 0, room + 1 - len(self._vectors)))
            if self._log_count is not None:
                more = room + 1 - len(self._log_count)
                self._log_count = F.pad(self._log_count, (0, more), value=float(self._log_count[-1]))
        self._sids[items] = sids
        self._tokens[items] = torch.from_numpy(self._vocabulary.sid_tokens(sids)).to(self.device)
        if self._vectors is not None:
            self._vectors[items] = self._vectors_of(items, content)
        self._show()
        return items

    @torch.no_grad()
    def _vectors_of(self, items: np.ndarray, content: Tensor | None) -> Tensor:
        """(n, D) what the item head and the encoder see of items whose tokens are there."""
        assert self._head is not None
        index = torch.from_numpy(items).to(self.device)
        known = None if content is None else self._head.known(content.to(self.device), index)
        return self._head.items(self._tokens[index], known)

    def _show(self) -> None:
        """Shows the trie as it stands to the device; what the item head needs is made when it is asked for."""
        self._shown = SearchTrie.of(self.trie, self.device)
        self._catalog: tuple[TriePrior, Tensor, Tensor | float] | None = None

    def withdraw(self, item_index: np.ndarray | Sequence[int]) -> None:
        """Takes products out of every answer; histories may go on naming them.

        Raises:
            ValueError: If one is unknown or withdrawn already; nothing is taken away then.
        """
        items = known_items(item_index, self.num_items)
        self.trie.withdraw(items, self._sids[items])
        self._show()

    def restore(self, item_index: np.ndarray | Sequence[int]) -> None:
        """Brings withdrawn products back, under their SIDs.

        Raises:
            ValueError: If one is unknown or was not withdrawn; nothing is brought back then.
        """
        items = known_items(item_index, self.num_items)
        self.trie.insert(items, self._sids[items])
        self._show()

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """Answers each request with its k best items; `exact` where the beam search can prove them.

        Raises:
            ValueError: If k < 1, an item_index is out of range, a filter unknown or of the wrong shape, or a
                score is NaN.
        """
        check_request(self, requests, k)
        names, of_user = requests.by_filter()
        with self._masks_lock:
            masks = [self._mask(name) for name in names]
        items, lengths = requests.histories.newest(self.history_length)
        beside = _Beside.of(requests, self._prompts)
        item_index = np.full((len(requests), k), -1, np.int64)
        scores = np.full((len(requests), k), -np.inf, np.float32)
        exact = np.zeros(len(requests), bool)
        beam, seen = max(k, self.beam), requests.seen
        # Users with histories of about one length together: little padding.
        order = np.argsort(lengths, kind="stable")
        while len(order):
            width = max(1, self.batch_size * self.beam // beam)
            for rows in np.split(order, np.arange(width, len(order), width)):
                longest = int(lengths[rows].max())
                excluded = _excluded(seen, rows) if requests.mask_history else None
                used, own = np.unique(of_user[rows], return_inverse=True)
                item_index[rows], scores[rows], exact[rows] = self._answer(
                    self._read(items[rows, :longest], lengths[rows], beside.take(rows)),
                    [masks[one] for one in used],
                    own,
                    beam,
                    excluded,
                    k,
                )
            if not requests.certify or beam >= self.max_beam:
                break
            order, beam = order[~exact[order]], min(4 * beam, self.max_beam)
        return Recommendations(item_index, scores, (item_index >= 0).sum(axis=1), exact)

    def _answer(
        self,
        read: tuple[Tensor, Tensor, Tensor | None],
        masks: Sequence[EdgeMask | None],
        of_user: np.ndarray,
        beam: int,
        excluded: tuple[np.ndarray, np.ndarray] | None,
        k: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One batch: (B, k) items, (B, k) scores, (B,) exact."""
        input_ids, attention_mask, vectors = read
        states = self.decoder.encode(input_ids, attention_mask, vectors)
        dead = None
        if excluded is not None:
            row, item = excluded
            dead = dead_edges(self.trie, row, item, self._sids[item], masks, of_user)
        beams = self._search(
            self.decoder,
            states,
            attention_mask,
            self._shown,
            beam,
            Masks.of(masks, of_user, self.device),
            dead,
            self.normalizer,
            self._prior(states, attention_mask, vectors),
        )
        leaf, score = beams.leaf.cpu().numpy(), beams.score.cpu().numpy()
        check_scores(score)
        found, scores = _items_of_leaves(self.trie, leaf, score, masks, of_user, excluded, k)
        pruned = beams.pruned.cpu().numpy()
        return found, scores, np.isneginf(pruned) | (scores[:, -1] > pruned)

    def _read(
        self, items: np.ndarray, lengths: np.ndarray, beside: _Beside | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the encoder reads of items (B, W), padded with -1: input_ids, attention_mask and vectors."""
        shown = torch.from_numpy(items).to(self.device)
        if self._prompts is not None:
            others = [None, None] if beside is None else [beside.context, beside.cart]
            context, cart = (None if one is None else torch.from_numpy(one).to(self.device) for one in others)
            asked = Asked(shown, torch.from_numpy(lengths).to(self.device), context, cart)
            return (*self._prompts.of(self._tokens, asked), None)
        input_ids, attention_mask = history_tokens(
            self._tokens,
            shown,
            torch.from_numpy(lengths).to(self.device),
            self.history_input,
            self._vocabulary.size,
        )
        vectors = None if self._vectors is None else F.pad(self._vectors[shown], (0, 0, 1, 0))
        return input_ids, attention_mask, vectors

    @torch.inference_mode()
    def _prior(self, states: Tensor, attention_mask: Tensor, read: Tensor | None) -> list[Tensor] | None:
        """Where the decoder starts, see `item_head`; None where it starts from nothing."""
        if self._head is None or read is None or self._vectors is None or not self.guided:
            return None
        with self._catalog_lock:
            if self._catalog is None:
                every = np.arange(self.num_items)
                live = every[self.trie.holds(every)]
                shown = torch.from_numpy(live).to(self.device)
                bias: Tensor | float = 0.0
                if self._popularity and self._log_count is not None:
                    bias = self._popularity * self._log_count[shown, None]
                self._catalog = TriePrior(self.trie, self._sids[live], self.device), self._vectors[shown], bias
            prior, vectors, bias = self._catalog
        return prior(vectors @ self._queries(states, attention_mask, read).T + bias)

    def _queries(self, states: Tensor, attention_mask: Tensor, read: Tensor) -> Tensor:
        """(B, D) shoppers as the item head sees them, after all that was read of them."""
        assert self._head is not None
        newest = attention_mask.sum(1) - 1
        state = states[torch.arange(len(states), device=self.device), newest][:, None]
        return self._head.queries(state, read, newest[:, None])[:, 0]

    @property
    def item_vectors(self) -> Tensor:
        """(num_items, D) float32 items as the item head sees them.

        Raises:
            ValueError: If the generator has no item head.
        """
        if self._vectors is None:
            raise ValueError(f"a generator with history_input {self.history_input!r} has no item head.")
        return self._vectors[: self.num_items]

    @torch.inference_mode()
    def shoppers(self, histories: Histories) -> Tensor:
        """(B, D) float32; inner products with `item_vectors` are the item head's scores, without popularity.

        Raises:
            ValueError: If the generator has no item head.
        """
        items, lengths = histories.newest(self.history_length)
        found = torch.empty(len(items), self.item_vectors.shape[1], device=self.device)
        order = np.argsort(lengths, kind="stable")
        for rows in np.split(order, np.arange(SHOPPERS, len(order), SHOPPERS)):
            if len(rows):
                input_ids, attention_mask, read = self._read(
                    items[rows, : int(lengths[rows].max())], lengths[rows]
                )
                assert read is not None
                states = self.decoder.encode(input_ids, attention_mask, read)
                found[torch.from_numpy(rows)] = self._queries(states, attention_mask, read)
        return found

    def generate_arguments(
        self, model: T5ForConditionalGeneration, histories: Histories
    ) -> tuple[dict[str, Any], list[Tensor] | None]:
        """For people who stay inside `generate`: its arguments, and the prior for the doors of `hf_generate`.

        The doors want this recommender's `trie`: a prior's numbers are those of its edges.

        Args:
            model: The one that this recommender was made of.
            histories: Of B users.
        """
        items, lengths = histories.newest(self.history_length)
        input_ids, attention_mask, vectors = self._read(items, lengths)
        arguments = encoder_arguments(model, input_ids, vectors) | {"attention_mask": attention_mask}
        states = self.decoder.encode(input_ids, attention_mask, vectors)
        return arguments, self._prior(states, attention_mask, vectors)

    def _mask(self, name: str | None) -> EdgeMask | None:
        """What a filter, or several joined, means for the trie as it stands."""
        allowed = filter_mask(self.filters, name, self.num_items)
        if name is None or allowed is None:
            return None
        known, trie = self._masks.get(name), self.trie
        num = 0 if known is None else len(known.base.allowed)
        if (
            known is None
            or known.built is not trie.built
            or not np.array_equal(allowed[:num], known.base.allowed)
        ):
            base = edge_mask(trie.built, allowed.copy())
            known = _KnownMask(trie.built, base, edge_mask(trie, base.allowed, base), trie.version)
        elif known.version != trie.version or len(allowed) != len(known.now.allowed):
            # Items that came since are none of what was built: the base holds.
            known = replace(known, now=edge_mask(trie, allowed.copy(), known.base), version=trie.version)
        elif not np.array_equal(allowed[num:], known.now.allowed[num:]):
            known = replace(known, now=edge_mask(trie, allowed.copy(), known.base))
        # The one used longest ago stands first, and goes first.
        self._masks.pop(name, None)
        self._masks[name] = known
        if len(self._masks) > KNOWN_MASKS:
            del self._masks[next(iter(self._masks))]
        return known.now


def check_codebooks(config: Any, table: SidTable) -> None:
    """Raises ValueError where a model's configuration names other codebooks or level sizes than a table's."""
    sizes, books = getattr(config, "level_sizes", None), getattr(config, "codebook_fingerprint", None)
    if sizes is not None and tuple(sizes) != table.level_sizes:
        raise ValueError(
            f"the generator has level_sizes {tuple(sizes)}, the SID table {table.level_sizes}: give the table "
            "that the model was trained on."
        )
    if books is not None and books != table.codebook_fingerprint:
        raise ValueError(
            f"the generator was trained on codebooks {books}, the SID table is of codebooks "
            f"{table.codebook_fingerprint}: give the table that the model was trained on."
        )


def _decoder_of(
    model: T5ForConditionalGeneration, dtype: torch.dtype
) -> tuple[T5Decoder | Renumbered, Callable[..., Beams]]:
    """The decoder that is fastest where the model is, and the search that goes with it."""
    if model.config.history_input == PROMPT:
        return decoder_of(model, dtype), search
    # Triton comes with PyTorch's CUDA builds, but on Windows.
    if model.device.type == "cuda" and dtype != torch.float32 and find_spec("triton"):
        from pressmark.generator import fused

        return fused.FusedDecoder(model, dtype), fused.search
    return T5Decoder(model, dtype), search


@dataclass(frozen=True)
class _Beside:
    """What B requests say beside their histories.

    Attributes:
        context: (B,) int64, see `prompts.Asked`; None where nothing reads one.
        cart: (B, C) int64, the newest items of the carts, padded with -1; None for no carts.
    """

    context: np.ndarray | None
    cart: np.ndarray | None

    @classmethod
    def of(cls, requests: Requests, prompts: Prompts | None) -> _Beside:
        """Raises ValueError for a context that is unknown."""
        if prompts is None:
            return cls(None, None)
        context = None
        if "context" in prompts.reads:
            context = prompts.words.numbers(requests.context, len(requests))
        cart = None if requests.cart is None else requests.cart.newest(prompts.config.cart_length)[0]
        return cls(context, cart)

    def take(self, rows: np.ndarray) -> _Beside:
        """Those at (n,) rows."""
        return _Beside(*(None if one is None else one[rows] for one in (self.context, self.cart)))


@dataclass(frozen=True)
class _KnownMask:
    """A filter's edges: of the trie as last built, and with what has changed since."""

    built: Trie
    base: EdgeMask
    now: EdgeMask
    version: int


def load_generator(
    run: Path,
    beam: int = 0,
    batch_size: int = 64,
    device: str = "auto",
    item_id: Sequence[str] | np.ndarray | None = None,
    appended_vectors: np.ndarray | None = None,
    appended_texts: Sequence[str] | None = None,
) -> GeneratorRecommender:
    """Loads the generator of a run.

    Args:
        run: The run folder; reads generator/, tokenizer/sids.parquet and data/items.parquet.
        beam: Beams a user; 0 takes what the generator was saved with.
        batch_size: Users decoded together.
        device: "auto" takes a GPU where there is one.
        item_id: The items to recommend, row = item_index; None takes data/items.parquet. Appended items
            have SIDs too and may stand behind those.
        appended_vectors: Content vectors of the items behind those of data/.
        appended_texts: Their texts, as `catalog.embeddings.item_texts` gives them.

    Raises:
        ValueError: If something is missing or cut off, or generator and SIDs are of different codebooks.
    """
    from pressmark.catalog.items import read_catalog

    check_weights(run / "generator")
    own = read_catalog(run / "data" / "items.parquet")
    item_id = own.item_id if item_id is None else item_id
    table = read_sids(run / "tokenizer" / "sids.parquet", item_id)
    model: Any
    lexicon: Lexicon | None = None
    if is_backbone(run / "generator"):
        model, prompts, text_tokenizer = load_backbone(run / "generator", table)
        prompts = with_titles(prompts, text_tokenizer, own.title)
    else:
        model, prompts = load_model(run / "generator", table), None
        lexicon = load_lexicon(run / "generator", model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    saved = model.generation_config
    beam = beam or (saved.num_beams if saved and saved.num_beams else 50)
    facts = load_facts(run / "generator")
    if appended_vectors is not None:
        content = None
        if isinstance(model, CausalT5) and model.item_head.read is not None:
            words = _words_of(lexicon, appended_texts, getattr(model.config, "words", 0))
            content = model.item_head.content(appended_vectors, words)
        facts = facts.then(content, len(appended_vectors))
    nn.Module.to(model, device)
    return GeneratorRecommender(model, table, beam, batch_size, facts=facts, prompts=prompts, lexicon=lexicon)


def _words_of(lexicon: Lexicon | None, texts: Sequence[str] | None, width: int) -> np.ndarray | None:
    """(n, width) int32 words of texts; None where either is missing."""
    return None if lexicon is None or texts is None else lexicon.rows(texts, width)


def _excluded(histories: Histories, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All items of the histories at `rows`: (n,) place in `rows` and (n,) item_index."""
    own = histories.take(rows)
    return own.row_of_value(), own.values


def _items_of_leaves(
    trie: Trie,
    leaf: np.ndarray,
    score: np.ndarray,
    masks: Sequence[EdgeMask | None],
    of_user: np.ndarray,
    excluded: tuple[np.ndarray, np.ndarray] | None,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the items of (B, M) leaves: (B, k) item_index padded with -1, (B, k) float32 with -inf."""
    row, beam = np.nonzero(leaf >= 0)
    place, items = trie.items_of(leaf[row, beam])
    if len(items) > len(row):
        # A live leaf may hold items beside those that are allowed.
        keep = np.ones(len(items), bool)
        for number, mask in enumerate(masks):
            if mask is not None:
                own = of_user[row[place]] == number
                keep[own] = mask.passes(items[own])
        if excluded is not None:
            most = int(max(items.max(), excluded[1].max(initial=0))) + 1
            keep &= ~np.isin(row[place] * most + items, excluded[0] * most + excluded[1])
        place, items = place[keep], items[keep]
    row, value = row[place], score[row[place], beam[place]]
    order = np.lexsort((items, -value, row))
    row, items, value = row[order], items[order], value[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    row, rank, items, value = (one[rank < k] for one in (row, rank, items, value))
    found = np.full((len(leaf), k), -1, np.int64)
    ranked = np.full((len(leaf), k), -np.inf, np.float32)
    found[row, rank], ranked[row, rank] = items, value
    return found, ranked
