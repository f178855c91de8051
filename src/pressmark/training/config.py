"""What a training loop can be told: length, speed, precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train.

    Attributes:
        learning_rate: Peak of AdamW's learning rate.
        weight_decay: AdamW's decay, on matrices only.
        warmup_steps: Steps of linear warm-up.
        schedule: Shape after the warm-up: "constant", or "linear" or "cosine" down to zero at the last step.
        batch_size: Samples a step, summed over all processes; where a sample is a window of several targets
            (generator.model.history_input "causal"), about so many targets.
        micro_batch_size: Samples a forward pass on one process, windows where those are samples; the rest of
            its share is accumulated. 0 means the whole share at once.
        num_epochs: Passes over the samples.
        max_steps: Stop after this many steps; 0 means no such limit.
        max_seconds: Stop after this much wall time, in seconds; 0 means no such limit.
        max_grad_norm: Gradients are clipped to this norm; 0 means no clipping.
        mixed_precision: "no"; "bf16"; "bf16_products", which keeps float32 and lets a CPU's matrix products
            round their factors; or "auto" for whichever is faster on this machine, see `precision`.
        validate_every: Epochs between validations.
        patience: Stop after this many validations without a better metric; 0 means never.
        checkpoint_every: Seconds between checkpoints.
        log_with: Trackers of accelerate, separated by commas ("tensorboard", "wandb", ...); "" for none.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    batch_size: int = 256
    micro_batch_size: int = 0
    num_epochs: int = 10
    max_steps: int = 0
    max_seconds: float = 0.0
    max_grad_norm: float = 1.0
    mixed_precision: Literal["auto", "no", "bf16", "bf16_products"] = "auto"
    validate_every: int = 1
    patience: int = 0
    checkpoint_every: float = 60.0
    log_with: str = "tensorboard"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_epochs < 1:
            raise ValueError(
                f"training: batch_size ({self.batch_size}) and num_epochs ({self.num_epochs}) must be >= 1."
            )
        if self.learning_rate <= 0:
            raise ValueError(f"training.learning_rate is {self.learning_rate}; it must be above 0.")


def decisive(config: Any) -> dict[str, Any]:
    """A stage's config as a dict, less what changes no result.

    That is when to save and where to log, and what stands at its default among the keys that the config's class
    names in `LATER`: finished runs know nothing of those.
    """
    settings, usual = asdict(config), type(config)()
    for key in getattr(config, "LATER", ()):
        if getattr(config, key) == getattr(usual, key):
            del settings[key]
    for key in ("checkpoint_every", "log_with") if "training" in settings else ():
        del settings["training"][key]
    return settings
