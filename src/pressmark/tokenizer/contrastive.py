"""The taxonomy contrastive loss: products that stand close in the tree get close codes, coarse levels first.

For anchor i and level l, with u_l(i) the unit vector of i's quantized sum up to level l:

    loss(i) = sum_l w_l * cross_entropy( target(i, .), softmax_j( <u_l(i), u_l(j)> / temperature ) ),
    target(i, j) = s_ij / sum_j s_ij,    s_ij = depth of the lowest common ancestor / longer path,

so a product of the same leaf weighs 1, siblings, cousins and unrelated ones less and less down to 0. The
value is taken less the target's entropy (a KL divergence), which is 0 when the codes mirror the tree.

Why this form. Acting on the quantized sums, not on the encoder's output, gives the gradient to the entries
themselves and, straight through, to the encoder: codes of related categories move together, and products
move to the codes of their relatives. A softmax over the batch asks for the right order of relatives, not
for a fixed cosine, so it leaves the scale of the space to the reconstruction; and unlike a hinge or a
regression it has no margin to choose for each grade. Level l sees the sum of levels 0..l, because a code
means nothing without its prefix. Why weights that fall by half a level: the tree says which shelf, not
which of two shampoos; the late codes are needed to tell products apart.

Pairs with an item of unknown category are left out, as is an item's pair with itself.

Source: graded labels, all levels and coarse-first weights are the recipe of seed 000, which leaves the form
open; the loss is the soft-target InfoNCE of supervised contrastive learning (Khosla et al. 2020, eq. 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pressmark.distributed import gather_rows, rank


@dataclass(frozen=True)
class Config:
    """Shape of the loss; its weight in the whole is `tokenizer.contrastive_weight`."""

    temperature: float = 0.2
    """Of the softmax over cosines. Lower looks at the nearest relatives only."""
    level_decay: float = 0.5
    """Each level weighs this times the one before; the weights sum to 1."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.level_decay <= 1:
            raise ValueError(
                f"tokenizer.contrastive: temperature ({self.temperature}) must be above 0 and level_decay "
                f"({self.level_decay}) above 0 and at most 1."
            )


def level_weights(num_levels: int, decay: float) -> list[float]:
    """Weights a level, coarse first.

    >>> level_weights(2, 0.5)
    [0.6666666666666666, 0.3333333333333333]
    """
    raw = [decay**level for level in range(num_levels)]
    return [one / sum(raw) for one in raw]


def pair_targets(similarity: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """What the loss compares with.

    Args:
        similarity: (B, B) float32 in [0, 1], NaN where unknown.
        items: (B,) int64 item_index; an item that stands twice in a batch is no pair.

    Returns:
        targets: (B, B) float32, each row sums to 1, or is 0 where an anchor has no relative.
        valid: (B, B) bool, the pairs that count.
    """
    valid = similarity.isfinite() & (items[:, None] != items[None, :])
    graded = torch.where(valid, similarity, 0.0)
    total = graded.sum(dim=1, keepdim=True)
    return graded / total.clamp_min(torch.finfo(graded.dtype).tiny), valid


def contrastive_loss(
    residuals: Tensor, quantized: Tensor, targets: Tensor, valid: Tensor, config: Config
) -> Tensor:
    """(b,) float32: the loss of this process's anchors against the batch of all processes.

    Scaled so that the sum over all processes, divided by the B rows, is the mean over the anchors that have
    a relative.

    Args:
        residuals: (b, L, d) float32; only its level 0, the latents, carries gradient to the encoder.
        quantized: (b, L, d) float32, the chosen entries.
        targets: (B, B) float32 of the whole batch, processes in order.
        valid: (B, B) bool of the whole batch.
        config: Temperature and decay.
    """
    latents = residuals[:, 0]
    # The value is the quantized sum; the gradient goes to the entries and straight through to the encoder.
    sums = quantized.cumsum(dim=1) + (latents - latents.detach()).unsqueeze(1)
    units = gather_rows(nn.functional.normalize(sums.float(), dim=2))
    mine = slice(rank() * len(latents), (rank() + 1) * len(latents))
    target, has_relative = targets[mine], targets[mine].sum(dim=1) > 0
    entropy = -torch.xlogy(target, target).sum(dim=1)

    everyone = units.transpose(0, 1) / config.temperature  # (L, B, d)
    anchors = units[mine].transpose(0, 1)  # (L, b, d)
    left_out = torch.where(valid[mine], 0.0, -1e9)
    total = torch.baddbmm(left_out.expand(len(anchors), -1, -1), anchors, everyone.transpose(1, 2)).logsumexp(
        dim=2
    )
    # Cross-entropy with softmax: the targets' mean logit needs no (b, B) block a level.
    hit = (anchors * (target @ everyone)).sum(dim=2)
    weights = torch.tensor(level_weights(len(anchors), config.level_decay), device=units.device)
    loss = (weights[:, None] * (total - hit - entropy)).sum(dim=0)
    num_anchors = (targets.sum(dim=1) > 0).sum().clamp_min(1)
    return torch.where(has_relative, loss, 0.0) * (len(targets) / num_anchors)
