"""What is bought after what: the models' other side, which knows a pair of products by heart.

    score(item | history) = log(sum_i weight_i * p(item | i) + share(item))

where p(item | i) is how much of what follows i is the item (`cooccurrence.transitions`), the weights of a
history's items fall with their age and sum to 1, and the share is the item's of all purchases: of an item that
never followed nothing but that is known. Where shoppers are many to a product, and its text says little, as
with films, it is worth as much as a trained model; where products are many and sell little, next to nothing
(eval/LOG.md).

A product without purchases is seen through its nearest products that sell.

Source: Rendle et al. 2010, "Factorizing Personalized Markov Chains for Next-Basket Recommendation", for a
history as a mixture of its items' transitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, diags

from pressmark.baselines.cooccurrence import transitions
from pressmark.baselines.dense import decay_weights
from pressmark.baselines.popularity import count_items
from pressmark.interactions.histories import Histories

DECAY = 0.5
"""What an item weighs beside the next newer one."""

ONCE = 0.1
"""Purchases that every product is taken to have had besides, so that the share of none is above 0."""


@dataclass(frozen=True)
class Transitions:
    """What follows each of N items.

    Attributes:
        lift: (N, N) float32, p(item | i) over the item's share.
        log_share: (N,) float32.
    """

    lift: csr_matrix
    log_share: np.ndarray

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, N) float32."""
        return self.gains(histories).toarray() + self.log_share

    def gains(self, histories: Histories) -> csr_matrix:
        """(B, N) float32, the scores less `log_share`: 0 where nothing is known."""
        weights = decay_weights(histories, self.lift.shape[0], DECAY)
        total = np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-9)
        found = csr_matrix(diags(1 / total) @ weights @ self.lift, dtype=np.float32)
        np.log1p(found.data, out=found.data)
        return found


def count_transitions(train: Histories, num_items: int, neighbours: csr_matrix) -> Transitions:
    """What is bought after what in training.

    Args:
        train: Training sequences.
        num_items: N.
        neighbours: (N, N) float32, each row the weights of an item's nearest products that sell.
    """
    count, follows = count_items(train, num_items), transitions(train, num_items)
    share = ((count + ONCE) / (count + ONCE).sum()).astype(np.float64)
    if neighbours.nnz:
        unbought = count == 0
        seen = csr_matrix(diags(unbought.astype(np.float32)) @ neighbours)
        follows = csr_matrix(follows + follows @ seen.T)
        share[unbought] = (seen @ share)[unbought]
    return Transitions(
        csr_matrix(follows @ diags(1 / share), dtype=np.float32), np.log(share).astype(np.float32)
    )
