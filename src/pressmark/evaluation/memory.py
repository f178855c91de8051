"""How much memory a call holds."""

from __future__ import annotations

from collections.abc import Callable
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
