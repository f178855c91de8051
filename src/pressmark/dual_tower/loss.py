"""InfoNCE with in-batch negatives, logQ correction and false negatives masked.

Written in two steps, so that other sources of negatives (a queue, an index) can add candidates between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pressmark import distributed
from pressmark.dual_tower.config import check_temperature


@dataclass(frozen=True)
class Candidates:
    """What the users of this process are scored against.

    Attributes:
        embeddings: (C, d) float32 of length 1.
        item_index: (C,) int64.
        target: (B,) int64, the column of each local user's own item.
        sought: (C,) bool, candidates that were looked for rather than drawn as somebody's target; None where
            there are none such.
    """

    embeddings: Tensor
    item_index: Tensor
    target: Tensor
    sought: Tensor | None = None


def gather_candidates(items: Tensor, item_index: Tensor) -> Candidates:
    """The targets of every process, with gradient to all of them.

    k processes with B rows each then see the k * B candidates that one process with k * B rows sees.

    Args:
        items: (B, d) float32, this process's targets; the same B on every process.
        item_index: (B,) int64.
    """
    start = distributed.rank() * len(items)
    own = torch.arange(start, start + len(items), device=items.device)
    return Candidates(distributed.gather_rows(items), distributed.gather_rows(item_index), own)


def more_candidates(
    candidates: Candidates, embeddings: Tensor, item_index: Tensor, sought: bool = False
) -> Candidates:
    """The candidates and n more that are nobody's own: (n, d) float32 of length 1, (n,) int64."""
    before, mark = candidates.sought, torch.full_like(item_index, sought, dtype=torch.bool)
    if before is None:
        before = torch.zeros_like(candidates.item_index, dtype=torch.bool)
    return Candidates(
        torch.cat([candidates.embeddings, embeddings]),
        torch.cat([candidates.item_index, item_index]),
        candidates.target,
        torch.cat([before, mark]),
    )


def info_nce(
    users: Tensor,
    candidates: Candidates,
    log_q: Tensor,
    temperature: float | Tensor,
    logq: float = 1.0,
    history: Tensor | None = None,
) -> Tensor:
    """-log softmax of each user's own item among all candidates.

    logit(u, i) = cos(u, i) / temperature - logq * log q(i), where q(i) is how likely i is to be drawn as a
    target: batches are full of popular items, and without the correction the model learns to avoid them.

    Another row's target that is the user's own target too is no negative and leaves the sum.

    Args:
        users: (B, d) float32 of length 1.
        candidates: C items, the users' own among them.
        log_q: (num_items,) float32, log of each item's share of the training targets.
        temperature: Above 0; a scalar tensor where it is learned.
        logq: Strength of the correction; 0 = none, 1 = unbiased.
        history: (B, W) int64 item_index padded with -1: items that are no negatives of their user either.

    Returns:
        (B,) float32.

    Raises:
        ValueError: If the temperature is not above 0, or there is no negative in the batch.

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018),
    equation 4; Yi et al., "Sampling-Bias-Corrected Neural Modeling" (2019), equation 3, with a fixed share
    in place of the streaming estimate and an exponent `logq`.
    """
    check_temperature(temperature)
    num_candidates = len(candidates.embeddings)
    if num_candidates < 2:
        raise ValueError(
            "a batch of one sample has no negatives. Raise dual_tower.training.batch_size (and "
            "micro_batch_size, where it is set) to 2 or more."
        )
    # bf16 has 8 bits: too few to tell cosines apart that differ by 0.01 once divided by the temperature.
    with torch.autocast(users.device.type, enabled=False):
        logits = users.float() @ candidates.embeddings.float().T / temperature
        correction = log_q[candidates.item_index]
        if candidates.sought is not None:
            # Drawn for certain, where the others are drawn as often as their share of the batch says.
            num_drawn = int((~candidates.sought).sum())
            correction = correction.masked_fill(candidates.sought, -math.log(num_drawn))
        logits = logits - logq * correction
    own_item = candidates.item_index[candidates.target]
    false_negative = candidates.item_index == own_item[:, None]
    if history is not None:
        for column in history.T:
            false_negative |= candidates.item_index == column[:, None]
    false_negative[torch.arange(len(users), device=users.device), candidates.target] = False
    logits = logits.masked_fill(false_negative, -torch.inf)
    return torch.nn.functional.cross_entropy(logits, candidates.target, reduction="none")


def log_shares(weights: np.ndarray) -> Tensor:
    """Log of each item's share of the drawn targets.

    Args:
        weights: (num_items,) expected draws. An item that is never drawn gets the share of the rarest one
            that is: it is never a candidate, so only finiteness matters.

    Returns:
        (num_items,) float32.
    """
    drawn = weights[weights > 0]
    floor = drawn.min() if len(drawn) else 1.0
    return torch.from_numpy(np.log(np.maximum(weights, floor) / max(weights.sum(), floor))).float()
