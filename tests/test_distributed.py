from __future__ import annotations

import pytest
import torch
from accelerate import PartialState

from pressmark import distributed
from pressmark.cli import guarded


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has joined nothing yet, and what a launcher may set."""
    monkeypatch.setattr(PartialState, "_shared_state", {})
    for name in (
        "ACCELERATE_USE_CPU",
        "ACCELERATE_USE_FSDP",
        "ACCELERATE_USE_DEEPSPEED",
        "MASTER_ADDR",
        "WORLD_SIZE",
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_one_process_needs_no_launcher(fresh: pytest.MonkeyPatch) -> None:
    assert distributed.start().num_processes == 1


@pytest.mark.parametrize("name", distributed.SHARDED)
def test_a_model_divided_without_a_gpu_is_refused(fresh: pytest.MonkeyPatch, name: str) -> None:
    fresh.setenv(distributed.SHARDED[name], "true")
    with pytest.raises(ValueError, match=f"{name} was asked for, but there is no GPU .*cpu2.yaml or torchrun"):
        distributed.start()


@pytest.mark.parametrize(
    "says",
    [
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        {"ACCELERATE_USE_FSDP": "true"},
        {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"},
    ],
)
def test_what_the_loop_cannot_divide_by_is_refused_on_a_gpu_too(
    fresh: pytest.MonkeyPatch, says: dict[str, str]
) -> None:
    fresh.setattr(torch.cuda, "is_available", lambda: True)
    for name, value in says.items():
        fresh.setenv(name, value)
    with pytest.raises(ValueError, match="does not know yet: it divides a model by FSDP2"):
        distributed.start()


def test_a_launch_that_comes_to_one_process_is_refused(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("ACCELERATE_USE_CPU", "True")
    assert distributed.start().num_processes == 1
    fresh.setattr(PartialState, "_shared_state", {})
    fresh.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ValueError, match="starts a single process"):
        distributed.start()


def test_processes_that_have_not_found_each_other_are_refused(fresh: pytest.MonkeyPatch) -> None:
    distributed.start()
    fresh.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="started 2 processes but 1 found each other"):
        distributed.start()


def test_an_error_of_one_process_is_its_own() -> None:
    def work() -> None:
        raise RuntimeError("gloo is not to blame")

    with pytest.raises(RuntimeError, match="not to blame") as caught:
        guarded(work)
    assert not isinstance(caught.value, distributed.LostProcess)
