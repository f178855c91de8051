"""Collectives that behave the same with one process and with many."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor


def start() -> PartialState:
    """Joins the process group that a launcher set up; with one process there is none. Safe to call again.

    Raises:
        ValueError: If the launcher started more processes than found each other: they would train apart.
    """
    # Accelerate itself reads this variable only after it has chosen a backend; without it a CPU launch
    # of two processes ends in two groups of one.
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu) if PartialState._shared_state == {} else PartialState()
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != expected:
        raise ValueError(
            f"the launcher started {expected} processes but {state.num_processes} found each other; they would "
            "train apart. On a CPU use configs/accelerate/cpu2.yaml or torchrun."
        )
    return state


def is_distributed() -> bool:
    """True where a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 where there is one."""
    return dist.get_rank() if is_distributed() else 0


def num_processes() -> int:
    """Processes that run together."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Waits for every process."""
    if is_distributed():
        dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over processes; carries no gradient."""
    tensor = tensor.detach().clone()
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's values on every process."""
    tensor = tensor.detach().clone()
    if is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor


def broadcast_object(value: Any) -> Any:
    """Rank 0's small JSON-like value on every process."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class _AllGather(torch.autograd.Function):
    """all_gather whose backward sums every process's gradient and keeps the local slice.

    `accelerator.gather` carries no gradient, and treating the other processes' rows as constants
    gives a wrong one: their losses depend on our rows too.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = rows.shape[0]
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.num_rows
        return grad[start : start + ctx.num_rows]


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates (n, ...) rows of every process into (n * processes, ...), with gradient.

    Every process must hold the same number of rows. The backward pass gives d(sum of all processes'
    losses)/d(local rows).
    """
    return _AllGather.apply(rows) if is_distributed() else rows
