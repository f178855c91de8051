"""T5's norm with a gradient written by hand: a third of the passes over memory that autograd's takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """values (..., D) over the root of their mean square, times weight (D,): no mean, no bias.

    Source: Zhang and Sennrich 2019; T5 norms so.
    """
    return _RmsNorm.apply(values, weight, epsilon)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = torch.promote_types(values.dtype, torch.float32)
        length = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=wide)
        inverse = length.square_().div_(values.shape[-1]).add_(epsilon).rsqrt_().to(values.dtype)
        normed = values * inverse
        ctx.save_for_backward(normed, inverse, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        normed, inverse, weight = ctx.saved_tensors
        for_weight = (grad * normed).flatten(0, -2).sum(0)
        scaled = grad * weight
        along = torch.linalg.vecdot(scaled, normed)[..., None] / normed.shape[-1]
        return scaled.sub_(normed * along).mul_(inverse), for_weight, None
