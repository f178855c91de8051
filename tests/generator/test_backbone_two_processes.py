"""Two real processes (gloo) beside one: the same losses of a backbone, its alignment and its LoRA included."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
from tests.generator.test_backbone_train import ALIGNED, losses_of, quick, write_run
from tests.processes import begun, ended, pair, status

from pressmark.distributed import barrier, start
from pressmark.generator.config import Config
from pressmark.generator.config import FinetuneConfig as Finetune
from pressmark.generator.train import train

WAYS = {"flan": Finetune(alignment=ALIGNED), "bart": Finetune(tuning="lora", alignment=ALIGNED)}


def still(run: Path, family: str) -> Config:
    """Without dropout, whose draws differ between processes."""
    config = quick(run, family, WAYS[family])
    return dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=1e-3))


def test_two_processes_train_a_backbone_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for family in WAYS:
        write_run(one / family)
        quick(one / family, family)
        no_dropout(one / family / f"base-{family}")
    shutil.copytree(one, two)
    process = begun("tests.generator.test_backbone_two_processes", two)
    try:
        train_all(one)
    finally:
        ended(process, 300)
    for family in WAYS:
        alone, together = losses_of(one / family), losses_of(two / family)
        assert len(alone) == len(together) >= 5
        np.testing.assert_allclose(together, alone, rtol=1e-4)


def train_all(folder: Path) -> None:
    """Trains each way in a run of its own."""
    for family in WAYS:
        train(folder / family, still(folder / family, family), seed=0)


def no_dropout(base: Path) -> None:
    """Sets every dropout in a folder's configuration to 0."""
    from pressmark.files import read_json, write_json

    path = base / "config.json"
    settings = read_json(path)
    write_json(path, {key: 0.0 if "dropout" in key else one for key, one in settings.items()})


def work(folder: Path) -> None:
    """What each of the two does."""
    assert start().num_processes == 2
    train_all(folder)
    barrier()


if __name__ == "__main__":
    sys.exit(status(pair(work, Path(sys.argv[1]))))
