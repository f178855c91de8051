"""A dual tower in training, with what its losses keep beside it."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pressmark import distributed
from pressmark.dual_tower.auxiliary import (
    ItemGraph,
    part_of,
    swapped_assignments,
    twins,
    without_some,
)
from pressmark.dual_tower.config import AuxiliaryConfig
from pressmark.dual_tower.loss import Candidates, more_candidates
from pressmark.dual_tower.towers import ROWS_AT_ONCE, DualTower, DualTowerOutput

if TYPE_CHECKING:
    from pressmark.dual_tower.train import Batch


class Learner(nn.Module):
    """What the training loop trains: a tower, and around it what is thrown away afterwards.

    Args:
        tower: The model.
        auxiliary: Losses beside the main one.
        graph: For the loss of that name; None without.
        temperature: Of the main loss.
        learn_temperature: Make it a parameter.
        queue: Past targets kept as further negatives (MoCo); 0 for none.
        momentum: How much of itself the slow copy that embeds them keeps a step.
        hard_negatives: Nearest wrong items looked up for each user as further negatives; 0 for none.
        sold: (N,) bool, the items that may be looked up: one that nobody could buy is no wrong answer, and what
            is hidden from training must not be trained on. None for all.

    Attributes:
        known: (N, d) float32 embeddings of all items as of the last `refresh`; (0, d) without hard negatives.
        slow: The item tower as a running mean of itself; None without a queue.
        queue: (Q, d) float32 embeddings of past targets, the oldest overwritten first.
        queue_item: (Q,) int64 which items they are; -1 where none has come yet.
        prototypes: (P, d) float32; None without their loss.
        log_temperature: Scalar.

    Source: He et al. 2020, "Momentum Contrast", section 3.2, for the queue.
    """

    known: Tensor
    sold: Tensor
    queue: Tensor
    queue_item: Tensor
    queue_end: Tensor

    def __init__(
        self,
        tower: DualTower,
        auxiliary: AuxiliaryConfig,
        graph: ItemGraph | None = None,
        temperature: float = 0.1,
        learn_temperature: bool = False,
        queue: int = 0,
        momentum: float = 0.995,
        hard_negatives: int = 0,
        sold: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.tower, self.auxiliary, self.graph = tower, auxiliary, graph
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(temperature)), requires_grad=learn_temperature
        )
        self.prototypes: nn.Parameter | None = None
        if auxiliary.prototypes:
            drawn = torch.randn(auxiliary.num_prototypes, tower.config.dim)
            self.prototypes = nn.Parameter(F.normalize(drawn, dim=-1))
        self.momentum = momentum
        self.slow = copy.deepcopy(tower.item_tower).requires_grad_(False) if queue else None
        self.register_buffer("queue", torch.zeros(queue, tower.config.dim))
        self.register_buffer("queue_item", torch.full((queue,), -1))
        self.register_buffer("queue_end", torch.zeros((), dtype=torch.int64))
        self.hard_negatives = hard_negatives
        num_items = tower.config.num_items
        self.register_buffer("sold", torch.ones(num_items, dtype=torch.bool) if sold is None else sold.clone())
        num_known = num_items if hard_negatives else 0
        self.register_buffer("known", torch.zeros(num_known, tower.config.dim))

    @property
    def temperature(self) -> Tensor:
        """Divides cosines in the main loss."""
        return self.log_temperature.exp()

    def forward(self, batch: Batch) -> DualTowerOutput:
        """Users and targets of a batch, each distinct item encoded once."""
        output: DualTowerOutput = self.tower(
            batch.vectors, batch.item_index, batch.history, batch.lengths, batch.target
        )
        return output

    def with_past(self, candidates: Candidates) -> Candidates:
        """The candidates of a batch and those of the queue."""
        there = self.queue_item >= 0
        if not len(there) or not there.any():
            return candidates
        return more_candidates(candidates, self.queue[there], self.queue_item[there])

    @torch.no_grad()
    def refresh(self, vectors: Tensor) -> None:
        """Embeds the catalog, (N, D) float32, anew: where the next hard negatives are looked up."""
        if self.hard_negatives:
            was = self.tower.item_tower.training
            self.tower.item_tower.eval()
            every = torch.arange(len(vectors), device=vectors.device)
            for rows in every.split(ROWS_AT_ONCE):
                self.known[rows] = self.tower.item_tower(vectors[rows], rows)
            self.tower.item_tower.train(was)

    def with_nearest(self, candidates: Candidates, users: Tensor, batch: Batch, vectors: Tensor) -> Candidates:
        """The candidates and the items nearest to each user that are neither its own nor in its history.

        Args:
            candidates: Of the batch.
            users: (B, d) float32 of length 1.
            batch: As trained on.
            vectors: (N, D) float32 content vectors of all items.
        """
        if not self.hard_negatives or not self.known.any():
            return candidates
        scores = users.detach() @ self.known.T
        own = torch.cat([batch.history_index, batch.target_index[:, None]], 1)
        # The padding's -1 stands for nothing: the target is left out twice instead.
        scores.scatter_(1, torch.where(own < 0, batch.target_index[:, None], own), -torch.inf)
        scores = scores.masked_fill(~self.sold, -torch.inf)
        best = scores.topk(min(self.hard_negatives, scores.shape[1] - 1))
        nearest = best.indices[best.values.isfinite()].unique()
        return more_candidates(
            candidates, self.tower.item_tower(vectors[nearest], nearest), nearest, sought=True
        )

    @torch.no_grad()
    def remember(self, vectors: Tensor, item_index: Tensor) -> None:
        """Moves the slow tower on, and puts a batch's targets into the queue.

        Args:
            vectors: (n, D) float32 content vectors; the same rows on every process.
            item_index: (n,) int64.
        """
        if self.slow is None:
            return
        for mine, theirs in zip(self.slow.parameters(), self.tower.item_tower.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.momentum)
        self.slow.eval()
        found = self.slow(vectors, item_index)[-len(self.queue) :]
        place = (self.queue_end + torch.arange(len(found), device=found.device)) % len(self.queue)
        self.queue[place], self.queue_item[place] = found, item_index[-len(found) :]
        self.queue_end.copy_((self.queue_end + len(found)) % len(self.queue))

    def auxiliary_losses(self, batch: Batch, catalog: Tensor) -> dict[str, Tensor]:
        """The weighted auxiliary losses of a batch, each a mean over its rows.

        Args:
            batch: As trained on.
            catalog: (N, D) float32 content vectors of all items, for the graph.
        """
        config, found = self.auxiliary, {}
        target = batch.vectors[batch.target]
        if config.item_views or config.prototypes:
            pad, words = self.tower.config.pad, self.tower.config.words
            views = [without_some(target, config.masked, pad, words) for _ in range(2)]
            one, two = (self.tower.item_tower(view, batch.target_index) for view in views)
            if config.item_views:
                found["item_views"] = config.item_views * twins(
                    one, two, batch.target_index, config.temperature
                )
            if self.prototypes is not None:
                assigned = swapped_assignments(one, two, self.prototypes, config.temperature)
                found["prototypes"] = config.prototypes * assigned
        if config.user_views:
            parts = [part_of(batch.history, batch.lengths, config.masked) for _ in range(2)]
            # Encoded anew: a view has a dropout of its own.
            items = self.tower.item_tower(batch.vectors, batch.item_index)
            one, two = (self.tower.users(items, batch.vectors, rows, lengths) for rows, lengths in parts)
            # Empty histories are all the same shopper.
            first = 1 + distributed.rank() * len(batch.lengths)
            key = torch.arange(first, first + len(batch.lengths), device=target.device)
            key = torch.where(batch.lengths > 0, key, 0)
            found["user_views"] = config.user_views * twins(one, two, key, config.temperature)
        if self.graph is not None and config.graph:
            every = torch.arange(len(catalog), device=catalog.device)
            embed = self.tower.item_tower(catalog, every)
            one, two = (
                self.graph.seen_from(embed, config.masked, config.graph_view, config.graph_layers)[
                    batch.target_index
                ]
                for _ in range(2)
            )
            found["graph"] = config.graph * twins(one, two, batch.target_index, config.temperature)
        return found
