"""Which number format a machine trains faster in, and how many threads it has."""

from __future__ import annotations

import os
import time

import torch


def choose_precision(requested: str, device: torch.device) -> str:
    """Resolves "auto" to "bf16" or "no".

    A GPU with bf16 arithmetic takes bf16. CPUs differ by more than 3x in either direction (AMX against
    plain AVX), so one matrix product of a small model's size is timed in both formats.

    Args:
        requested: "auto", "bf16" or "no".
        device: Where training runs.
    """
    if requested != "auto":
        return requested
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    if device.type != "cpu":
        return "no"
    return "bf16" if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "no"


def _seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(2048, 128, dtype=dtype), torch.ones(128, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return best


def use_all_cores() -> None:
    """Gives a CPU run its share of the cores where the launcher left it one thread.

    `accelerate launch` on a CPU sets OMP_NUM_THREADS=1 unless `--num_cpu_threads_per_process` says
    otherwise; that would halve a laptop's speed or worse. A value other than 1 is left alone.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
