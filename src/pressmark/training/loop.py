"""The training loop of every stage: plan, step, validate, keep the best, survive a kill.

A stage brings a `Task`; the loop brings processes, precision, accumulation, the learning rate,
checkpoints and early stopping. It knows nothing of SIDs.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from pressmark import distributed
from pressmark.distributed import all_reduce_max, all_reduce_sum, broadcast_object
from pressmark.training.checkpoint import (
    Progress,
    load_optimizer,
    load_weights,
    optimizer_tensors,
    read_progress,
    save_checkpoint,
)
from pressmark.training.config import TrainingConfig
from pressmark.training.own import Own
from pressmark.training.precision import choose_precision, keep_memory, products, use_all_cores
from pressmark.training.sharded import Sharded


class Task(Protocol):
    """What a stage gives the loop. A batch is whatever `collate` returns.

    Attributes:
        name: For progress lines, such as "generator".
        metric: Key of `validate`'s answer that chooses the best weights, higher is better; "" keeps the last.

    A task that reads and changes weights in `loss` alone says so by `blocks`, see `sharded.Whole`, and can be
    trained divided over GPUs.
    """

    name: str
    metric: str

    def plan(self, epoch: int) -> Sequence[np.ndarray] | Sequence[Own]:
        """The epoch's global batches: int64 sample numbers, the same on every process; or as many on every
        process, each its own share. They are asked for in order."""
        ...

    def collate(self, samples: Any, device: torch.device) -> Any:
        """Tensors of these samples, which are one process's share of a batch."""
        ...

    def weight(self, batch: Any) -> float:
        """How many terms (tokens, rows) the loss of this batch sums over."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the batch's terms, and means to log. Calls `model(...)`, possibly a wrapper."""
        ...

    def after_step(self, model: nn.Module, step: int) -> None:
        """Runs after each optimizer step with the bare model, on every process alike."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Metrics of the bare model in eval mode; the same answer on every process."""
        ...


def fit(
    model: nn.Module, task: Task, config: TrainingConfig, folder: Path, seed: int, fingerprint: str
) -> dict[str, Any]:
    """Trains `model` in place and leaves it with its best weights, in eval mode.

    Args:
        model: The bare model.
        task: The stage's samples, loss and validation.
        config: Length, speed, precision.
        folder: For checkpoints and logs. A run that was killed goes on from the newest checkpoint there
            and, with the same number of processes, ends bit for bit where it would have ended.
        seed: Every step's random numbers are a function of (seed, step, rank).
        fingerprint: Of everything the result depends on; guards against a foreign checkpoint.

    Returns:
        The record of the run: `Progress` as a dict, and `num_processes`.

    Raises:
        ValueError: For a checkpoint of another run.
        LostProcess: If another process dies; the last checkpoint stays.
        DiskFull: If there is no room for a checkpoint; the one before stays.
        FloatingPointError: If a loss is not finite; the last checkpoint stays.
    """
    use_all_cores()
    keep_memory()
    accelerator, progress, place = _start(config, folder, fingerprint)
    model.to(accelerator.device)
    best = load_weights(place, model) if place else None
    optimizer_of = partial(_optimizer, config=config, device=accelerator.device)
    sharded, wrapped = None, model
    if distributed.sharding() and not progress.finished:
        sharded = Sharded(accelerator, model, task, optimizer_of)
        optimizer, wrapped = sharded.optimizer, sharded.module
    else:
        optimizer = optimizer_of(model)
    if place:
        load_optimizer(place, optimizer)
    if not sharded and not progress.finished:
        wrapped = accelerator.prepare_model(model)

    run = _Run(
        accelerator, model, wrapped, sharded, optimizer, task, config, progress, best, folder, fingerprint, seed
    )
    if not progress.finished:
        with distributed.noticing(f"{task.name} goes on from its last checkpoint in {folder}: {AGAIN}"):
            run.train()
    if run.best is not None:
        model.load_state_dict(run.best)
    model.eval()
    return {**asdict(progress), "num_processes": accelerator.num_processes, "config": asdict(config)}


ASK_EVERY = 10
"""Steps after which processes ask the first one whether it is time for a checkpoint: to ask is to wait."""
AGAIN = "give the same command again, with as many processes."


