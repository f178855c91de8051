"""Trie-constrained beam search: the best SIDs of the catalog for each history, with scores and a proof.

The model reads a history once. Level by level, each of a user's M beams (nodes of the trie) offers its edges,
and the M best of all offers go on. Beams stand in node order, never in score order: an offer's place then
rises with its edge number, so that keeping the first of equals means keeping the lowest SID.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pressmark.sids.trie import DeadEdges, Trie
from pressmark.sids.vocabulary import PAD, Vocabulary

Normalizer = Literal["full", "level"]


class Decoder(Protocol):
    """What beam search needs of an encoder-decoder, whatever its architecture.

    B users, M beams each, S encoder positions. The cache is for each decoder position and layer one tensor
    (B * M, width) of which beam search only re-orders the rows.
    """

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encoder states (B, S, D) of the histories."""
        ...

    def cross_kv(self, states: Tensor) -> Any:
        """Whatever `step` wants to know of the encoder states, once a user."""
        ...

    def step(
        self,
        tokens: Tensor,
        attention_mask: Tensor,
        cross_kv: Any,
        cache: list[list[Tensor]],
        rows: slice,
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Logits (B, M, len(rows)) float32 behind the tokens (B, M), and the cache with this position."""
        ...


@dataclass(frozen=True)
class SearchTrie:
    """A trie as tensors on the model's device.

    Attributes:
        first_edge: For each level (nodes + 1,) int64.
        code: For each level (E_l,) int64 code of each edge.
        width: For each level the most edges of one node.
        rows: For each level its tokens.
        trie: The original.
    """

    first_edge: tuple[Tensor, ...]
    code: tuple[Tensor, ...]
    width: tuple[int, ...]
    rows: tuple[slice, ...]
    trie: Trie

    @classmethod
    def of(cls, trie: Trie, device: torch.device | str = "cpu") -> SearchTrie:
        """Copies a trie to `device`."""
        levels = range(trie.num_levels)
        vocabulary = Vocabulary(trie.level_sizes)
        starts = [vocabulary.offset(level) for level in range(trie.num_levels + 1)]
        return cls(
            tuple(torch.from_numpy(first.astype(np.int64)).to(device) for first in trie.first_edge),
            # torch indexes no unsigned integers beyond uint8.
            tuple(torch.from_numpy(code.astype(np.int64)).to(device) for code in trie.edge_code),
            tuple(trie.widest(level) for level in levels),
            tuple(slice(starts[level], starts[level + 1]) for level in levels),
            trie,
        )


@dataclass(frozen=True)
class Beams:
    """The best SIDs of B users, best first; equal scores: lower SID first.

    Attributes:
        leaf: (B, M) int64 leaves of the trie, -1 behind the valid ones. M is the beam, or fewer where the
            trie has fewer SIDs.
        score: (B, M) float32, sum of the log-probabilities of a SID's codes; -inf behind the valid ones.
        num_valid: (B,) int64.
        pruned: (B,) float32, the best score of anything ever dropped, -inf if nothing was. Scores only fall
            on the way down, so every SID that was missed scores at most this: answers above it are proven.
    """

    leaf: Tensor
    score: Tensor
    num_valid: Tensor
    pruned: Tensor


@torch.inference_mode()
def search(
    decoder: Decoder,
    input_ids: Tensor,
    attention_mask: Tensor,
    trie: SearchTrie,
    beam: int,
    dead: Sequence[DeadEdges] | None = None,
    normalizer: Normalizer = "full",
) -> Beams:
    """Finds the best SIDs of each user.

    Args:
        decoder: The model.
        input_ids: (B, S) or what else the decoder encodes.
        attention_mask: (B, S), nonzero where a position counts.
        trie: The valid SIDs.
        beam: Beams a user, at least 1.
        dead: Edges that single users must not take, one entry a level.
        normalizer: What a code's probability is relative to. full: the whole vocabulary, as HF and the loss
            have it. level: the codes of its level alone; cheaper, and another score (the model's mass on
            codes of wrong levels is given back).

    Returns:
        The beams. With at most `beam` live SIDs a user gets all of them, in exact order.

    Raises:
        ValueError: If `beam` is below 1 or the normalizer unknown.
    """
    if beam < 1:
        raise ValueError(f"beam is {beam}; it must be at least 1.")
    if normalizer not in ("full", "level"):
        raise ValueError(f"normalizer is {normalizer!r}; it must be 'full' or 'level'.")
    num_users, device = len(input_ids), input_ids.device
    node = torch.zeros((num_users, 1), dtype=torch.int64, device=device)
    score = torch.zeros((num_users, 1), device=device)
    pruned = torch.full((num_users,), -torch.inf, device=device)
    if not trie.trie.num_items:
        nothing = node[:, :0], score[:, :0]
        return Beams(*nothing, node.new_zeros(num_users), pruned)
    tokens = torch.full_like(node, PAD)
    cross_kv = decoder.cross_kv(decoder.encode(input_ids, attention_mask))
    cache: list[list[Tensor]] = []
    for level in range(trie.trie.num_levels):
        rows = trie.rows[level]
        wanted = rows if normalizer == "level" else slice(None)
        logits, cache = decoder.step(tokens, attention_mask, cross_kv, cache, wanted)
        total = logits.logsumexp(-1, keepdim=True)
        logits = logits if normalizer == "level" else logits[..., rows]
        edge, code, offer = _offers(trie, level, node, score - total[..., 0], logits)
        if dead is not None:
            _drop_dead(offer, trie, level, node, dead[level])
        place, score, left = _keep_best(offer.flatten(1), min(beam, len(trie.code[level])))
        pruned = torch.maximum(pruned, left)
        parent = place // offer.shape[2]
        node = edge.flatten(1).gather(1, place)
        tokens = code.flatten(1).gather(1, place) + rows.start
        if level + 1 < trie.trie.num_levels:
            user = torch.arange(num_users, device=device)[:, None]
            cache = _reorder(cache, (user * offer.shape[1] + parent).flatten())
    return _ranked(node, score, pruned)


def _offers(
    trie: SearchTrie, level: int, node: Tensor, score: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Every beam's edges, W places a beam: edge, code (B, M, W) int64 and score (B, M, W) float32.

    Places behind a node's last edge score -inf, whatever stands there.
    """
    first, last = trie.first_edge[level][node], trie.first_edge[level][node + 1]
    edge = first[..., None] + torch.arange(trie.width[level], device=node.device)
    beyond = edge >= last[..., None]
    edge = edge.clamp_max_(len(trie.code[level]) - 1)
    code = trie.code[level][edge]
    offer = logits.gather(2, code).add_(score[..., None]).masked_fill_(beyond, -torch.inf)
    return edge, code, offer


def _drop_dead(offer: Tensor, trie: SearchTrie, level: int, node: Tensor, dead: DeadEdges) -> None:
    """Sets the offers of dead edges to -inf, in place."""
    if not len(dead.row):
        return
    slot = dead.edge - trie.trie.first_edge[level][dead.parent]
    row, parent, place = (torch.from_numpy(one).to(node.device) for one in (dead.row, dead.parent, slot))
    which, beam = (node[row] == parent[:, None]).nonzero(as_tuple=True)
    offer[row[which], beam, place[which]] = -torch.inf


def _keep_best(offer: Tensor, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `num` best of (B, C) offers; of equal ones the first.

    Returns:
        place: (B, min(num, C)) int64, ascending.
        score: The offers there.
        left: (B,) the best offer that was not taken, -inf where none was left.
    """
    if offer.shape[1] <= num:
        place = torch.arange(offer.shape[1], device=offer.device).expand_as(offer)
        return place, offer, offer.new_full((len(offer),), -torch.inf)
    score, place = offer.topk(num + 1)
    left = score[:, num]
    tied = (score[:, num - 1] == left) & (left > -torch.inf)
    if tied.any():
        # topk breaks ties as it likes; a stable sort costs more and is needed about never.
        place[tied] = offer[tied].sort(descending=True, stable=True).indices[:, : num + 1]
    place = place[:, :num].sort().values
    return place, offer.gather(1, place), left


def _reorder(cache: list[list[Tensor]], rows: Tensor) -> list[list[Tensor]]:
    # All beams of a user share the start token: its position, once repeated, is in order whoever survives.
    start = cache[0] if len(cache[0][0]) == len(rows) else [one.index_select(0, rows) for one in cache[0]]
    return [start, *([one.index_select(0, rows) for one in position] for position in cache[1:])]


def _ranked(leaf: Tensor, score: Tensor, pruned: Tensor) -> Beams:
    order = score.sort(descending=True, stable=True).indices
    score, leaf = score.gather(1, order), leaf.gather(1, order)
    valid = score > -torch.inf
    return Beams(leaf.masked_fill(~valid, -1), score, valid.sum(1), pruned)
