"""A model divided over GPUs by FSDP2: each holds its part of weights, gradients and AdamW's moments.

The loop keeps the bare model beside it, whole on each process, and fills it with the divided weights when it
validates or saves. So a checkpoint is the same whatever it was trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class Whole(nn.Module):
    """A model with its loss in one forward pass: weights are together while it runs, and at no other time.

    Args:
        model: The model.
        loss: Of (model, batch).
        blocks: Names of module classes that use their weights in their own forward pass alone; they are put
            together one by one, and their activations may be forgotten and made again.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Any], blocks: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self._loss = model, loss
        # Where accelerate looks for them.
        self._no_split_modules = list(blocks)

    def forward(self, batch: Any) -> Any:
        """The loss of a batch, see `loop.Task.loss`."""
        return self._loss(self.model, batch)


class Sharded:
    """The divided copy of a model that is trained in its place.

    Args:
        accelerator: Of an FSDP2 launch.
        model: The bare model, whole on every process.
        task: See `loop.Task`; its `blocks` are those of `Whole`.
        optimizer_of: Makes the optimizer of a model.

    Raises:
        ValueError: If the task reads or changes weights outside its loss.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        task: Any,
        optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
    ) -> None:
        blocks = getattr(task, "blocks", None)
        if blocks is None:
            raise ValueError(
                f"the {task.name} is small and trains whole on each GPU: launch it with "
                "configs/accelerate/ddp.yaml. FSDP divides the generator, once the stages before it are done."
            )
        whole = Whole(copy.deepcopy(model), task.loss, blocks)
        self.module, prepared = accelerator.prepare(whole, optimizer_of(whole))
        self.optimizer: torch.optim.Optimizer = prepared.optimizer

    @torch.no_grad()
    def gather(self, into: nn.Module) -> None:
        """Copies the weights, put together, into the bare model; on all processes at once."""
        found = {_bare(name): together(value) for name, value in self.module.state_dict().items()}
        into.load_state_dict(found)


def together(value: Tensor) -> Tensor:
    """A divided tensor whole, on every process; others as they are."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def divided_as(value: Tensor, parameter: Any) -> Tensor:
    """A whole tensor divided as a parameter of its shape is; another one as it is."""
    if not hasattr(parameter, "placements") or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def _bare(name: str) -> str:
    """The bare model's name of a weight of `Whole`'s."""
    return name.replace("_checkpoint_wrapped_module.", "").removeprefix("model.")
