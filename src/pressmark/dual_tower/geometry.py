"""How embeddings lie on the sphere: positives near each other, everything else spread out.

Source: Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity
on the Hypersphere", equations 3 and 4 with alpha = 2 and t = 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def alignment(users: Tensor, targets: Tensor) -> float:
    """Mean squared distance of (n, d) users from their items, all of length 1; 0 is perfect, 2 is chance.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    2.0
    """
    return float((users - targets).square().sum(1).mean())


def uniformity(embeddings: Tensor) -> float:
    """Log of the mean of exp(-2 squared distance) over pairs of (n, d) rows of length 1; lower is more even.

    >>> uniformity(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    0.0
    >>> round(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), 6)
    -8.0
    """
    num = len(embeddings)
    if num < 2:
        return float("nan")
    cosines = embeddings.double() @ embeddings.double().T
    pairs = cosines[torch.ones_like(cosines, dtype=torch.bool).triu(1)]
    return float(torch.logsumexp(4 * pairs - 4, 0) - math.log(len(pairs)))