@dataclass
class _Run:
    """One call of `fit`: the loop and what it holds."""

    accelerator: Accelerator
    model: nn.Module
    wrapped: nn.Module
    sharded: Sharded | None
    optimizer: torch.optim.Optimizer
    task: Task
    config: TrainingConfig
    progress: Progress
    best: dict[str, Tensor] | None
    folder: Path
    fingerprint: str
    seed: int
    # Losses stay on the device until they are needed: reading one each step would stall a GPU.
    pending: list[Tensor] = field(default_factory=list)
    parts: dict[str, Tensor] = field(default_factory=dict)

    def train(self) -> None:
        """Runs epochs until one of the limits is reached."""
        config, progress = self.config, self.progress
        batches = self.task.plan(progress.epoch)
        # Of the first epoch, whichever this is: a run that goes on must decay as it would have.
        first = batches if progress.epoch == 0 else self.task.plan(0)
        total = config.num_epochs * max(1, len(first))
        total = min(total, config.max_steps) if config.max_steps else total
        started = time.perf_counter() - progress.seconds
        last_checkpoint = time.perf_counter()
        bar = tqdm(total=total, initial=progress.step, desc=self.task.name, unit="step", disable=self._quiet())
        while not progress.finished:
            while progress.batch < len(batches) and not self._out_of_budget(started):
                with products(progress.precision):
                    self._step(batches[progress.batch], total)
                progress.batch += 1
                progress.seconds = time.perf_counter() - started
                bar.update()
                if self._checkpoint_due(last_checkpoint):
                    self._save()
                    last_checkpoint = time.perf_counter()
            progress.epoch, progress.batch = progress.epoch + 1, 0
            over = progress.epoch >= config.num_epochs or self._out_of_budget(started)
            if over or progress.epoch % config.validate_every == 0:
                self._validate(started, total)
            patience_over = 0 < config.patience <= progress.validations_since_best
            progress.finished = over or patience_over
            if patience_over and not over and self.accelerator.is_main_process:
                since = progress.validations_since_best
                print(
                    f"{self.task.name}: no better for {since} validations, so it stops; the best is kept",
                    flush=True,
                )
            self._save()
            if not progress.finished:
                batches = self.task.plan(progress.epoch)
        bar.close()
        # Not accelerator.end_training(): that ends the process group too, and more stages may follow.
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _step(self, samples: np.ndarray | Own, total: int) -> None:
        config, progress, accelerator = self.config, self.progress, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        torch.manual_seed((self.seed * 1_000_003 + progress.step) * 4099 + rank)
        share = samples if isinstance(samples, Own) else samples[rank::world]
        # A process without samples still has to take part in the gradient's all-reduce.
        scale = float(len(share) > 0)
        share = share if len(share) else samples[:1]
        width = config.micro_batch_size or len(share)
        batches = [
            self.task.collate(share[start : start + width], accelerator.device)
            for start in range(0, len(share), width)
        ]
        local = torch.tensor(
            scale * sum(self.task.weight(batch) for batch in batches), device=accelerator.device
        )
        weight = all_reduce_sum(local)
        own = len(batches)
        if self.sharded:
            # Each forward pass puts weights together, for which all processes are needed: as many on each.
            batches += batches[-1:] * (all_reduce_max(own, accelerator.device) - own)

        self.wrapped.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.step, total)
        loss_sum = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(self.wrapped):
                if self.sharded:
                    loss, self.parts = self.wrapped(batch)
                else:
                    loss, self.parts = self.task.loss(self.wrapped, batch)
                # Processes average their gradients, so each one's sum is scaled up by their number.
                counted = scale * (number < own)
                accelerator.backward(loss * (counted * world / weight))
            loss_sum += counted * loss.detach().float()
        if config.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.wrapped.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        self.task.after_step(self.model, progress.step)
        self.pending.append(loss_sum / weight)
        if len(self.pending) >= 50:
            self._flush()

    def _flush(self) -> None:
        """Moves pending losses into the record, and stops at one that is not finite."""
        if not self.pending:
            return
        losses = all_reduce_sum(torch.stack(self.pending)).tolist()
        first = self.progress.step - len(losses) + 1
        self.pending.clear()
        for offset, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"{self.task.name}: the loss of step {first + offset} "
                    f"(epoch {self.progress.epoch}) is {loss}. "
                    f"The last good checkpoint is kept in {self.folder}. Lower training.learning_rate, "
                    "or use --*.training.mixed_precision no."
                )
        self.progress.losses.extend(losses)
        means = {name: float(value) for name, value in self.parts.items()}
        self.accelerator.log({"loss": float(np.mean(losses)), **means}, step=self.progress.step)

    def _validate(self, started: float, total: int) -> None:
        self._flush()
        progress, task = self.progress, self.task
        if self.sharded:
            self.sharded.gather(self.model)
        self.model.eval()
        with torch.no_grad():
            metrics = task.validate(self.model)
        progress.seconds = time.perf_counter() - started
        progress.validations.append(
            {"step": progress.step, "epoch": progress.epoch, "seconds": round(progress.seconds, 2), **metrics}
        )
        self.accelerator.log({f"valid/{name}": value for name, value in metrics.items()}, step=progress.step)
        value = metrics.get(task.metric)
        # Nothing measured is no reason to stop.
        progress.validations_since_best += value is not None
        if value is not None and (progress.best is None or value > progress.best):
            progress.best, progress.best_step, progress.validations_since_best = value, progress.step, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self._say(metrics, total)

    def _say(self, metrics: dict[str, float], total: int) -> None:
        if not self.accelerator.is_main_process:
            return
        progress = self.progress
        left = progress.seconds / max(1, progress.step) * (total - progress.step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        recent = float(np.mean(progress.losses[-100:] or [0.0]))
        tqdm.write(
            f"{self.task.name}: epoch {progress.epoch}/{self.config.num_epochs}  step {progress.step}/{total}  "
            f"loss {recent:.4f}  {shown}  {progress.seconds:.0f} s, at most {left:.0f} s left"
        )

    def _save(self) -> None:
        self._flush()
        if self.sharded:
            self.sharded.gather(self.model)
        # Each process has a part of them where the model is divided.
        moments = optimizer_tensors(self.optimizer)
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder, self.model, moments, self.best, self.progress, self.fingerprint)
        self.accelerator.wait_for_everyone()

    def _checkpoint_due(self, last: float) -> bool:
        """Whether to save now; the same answer on every process, whose clocks differ."""
        if self.accelerator.num_processes > 1 and self.config.checkpoint_every > 0:
            if self.progress.step % ASK_EVERY:
                return False
            return bool(broadcast_object(time.perf_counter() - last > self.config.checkpoint_every))
        return time.perf_counter() - last > self.config.checkpoint_every

    def _out_of_budget(self, started: float) -> bool:
        config, progress = self.config, self.progress
        if config.max_steps and progress.step >= config.max_steps:
            return True
        # Clocks differ between processes; the first one's decides.
        late = config.max_seconds and time.perf_counter() - started > config.max_seconds
        return bool(config.max_seconds and broadcast_object(bool(late)))

    def _quiet(self) -> bool | None:
        return None if self.accelerator.is_main_process else True


