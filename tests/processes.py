"""Two real processes (gloo) of a test: it starts a module, which imports everything once and forks."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[1]


def begun(module: str, folder: Path) -> subprocess.Popen[str]:
    """Starts `python -m module folder`, on one thread and without a GPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", module, str(folder)],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], timeout: float) -> None:
    """Waits, in seconds, for what was begun to end well."""
    try:
        said, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == 0, said[-3000:]


def pair(work: Callable[[Path], None], folder: Path) -> list[BaseProcess]:
    """Starts `work(folder)` twice, as a launcher would start it; it still has to join the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_launched, args=(number, port, work, folder)) for number in (0, 1)]
    for one in both:
        one.start()
    return both


def status(both: list[BaseProcess]) -> bool:
    """Waits for both; whether one failed."""
    for one in both:
        one.join()
    return any(one.exitcode for one in both)


def _launched(number: int, port: int, work: Callable[[Path], None], folder: Path) -> None:
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    work(folder)
