from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pressmark.files import DiskFull
from pressmark.training import checkpoint
from pressmark.training.config import TrainingConfig
from pressmark.training.loop import fit, learning_rate


class Line:
    """Fits y = 2x by least squares on 12 samples; dropout makes a step's random numbers matter."""

    name = "line"
    metric = "score"

    def __init__(self, die_at: int = 0, poison_at: int = 0) -> None:
        self.x = torch.linspace(-1, 1, 12)[:, None]
        self.die_at, self.poison_at = die_at, poison_at

    def plan(self, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng(epoch).permutation(12)
        return [order[:5], order[5:10], order[10:]]

    def collate(self, samples: np.ndarray, device: torch.device) -> Tensor:
        return self.x[torch.from_numpy(samples)].to(device)

    def weight(self, batch: Tensor) -> float:
        return float(len(batch))

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return ((model(batch) - 2 * batch) ** 2).sum(), {}

    def after_step(self, model: nn.Module, step: int) -> None:
        if step == self.die_at:
            raise KeyboardInterrupt
        if step == self.poison_at:
            next(model.parameters()).data.fill_(float("nan"))

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"score": -((model(self.x) - 2 * self.x) ** 2).mean().item()}


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))


def quick(**changes: object) -> TrainingConfig:
    values = {"learning_rate": 0.05, "num_epochs": 6, "mixed_precision": "no", "log_with": "", **changes}
    return TrainingConfig(**values)  # type: ignore[arg-type]


def test_it_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    model = new_model()
    record = fit(model, Line(), quick(num_epochs=30), tmp_path, 0, "f")
    scores = [one["score"] for one in record["validations"]]
    assert record["best"] == max(scores)
    assert Line().validate(model)["score"] == pytest.approx(max(scores))
    assert record["losses"][0] > 5 * min(record["losses"])
    assert len(record["losses"]) == record["step"] == 90


class Uneven(Line):
    """Has fewer batches in later epochs."""

    def plan(self, epoch: int) -> list[np.ndarray]:
        return np.array_split(np.arange(12), 4 - min(epoch, 2))


@pytest.mark.parametrize("task", [Line, Uneven])
def test_an_interrupted_run_ends_bit_for_bit_like_an_uninterrupted_one(
    tmp_path: Path, task: type[Line]
) -> None:
    whole, resumed = new_model(), new_model()
    expected = fit(whole, task(), quick(checkpoint_every=0), tmp_path / "a", 0, "f")
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), task(die_at=8), quick(checkpoint_every=0), tmp_path / "b", 0, "f")
    found = fit(resumed, task(), quick(checkpoint_every=0), tmp_path / "b", 0, "f")
    assert found["losses"] == expected["losses"]
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    class NoDropout(Line):
        def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            model.eval()
            return super().loss(model, batch)

    one = fit(new_model(), NoDropout(), quick(), tmp_path / "a", 0, "f")
    other = fit(new_model(), NoDropout(), quick(micro_batch_size=2), tmp_path / "b", 0, "f")
    assert other["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, second = new_model(), new_model()
    fit(first, Line(), quick(), tmp_path, 0, "f")
    record = fit(second, Line(die_at=1), quick(), tmp_path, 0, "f")
    assert record["step"] == 18
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(new_model(), Line(), quick(), tmp_path, 0, "f")
    with pytest.raises(ValueError, match="another configuration"):
        fit(new_model(), Line(), quick(), tmp_path, 0, "g")


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="step 8"):
        fit(new_model(), Line(poison_at=7), quick(), tmp_path, 0, "f")
    assert [place.name for place in tmp_path.glob("step-*")] == ["step-00000006"]


def test_nothing_to_validate_is_no_reason_to_stop(tmp_path: Path) -> None:
    class Blind(Line):
        def validate(self, model: nn.Module) -> dict[str, float]:
            return {}

    record = fit(new_model(), Blind(), quick(patience=1), tmp_path, 0, "f")
    assert record["epoch"] == 6
    assert record["best"] is None


def test_early_stopping_waits_for_patience(tmp_path: Path) -> None:
    class Worse(Line):
        calls = 0

        def validate(self, model: nn.Module) -> dict[str, float]:
            self.calls += 1
            return {"score": -float(self.calls)}

    record = fit(new_model(), Worse(), quick(patience=2), tmp_path, 0, "f")
    assert record["epoch"] == 3
    assert record["best_step"] == 3


def test_limits_on_steps_and_seconds(tmp_path: Path) -> None:
    assert fit(new_model(), Line(), quick(max_steps=4), tmp_path / "a", 0, "f")["step"] == 4
    assert fit(new_model(), Line(), quick(max_seconds=1e-9), tmp_path / "b", 0, "f")["step"] <= 1


@pytest.mark.parametrize(("schedule", "middle"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)])
def test_schedules(schedule: str, middle: float) -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=10, schedule=schedule)  # type: ignore[arg-type]
    assert learning_rate(config, 0, 110) == pytest.approx(0.1)
    assert learning_rate(config, 60, 110) == pytest.approx(middle)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = new_model()
    fit(whole, Line(), quick(checkpoint_every=0), tmp_path / "a", 0, "f")
    write = checkpoint.write_tensors

    def full(path: Path, tensors: dict[str, Tensor]) -> None:
        if "step-00000008" in str(path) and path.name == "optimizer.safetensors":
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(DiskFull, match=r"step-00000008: no space left .*Make room, then give the same command"):
        fit(new_model(), Line(), quick(checkpoint_every=0), tmp_path / "b", 0, "f")
    assert [one.name for one in (tmp_path / "b").iterdir()] == ["step-00000007"]
    monkeypatch.setattr(checkpoint, "write_tensors", write)
    resumed = new_model()
    fit(resumed, Line(), quick(checkpoint_every=0), tmp_path / "b", 0, "f")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
