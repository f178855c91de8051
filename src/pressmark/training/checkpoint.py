"""Checkpoints of a run in progress: safetensors and JSON, whole or absent.

No random-number state is kept: the loop seeds every step from (seed, step, rank), so the step number
is enough. The learning rate is a function of the step for the same reason.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pressmark.files import read_json, read_tensors, replacing, write_json, write_tensors
from pressmark.training.sharded import divided_as, together


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Optimizer steps done.
        epoch: Epoch in progress.
        batch: Batches of that epoch done.
        seconds: Training time so far, validation included.
        best: Best value of the task's metric, None before the first validation.
        best_step: Step of that value.
        validations_since_best: For early stopping.
        losses: Mean loss of every step.
        validations: One flat record a validation: step, epoch, seconds and the task's metrics.
        precision: "no", "bf16" or "bf16_products", fixed at the start so that a resumed run computes the same.
        finished: The run has ended; the weights are final.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    losses: list[float] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    precision: str = "no"
    finished: bool = False


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    moments: dict[str, Tensor],
    best_weights: dict[str, Tensor] | None,
    progress: Progress,
    fingerprint: str,
) -> None:
    """Writes `folder`/step-<n> and removes older ones; a kill at any moment leaves a whole one.

    `moments` are `optimizer_tensors`.
    """
    place = folder / f"step-{progress.step:08d}"
    with replacing(place) as partial:
        partial.mkdir(parents=True)
        write_tensors(partial / "model.safetensors", model.state_dict())
        write_tensors(partial / "optimizer.safetensors", moments)
        if best_weights is not None:
            write_tensors(partial / "best.safetensors", best_weights)
        write_json(partial / "progress.json", {"fingerprint": fingerprint, **dataclasses.asdict(progress)})
    for other in folder.glob("step-*"):
        if other != place:
            shutil.rmtree(other)


def read_progress(folder: Path, fingerprint: str) -> tuple[Path, Progress] | None:
    """The newest checkpoint in `folder`, or None.

    Raises:
        ValueError: If it was made by another configuration, data set or seed.
    """
    places = sorted(folder.glob("step-*"))
    if not places:
        return None
    record = read_json(places[-1] / "progress.json")
    found = record.pop("fingerprint")
    if found != fingerprint:
        raise ValueError(
            f"{places[-1]}: this checkpoint belongs to another configuration, data set or seed "
            f"(fingerprint {found}, expected {fingerprint}). Delete {folder} to start again, "
            "or use another --run_dir."
        )
    return places[-1], Progress(**record)


def load_weights(place: Path, model: nn.Module) -> dict[str, Tensor] | None:
    """Restores a model from one checkpoint and returns the best weights so far."""
    model.load_state_dict(read_tensors(place / "model.safetensors"))
    best = place / "best.safetensors"
    return read_tensors(best) if best.exists() else None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state, whole on every process: "<number of the weight>.<name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": together(value) for number, one in state.items() for name, value in one.items()}


def load_optimizer(place: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restores an optimizer from one checkpoint."""
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in read_tensors(place / "optimizer.safetensors").items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = divided_as(value, weights[int(number)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
