"""What the words of a product's text say, beside what a sentence model makes of the whole of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WordBag(nn.Module):
    """A vector for each word, zero at the start; a text has the sum of its words', the rarer counting more.

    A sentence model places a text by what it means. Which brand, which line, which shade goes with what is the
    shop's own, and is learnt here from its histories, word by word: so a product that nobody has bought has it
    too. Words are dropped at random in training, lest one of them decide.

    Args:
        num_words: V.
        dim: d.
        dropout: How often a word is passed over in training.
        rate: Length of a text's weights, however many words it has: above 1, words learn so much faster than
            what is beside them.
    """

    rarity: Tensor

    def __init__(self, num_words: int, dim: int, dropout: float, rate: float = 1.0) -> None:
        super().__init__()
        self.vectors = nn.Embedding(num_words + 1, dim, padding_idx=0)
        nn.init.zeros_(self.vectors.weight)
        # Persistent: transformers fills other buffers with garbage on loading.
        self.register_buffer("rarity", torch.zeros(num_words + 1))
        self.dropout, self.rate = dropout, rate

    def start_from(self, rarity: np.ndarray) -> None:
        """Takes a vocabulary's (V + 1,) rarity, that of no word first."""
        self.rarity.copy_(torch.from_numpy(rarity))

    def forward(self, words: Tensor) -> Tensor:
        """(n, W) int64 words, 0 for none -> (n, d) float32."""
        weight = self.rate * F.normalize(self.rarity[words], dim=1)
        weight = F.dropout(weight, self.dropout, self.training)
        there = weight > 0
        sums: Tensor = _WeightedSums.apply(self.vectors.weight, words[there], weight[there], there.sum(1))
        return sums


class _WeightedSums(torch.autograd.Function):
    """Weighted sums of some rows of a matrix.

    Its gradient is another, of the gradient's rows, sorted by the row that they belong to: several times as
    fast on a CPU as what autograd makes of `embedding_bag`.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor, lengths: Tensor) -> Tensor:
        """(V, d) rows, (m,) which and (m,) how much of each, (n,) how many a sum has -> (n, d)."""
        ctx.save_for_backward(index, weight, lengths)
        ctx.num_rows = len(rows)
        return F.embedding_bag(index, rows, _starts(lengths), mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, of_sums: Tensor) -> Any:
        index, weight, lengths = ctx.saved_tensors
        order = index.argsort(stable=True)
        place = torch.arange(len(lengths), device=index.device).repeat_interleave(lengths)[order]
        starts = _starts(index.bincount(minlength=ctx.num_rows))
        found = F.embedding_bag(place, of_sums, starts, mode="sum", per_sample_weights=weight[order])
        return found, None, None, None


def _starts(lengths: Tensor) -> Tensor:
    """(n,) where each of n neighbours of these lengths begins."""
    return lengths.cumsum(0) - lengths
