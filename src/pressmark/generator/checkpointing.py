"""Activation checkpointing: one layer's activations are held at a time, the others computed again."""

from __future__ import annotations

from typing import Any

from pressmark.generator.causal_t5 import CausalT5


def checkpoint_activations(model: Any) -> None:
    """Turns it on for a Hugging Face model; gradients stay the same, dropout's draws too."""
    if isinstance(model, CausalT5):
        model.checkpointing = True  # its training pass is its own
        return
    # transformers renames it on the way to version 6.
    names = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    enable = next(getattr(model, name) for name in names if hasattr(model, name))
    enable({"use_reentrant": False})
