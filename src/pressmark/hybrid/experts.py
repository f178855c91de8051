"""What each expert says of every product: the generator, itself and through neighbours, the tower, the words.

Of what sells there is more to know, whoever asks: how much of it was bought lately, and since when
(`pressmark.hybrid.trend`). And all of them know products by what they are like: what is bought after what, pair
by pair, is an expert of its own (`pressmark.hybrid.transitions`).

A product that nobody has bought has no identity in generator or tower: both know it by its text alone. Its
nearest products that do sell are known better, so a second look at it goes through them: the generator's
vectors of its neighbours, by how near they are, in place of its own. And it is often the like of one product
that the shopper has, not of all of them: tower and words look a third way, at the nearest of the history alone.
For what sells this puts nothing in better order (eval/LOG.md) and it is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from pressmark.baselines.bm25 import BM25, matched
from pressmark.baselines.dense import SCORES_AT_ONCE, decay_weights
from pressmark.catalog.embeddings import unit_rows
from pressmark.dual_tower.index import ItemIndex
from pressmark.dual_tower.recommend import DualTowerRecommender
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.hybrid.transitions import Transitions
from pressmark.interactions.histories import Histories

SOLD = ("generator", "neighbours", "dual_tower", "bm25", "transitions", "trend", "age")
"""The experts on products that sell, in the order of every array of them."""

UNBOUGHT = (*SOLD[:5], "dual_tower_nearest", "bm25_nearest")
"""Those on products that nobody has bought; as many, and all but the last two the same."""

PARTS = {"generator": ("generator", "neighbours"), "trend": ("trend", "age")}
"""What the hybrid can be asked to do without, and the experts that go with it."""

SHARPNESS = 10.0
"""Scores a unit of cosine, as in the generator's item head."""

ROWS = 4096
"""Products whose neighbours are looked for at once."""

NEIGHBOURS = 10
"""Products that sell through which a product is seen again."""

HISTORY = 20
"""Newest products of a history among which the nearest is looked for."""


@dataclass(frozen=True)
class Shoppers:
    """What the experts' models make of B histories.

    Attributes:
        histories: B of them.
        generator: (B, D) float32.
        dual_tower: (B, d) float32, times `SHARPNESS`.
        words: (B, V) float32, weights of the words of their items, divided by `SHARPNESS`.
    """

    histories: Histories
    generator: Tensor
    dual_tower: Tensor
    words: csr_matrix

    def take(self, rows: np.ndarray) -> Shoppers:
        """Some of them."""
        some = torch.from_numpy(rows)
        return Shoppers(
            self.histories.take(rows), self.generator[some], self.dual_tower[some], self.words[rows]
        )


@dataclass(frozen=True)
class _Side:
    """n items as the experts hold them.

    Attributes:
        own: (n, D) float32 of the generator.
        seen: (n, D) float32, the same through the neighbours.
        tower: (n, d) float32.
        words: (n, V) float32.
        trends: (2, n) float32.
    """

    own: Tensor
    seen: Tensor
    tower: Tensor
    words: csr_matrix
    trends: Tensor


