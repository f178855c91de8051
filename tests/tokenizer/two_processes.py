"""What each of two processes does for `test_two_processes`; writes to the folder it is given.

One interpreter imports everything and forks: that takes a third of the time of a launcher with two of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.processes import pair, status
from tests.tokenizer.test_train import NUM_ITEMS, PAIRS, config, content, tree

from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.distributed import all_reduce_sum, barrier, num_processes, rank, start
from pressmark.interactions.histories import Histories
from pressmark.tokenizer.config import AgreementConfig, Config, ContrastiveConfig
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig
from pressmark.tokenizer.task import RQVAETask
from pressmark.tokenizer.train import fit_quantizer
from pressmark.training.config import TrainingConfig

SOFT = AgreementConfig(num_levels=3, temperature=10.0)
ALL = {"contrastive_weight": 1.0, "neighbour_weight": 1.0, "behaviour_weight": 1.0, "entropy_weight": 1.0}
LOSSES: dict[str, dict[str, Any]] = {
    form: {
        "codebooks": "gradient", "agreement": SOFT, **ALL,
        "contrastive": ContrastiveConfig(form=form, temperature=5.0),  # type: ignore[arg-type]
    }
    for form in ("kernel", "cosine", "agreement")
}  # fmt: skip
TRAININGS: dict[str, dict[str, Any]] = {
    "default": {},
    "by_gradient": {"codebooks": "gradient", "gradient": "rotation", "behaviour_weight": 1.0},
}


def losses_and_gradients(options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Loss and gradients of one training step, summed over processes, and the state after it."""
    changed = config(revive_every=1, revive_below=0.5, **options)
    torch.manual_seed(0)
    model = RQVAE(RQVAEConfig(content().shape[1], (6, 6, 6), (16,), 4))
    model.start(content(), "shared", seed=0)
    task = RQVAETask(content(), tree(), np.arange(NUM_ITEMS), changed, 0, PAIRS)
    share = task.plan(0)[0][rank() :: num_processes()]
    loss, _ = task.loss(model, task.collate(share, torch.device("cpu")))
    loss.backward()
    found = {"loss": all_reduce_sum(loss)}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = all_reduce_sum(parameter.grad)
    task.after_step(model, step=1)
    found |= {f"after the step {name}": value for name, value in model.state_dict().items()}
    return {name: value.detach().numpy() for name, value in found.items()}


def store() -> tuple[np.ndarray, Taxonomy, Histories]:
    """400 items of four tops and sixteen shelves with so much of their own that codes leave most of it over."""
    rng = np.random.default_rng(0)
    item = np.arange(400)
    vectors = rng.normal(size=(4, 16))[item % 4] + rng.normal(size=(16, 16))[item % 16]
    vectors = (vectors + rng.normal(size=(400, 16))).astype(np.float32)
    vectors[200:220] = vectors[:20] + 0.02
    taxonomy = build_taxonomy([((f"top{one % 4}", f"shelf{one % 16}"),) for one in item])
    return vectors, taxonomy, Histories.from_lists(rng.permutation(400).reshape(-1, 4))


def trained(options: dict[str, Any], folder: Path) -> tuple[dict[str, np.ndarray], list[float]]:
    """State and codes of a quantizer of some 60 steps, and its losses."""
    vectors, taxonomy, histories = store()
    training = TrainingConfig(
        learning_rate=1e-3, batch_size=64, num_epochs=9, validate_every=9, max_steps=60, mixed_precision="no",
        log_with="",
    )  # fmt: skip
    shape = {"level_sizes": (12, 12, 12), "hidden_sizes": (24,), "latent_dim": 8, "training": training}
    model, record = fit_quantizer(
        vectors, taxonomy, np.arange(400), Config(**shape, **options), 0, folder, histories
    )
    assert isinstance(model, RQVAE)
    found = {name: value.numpy() for name, value in model.state_dict().items()}
    return {**found, "codes": model.encode(vectors)}, record["losses"]


def everything(folder: Path) -> None:
    """Writes rank-*.npz and losses.json."""
    arrays: dict[str, np.ndarray] = {}
    losses = {}
    for name, options in LOSSES.items():
        arrays |= {f"{name}/{key}": value for key, value in losses_and_gradients(options).items()}
    for name, options in TRAININGS.items():
        state, losses[name] = trained(options, folder / name)
        arrays |= {f"{name}/{key}": value for key, value in state.items()}
    np.savez(folder / f"rank-{rank()}.npz", **arrays)  # type: ignore[arg-type]
    if rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses))


def work(folder: Path) -> None:
    """What each of the two does."""
    assert start().num_processes == 2
    everything(folder)
    barrier()


if __name__ == "__main__":
    sys.exit(status(pair(work, Path(sys.argv[1]))))
