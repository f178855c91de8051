"""What the tokenizer can be told: shape, losses, batches, collisions, training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pressmark.tokenizer import contrastive, sampler
from pressmark.training import loop


@dataclass(frozen=True)
class Config:
    """The tokenizer. L = reconstruction + quantization + contrastive_weight * contrastive."""

    kind: Literal["rqvae", "rqkmeans"] = "rqvae"
    """"rqvae" learns a space and its codes; "rqkmeans" is residual k-means on the vectors as they are."""
    level_sizes: tuple[int, ...] = (256, 256, 256, 256)
    """Codes a level, coarse to fine. No level may have more codes than there are training items."""
    hidden_sizes: tuple[int, ...] = (256,)
    """Widths of the encoder's MLP; the decoder mirrors them. Empty keeps both linear. RQ-VAE only, like all
    that follows but scaling, kmeans_iterations and collisions."""
    latent_dim: int = 128
    """Width of the quantized space."""
    scaling: Literal["shared", "each"] = "shared"
    """Standardise by one scale for all dimensions, which keeps cosines, or "each" by its own."""
    commitment_weight: float = 0.25
    """How strongly latents are held to their codes, beside codes drawn to latents."""
    contrastive_weight: float = 0.01
    """Lambda, weight of the taxonomy contrastive loss; 0 turns it off."""
    contrastive: contrastive.Config = field(default_factory=contrastive.Config)
    """Shape of the contrastive loss."""
    sampler: sampler.Config = field(default_factory=sampler.Config)
    """How batches are drawn from the tree."""
    kmeans_iterations: int = 20
    """Lloyd steps a level, for the start of the codebooks."""
    revive_below: float = 0.1
    """A code used less than this times the even share moves to the residual of a random item; 0 is never."""
    revive_every: int = 10
    """Steps between revivals."""
    collisions: Literal["relocate", "suffix"] = "relocate"
    """How every item comes to its own SID: moved to a free one at least cost, or told apart by
    a further code."""
    training: loop.Config = field(
        default_factory=lambda: loop.Config(
            learning_rate=1e-3, batch_size=512, num_epochs=20, validate_every=5, mixed_precision="no"
        )
    )
    """Length and speed. Pairs are formed within a micro-batch: leave micro_batch_size at 0 if memory allows."""

    def __post_init__(self) -> None:
        if not self.level_sizes or min(self.level_sizes) < 1:
            raise ValueError(f"tokenizer.level_sizes is {self.level_sizes}; give one level at least.")
        if self.latent_dim < 1 or any(width < 1 for width in self.hidden_sizes):
            raise ValueError(
                f"tokenizer: latent_dim ({self.latent_dim}) and hidden_sizes {self.hidden_sizes} must be > 0."
            )
        for name in ("commitment_weight", "contrastive_weight", "revive_below"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"tokenizer.{name} is {getattr(self, name)}; it must be 0 or above.")
        if self.revive_every < 1 or self.kmeans_iterations < 1:
            raise ValueError(
                f"tokenizer: revive_every ({self.revive_every}) and kmeans_iterations "
                f"({self.kmeans_iterations}) must be at least 1."
            )