@dataclass
class Experts:
    """The experts over one catalog of N products.

    Attributes:
        generator: One with an item head.
        dual_tower: Over the same items.
        bm25: Over the same items.
        unbought: (N,) bool, items that nobody is known to have bought. What has sold since training has no
            identity, but sales: it is not among them.
        neighbours: (N, N) float32, each row the weights of an item's nearest products that sell; they sum to 1.
        transitions: Between all of them.
        trends: (2, N) float32 of `Sales`; what they say of unbought items is not read.
    """

    generator: GeneratorRecommender
    dual_tower: DualTowerRecommender
    bm25: BM25
    unbought: np.ndarray
    neighbours: csr_matrix
    transitions: Transitions
    trends: np.ndarray

    def __post_init__(self) -> None:
        models = (self.generator, self.dual_tower, self.bm25)
        sizes = {one.num_items for one in models}
        sizes |= {len(self.unbought), self.transitions.lift.shape[1], self.trends.shape[1]}
        if len(sizes) > 1:
            raise ValueError(
                f"the hybrid's models are of catalogs of {sorted(sizes)} items; it needs one catalog."
            )
        self._own = self.generator.item_vectors.cpu()
        self._tower = torch.from_numpy(self.dual_tower.index.embeddings)
        self._sides: dict[bool | None, _Side] = {}
        self.new = torch.from_numpy(np.flatnonzero(self.unbought))

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.unbought)

    def shoppers(self, histories: Histories) -> Shoppers:
        """What the models make of histories; it can be kept, and asked for some items and then for others."""
        bought = decay_weights(histories, self.num_items, self.bm25.decay) / SHARPNESS
        return Shoppers(
            histories,
            self.generator.shoppers(histories).cpu(),
            SHARPNESS * torch.from_numpy(self.dual_tower.users(histories)),
            csr_matrix(bought @ self.bm25.words, dtype=np.float32),
        )

    def scores(self, shoppers: Shoppers, unbought: bool | None = None) -> Tensor:
        """What each expert gives items, in nats or thereabouts.

        Args:
            shoppers: B of them.
            unbought: True for the U items that nobody has bought, False for the S that sell, None for all.

        Returns:
            (E, B, N) float32, or (E, B, U) of `UNBOUGHT`, or (E, B, S) of `SOLD`.
        """
        side = self._side(unbought)
        words = torch.from_numpy(matched(shoppers.words, side.words))
        queries = (
            (shoppers.generator, side.own),
            (shoppers.generator, side.seen),
            (shoppers.dual_tower, side.tower),
        )
        common = [*(query @ vectors.T for query, vectors in queries), words]
        common.append(torch.from_numpy(self.transitions.scores(shoppers.histories)[:, self._kind(unbought)]))
        if unbought:
            return torch.stack([*common, *self.nearest(shoppers.histories)])
        found = torch.stack([*common, *side.trends[:, None].expand(-1, *words.shape)])
        if unbought is None:
            found[-2:, :, self.new] = self.nearest(shoppers.histories)
        return found

    def mixture(self, sold: Sequence[float], unbought: Sequence[float]) -> Mixture:
        """These experts with weights for either kind of items, all of them asked at once."""
        kinds = torch.tensor([sold, unbought], dtype=torch.float32)
        each = kinds[torch.from_numpy(self.unbought).long()].T  # (E, N)
        side = self._new_side(None)
        vectors = torch.cat(
            [each[0, :, None] * side.own + each[1, :, None] * side.seen, each[2, :, None] * side.tower], 1
        )
        always = (each[-2:] * side.trends).sum(0).masked_fill(torch.from_numpy(self.unbought), 0.0)
        always += each[4] * torch.from_numpy(self.transitions.log_share)
        return Mixture(
            self,
            vectors,
            csr_matrix(diags(each[3].numpy()) @ side.words, dtype=np.float32),
            each[4].numpy(),
            always,
            kinds[1, -2:],
        )

    def _side(self, unbought: bool | None) -> _Side:
        """The items of a kind, contiguous, made once; of all of them only where a fit asks for them."""
        if unbought not in self._sides:
            self._sides[unbought] = self._new_side(unbought)
        return self._sides[unbought]

    def _kind(self, unbought: bool | None) -> np.ndarray:
        """(N,) bool, the items of a kind; None for all."""
        return np.ones(self.num_items, bool) if unbought is None else self.unbought == unbought

    def _new_side(self, unbought: bool | None) -> _Side:
        rows = np.flatnonzero(self._kind(unbought))
        return _Side(
            self._own[rows],
            torch.from_numpy(self.neighbours[rows] @ self._own.numpy()),
            self._tower[rows],
            self.bm25.weights[rows],
            torch.from_numpy(self.trends[:, rows]),
        )

    def nearest(self, histories: Histories) -> Tensor:
        """(2, B, U) float32, how like each unbought item is to that of the history which is most like it.

        By tower and by words; 0 where the history is empty. What several shoppers hold is compared once.
        """
        items, lengths = histories.newest(HISTORY)
        items = items[:, : max(1, int(lengths.max(initial=0)))]
        items = np.where(items < 0, np.maximum(items[:, :1], 0), items)  # twice is as near as once
        best = torch.empty(2, len(items), len(self.new))
        new = self._side(True)
        width = max(1, SCORES_AT_ONCE // HISTORY // max(1, len(self.new)))
        for start in range(0, len(items), width):
            few = slice(start, start + width)
            held, where = np.unique(items[few], return_inverse=True)
            # A title has few words, and few new products have one of them: this product is sparse.
            words = torch.from_numpy((self.bm25.words[held] @ new.words.T).toarray())
            likeness = torch.stack([SHARPNESS * self._tower[held] @ new.tower.T, words / SHARPNESS])
            columns = torch.from_numpy(where.reshape(items[few].shape).T)
            best[:, few] = likeness[:, columns[0]]
            for column in columns[1:]:
                best[:, few] = best[:, few].maximum(likeness[:, column])
        best[:, lengths == 0] = 0
        return best


@dataclass(frozen=True)
class Mixture:
    """What weighted experts say of all items: `Fusion.mixed` of their scores, without making those.

    The weights are in the items: what the same query is asked of is added up beforehand.

    Attributes:
        experts: They.
        vectors: (N, D + d) float32, of generator and dual tower.
        words: (N, V) float32.
        following: (N,) float32, weights of the gains by transitions.
        always: (N,) float32, whoever asks.
        nearest: (2,) float32, weights of the last two experts on unbought items.
    """

    experts: Experts
    vectors: Tensor
    words: csr_matrix
    following: np.ndarray
    always: Tensor
    nearest: Tensor

    def scores(self, shoppers: Shoppers) -> Tensor:
        """(B, N) float32."""
        query = torch.cat([shoppers.generator, shoppers.dual_tower], 1)
        found = torch.addmm(self.always, query, self.vectors.T)
        found += torch.from_numpy(matched(shoppers.words, self.words))
        gains = self.experts.transitions.gains(shoppers.histories)
        gains.data *= self.following[gains.indices]
        found += torch.from_numpy(gains.toarray())
        nearest = self.experts.nearest(shoppers.histories)
        found[:, self.experts.new] += torch.einsum("e,ebn->bn", self.nearest, nearest)
        return found


def nearest_that_sell(vectors: np.ndarray, unbought: np.ndarray) -> csr_matrix:
    """Each item's nearest that sold in training, weighted by a softmax of `SHARPNESS` times their cosine.

    Args:
        vectors: (N, D) float32 content vectors.
        unbought: (N,) bool, items without any purchase in training.

    Returns:
        (N, N) float32, rows summing to 1; no item is its own neighbour. Empty where nothing sells.
    """
    unit, sold = unit_rows(vectors), np.flatnonzero(~unbought)
    num_items, width = len(unit), min(NEIGHBOURS, len(sold) - 1)
    if width < 1:
        return csr_matrix((num_items, num_items), dtype=np.float32)
    own = np.full(num_items, -1)
    own[sold] = np.arange(len(sold))
    has = np.flatnonzero(own >= 0)
    offsets = np.concatenate([[0], np.cumsum(own >= 0)])
    index, itself = ItemIndex(unit[sold]), Histories(own[has], offsets)
    parts = [
        index.search(unit[rows], width, itself.take(rows), any_of_equals=True)
        for rows in np.split(np.arange(num_items), range(ROWS, num_items, ROWS))
    ]
    item_index = np.concatenate([one.item_index for one in parts])
    # An approximate index may find fewer: what is missing weighs nothing.
    cosines = np.where(item_index >= 0, np.concatenate([one.scores for one in parts]), -np.inf)
    weights = np.exp(SHARPNESS * (cosines - cosines.max(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(num_items), width)
    joined = csr_matrix((weights.ravel(), (rows, sold[item_index].ravel())), (num_items, num_items))
    return joined.astype(np.float32)
