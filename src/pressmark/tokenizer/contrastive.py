"""The taxonomy contrastive loss: products that stand close in the tree get close codes, coarse levels first.

For anchor i and level l, with a similarity of codes q_l(i, j) up to level l:

    loss(i) = sum_l w_l * cross_entropy( target(i, .), softmax_j q_l(i, j) ),
    target(i, j) = s_ij / sum_j s_ij,    s_ij = (depth of the lowest common ancestor / longer path) ** power,

so a product of the same leaf weighs 1, siblings, cousins and unrelated ones less and less down to 0. The
value is taken less the target's entropy (a KL divergence), which is 0 when the codes mirror the tree.

Three forms of q_l, compared in eval/LOG.md:

- `kernel` (the default): q_l = -|x_l(i) - x_l(j)|^2 / (t * E_l), with x_l the quantized sum up to level l and
  E_l the mean squared error that level l leaves. What counts is whether two products are apart by more than
  the codes can tell: pairs that share their codes exert no force on each other, and neither do pairs that are
  far apart, so the loss moves products across the borders of cells and leaves the space inside a cell to the
  reconstruction. Its temperature follows the level, coarse to fine, and needs no tuning for another embedding.
- `cosine`: q_l = cosine of the quantized sums / (0.2 * t). It asks for angles, which far pairs dominate: it
  bends the whole space and costs reconstruction.
- `agreement`: q_l = log of the probability that soft assignments give i and j the same l codes. It acts on the
  codes themselves, but among pairs of different cells the gradient is faint.

The value of the first two is that of the quantized sums; their gradient goes to the entries (where these are
trained by gradient) and straight through to the encoder. Level l sees the sum of levels 0..l, because a code
means nothing without its prefix. Why weights that fall by half a level: the tree says which shelf, not which
of two shampoos; the late codes are needed to tell products apart.

A product of several paths counts by its closest one. Pairs with an item of unknown category are left out, as
is an item's pair with itself.

Source: graded labels, all levels and coarse-first weights are the recipe of seed 000, which leaves the form
open; the softmax over a batch is the soft-target InfoNCE of supervised contrastive learning (Khosla et al.
2020, eq. 2), the kernel that of stochastic neighbour embedding (Hinton and Roweis 2002).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pressmark.distributed import all_reduce_sum, gather_rows, num_processes, rank
from pressmark.tokenizer.agreement import TEMPERATURE, log_agreement, soft_codes
from pressmark.tokenizer.config import ContrastiveConfig
from pressmark.tokenizer.rqvae import RQVAEOutput

COSINE_TEMPERATURE = 0.2


def level_weights(num_levels: int, decay: float) -> list[float]:
    """Weights a level, coarse first.

    >>> level_weights(2, 0.5)
    [0.6666666666666666, 0.3333333333333333]
    """
    raw = [decay**level for level in range(num_levels)]
    return [one / sum(raw) for one in raw]


def pair_targets(similarity: Tensor, items: Tensor, power: float = 1.0) -> tuple[Tensor, Tensor]:
    """What the loss compares with.

    Args:
        similarity: (B, B) float32 in [0, 1], NaN where unknown.
        items: (B,) int64 item_index; an item that stands twice in a batch is no pair.
        power: Grading; 0 ** 0 counts as 0 here, since unrelated pairs are never positive.

    Returns:
        targets: (B, B) float32, each row sums to 1, or is 0 where an anchor has no relative.
        valid: (B, B) bool, the pairs that count.
    """
    valid = similarity.isfinite() & (items[:, None] != items[None, :])
    graded = torch.where(valid & (similarity > 0), similarity.nan_to_num(0.0) ** power, 0.0)
    total = graded.sum(dim=1, keepdim=True)
    return graded / total.clamp_min(torch.finfo(graded.dtype).tiny), valid


def code_similarities(output: RQVAEOutput, config: ContrastiveConfig) -> list[Tensor]:
    """L of (b, B) float32: q_l of this process's b rows with the whole batch, in the form asked for."""
    return {"kernel": _kernel, "cosine": _cosine, "agreement": _agreement}[config.form](output, config)


def contrastive_loss(
    similarities: Sequence[Tensor], targets: Tensor, valid: Tensor, config: ContrastiveConfig
) -> Tensor:
    """(b,) float32: the loss of this process's anchors against the batch of all processes.

    Scaled so that the sum over all processes, divided by the B rows, is the mean over the anchors that have
    a relative.

    Args:
        similarities: L of (b, B), by `code_similarities`.
        targets: (B, B) float32 of the whole batch, processes in order.
        valid: (B, B) bool of the whole batch.
        config: Decay.
    """
    num_anchored = len(similarities[0])
    mine = slice(rank() * num_anchored, (rank() + 1) * num_anchored)
    target, left_out = targets[mine], ~valid[mine]
    has_relative = target.sum(dim=1) > 0
    entropy = -torch.xlogy(target, target).sum(dim=1)
    loss = torch.zeros_like(entropy)
    for weight, similarity in zip(
        level_weights(len(similarities), config.level_decay), similarities, strict=True
    ):
        total = similarity.masked_fill(left_out, -1e9).logsumexp(dim=1)
        loss = loss + weight * (total - (target * similarity).sum(dim=1) - entropy)
    num_anchors = (targets.sum(dim=1) > 0).sum().clamp_min(1)
    return torch.where(has_relative, loss, 0.0) * (len(targets) / num_anchors)


def _level_sums(output: RQVAEOutput) -> list[Tensor]:
    """L of (b, d): quantized sums up to each level, with a straight-through gradient to the encoder."""
    latents, total, sums = output.residuals[0], torch.zeros(()), []
    through = latents - latents.detach()
    for entry in output.quantized:
        total = entry + total
        sums.append((total + through).float())
    return sums


def _kernel(output: RQVAEOutput, config: ContrastiveConfig) -> list[Tensor]:
    left_over = [*output.residuals[1:], output.error]
    found = []
    for sums, residual in zip(_level_sums(output), left_over, strict=True):
        error = all_reduce_sum(residual.square().sum(dim=1).mean()) / num_processes()
        everyone = gather_rows(sums)
        norms, own = everyone.square().sum(dim=1), sums.square().sum(dim=1)
        squared = torch.addmm(own[:, None] + norms, sums, everyone.T, alpha=-2.0)
        found.append(-squared.clamp_min(0) / (config.temperature * error.clamp_min(1e-12)))
    return found


def _cosine(output: RQVAEOutput, config: ContrastiveConfig) -> list[Tensor]:
    units = [nn.functional.normalize(sums, dim=1) for sums in _level_sums(output)]
    return [unit @ gather_rows(unit).T / (COSINE_TEMPERATURE * config.temperature) for unit in units]


def _agreement(output: RQVAEOutput, config: ContrastiveConfig) -> list[Tensor]:
    soft = [soft_codes(one, TEMPERATURE * config.temperature) for one in output.distances]
    found: list[Tensor] = []
    for codes in soft:
        agreed = log_agreement(codes, gather_rows(codes))
        found.append(agreed + found[-1] if found else agreed)
    return found
