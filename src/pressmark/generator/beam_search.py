"""Trie-constrained beam search: the best SIDs of the catalog for each history, with scores and a proof.

The model reads a history once. Level by level, each of a user's M beams (nodes of the trie) offers its edges,
and the M best of all offers go on. Beams stand in node order, never in score order: an offer's place then
rises with its edge number, so that keeping the first of equals means keeping the lowest SID.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from pressmark.generator.config import Normalizer
from pressmark.sids.edge_mask import DeadEdges, EdgeMask
from pressmark.sids.living_trie import LivingTrie
from pressmark.sids.trie import Trie
from pressmark.sids.vocabulary import PAD, Vocabulary


class Decoder(Protocol):
    """What beam search needs of an encoder-decoder, whatever its architecture.

    B users, M beams each, S encoder positions.
    """

    def encode(self, input_ids: Tensor, attention_mask: Tensor, content: Tensor | None = None) -> Tensor:
        """Encoder states (B, S, D) of the histories, for whoever calls `search`."""
        ...

    def cross_kv(self, states: Tensor, attention_mask: Tensor) -> Any:
        """Whatever `step` wants to know of the encoder states, once a user."""
        ...

    def step(
        self, tokens: Tensor, cross_kv: Any, cache: Any, parent: Tensor, rows: slice
    ) -> tuple[Tensor, Any]:
        """Logits (B, M, len(rows)) float32 behind the tokens (B, M), and a cache for the next step.

        The cache is None at first, then what the step before returned, whose beams `parent` (B, M) numbers:
        each new beam goes on from one of them.
        """
        ...


@dataclass(frozen=True)
class SearchTrie:
    """A trie as tensors on the model's device; on a CPU they are the trie's own arrays.

    Attributes:
        edge_code: For each level (E_l,) code of each edge: uint8, or int16 and int32 holding unsigned bits.
        first_edge: For each level (nodes + 1,) int32.
        copies: For each level the first edge that stores its child, and (T_l,) int32 those children; none
            where the trie stands as built, and a child has its edge's number.
        width: For each level the most edges of one node.
        rows: For each level its tokens.
        root: The node of depth 0.
        num_items: Items in the trie.
        constrains: Always; without, a search takes whatever code it likes, which tells what a trie costs.
    """

    constrains: ClassVar[bool] = True
    edge_code: tuple[Tensor, ...]
    first_edge: tuple[Tensor, ...]
    copies: tuple[tuple[int, Tensor], ...]
    width: tuple[int, ...]
    rows: tuple[slice, ...]
    root: int
    num_items: int

    @classmethod
    def of(cls, trie: Trie, device: torch.device | str = "cpu") -> SearchTrie:
        """Shows a trie to `device`. Of a living trie as it stands now: ask again after a change."""
        vocabulary = Vocabulary(trie.level_sizes)
        starts = [vocabulary.offset(level) for level in range(trie.num_levels + 1)]
        copies = zip(trie.tail[:-1], trie.tail_child, strict=True) if isinstance(trie, LivingTrie) else ()
        return cls(
            tuple(_shown(one).to(device) for one in trie.edge_code),
            tuple(_shown(one).to(device) for one in trie.first_edge),
            tuple((tail, _shown(child).to(device)) for tail, child in copies),
            tuple(trie.width),
            tuple(slice(first, end) for first, end in pairwise(starts)),
            trie.root,
            trie.num_items,
        )

    def offers(
        self,
        level: int,
        node: Tensor,
        score: Tensor,
        scores: Tensor,
        masks: Masks | None,
        normalize: bool = False,
        prior: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What the beams may go on with, W places a beam.

        Args:
            level: The level of the edges.
            node: (B, M) int64 nodes of that depth.
            score: (B, M) float32 sums of log-probabilities so far.
            scores: (B, M, K) float32, one for each code of the level.
            masks: Edges that each user may take.
            normalize: Turn scores to log-probabilities among a node's edges, closed ones too.
            prior: (B, E_l) float32 added to the scores of edges.

        Returns:
            (B, M, W) float32: the sums with each of the node's edges in order; -inf behind the last, and for
            edges that are closed. And (B, M, W) int32 the edges.
        """
        kernels = cpu_kernels(node.device)
        if kernels is not None:
            rows = self.rows[level]
            arrays = self.first_edge[level], self.edge_code[level], rows.stop - rows.start, self.width[level]
            filters = None if masks is None else (masks.bits[level], masks.of_user)
            return kernels.offers(node, score, *arrays, scores, filters, normalize, prior)
        edge, closed = self.edges(level, node, None if normalize else masks)
        offer = scores.gather(2, self.code(level, edge))
        if prior is not None:
            offer += prior.gather(1, edge.long().flatten(1)).view(edge.shape)
        offer.masked_fill_(closed, -torch.inf)
        if normalize:
            offer = offer.log_softmax(-1)
            if masks is not None:
                offer.masked_fill_(~masks.live(level, edge), -torch.inf)
        # Rounding must not lift a log-probability above 0: that sums only fall is what the proof rests on.
        return offer.clamp_max_(0).add_(score[..., None]), edge

    def edges(self, level: int, node: Tensor, masks: Masks | None) -> tuple[Tensor, Tensor]:
        """Edges of nodes (B, M), W places a node: (B, M, W) int32, and bool where none is, or a closed one.

        Behind a node's edges its last one is repeated: whoever follows it stands on a node that is there.
        """
        first, last = self.first_edge[level][node], self.first_edge[level][node + 1] - 1
        edge = first[..., None] + torch.arange(self.width[level], dtype=torch.int32, device=node.device)
        closed = edge > last[..., None]
        edge = torch.minimum(edge, last[..., None])
        if masks is not None:
            closed |= ~masks.live(level, edge)
        return edge, closed

    def find(self, level: int, node: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (n,) of a depth and codes (n,) -> children (n,) int64, and (n,) bool whether there is one."""
        edge, closed = self.edges(level, node[:, None], None)
        same = ~closed & (self.code(level, edge) == code[:, None, None])
        child, _ = self.follow(level, edge, same.flatten(1).int().argmax(dim=1, keepdim=True))
        return child[:, 0], same.flatten(1).any(dim=1)

    def follow(self, level: int, edge: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen places (B, m) of offered edges (B, M, W) -> children and codes, (B, m) int64.

        A place where no edge is, or a closed one, leads to some node too.
        """
        chosen = edge.flatten(1).gather(1, place)
        child = chosen.long()
        if self.copies:
            tail, children = self.copies[level]
            if len(children):
                copied = children[(child - tail).clamp_(0, len(children) - 1)]
                child = torch.where(child < tail, child, copied)
        return child, self.code(level, chosen)

    def code(self, level: int, edge: Tensor) -> Tensor:
        """(...) int64 codes of edges (...)."""
        codes = self.edge_code[level]
        found = codes.index_select(0, edge.flatten()).view(edge.shape).long()
        return found & 0xFFFF if codes.dtype == torch.int16 else found


@dataclass(frozen=True)
class Masks:
    """Filters of a batch on the model's device.

    Attributes:
        bits: For each level (F, bytes) uint8, see `EdgeMask`; a filter that allows everything is all ones.
        of_user: (B,) int64 the filter of each user.
    """

    bits: tuple[Tensor, ...]
    of_user: Tensor

    def live(self, level: int, edge: Tensor) -> Tensor:
        """(B, M, W) bool for int32 edges (B, M, W) of a level."""
        bits = self.bits[level]
        place = edge >> 3
        if len(bits) > 1:
            place = place + (self.of_user * bits.shape[1])[:, None, None]
        byte = bits.flatten().index_select(0, place.flatten()).view(edge.shape)
        return (byte >> (edge & 7)) & 1 == 1

    @classmethod
    def of(
        cls, masks: Sequence[EdgeMask | None], of_user: np.ndarray, device: torch.device | str = "cpu"
    ) -> Masks | None:
        """Shows filters to `device`; None where every one allows everything."""
        some = [mask for mask in masks if mask is not None]
        if not some:
            return None
        bits = []
        for level, shape in enumerate(some[0].bits):
            rows = [np.full_like(shape, 255) if mask is None else mask.bits[level] for mask in masks]
            bits.append(torch.from_numpy(np.stack(rows) if len(rows) > 1 else rows[0][None]).to(device))
        return cls(tuple(bits), torch.from_numpy(of_user).to(device))


@dataclass(frozen=True)
class Beams:
    """The best SIDs of B users, best first; equal scores: lower SID first.

    Attributes:
        leaf: (B, M) int64 leaves of the trie, -1 behind the valid ones. M is the beam, or fewer where the
            trie has fewer SIDs.
        codes: (B, M, L) int64 the leaves' SIDs; anything behind the valid ones.
        score: (B, M) float32, sum of the log-probabilities of a SID's codes; -inf behind the valid ones. A
            NaN is what the model made of its weights; it counts as not valid, so look before you rank.
        num_valid: (B,) int64.
        pruned: (B,) float32, the best score of anything ever dropped, -inf if nothing was. Scores only fall
            on the way down, so every SID that was missed scores at most this: answers above it are proven,
            for the logits of this search; another batch or beam may round them differently.
    """

    leaf: Tensor
    codes: Tensor
    score: Tensor
    num_valid: Tensor
    pruned: Tensor


@torch.inference_mode()
def search(
    decoder: Decoder,
    states: Tensor,
    attention_mask: Tensor,
    trie: SearchTrie,
    beam: int,
    masks: Masks | None = None,
    dead: Sequence[DeadEdges] | None = None,
    normalizer: Normalizer = "full",
    prior: Sequence[Tensor] | None = None,
) -> Beams:
    """Finds the best SIDs of each user.

    Args:
        decoder: The model.
        states: (B, S, D) encoder states of the histories.
        attention_mask: (B, S), nonzero where a position counts.
        trie: The valid SIDs.
        beam: Beams a user, at least 1.
        masks: Filters of the users.
        dead: Edges that single users must not take, one entry a level.
        normalizer: What a code's probability is relative to. full: the whole vocabulary, as HF has it. level:
            the codes of its level alone; cheaper, and another score (the model's mass on codes of wrong levels
            is given back). trie: the codes that lead to an item of the trie, whatever the masks say; the scores
            of all SIDs then are a distribution. A model is best asked by what it was trained by.
        prior: For each level (B, E_l) float32 logits of its edges that the decoder's are added to, as
            `item_head.TriePrior` gives them; with the normalizer "trie" alone.

    Returns:
        The beams. With at most `beam` live SIDs a user gets all of them, in exact order.

    Raises:
        ValueError: If `beam` is below 1, the normalizer unknown or no fit for a prior.
    """
    check_search(beam, normalizer, prior)
    num_users, device = len(states), states.device
    node = torch.full((num_users, 1), trie.root, device=device)  # (B, M)
    score = torch.zeros((num_users, 1), device=device)  # (B, M)
    pruned = torch.full((num_users,), -torch.inf, device=device)
    if not trie.num_items:
        nothing = node[:, :0], node.new_zeros((num_users, 0, len(trie.rows))), score[:, :0]
        return Beams(*nothing, node.new_zeros(num_users), pruned)
    tokens = torch.full_like(node, PAD)
    cross_kv = decoder.cross_kv(states, attention_mask)
    parent, cache = node, None  # (B, M) beams of the step before that these go on from
    codes = node[..., None][..., :0]  # (B, M, levels so far)
    for level in range(len(trie.rows)):
        rows = trie.rows[level]
        wanted = slice(None) if normalizer == "full" else rows
        asked = _undecided(trie, level, node, score) if normalizer == "trie" else None
        if asked is None:
            scores, cache = decoder.step(tokens, cross_kv, cache, parent, wanted)  # (B, M, K or V)
        else:
            scores = score.new_zeros((*node.shape, rows.stop - rows.start))
            if asked.shape[1]:
                ways = tokens.gather(1, asked), cross_kv, cache, parent.gather(1, asked)
                some, cache = decoder.step(*ways, wanted)
                scores.scatter_(1, asked[..., None].expand_as(some), some)
        if normalizer != "trie":
            scores = scores.log_softmax(-1)
        if normalizer == "full":
            scores = scores[..., rows]
        own = None if prior is None else prior[level]
        offer, edge = trie.offers(level, node, score, scores, masks, normalizer == "trie", own)  # (B, M, W)
        if dead is not None:
            _close(offer, node, score, dead[level])
        node, codes, score, parent, left = _keep_best(trie, level, offer, edge, codes, beam)
        pruned = torch.maximum(pruned, left)
        if asked is not None:
            # Numbers among the beams that were asked; one that was not never is again.
            number = torch.zeros_like(tokens).scatter_(1, asked, torch.arange(asked.shape[1]).expand_as(asked))
            parent = number.gather(1, parent)
        tokens = codes[..., level] + rows.start
    return _ranked(node, codes, score, pruned)


def cpu_kernels(device: torch.device) -> ModuleType | None:
    """`pressmark.generator.cpu_kernels` on a CPU, where numba is installed; else None, and torch computes."""
    return _numba_kernels() if device.type == "cpu" else None


@cache
def _numba_kernels() -> ModuleType | None:
    return import_module("pressmark.generator.cpu_kernels") if find_spec("numba") else None


def check_search(beam: int, normalizer: str, prior: Sequence[Tensor] | None) -> None:
    """Raises the errors of `search`."""
    if prior is not None and normalizer != "trie":
        raise ValueError(f"normalizer is {normalizer!r}; a prior over a trie's edges needs 'trie'.")
    if beam < 1:
        raise ValueError(f"beam is {beam}; it must be at least 1.")
    if normalizer not in ("full", "level", "trie"):
        raise ValueError(f"normalizer is {normalizer!r}; it must be 'full', 'level' or 'trie'.")


def _undecided(trie: SearchTrie, level: int, node: Tensor, score: Tensor) -> Tensor | None:
    """Beams with more than one SID below them: the others' codes are certain, whatever a model says.

    Args:
        trie: The valid SIDs.
        level: Depth of the nodes.
        node: (B, M) int64.
        score: (B, M), -inf for beams that go nowhere.

    Returns:
        (B, M') int64 numbers of such beams, then of others where a user has fewer; None where all are to be
        asked. Without the kernels of a CPU that is always so: a GPU would have to be waited for.
    """
    kernels = cpu_kernels(node.device)
    if kernels is None or not len(node):
        return None
    several = kernels.undecided(node, score, trie.first_edge[level:], trie.copies[level:])
    most = int(several.sum(1).max())
    if most == node.shape[1]:
        return None
    return several.int().argsort(dim=1, descending=True, stable=True)[:, :most]


def _close(offer: Tensor, node: Tensor, score: Tensor, dead: DeadEdges) -> None:
    """Sets the offers (B, M, W) of dead edges to -inf, in place, without waiting for the device."""
    if not len(dead.row):
        return
    row, parent, slot = (torch.from_numpy(one).to(node.device) for one in (dead.row, dead.parent, dead.slot))
    # A beam that had nowhere to go stands on any node, maybe on one of a living beam's.
    same = (node[row] == parent[:, None]) & (score[row] > -torch.inf)  # (n, M)
    beam = same.int().argmax(dim=1)
    place = (row * offer.shape[1] + beam) * offer.shape[2] + slot
    lowest = torch.where(same.any(dim=1), -torch.inf, torch.inf)
    offer.view(-1).scatter_reduce_(0, place, lowest, "amin")


def _keep_best(
    trie: SearchTrie, level: int, offer: Tensor, edge: Tensor, codes: Tensor, beam: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Goes on with the best of what a level's beams are offered; of equal ones the first.

    Args:
        trie: The valid SIDs.
        level: The level of the edges.
        offer: (B, M, W) float32, see `SearchTrie.offers`.
        edge: (B, M, W) int32.
        codes: (B, M, level) int64 of the beams so far.
        beam: The most to keep.

    Returns:
        node: (B, m) int64 in the order of their offers, m = min(beam, M * W, edges of the level).
        codes: (B, m, level + 1) int64.
        score: (B, m) the offers.
        parent: (B, m) int64, the beam that each goes on from.
        left: (B,) the best offer that was not taken, -inf where none was left.
    """
    num_users, num_beams, width = offer.shape
    num_offers = num_beams * width
    num = min(beam, len(trie.edge_code[level]), num_offers)
    kernels = cpu_kernels(offer.device)
    if kernels is not None:
        copies = trie.copies[level] if trie.copies else None
        return kernels.keep_best(offer, edge, codes, trie.edge_code[level], copies, num)
    offer = offer.flatten(1)
    if num == num_offers:
        place = torch.arange(num, device=offer.device).expand_as(offer)
        left = offer.new_full((num_users,), -torch.inf)
    else:
        # Looking for ties would wait for a GPU: the place, lowest first, goes into the number compared. A NaN
        # may have either sign: it is made the one that counts as best.
        bits = (offer + 0.0).nan_to_num(nan=torch.nan, posinf=torch.inf, neginf=-torch.inf).view(torch.int32)
        rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        behind = torch.arange(offer.shape[1] - 1, -1, -1, device=offer.device)
        place = ((rising.long() << 32) | behind).topk(num + 1).indices
        left = offer.gather(1, place[:, num:])[:, 0]
        place = place[:, :num].sort().values
    parent = place // width
    before = codes.gather(1, parent[..., None].expand(-1, -1, level))
    node, code = trie.follow(level, edge, place)
    return node, torch.cat([before, code[..., None]], dim=2), offer.gather(1, place), parent, left


def _ranked(leaf: Tensor, codes: Tensor, score: Tensor, pruned: Tensor) -> Beams:
    kernels = cpu_kernels(leaf.device)
    if kernels is not None:
        leaf, codes, score, num_valid = kernels.ranked(leaf, codes, score)
        return Beams(leaf, codes, score, num_valid, pruned)
    order = score.sort(descending=True, stable=True).indices
    score, leaf = score.gather(1, order), leaf.gather(1, order)
    codes = codes.gather(1, order[..., None].expand_as(codes))
    valid = score > -torch.inf
    return Beams(leaf.masked_fill(~valid, -1), codes, score, valid.sum(1), pruned)


def _shown(array: np.ndarray) -> Tensor:
    """An array as a tensor without a copy; torch gathers no unsigned integers beyond uint8."""
    same_bits = {"uint16": np.int16, "uint32": np.int32}.get(array.dtype.name)
    return torch.from_numpy(array if same_bits is None else array.view(same_bits))
