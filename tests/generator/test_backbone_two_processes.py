"""Two real processes (gloo) beside one: the same losses of a backbone, its alignment and its LoRA included."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from tests.generator.test_backbone_train import ALIGNED, losses_of, quick, write_run

from pressmark.distributed import barrier, start
from pressmark.generator.backbone import Config as Finetune
from pressmark.generator.train import Config, train

REPOSITORY = Path(__file__).parents[2]
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.generator.test_backbone_two_processes", str(two)]
    process = subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        train_all(one)
        said, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, said[-3000:]
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


def process(number: int, port: int, folder: Path) -> None:
    """One of two, as a launcher would start it."""
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    assert start().num_processes == 2
    torch.set_num_threads(1)
    train_all(folder)
    barrier()


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=process, args=(number, port, Path(sys.argv[1]))) for number in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    sys.exit(any(one.exitcode for one in both))
