"""Whole items told apart by a shopper's state, and what that says of the codes of a trie.

An item's vector is its text's, plus a vector for each of its codes and for each word of its text, see
`training.word_bag`. A product that sells also has an identity:
a vector of its own that holds what its text cannot know. It is dropped at random in training, so that text and
codes have to do as well, as they must for a product without sales. A shopper's is the mean of the history's
items, the newest counting most, plus what the encoder adds. That is nothing at first: a fresh head ranks by how
alike the texts are, and training moves away from there as far as it pays. Scores are cosines, which bounds how
sure the head can be of what it has learnt by heart. A product that nobody has bought
keeps its place among its like.

A distribution over items is one over codes too: a code has the mass of the items below it. The decoder starts
from there and corrects it code by code, so what the head knows of products it has not to learn again.

Source: the start as content neighbours is that of `dual_tower.towers`; a trie's masses are the hierarchical
softmax of Morin and Bengio 2005, read the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pressmark.catalog.principal_axes import principal_axes
from pressmark.sids.trie import Trie
from pressmark.sids.vocabulary import PAD
from pressmark.training.word_bag import WordBag

SHARPNESS = 10.0
"""Scores a unit of cosine: texts alike by 1 differ by ten nats from those alike by 0."""

FLOOR = 0.1
"""Vectors much shorter than this stay short when they are brought to length 1: nothing has no direction."""


QUERIES = 64
"""Shoppers scored at once in training come in multiples of this, see `training.precision.products`."""


class ItemHead(nn.Module):
    """Scores of items, and what the encoder reads of their text.

    Args:
        vocab_size: Of sid_tokens.
        width: D, of encoder states and of an item's vector.
        vector_dim: Of the content vectors; 0 leaves items to their codes.
        history_length: Items of history, at most.
        num_items: Items with an identity; 0 for none.
        identity_dropout: How often an item goes without its identity in training.
        num_words: V, words that texts are made of; 0 for none, and content then holds no words.
        word_dropout: How often a word is passed over in training.
        word_rate: See `WordBag`.

    Attributes:
        mean: (vector_dim,) of the content vectors it was fitted to.
        axes: (D, vector_dim) their principal axes.
        read: From an item's vector to what it adds to the encoder's input; None without content.
        identity: (num_items, D) an item's own vector, by item_index; None without.
        words: What the words of an item's text add; None without.
        codes: (V, D) what a sid_token adds to an item's vector.
        age: (history_length,) logits of how much an item of so many newer ones counts.
        query: From an encoder state to what it adds to the shopper's vector.
    """

    mean: Tensor
    axes: Tensor

    def __init__(
        self,
        vocab_size: int,
        width: int,
        vector_dim: int,
        history_length: int,
        num_items: int = 0,
        identity_dropout: float = 0.0,
        num_words: int = 0,
        word_dropout: float = 0.0,
        word_rate: float = 1.0,
    ) -> None:
        super().__init__()
        # Persistent: transformers fills other buffers with garbage on loading.
        self.register_buffer("mean", torch.zeros(vector_dim))
        self.register_buffer("axes", torch.zeros(width, vector_dim))
        self.read = nn.Linear(width, width, bias=False) if vector_dim else None
        self.identity = nn.Embedding(num_items, width) if num_items else None
        self.identity_dropout = identity_dropout
        self.words = WordBag(num_words, width, word_dropout, word_rate) if num_words else None
        self.codes = nn.Embedding(vocab_size, width)
        self.age = nn.Parameter(torch.zeros(history_length))
        self.query = nn.Linear(width, width, bias=False)

    def start_from(self, vectors: np.ndarray) -> None:
        """Fits the mean and the axes to (n, vector_dim) float32 vectors."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        axes, _ = principal_axes(vectors, mean, 1.0, len(self.axes))
        self.mean.copy_(torch.from_numpy(mean))
        self.axes.copy_(torch.from_numpy(axes))

    @torch.no_grad()
    def content(self, vectors: np.ndarray, words: np.ndarray | None = None) -> Tensor:
        """What is read of items: (n, vector_dim) float32 and (n, W) int32 words -> (n, D + W) float32.

        The D numbers are of length 1, zeros for an item without any text; behind them stand the words as they
        are, where the head reads words.

        Raises:
            ValueError: If the vectors are of another width than the generator was trained on, or not finite.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(
                f"content vectors have the shape {vectors.shape}; it must be (items, {len(self.mean)}), as the "
                "generator was trained on."
            )
        if len(rows := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            raise ValueError(f"content vector {rows[0]} holds a number that is not finite.")
        given = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(self.mean)
        found = F.normalize((given - self.mean) @ self.axes.T, dim=1) * (given != 0).any(1, keepdim=True)
        if self.words is None:
            return found
        if words is None or len(words) != len(vectors):
            raise ValueError(f"the generator reads words: give the texts of the {len(vectors)} products.")
        return torch.cat([found, torch.from_numpy(words).to(found)], dim=1)

    def known(self, content: Tensor, item_index: Tensor) -> Tensor:
        """What is known of items beside their codes: their text, and their identity where they have one.

        Args:
            content: (..., D + W) float32 of `content`.
            item_index: (...) int64; -1 is no item, and one behind the last with an identity has none.

        Returns:
            (..., D) float32.
        """
        if self.words is not None:
            content, words = content.tensor_split([len(self.axes)], dim=-1)
            flat = self.words(words.flatten(0, -2).long())
            content = content + flat.view(content.shape)
        if self.identity is None:
            return content
        has = (item_index >= 0) & (item_index < self.identity.num_embeddings)
        if self.training and self.identity_dropout:
            has = has & (torch.rand(has.shape, device=has.device) >= self.identity_dropout)
        return content + F.embedding(item_index * has, self.identity.weight) * has[..., None]

    def items(self, tokens: Tensor, content: Tensor | None) -> Tensor:
        """(..., D) vectors of items spelled (..., L), of which (..., D) of `known` is known, of length 1."""
        flat = F.embedding_bag(tokens.flatten(0, -2), self.codes.weight, mode="sum", padding_idx=PAD)
        found = flat.view(*tokens.shape[:-1], self.codes.embedding_dim)
        return unit(found if content is None else found + content)

    def queries(self, states: Tensor, items: Tensor, position: Tensor) -> Tensor:
        """Shoppers as vectors whose inner products with items' are scores, from - SHARPNESS to SHARPNESS.

        Args:
            states: (B, T, D) encoder states.
            items: (B, S, D) of `items` for all encoder positions; the first, the empty history, is left out.
            position: (B or 1, T) int64, where in 0..S - 1 each state stands.

        Returns:
            (B, T, D) float32.
        """
        newer = position[..., None] - torch.arange(1, items.shape[1], device=items.device)  # (B or 1, T, S - 1)
        inside = newer >= 0
        # Finite: behind an empty history the softmax is even, and then nothing of it is inside.
        logits = self.age[newer.clamp_min(0)].masked_fill(~inside, torch.finfo(self.age.dtype).min)
        weights = logits.softmax(-1) * inside
        mean = weights.expand(len(items), -1, -1) @ items[:, 1:]
        return SHARPNESS * unit(mean + self.query(states.float()))


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at length 1, those of next to no length shorter."""
    return vectors * (vectors.square().sum(-1, keepdim=True) + FLOOR**2).rsqrt()


