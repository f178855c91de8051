"""What SASRec can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from pressmark.settings import at_least, shares
from pressmark.training.config import TrainingConfig


@dataclass(frozen=True)
class Config:
    """SASRec and its training.

    Attributes:
        dim: Width of items and states.
        num_layers: Transformer layers.
        num_heads: Attention heads a layer; they divide dim.
        dropout: Everywhere.
        history_length: Newest items of a history that it reads.
        training: Length and speed; a sample is a window of at most history_length + 1 targets.
    """

    dim: int = 96
    num_layers: int = 1
    num_heads: int = 4
    dropout: float = 0.4
    history_length: int = 50
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            learning_rate=4e-3, batch_size=64, num_epochs=10, patience=4, weight_decay=0.05
        )
    )

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.dim < 1 or self.dim % self.num_heads:
            raise ValueError(f"sasrec.num_heads is {self.num_heads}; it must divide sasrec.dim ({self.dim}).")
        at_least("sasrec", self, history_length=1)
        shares("sasrec", self, "dropout", below_1=True)
