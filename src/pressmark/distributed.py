"""Collectives that behave the same with one process and with many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor

TIMEOUT = timedelta(hours=2)
"""How long processes wait for each other: the first one may prepare data meanwhile. A dead one is noticed at
once."""

SHARDED = {"FSDP": "ACCELERATE_USE_FSDP", "DeepSpeed": "ACCELERATE_USE_DEEPSPEED"}
"""Ways to divide a model over GPUs, and how the launcher says so."""


class LostProcess(RuntimeError):
    """Another process of this run has gone while this one waited for it."""


def start() -> PartialState:
    """Joins the process group that a launcher set up; with one process there is none. Safe to call again.

    Raises:
        ValueError: If the launcher started other processes than were asked for, or than found each other.
    """
    # Accelerate itself reads this variable only after it has chosen a backend; without it a CPU launch
    # of two processes ends in two groups of one.
    on_cpu = _set("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    if PartialState._shared_state == {}:
        _refuse_what_would_not_run_together(on_cpu)
        grouped = "WORLD_SIZE" in os.environ
        state = PartialState(cpu=on_cpu, **({"timeout": TIMEOUT} if grouped else {}))
    else:
        state = PartialState()
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != expected:
        raise ValueError(
            f"the launcher started {expected} processes but {state.num_processes} found each other; they would "
            f"train apart. {_INSTEAD}"
        )
    return state


_INSTEAD = "On a CPU use configs/accelerate/cpu2.yaml or torchrun."


def _set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"


def sharding() -> str:
    """How the launcher wants the model divided: "FSDP", "DeepSpeed" or "" for not at all."""
    return next((name for name, variable in SHARDED.items() if _set(variable)), "")


def _refuse_what_would_not_run_together(on_cpu: bool) -> None:
    """Raises ValueError for launches that end in runs of one process each, in one alone, or in the unknown."""
    if on_cpu and sharding():
        raise ValueError(
            f"{sharding()} was asked for, but there is no GPU (or use_cpu is set): the processes would each "
            f"train alone. {_INSTEAD}"
        )
    if sharding() == "DeepSpeed" or (sharding() and os.environ.get("FSDP_VERSION") != "2"):
        raise ValueError(
            f"{sharding()} was asked for in a form that the training loop does not know yet: it divides a "
            "model by FSDP2 (configs/accelerate/fsdp2.yaml), as ZeRO-2 and ZeRO-3 do, or leaves it whole."
        )
    if _set("ACCELERATE_USE_CPU") and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "`accelerate launch --cpu --num_processes` above 1 starts a single process. Give a config file: "
            "configs/accelerate/cpu2.yaml, or use torchrun."
        )


@contextmanager
def noticing(doing: str) -> Iterator[None]:
    """Says what happened where another process dies while this one waits for it.

    Args:
        doing: What is cut short, and how to go on.

    Raises:
        LostProcess: In place of what the collective raised.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LostProcess) or not _is_loss(error):
            raise
        raise LostProcess(
            f"process {rank()} of {num_processes()} has lost another one, which was killed, ran out of memory "
            f"or ended with an error of its own (see above or in its log). {doing}"
        ) from error


def _is_loss(error: RuntimeError) -> bool:
    """Whether a collective failed; gloo's errors have no type of their own."""
    if not is_distributed():
        return False
    return (
        isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection closed by peer" in str(error)
    )


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


def all_reduce_max(number: int, device: torch.device) -> int:
    """The largest number of any process."""
    found = torch.tensor(number, device=device)
    if is_distributed():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


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