class TriePrior:
    """How much of a distribution over items lies below each edge of a trie.

    Args:
        trie: Any; of a living one as it stands now.
        sids: (n, L) int64 SIDs of all items of the trie.
        device: Where scores are.
    """

    def __init__(self, trie: Trie, sids: np.ndarray, device: torch.device | str = "cpu") -> None:
        edges = trie.walk(sids)
        self.num_edges = [len(codes) for codes in trie.edge_code]
        self.leaf = torch.from_numpy(edges[:, -1].copy()).to(device)  # (n,) each item's edge of the last level
        self.above = []  # for each level but the first (E_l,) the edge above each edge
        for level in range(1, edges.shape[1]):
            above = np.zeros(self.num_edges[level], np.int64)
            above[edges[:, level]] = edges[:, level - 1]
            self.above.append(torch.from_numpy(above).to(device))

    def __call__(self, scores: Tensor) -> list[Tensor]:
        """(n, B) scores of the items, rows as the SIDs -> for each level (B, E_l) float32 log mass.

        Edges that lead to no item have next to none. Masses count relative to each other alone.
        """
        if not len(scores):
            return [scores.new_zeros((scores.shape[1], num)) for num in self.num_edges]
        # Doubles hold what lies hundreds of nats below the best item: a filter may leave nothing else.
        mass = (scores - scores.amax(0)).double().exp_()
        found = []
        for number, place in zip(reversed(self.num_edges), reversed([*self.above, self.leaf]), strict=True):
            mass = mass.new_zeros((number, mass.shape[1])).index_add_(0, place, mass)
            found.append(_log(mass).float().T)
        return found[::-1]


