"""Two processes that divide a model by FSDP2 (gloo): `python -m tests.training.sharded_processes FOLDER`.

A launch on a CPU is refused, since accelerate would start two runs; here the processes have joined each other,
and accelerate is told that they are GPUs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from tests.processes import pair, status
from tests.training.test_loop import Line, quick
from torch import Tensor, nn

from pressmark import distributed
from pressmark.training.loop import fit

CONFIG = {"num_epochs": 4, "validate_every": 4, "max_grad_norm": 0.5}
CASES = {"whole": {}, "micro": {"micro_batch_size": 2}}


class Block(nn.Module):
    """A layer that uses its weights in its own forward pass alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, values: Tensor) -> Tensor:
        return values + torch.tanh(self.inner(values))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(1, 8), Block(), nn.Linear(8, 1)

    def forward(self, values: Tensor) -> Tensor:
        return self.last(self.block(self.first(values)))


class Outside(Line):
    """Uses a weight outside the model's forward pass too, as the generator does."""

    blocks = ("Block",)

    def __init__(self, die_at: int = 0) -> None:
        super().__init__()
        self.stop_at = die_at

    def after_step(self, model: nn.Module, step: int) -> None:
        if step == self.stop_at:
            raise KeyboardInterrupt

    def loss(self, model: nn.Module, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        bare = getattr(model, "module", model)
        found = model(batch) + 0.1 * bare.first.weight.sum()
        return ((found - 2 * batch) ** 2).sum(), {"mean": found.detach().mean()}


def trained(folder: Path, die_at: int = 0, **changes: object) -> dict[str, object]:
    """Losses, and what the model says in the end."""
    torch.manual_seed(0)
    model = Model()
    record = fit(model, Outside(die_at), quick(**{**CONFIG, **changes}), folder, 0, "f")
    return {"losses": record["losses"], "score": Line().validate(model)["score"]}


def divided(folder: Path, **changes: object) -> dict[str, object]:
    """`trained`, where the launcher asked for FSDP2."""
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_CPU_RAM_EFFICIENT_LOADING="false")
    os.environ.update(FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP")
    os.environ.update(FSDP_ACTIVATION_CHECKPOINTING="true")
    PartialState().distributed_type = DistributedType.MULTI_GPU
    return trained(folder, **changes)


def work(folder: Path) -> None:
    """What each of the two does."""
    distributed.start()
    found = {name: divided(folder / name, **changes) for name, changes in CASES.items()}
    try:
        divided(folder / "resumed", die_at=7, checkpoint_every=0)
    except KeyboardInterrupt:
        distributed.barrier()
    found["resumed"] = divided(folder / "resumed")
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
    distributed.barrier()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    both = pair(work, place)
    alone = {name: trained(place / "alone" / name, **changes) for name, changes in CASES.items()}
    (place / "alone.json").write_text(json.dumps(alone))
    sys.exit(status(both))
