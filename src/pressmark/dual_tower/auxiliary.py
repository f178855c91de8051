"""Contrastive losses beside the one between users and their items, and where they get their other side from.

All but the prototypes are InfoNCE between two looks at the same thing:

- `item_views`: an item seen twice, each time without some of its features and with dropout of its own (SimCLR);
  said to help the rare ones.
- `user_views`: a shopper seen twice, each time through a part of the history.
- `prototypes`: an item seen twice is to be assigned to the same prototypes, evenly used (SwAV).
- `graph`: an item seen through its neighbours in two random parts of the graph of what was bought together.

Sources: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations"; Caron et
al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments"; Xie et al. 2022,
"Contrastive Learning for Sequential Recommendation"; Wu et al. 2021, "Self-supervised Graph Learning for
Recommendation".
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags
from torch import Tensor
from torch.nn import functional as F

from pressmark import distributed
from pressmark.dual_tower.config import View
from pressmark.interactions.histories import Histories


def twins(first: Tensor, second: Tensor, key: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each row's twin among the other view's rows, both ways.

    Args:
        first: (n, d) float32 of length 1; the same n on every process.
        second: (n, d), row i the same thing seen again.
        key: (n,) int64; rows of one key are the same thing, and no negatives of each other.
        temperature: Above 0.

    Returns:
        Mean over the rows, a scalar. Rows of other processes are negatives too, with gradient.
    """
    start = distributed.rank() * len(first)
    own = torch.arange(start, start + len(first), device=first.device)
    same = distributed.gather_rows(key) == key[:, None]
    same[torch.arange(len(own), device=own.device), own] = False
    losses = []
    for mine, theirs in ((first, second), (second, first)):
        scores = mine @ distributed.gather_rows(theirs).T / temperature
        losses.append(F.cross_entropy(scores.masked_fill(same, -torch.inf), own))
    return (losses[0] + losses[1]) / 2


def without_some(content: Tensor, share: float, pad: int = 0, words: int = 0) -> Tensor:
    """(n, D + words) content without a random share of each row.

    Of vectors those features are 0, the rest scaled up to make up for it; words behind them are 0 there, and
    tokens `pad`.
    """
    if not content.is_floating_point():
        return content.masked_fill(torch.rand(content.shape, device=content.device) < share, pad)
    if not share:
        return content
    vectors, behind = content.tensor_split([content.shape[1] - words], dim=1)
    behind = behind.masked_fill(torch.rand(behind.shape, device=content.device) < share, 0)
    return torch.cat([F.dropout(vectors, share), behind], dim=1)


def part_of(history: Tensor, lengths: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A random part of each history, in its order; at least one item where there was one.

    Args:
        history: (B, W) int64, left-aligned, padded with -1.
        lengths: (B,) int64.
        share: How much is left out, on the average.

    Returns:
        (B, W) int64 left-aligned and padded with -1, and (B,) int64 lengths.
    """
    draw = torch.rand(history.shape, device=history.device).masked_fill(history < 0, -1.0)
    kept = (draw >= share) | ((draw == draw.amax(1, keepdim=True)) & (history >= 0))
    kept &= history >= 0
    order = torch.where(kept, 0, 1).argsort(dim=1, stable=True)
    lengths = kept.sum(1)
    inside = torch.arange(history.shape[1], device=history.device) < lengths[:, None]
    return history.gather(1, order).masked_fill(~inside, -1), lengths


def swapped_assignments(first: Tensor, second: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each view's prototypes with the even assignment of the other one.

    Args:
        first: (n, d) float32 of length 1.
        second: (n, d), row i the same thing seen again.
        prototypes: (P, d) float32.
        temperature: Above 0.

    Returns:
        Mean over the rows, a scalar; each process assigns its own rows.
    """
    prototypes = F.normalize(prototypes, dim=-1)
    scores = [view @ prototypes.T for view in (first, second)]
    assigned = [_even_assignment(one.detach()) for one in scores]
    losses = [
        -(wanted * (one / temperature).log_softmax(-1)).sum(-1).mean()
        for one, wanted in zip(scores, reversed(assigned), strict=True)
    ]
    return (losses[0] + losses[1]) / 2


def _even_assignment(scores: Tensor, sharpness: float = 20.0, rounds: int = 3) -> Tensor:
    """(n, P) scores -> (n, P) shares, rows summing to 1 and columns to about n / P (Sinkhorn and Knopp)."""
    shares = ((scores - scores.max()) * sharpness).exp()
    for _ in range(rounds):
        shares = shares / shares.sum(0).clamp_min(1e-12) / shares.shape[1]
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-12) / len(shares)
    return shares * len(shares)


class ItemGraph:
    """Items joined by the shoppers who bought both: LightGCN's user-item graph, two steps at a time.

    Args:
        train: Training sequences.
        num_items: N.
        max_neighbours: Strongest edges kept an item.

    Attributes:
        start: (E,) int64 and `end` (E,) int64: edges between items, both ways.
        weight: (E,) float32, degree-normalised.

    Source: He et al. 2020, "LightGCN", equation 3, with the user nodes summed out.
    """

    def __init__(self, train: Histories, num_items: int, max_neighbours: int = 20) -> None:
        shape = (len(train), num_items)
        bought = csr_matrix(
            (np.ones(len(train.values), np.float32), (train.row_of_value(), train.values)), shape
        )
        bought.data[:] = 1.0
        of_user = np.maximum(np.asarray(bought.sum(1)).ravel(), 1)
        of_item = np.maximum(np.asarray(bought.sum(0)).ravel(), 1)
        half = diags(of_user**-0.5) @ bought @ diags(of_item**-0.5)
        joined = csr_matrix(half.T @ half)
        joined.setdiag(0)
        joined.eliminate_zeros()
        row = np.repeat(np.arange(num_items), np.diff(joined.indptr))
        # Strongest first within each row; how far down a row's list each edge stands.
        order = np.lexsort((joined.indices, -joined.data, row))
        place = np.arange(len(row)) - joined.indptr[row]
        kept = order[place < max_neighbours]
        self.start = torch.from_numpy(row[kept].astype(np.int64))
        self.end = torch.from_numpy(joined.indices[kept].astype(np.int64))
        self.weight = torch.from_numpy(joined.data[kept].astype(np.float32))
        self.num_items = num_items

    def seen_from(self, embed: Tensor, share: float, view: View, layers: int) -> Tensor:
        """The items' mean with their neighbours', and theirs, in a random part of the graph.

        Args:
            embed: (N, d) float32, all items.
            share: Of the edges, or of the items, that is left out.
            view: As in `Config`.
            layers: Steps.

        Returns:
            (N, d) float32 of length 1. An item without neighbours is itself.
        """
        device = embed.device
        start, end, weight = self.start.to(device), self.end.to(device), self.weight.to(device)
        kept = self._kept(share, view, device)
        total = step = embed
        for _ in range(layers):
            if view == "walk":
                kept = self._kept(share, view, device)
            moved = step[end[kept]] * weight[kept, None]
            step = torch.zeros_like(embed).index_add(0, start[kept], moved)
            total = total + step
        return F.normalize(total, dim=-1)

    def _kept(self, share: float, view: View, device: torch.device) -> Tensor:
        if view == "nodes":
            there = torch.rand(self.num_items, device=device) >= share
            return there[self.start.to(device)] & there[self.end.to(device)]
        return torch.rand(len(self.start), device=device) >= share
