"""What the dual tower can be told: its towers, what it reads, its negatives and losses, its training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from pressmark.settings import at_least, shares
from pressmark.training.config import TrainingConfig

Kind = Literal["auto", "flat", "ivf", "hnsw"]

View = Literal["edges", "nodes", "walk"]


def check_temperature(temperature: Any) -> None:
    """Raises ValueError unless the temperature, a number or a tensor of one, is above 0."""
    if not temperature > 0:
        raise ValueError(
            f"dual_tower.temperature is {temperature}; it must be above 0 (0.1 is a good start): "
            "cosines are divided by it."
        )


@dataclass(frozen=True)
class TextConfig:
    """The text encoder.

    Attributes:
        encoder: "" reads content vectors instead; "scratch" trains one on the catalog; else the path of a local
            Hugging Face folder, an encoder with safetensors weights and a tokenizer.json ("minilm": the
            package's).
        users: What a shopper is read as: "items", the embeddings of the history; or "text", the items' texts
            one after the other, the newest first, through the same encoder.
        length: Tokens of an item's text, or of a query, that are read.
        user_length: Tokens of a history as text.
        vocab_size: Of a tokenizer trained here.
        num_layers, width, num_heads, dropout: Of an encoder trained from scratch.
        rows_at_once: Texts whose activations are held at a time; the others are computed again on the way back
            (gradient caching). 0 holds all.
        checkpointing: Holds one layer's activations at a time.
    """

    encoder: str = ""
    users: Literal["items", "text"] = "items"
    length: int = 100
    user_length: int = 100
    vocab_size: int = 8000
    num_layers: int = 6
    width: int = 512
    num_heads: int = 8
    dropout: float = 0.1
    rows_at_once: int = 0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        at_least(
            "dual_tower.text", self, length=1, user_length=1, vocab_size=1, num_layers=1, width=1, num_heads=1
        )
        at_least("dual_tower.text", self, rows_at_once=0)
        shares("dual_tower.text", self, "dropout", below_1=True)
        if self.width % self.num_heads:
            raise ValueError(
                f"dual_tower.text.num_heads is {self.num_heads}; it must divide width ({self.width})."
            )
        if self.users == "text" and not self.encoder:
            raise ValueError(
                "dual_tower.text.users is 'text', but nothing reads text: set dual_tower.text.encoder."
            )


@dataclass(frozen=True)
class AuxiliaryConfig:
    """Weights of the auxiliary losses; 0 leaves one out.

    Attributes:
        item_views: Of two views of each target of a batch.
        user_views: Of two views of each history.
        prototypes: Of the assignment of items to prototypes.
        graph: Of two views of each target through the graph.
        masked: Share of an item's features, or of a history's items, that a view leaves out.
        num_prototypes: How many there are.
        graph_view: What a view of the graph leaves out: "edges", "nodes", or other edges on each step ("walk").
        graph_layers: Steps to neighbours of neighbours.
        temperature: Divides cosines here.
    """

    item_views: float = 0.0
    user_views: float = 0.0
    prototypes: float = 0.0
    graph: float = 0.0
    masked: float = 0.2
    num_prototypes: int = 256
    graph_view: View = "edges"
    graph_layers: int = 2
    temperature: float = 0.2

    def __post_init__(self) -> None:
        at_least("dual_tower.auxiliary", self, item_views=0, user_views=0, prototypes=0, graph=0)
        shares("dual_tower.auxiliary", self, "masked", below_1=True)
        if self.num_prototypes < 2 or self.graph_layers < 1 or not self.temperature > 0:
            raise ValueError(
                f"dual_tower.auxiliary: num_prototypes ({self.num_prototypes}) must be at least 2, "
                f"graph_layers ({self.graph_layers}) at least 1, temperature ({self.temperature}) above 0."
            )


@dataclass(frozen=True)
class Config:
    """The dual tower and its training.

    Attributes:
        dim: Width of the shared space.
        hidden_dim: Hidden units of the item tower's MLP; 0 leaves it linear.
        user_dim: Width of the user tower's transformer.
        num_layers: Its layers.
        num_heads: Its attention heads.
        identity_dropout: How often an item goes without its identity in training, 0 to 1: more helps products
            that nobody has bought yet. 1 = items are their text and nothing else.
        item_dropout: Dropout in the item tower's MLP.
        dropout: Dropout in the user tower.
        history_length: Newest items of a history that the user tower reads.
        words: Words of an item's text that are read beside its vector, each with a vector to learn; 0 = none.
        word_dropout: How often one of them is passed over in training.
        word_rate: How much faster words learn than what is beside them.
        temperature: Divides cosines.
        learn_temperature: Start there and learn it. Constant by default: a learned one shrinks and hurts.
        logq: Strength of the popularity correction of in-batch negatives, 0 to 1. More helps products that
            sell, less helps those that nobody has bought yet.
        history_negatives: Items of a user's own history count as negatives of that user.
        empty_share: First purchases, which have an empty history, for each other training sample.
        queue: Past targets kept as further negatives, as a slow copy of the item tower embeds them (MoCo).
        momentum: How much of itself the slow copy keeps a step.
        hard_negatives: Nearest wrong items of each user that are looked up as further negatives; a step then
            scores the whole catalog.
        refresh_every: Steps between two embeddings of the catalog for that.
        text: A text encoder in place of the content vectors, see `text`.
        auxiliary: Losses beside the main one.
        index: What FAISS searches with, see `index.ItemIndex`.
        training: The loop. `batch_size` is also the number of negatives; with `micro_batch_size`, that is.
    """

    dim: int = 256
    hidden_dim: int = 0
    user_dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    identity_dropout: float = 0.15
    item_dropout: float = 0.2
    dropout: float = 0.3
    history_length: int = 20
    words: int = 32
    word_dropout: float = 0.5
    word_rate: float = 4.0
    temperature: float = 0.05
    learn_temperature: bool = False
    logq: float = 1.0
    history_negatives: bool = True
    empty_share: float = 0.02
    queue: int = 0
    momentum: float = 0.995
    hard_negatives: int = 0
    refresh_every: int = 100
    text: TextConfig = field(default_factory=TextConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    index: Kind = "auto"
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            learning_rate=5.5e-4, num_epochs=8, patience=2, weight_decay=0.01
        )
    )

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        shares("dual_tower", self, "logq", "empty_share", "identity_dropout", "momentum")
        shares("dual_tower", self, "item_dropout", "dropout", "word_dropout", below_1=True)
        at_least("dual_tower", self, dim=1, user_dim=1, history_length=1, refresh_every=1)
        at_least("dual_tower", self, words=0, queue=0, hard_negatives=0)
        if not 0 < self.word_rate < math.inf:
            raise ValueError(f"dual_tower.word_rate is {self.word_rate}; it must be above 0.")
        if self.text.encoder and self.auxiliary.graph:
            raise ValueError(
                "dual_tower.auxiliary.graph embeds the whole catalog at every step; a text encoder is too slow "
                "for that: set one of dual_tower.auxiliary.graph and dual_tower.text.encoder."
            )
        if self.num_heads < 1 or self.user_dim % self.num_heads:
            raise ValueError(
                f"dual_tower.num_heads is {self.num_heads}; it must divide user_dim ({self.user_dim})."
            )
