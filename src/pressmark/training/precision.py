"""Which number format a machine trains faster in, and how many threads and how much memory it keeps."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# Read by oneDNN at its first product: it compiles one for each shape, and a training has some thousands.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

ROUNDS = 50
"""Products timed either way: less than a fifth of a second."""


def choose_precision(requested: str, device: torch.device) -> str:
    """Resolves "auto" to "no", "bf16" or "bf16_products".

    A GPU with bf16 arithmetic takes bf16. On a CPU everything stays float32, and the question is which library
    multiplies: `bf16_products` asks oneDNN, and lets it round factors to bf16 where it finds that worth while.
    It is twice as fast where MKL does without a CPU's AVX-512 (seen on AMD, where nothing was rounded); with
    AMX units it should be faster still (not seen yet). A product of a small model's size is timed both ways,
    in turns and by one thread: the answer decides what is trained, so a busy machine must not change it.

    Args:
        requested: "auto", "no", "bf16" or "bf16_products".
        device: Where training runs.
    """
    if requested != "auto":
        return requested
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    if device.type != "cpu":
        return "no"
    best = dict.fromkeys(("no", "bf16_products"), float("inf"))
    with _one_thread():
        for precision in list(best) * ROUNDS:
            with products(precision):
                best[precision] = min(best[precision], _seconds())
    return "bf16_products" if best["bf16_products"] < 0.8 * best["no"] else "no"


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads wait for the slowest, which is whatever else the machine does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds() -> float:
    left, right = torch.ones(512, 128), torch.ones(128, 1024)
    start = time.perf_counter()
    torch.mm(left, right)
    return time.perf_counter() - start


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """For "bf16_products" a CPU's matrix products inside go to oneDNN; otherwise nothing changes.

    It compiles a product for each shape that it meets, in a millisecond or so: worth it for shapes that come
    again, which is why batches are filled up to round numbers. Fused attention would ask for thousands of tiny
    products one by one there (seen: 12 times slower, forward and backward): it is taken apart into large ones.
    """
    if precision != "bf16_products":
        yield
        return
    setting: Any = vars(torch.backends)["mkldnn"].matmul
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        setting.fp32_precision = before


def keep_memory() -> None:
    """Has glibc keep what is freed: each large array of a step would come from the system again, page by page.

    A tenth of a small model's step on a CPU; nothing elsewhere.
    """
    with contextlib.suppress(OSError, AttributeError):
        options = ctypes.CDLL("libc.so.6")
        # Older ones refuse more than 32 MiB; a trim threshold alone would freeze the other where it starts.
        if any(options.mallopt(M_MMAP_THRESHOLD, size) for size in (2**31 - 1, 2**25)):
            options.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def use_all_cores() -> None:
    """Gives a CPU run its share of the cores where the launcher left it one thread.

    `accelerate launch` on a CPU sets OMP_NUM_THREADS=1 unless `--num_cpu_threads_per_process` says
    otherwise; that would halve a laptop's speed or worse. A value other than 1 is left alone.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
