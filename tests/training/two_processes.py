"""Two processes that train together, for `test_lost_process`: `python -m tests.training.two_processes FOLDER`.

One interpreter imports everything and forks. What each process says stands in said-<rank>.txt, what the
training came to in record.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.processes import pair
from tests.training.test_loop import Line, new_model, quick
from torch import nn

from pressmark import distributed
from pressmark.cli import guarded
from pressmark.training.loop import fit


class Slow(Line):
    """A training that takes some seconds, so that a kill falls into it."""

    def after_step(self, model: nn.Module, step: int) -> None:
        time.sleep(0.01)


def training(folder: Path) -> None:
    """Trains, and leaves the record."""
    record = fit(new_model(), Slow(), quick(num_epochs=40, checkpoint_every=0.1), folder / "training", 0, "f")
    if distributed.rank() == 0:
        (folder / "record.json").write_text(json.dumps(record))
    distributed.barrier()


def work(folder: Path) -> None:
    """What each of the two does."""
    said = (folder / f"said-{os.environ['RANK']}.txt").open("w")
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    guarded(distributed.start)
    guarded(training, folder)


def both_in(folder: Path) -> list[BaseProcess]:
    """Starts both."""
    folder.mkdir(exist_ok=True)
    return pair(work, folder)


def ended(both: list[BaseProcess]) -> list[int | None]:
    """How they ended, within a minute; None for one that had not."""
    deadline = time.monotonic() + 60
    for one in both:
        one.join(max(0.0, deadline - time.monotonic()))
    codes = [one.exitcode for one in both]
    for one in both:
        one.kill()
    return codes


def main(folder: Path) -> dict[str, list[int | None]]:
    """An undisturbed training, one of which process 1 is killed, and the latter once more."""
    found = {"whole": ended(both_in(folder / "whole"))}
    both = both_in(folder / "killed")
    while not list((folder / "killed").glob("training/step-*")) and all(one.is_alive() for one in both):
        time.sleep(0.005)
    os.kill(both[1].pid or 0, signal.SIGKILL)
    found["killed"] = ended(both)
    (folder / "killed" / "said-0.txt").rename(folder / "said.txt")
    (folder / "too_late.txt").write_text(str((folder / "killed" / "record.json").exists()))
    found["again"] = ended(both_in(folder / "killed"))
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "ended.json").write_text(json.dumps(main(place)))