class PathPrior:
    """`TriePrior` for training: along the way of each target alone.

    Args:
        trie: As built, of the items that may be targets.
        device: Where scores are.

    Attributes:
        items: (n,) int64 item_index in the order of SIDs, in which scores are to come.
        place: int64 by item_index, where each stands there; -1 for items that are none of them.
    """

    def __init__(self, trie: Trie, device: torch.device | str = "cpu") -> None:
        bounds = np.arange(trie.num_items + 1) if trie.first_item is None else trie.first_item
        firsts = [bounds]
        for first_edge in reversed(trie.first_edge):
            bounds = bounds[first_edge]
            firsts.insert(0, bounds)
        # For each depth (nodes + 1,) the first item below each node; for each level (n,) each item's edge.
        self.first = [torch.from_numpy(one.astype(np.int64)).to(device) for one in firsts]
        self.edge = [
            torch.repeat_interleave(torch.arange(len(first) - 1, device=device), first.diff())
            for first in self.first[1:]
        ]
        self.first_edge = [torch.from_numpy(one.astype(np.int64)).to(device) for one in trie.first_edge]
        self.width = trie.width
        # For each depth the most items below a node: known beforehand, no step has to wait for a device.
        self.most = [int(np.diff(one).max()) for one in firsts]
        self.items = torch.from_numpy(trie.item_order.astype(np.int64)).to(device)
        self.place = torch.full((int(self.items.max()) + 1,), -1, device=device)
        self.place[self.items] = torch.arange(len(self.items), device=device)

    def __call__(
        self, vectors: Tensor, queries: Tensor, bias: Tensor, nodes: Tensor, item_index: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """What the head says of n targets' codes, and of the targets themselves.

        Args:
            vectors: (items, D) float32, rows as `items`.
            queries: (n, D) float32, a shopper for each target.
            bias: (items,) float32, what each item's scores gain.
            nodes: (n, L) int64 the node in front of each of a target's codes.
            item_index: (n,) int64 the targets.

        Returns:
            For each level (n, W) log mass of the node's edges; anything behind the last.
            (n,) minus the targets' log-probabilities among all items.
        """
        num = len(queries)
        queries = F.pad(queries, (0, 0, 0, -num % QUERIES))
        # Behind the first code a few items are left: only the root asks all of them.
        second = min(1, nodes.shape[1] - 1)
        start = self.first[second][nodes[:, second], None]
        place, _ = self._places(second, nodes)
        own = self.place[item_index]
        root, most, few, score = _Scores.apply(vectors, queries, bias, self.edge[0], self.width[0], place, own)
        root = root[:, :num]
        loss = root.sum(0).log() + most[:num] - score
        found = [_log(root).T]
        for level in range(1, nodes.shape[1]):
            place, inside = self._places(level, nodes)
            some = few.gather(1, (place - start).clamp_max(few.shape[1] - 1)).masked_fill(~inside, -torch.inf)
            some = (some - some.detach().amax(1, keepdim=True)).exp()
            edge = self.edge[level][place] - self.first_edge[level][nodes[:, level], None]
            mass = some.new_zeros((len(some), self.width[level]))
            found.append(_log(mass.scatter_add(1, edge.clamp_max(self.width[level] - 1), some)))
        return found, loss

    def _places(self, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """(n, m) int64 the items below each target's node, and (n, m) bool where there is one."""
        first, end = (self.first[level][nodes[:, level] + more, None] for more in (0, 1))
        place = first + torch.arange(self.most[level], device=nodes.device)
        return place.clamp_max(len(self.items) - 1), place < end


def _log(mass: Tensor) -> Tensor:
    return mass.clamp_min(torch.finfo(mass.dtype).tiny).log()


class _Scores(torch.autograd.Function):
    """Scores of all items, summed below the root's edges, and some of them one by one.

    One dense gradient is made in one go; autograd would make one for each use and add them up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        queries: Tensor,
        bias: Tensor,
        edge: Tensor,
        num_edges: int,
        place: Tensor,
        own: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(E_0, n) masses and (n,) their scale, (n, m) scores at `place` (n, m), and (n,) at `own`."""
        scores = (vectors @ queries.T).add_(bias[:, None])
        # `gather` wants as many rows as it gives, and there may be more queries than targets.
        few, score = scores.T[: len(place)].gather(1, place), scores[:, : len(own)].gather(0, own[None])[0]
        most = scores.amax(0)
        mass = scores.sub_(most).exp_()
        root = mass.new_zeros((num_edges, mass.shape[1])).index_add_(0, edge, mass)
        ctx.save_for_backward(vectors, queries, mass, edge, place, own)
        ctx.mark_non_differentiable(most)
        return root, most, few, score

    @staticmethod
    def backward(ctx: Any, of_root: Tensor, _: Tensor, of_few: Tensor, of_score: Tensor) -> Any:
        vectors, queries, mass, edge, place, own = ctx.saved_tensors
        # It comes transposed, and rows are taken several times faster where they are rows in memory.
        of_scores = of_root.contiguous().index_select(0, edge).mul_(mass)
        of_scores.T.scatter_add_(1, place, of_few)
        of_scores.scatter_add_(0, own[None], of_score[None])
        return of_scores @ queries, of_scores.T @ vectors, None, None, None, None, None