def learning_rate(config: TrainingConfig, step: int, total: int) -> float:
    """The learning rate of step `step` (from 0) out of `total`.

    >>> learning_rate(TrainingConfig(learning_rate=1.0, warmup_steps=2), 0, 10)
    0.5
    >>> learning_rate(TrainingConfig(learning_rate=1.0, warmup_steps=2), 6, 10)
    0.5
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    if config.schedule == "linear":
        return config.learning_rate * (1.0 - done)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))
    return config.learning_rate


def _start(config: TrainingConfig, folder: Path, fingerprint: str) -> tuple[Accelerator, Progress, Path | None]:
    """The accelerator, and the progress and place of a checkpoint to go on from."""
    state = distributed.start()
    found = read_progress(folder, fingerprint)
    place, progress = found if found else (None, Progress())
    if not found:
        progress.precision = broadcast_object(choose_precision(config.mixed_precision, state.device))
    log_with = [name.strip() for name in config.log_with.split(",") if name.strip()]
    # Stages that follow each other in one process may differ in precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        cpu=state.device.type == "cpu",
        mixed_precision="bf16" if progress.precision == "bf16" else "no",
        log_with=log_with or None,
        project_dir=str(folder / "logs"),
    )
    accelerator.wait_for_everyone()
    if log_with:
        accelerator.init_trackers("pressmark")
    return accelerator, progress, place


def _optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> torch.optim.AdamW:
    trained = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=device.type in {"cpu", "cuda"})
