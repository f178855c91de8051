"""What a product that sells has beside its content: a vector of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Identity(nn.Embedding):
    """A vector for each item, zero at the start, dropped at random in training.

    An item that is never trained on gets no gradient: its identity stays zero.

    Args:
        num_items: N.
        dim: d.
        dropout: How often an item goes without its identity in training.
    """

    def __init__(self, num_items: int, dim: int, dropout: float) -> None:
        super().__init__(num_items, dim)
        nn.init.zeros_(self.weight)
        self.dropout = dropout

    def forward(self, item_index: Tensor) -> Tensor:
        """(n,) int64 -> (n, d); zeros for -1, an item without an identity."""
        found = super().forward(item_index.clamp_min(0)) * (item_index >= 0)[:, None]
        if self.training:
            found = found * (torch.rand(len(item_index), 1, device=found.device) >= self.dropout)
        return found
