"""Every YAML of configs/accelerate: accelerate reads it, and our entry points take it or refuse it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

from pressmark import distributed

FOLDER = Path(__file__).parents[1] / "configs" / "accelerate"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PROCESSES = {"cpu2": 2, "one_gpu": 1, "ddp": 8, "ddp_nodes": 16, "fsdp2": 8}


def read(name: str) -> ClusterConfig:
    found = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert isinstance(found, ClusterConfig)
    return found


def launched(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What `accelerate launch --config_file ...` makes of it, on a machine with GPUs."""
    parsed = launch_command_parser().parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), "script.py"])
    return _validate_launch_command(parsed)[0]


def test_each_is_described_here() -> None:
    assert set(NAMES) == set(PROCESSES)


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_it(name: str) -> None:
    config = read(name)
    assert config.num_processes == PROCESSES[name]
    assert config.use_cpu == (name == "cpu2")
    kind = {"cpu2": "MULTI_GPU", "one_gpu": "NO", "ddp": "MULTI_GPU", "ddp_nodes": "MULTI_GPU", "fsdp2": "FSDP"}
    assert config.distributed_type.value == kind[name]
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_activation_checkpointing"] is True


@pytest.mark.parametrize("name", NAMES)
def test_it_says_when_to_use_it_and_who_has_run_it(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert f"--config_file configs/accelerate/{name}.yaml" in text
    if name != "cpu2":
        assert "# When: " in text
        assert "Run: " in text or "NO MACHINE HAS RUN IT" in text


@pytest.mark.parametrize("name", NAMES)
def test_entry_points_take_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each process would see it: with the variables that the launcher sets, and no group that answers."""
    arguments = launched(name, monkeypatch)
    # Its port may be another test's just now.
    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda _: False)
    if name == "one_gpu":
        _, said = prepare_simple_launcher_cmd_env(arguments)
    else:
        said = prepare_multi_gpu_env(arguments)
    for key, value in said.items():
        if key.startswith(("ACCELERATE_", "FSDP_")) and os.environ.get(key) != value:
            monkeypatch.setenv(key, value)
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: name != "cpu2")
    assert distributed.sharding() == ("FSDP" if name == "fsdp2" else "")
    distributed._refuse_what_would_not_run_together(on_cpu=name == "cpu2")
    if name == "fsdp2":
        with pytest.raises(ValueError, match="FSDP was asked for, but there is no GPU"):
            distributed._refuse_what_would_not_run_together(on_cpu=True)
    # A process that finds itself alone says so, however many were started.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    distributed.start()
    if PROCESSES[name] > 1:
        monkeypatch.setenv("WORLD_SIZE", str(PROCESSES[name]))
        with pytest.raises(ValueError, match=f"started {PROCESSES[name]} processes but 1 found each other"):
            distributed.start()


def test_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(PartialState, "_shared_state", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="does not know yet"):
        distributed.start()
