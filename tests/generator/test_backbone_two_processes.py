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
import pytest
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


@pytest.mark.parametrize("family", WAYS)
def test_two_processes_train_a_backbone_as_one(tmp_path: Path, family: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_run(one)
    quick(one, family)
    no_dropout(one / f"base-{family}")
    shutil.copytree(one, two)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.generator.test_backbone_two_processes", str(two), family]
    process = subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        train(one, still(one, family), seed=0)
        said, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0, said[-3000:]
    alone, together = losses_of(one), losses_of(two)
    assert len(alone) == len(together) >= 5
    np.testing.assert_allclose(together, alone, rtol=1e-4)


def no_dropout(base: Path) -> None:
    """Sets every dropout in a folder's configuration to 0."""
    from pressmark.files import read_json, write_json

    path = base / "config.json"
    settings = read_json(path)
    write_json(path, {key: 0.0 if "dropout" in key else one for key, one in settings.items()})


def process(number: int, port: int, run: Path, family: str) -> None:
    """One of two, as a launcher would start it."""
    os.environ.update(RANK=str(number), LOCAL_RANK=str(number), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    assert start().num_processes == 2
    torch.set_num_threads(1)
    train(run, still(run, family), seed=0)
    barrier()


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    run, family = Path(sys.argv[1]), sys.argv[2]
    both = [fork.Process(target=process, args=(number, port, run, family)) for number in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    sys.exit(any(one.exitcode for one in both))
