"""How much memory a call holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


def peak_mib(call: Callable[[], None], device: str) -> float:
    """The most memory that a call holds at one time beyond what was held before, in MiB."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    results: Any = seen.profiler
    events = [one for one in results.kineto_results.events() if one.name() == "[memory]"]
    events.sort(key=lambda one: one.start_ns())
    return float(np.cumsum([one.nbytes() for one in events]).max(initial=0)) / 2**20


def grown_apart(call: Callable[..., object], *arguments: Any) -> float | None:
    """Calls in a process of its own, and says by how much that process grew at most, in GiB.

    Every tensor and array is in it, and what an allocator kept. A process that has trained before keeps its
    memory, so trainings in one process cannot be compared by this. On a GPU what its tensors held instead;
    None where the system does not say.

    Args:
        call: A function of a module, with arguments that can be sent to another process.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_grown, call, arguments).result()


def _grown(call: Callable[..., object], arguments: tuple[Any, ...]) -> float | None:
    before = held_gib("VmRSS")
    call(*arguments)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    peak = held_gib("VmHWM")
    return None if before is None or peak is None else peak - before


def held_gib(which: str, pid: int | str = "self") -> float | None:
    """GiB that a process holds; None where /proc does not say, as for one that has ended.

    Args:
        which: VmRSS, all of it; RssAnon, what no file stands behind; VmHWM, the most of VmRSS so far (getrusage
            would tell the most that the parent ever had).
        pid: The process.
    """
    try:
        return int(Path(f"/proc/{pid}/status").read_text("utf-8").split(f"{which}:")[1].split()[0]) / 2**20
    except (OSError, IndexError):
        return None
