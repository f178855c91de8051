"""The agreement loss: products that are almost the same get the same first codes.

Two near duplicates share no code where the border of a cell runs between them. With soft assignments
p_l(i, k), the probability that item i takes code k at level l, the chance that i and j share their first l
codes is the product of <p_m(i), p_m(j)> over the levels m up to l; the loss is its negative logarithm,
weighted by how close the pair is. Pairs deep inside one cell already agree and feel nothing; those astride a
border are drawn to one side of it. Nothing pushes the other pairs apart: the codebooks' balance and the
reconstruction do.

The taxonomy loss asks which shelf a product stands on; this one asks that its twin stand beside it. A product
in the wrong category, a synonym of one in the right one, is where the two differ.

Source: a soft assignment's agreement is the consistency term of clustering by mutual information (Ji et al.,
"Invariant Information Clustering", 2019) and of SwAV (Caron et al. 2020), here over the levels of a residual
quantizer. It suits pairs that are few and near: over products bought together, who are many and anywhere, it
drew a catalog into a few codes (eval/LOG.md), so those have the contrastive loss instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pressmark.distributed import all_reduce_sum, gather_rows, num_processes
from pressmark.tokenizer.config import AgreementConfig

# Of soft assignments, in mean nearest distances of the level: an item leans to its few nearest codes.
TEMPERATURE = 0.05
# Keeps the logarithm of a hopeless pair finite; its gradient is then 0.
LEAST = 1e-6


def soft_codes(distances: Tensor, temperature: float) -> Tensor:
    """Soft assignments of one level: (b, K) squared distances -> (b, K) probabilities.

    Args:
        distances: (b, K) float32.
        temperature: In mean nearest distances of the whole batch, all processes counted.
    """
    nearest = distances.detach().min(dim=1).values.clamp_min(0).mean()
    unit = (all_reduce_sum(nearest) / num_processes()).clamp_min(1e-12)
    logits = -distances / (temperature * unit)
    # Beyond e^-30 nothing is told apart, and denormal numbers are many times slower.
    logits = logits - logits.detach().max(dim=1, keepdim=True).values
    return torch.softmax(logits.clamp_min(-30.0), dim=1)


def log_agreement(codes: Tensor, others: Tensor) -> Tensor:
    """Log-probability of equal codes: (b, K), (B, K) probabilities -> (b, B)."""
    return (codes @ others.T).clamp_min(LEAST).log()


def content_weights(units: Tensor, config: AgreementConfig) -> Tensor:
    """Weights of pairs by content: (B, D) vectors of length 1, or 0 for no text -> (B, B) float32 in [0, 1]."""
    cosine = units @ units.T
    weights = (config.sharpness * (cosine - config.twin_cosine).clamp_max(0)).exp()
    return torch.where(cosine >= config.min_cosine, weights, 0.0)


def agreement_loss(distances: Sequence[Tensor], weights: Tensor, config: AgreementConfig) -> Tensor:
    """(b,) float32: each anchor's weighted disagreement with the batch of all processes; a pair counts once.

    Args:
        distances: L of (b, K) squared distances from residuals to entries.
        weights: (b, B) float32 of this process's anchors; 0 for an anchor with itself.
        config: Levels, decay, temperature.
    """
    agreed, loss = torch.zeros_like(weights), torch.zeros_like(weights[:, 0])
    for level, distance in enumerate(distances[: config.num_levels]):
        codes = soft_codes(distance, TEMPERATURE * config.temperature)
        agreed = agreed + log_agreement(codes, gather_rows(codes))
        # Half: i and j are each other's anchors.
        loss = loss - 0.5 * config.level_decay**level * (weights * agreed).sum(dim=1)
    return loss


def unevenness(distances: Sequence[Tensor], config: AgreementConfig) -> Tensor:
    """(b,) float32, the same for every row: how far the batch's soft assignments are from even use.

    The Kullback-Leibler divergence of their mean, over all processes, from the uniform distribution, summed
    over levels with the decay: the entropy term that keeps agreement from being reached by one code for all.

    Args:
        distances: L of (b, K) squared distances.
        config: Levels, decay, temperature.
    """
    loss = distances[0].new_zeros(())
    for level, distance in enumerate(distances[: config.num_levels]):
        mean = soft_codes(distance, TEMPERATURE * config.temperature).mean(dim=0, keepdim=True)
        share = gather_rows(mean).mean(dim=0).clamp_min(1e-12)
        loss = loss + config.level_decay**level * torch.xlogy(share, share * len(share)).sum()
    return loss.expand(len(distances[0]))
