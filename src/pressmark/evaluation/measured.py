"""What a piece of work takes: seconds, and memory at its peak."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Fills in `seconds`, `cpu_seconds` and `peak_gib`, by how much anonymous memory grew at most."""
    found: dict[str, Any] = {}
    before, peak, done = _anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield found
    finally:
        found["seconds"] = round(time.perf_counter() - wall, 2)
        found["cpu_seconds"] = round(time.process_time() - cpu, 2)
        done.set()
        watcher.join()
    found["peak_gib"] = round(max(0.0, peak[0] - before), 3)


def _anonymous() -> float:
    """GiB of memory that no file stands behind; not a number where /proc does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return int(status.split("RssAnon:")[1].split()[0]) / 2**20
