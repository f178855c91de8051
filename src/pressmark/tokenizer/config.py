"""What the tokenizer can be told: shape, losses, batches, collisions, training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pressmark.settings import at_least
from pressmark.training.config import TrainingConfig


@dataclass(frozen=True)
class ContrastiveConfig:
    """Shape of the loss; its weight in the whole is `tokenizer.contrastive_weight`."""

    form: Literal["kernel", "cosine", "agreement"] = "kernel"
    """What similarity of codes means: see `contrastive`."""
    temperature: float = 1.0
    """Of the softmax, in the form's own unit. Lower looks at the nearest relatives only."""
    grade_power: float = 2.0
    """The graded label is (shared depth / longer path) ** this: 1 as it is, more favours the same leaf, 0
    counts every pair with a common ancestor alike."""
    level_decay: float = 0.5
    """Each level weighs this times the one before; the weights sum to 1."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.grade_power < 0 or not 0 < self.level_decay <= 1:
            raise ValueError(
                f"tokenizer.contrastive: temperature ({self.temperature}) must be above 0, grade_power "
                f"({self.grade_power}) 0 or above and level_decay ({self.level_decay}) above 0 and at most 1."
            )


@dataclass(frozen=True)
class AgreementConfig:
    """Which pairs must agree, and on how many codes."""

    num_levels: int = 2
    """First codes that pairs are asked to share."""
    level_decay: float = 0.5
    """Each longer prefix weighs this times the one before."""
    twin_cosine: float = 0.9
    """Pairs of content vectors at this cosine or above weigh 1."""
    sharpness: float = 30.0
    """A pair below it weighs exp(sharpness * (cosine - twin_cosine))."""
    min_cosine: float = 0.65
    """Pairs below it weigh nothing."""
    num_neighbours: int = 5
    """A companion in a batch is drawn from this many nearest items."""
    temperature: float = 1.0
    """Of the soft assignments, in units of 0.05 mean nearest distances."""

    def __post_init__(self) -> None:
        if self.num_levels < 1 or self.num_neighbours < 1:
            raise ValueError(
                f"tokenizer.agreement: num_levels ({self.num_levels}) and num_neighbours "
                f"({self.num_neighbours}) must be at least 1."
            )
        if not 0 < self.min_cosine <= 1 or not 0 < self.twin_cosine <= 1:
            raise ValueError(
                f"tokenizer.agreement: min_cosine ({self.min_cosine}) and twin_cosine ({self.twin_cosine}) "
                "must be above 0 and at most 1."
            )
        if self.temperature <= 0 or self.sharpness < 0 or not 0 < self.level_decay <= 1:
            raise ValueError(
                f"tokenizer.agreement: temperature ({self.temperature}) must be above 0, sharpness "
                f"({self.sharpness}) 0 or above and level_decay ({self.level_decay}) above 0 and at most 1."
            )


@dataclass(frozen=True)
class SamplerConfig:
    """How a batch is put together."""

    sibling_share: float = 0.5
    """Share of a batch drawn from the child leaves of parent categories."""
    uniform_share: float = 0.25
    """Share drawn by a plain shuffle of all items. An epoch lasts until that shuffle has shown every item once.
    What is left of the batch are the negatives. 1 gives ordinary shuffling."""
    companion_share: float = 0.25
    """Share drawn from the companions of the shuffled items, for each kind that the losses ask for: neighbours
    in content, products bought together. Taken from the negatives first, then from the siblings."""
    products_per_slot: int = 4
    """Products taken from one leaf: more make more same-leaf pairs and fewer different leaves."""
    slots_per_parent: int = 8
    """Leaves taken from one parent; further parents are drawn until the share is filled."""
    parent_size_power: float = 0.5
    """A parent is drawn with weight size ** power: 0 draws all parents alike, which shows rare ones often; 1 by
    their number of products; between is tempered."""
    leaf_size_power: float = 0.5
    """The same for leaves, among those of a parent and among negatives, so that huge leaves do not make all
    the same-leaf pairs."""
    negatives: Literal["far", "near", "any"] = "far"
    """Where a parent's negatives come from: "far", other top levels; "near", cousins: leaves of the same
    top level that are no siblings (far ones where there are none); "any", all but siblings."""
    single_child: Literal["skip", "climb"] = "skip"
    """A leaf without siblings: "skip" draws no parent for it, "climb" counts it to the nearest category above
    that has two leaves."""

    def __post_init__(self) -> None:
        if not (0 <= self.sibling_share <= 1 and 0 < self.uniform_share <= 1):
            raise ValueError(
                f"tokenizer.sampler: sibling_share ({self.sibling_share}) must lie in 0..1 and uniform_share "
                f"({self.uniform_share}) above 0 and up to 1."
            )
        if self.sibling_share + self.uniform_share > 1 and self.uniform_share < 1:
            raise ValueError(
                f"tokenizer.sampler: sibling_share ({self.sibling_share}) + uniform_share "
                f"({self.uniform_share}) is above 1; a batch cannot hold more."
            )
        if not 0 <= self.companion_share <= 0.5:
            raise ValueError(
                f"tokenizer.sampler.companion_share is {self.companion_share}; it must lie in 0..0.5."
            )
        if self.products_per_slot < 2 or self.slots_per_parent < 2:
            raise ValueError(
                f"tokenizer.sampler: products_per_slot ({self.products_per_slot}) and slots_per_parent "
                f"({self.slots_per_parent}) must be at least 2, else there are no positive pairs."
            )


@dataclass(frozen=True)
class Config:
    """The tokenizer. L = reconstruction + quantization + contrastive_weight * contrastive + agreement terms."""

    kind: Literal["rqvae", "rqkmeans", "given"] = "rqvae"
    """"rqvae" learns a space and its codes; "rqkmeans" is residual k-means on the vectors as they are; "given"
    takes the SIDs of a file, and fits codebooks to them for new products and for the generator's start."""
    given: str = ""
    """For "given": a parquet file with item_id and sid, a list of codes. Items may share a SID there."""
    level_sizes: tuple[int, ...] = (256, 256, 256, 256)
    """Codes a level, coarse to fine. No level may have more codes than there are training items."""
    hidden_sizes: tuple[int, ...] = (512,)
    """Widths of the encoder's MLP; the decoder mirrors them. Empty keeps both linear. RQ-VAE only, like all
    that follows but scaling, kmeans_iterations, balance and collisions."""
    latent_dim: int = 128
    """Width of the quantized space."""
    scaling: Literal["shared", "each"] = "shared"
    """Standardise by one scale for all dimensions, which keeps cosines, or "each" by its own."""
    contrastive_weight: float = 0.05
    """Lambda, weight of the taxonomy contrastive loss; 0 turns it off. From .2 on codes follow the tree more
    than the content, and a generator spells them less well (eval/LOG.md)."""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """Shape of the contrastive loss."""
    neighbour_weight: float = 0.0
    """Weight of the agreement loss over pairs of close content; 0 turns it off. 3 holds near duplicates on one
    first code, at a cost in reconstruction and training time."""
    behaviour_weight: float = 0.0
    """Weight of the contrastive loss with products that stood side by side in training histories as positives;
    0, the default, keeps SIDs free of behaviour. Cold items have no such pair: content places them as ever."""
    agreement: AgreementConfig = field(default_factory=AgreementConfig)
    """Shape of the agreement loss."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """How batches are drawn from the tree."""
    commitment_weight: float = 0.25
    """How strongly latents are held to their codes."""
    codebooks: Literal["ema", "gradient"] = "ema"
    """Entries are running means of the residuals that choose them, or are moved by the loss's gradient."""
    gradient: Literal["straight", "rotation"] = "straight"
    """How the decoder's gradient passes the quantizer: unchanged, or turned like the latent itself."""
    balance: tuple[float, ...] = (0.55, 0.4, 0.5)
    """How much crowded codes pay for their size while codebooks are fitted: 0 nothing (plain k-means), .5
    nearly even sizes, more breaks the codes apart. One number a level; the last holds beyond."""
    entropy_weight: float = 0.0
    """Weight of a loss that draws the batch's soft assignments to even use of each level's codes."""
    masking: float = 0.0
    """Progressive masking: share of the rows whose decoder sees only the first 1 to L codes, at random, so that
    short prefixes mean more by themselves."""
    kmeans_iterations: int = 20
    """Lloyd steps a level, for the start of the codebooks."""
    polish_iterations: int = 2
    """Lloyd steps a level on the finished latents, for the levels behind those of the agreement loss."""
    revive_below: float = 0.1
    """A code used less than this times the even share moves to the residual of a random item; 0 is never."""
    revive_every: int = 10
    """Steps between revivals."""
    collisions: Literal["relocate", "suffix"] = "relocate"
    """How every item comes to its own SID: moved to a free one at least cost, or told apart by
    a further code."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            learning_rate=1e-3,
            batch_size=512,
            num_epochs=16,
            warmup_steps=50,
            validate_every=5,
            mixed_precision="no",
        )
    )
    """Length and speed. Pairs are formed within a micro-batch: leave micro_batch_size at 0 if memory allows."""

    def __post_init__(self) -> None:
        if not self.level_sizes or min(self.level_sizes) < 1:
            rule = "every level needs 1 code or more" if self.level_sizes else "give one level at least"
            raise ValueError(f"tokenizer.level_sizes is {list(self.level_sizes)}; {rule}.")
        if (self.kind == "given") != bool(self.given):
            raise ValueError(
                f"tokenizer.kind is {self.kind!r} and tokenizer.given is {self.given!r}; a file of SIDs and "
                'the kind "given" go together.'
            )
        if self.latent_dim < 1 or any(width < 1 for width in self.hidden_sizes):
            raise ValueError(
                f"tokenizer: latent_dim ({self.latent_dim}) and hidden_sizes {self.hidden_sizes} must be > 0."
            )
        at_least("tokenizer", self, contrastive_weight=0, neighbour_weight=0, behaviour_weight=0)
        at_least("tokenizer", self, commitment_weight=0, entropy_weight=0, polish_iterations=0, revive_below=0)
        if not self.balance or not all(0 <= one <= 1 for one in self.balance) or not 0 <= self.masking <= 1:
            raise ValueError(
                f"tokenizer: balance {self.balance} must hold numbers from 0 to 1, one at least, and masking "
                f"({self.masking}) lie in 0..1."
            )
        if self.revive_every < 1 or self.kmeans_iterations < 1:
            raise ValueError(
                f"tokenizer: revive_every ({self.revive_every}) and kmeans_iterations "
                f"({self.kmeans_iterations}) must be at least 1."
            )
