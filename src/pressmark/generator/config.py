"""What the generator can be told: its size, how a backbone is fitted, its losses, its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pressmark.settings import at_least, shares
from pressmark.training.config import TrainingConfig

Normalizer = Literal["full", "level", "trie"]

HistoryInput = Literal["tokens", "items", "causal"]

SCRATCH = "scratch"


@dataclass(frozen=True)
class ModelConfig:
    """Size of the model; the defaults are TIGER's (about 4.6 M parameters with 4 x 256 codes).

    Attributes:
        num_layers: Encoder layers.
        num_decoder_layers: Decoder layers; 0 means as many as the encoder has.
        num_heads: Attention heads.
        d_kv: Width of one head.
        d_model: Width of the residual stream and of a sid_token's vector.
        d_ff: Inner width of the feed-forward layers.
        feed_forward: "relu" is T5's feed-forward layer, "gated-gelu" that of T5 1.1.
        dropout: T5's dropout, everywhere that T5 has it; "causal" drops no attention weights.
        history_input: "causal" gives an item one encoder position, the sum of its tokens' vectors, and lets it
            look back only: every next item of a sequence is trained in one pass, see `causal_t5`. "items" has
            a plain T5 read such positions, and "tokens" L positions an item, as TIGER does.
        token_start: "codebooks" starts a sid_token's vector from its codebook entry, so that near codes are
            near from the first step; "random" draws it, as TIGER does.
        content: Read the items' content vectors beside their codes; with history_input "causal" alone.
        identity_dropout: How often an item goes without its identity in training, 0 to 1: the vector of its own
            that it has beside its text and its codes. More helps products that nobody has bought yet; 1 = items
            are their text and codes and nothing else, which saves d_model numbers an item. With content alone.
        words: Words of an item's text that are read beside its vector, each with a vector to learn; 0 = none.
            With content alone.
        word_dropout: How often one of them is passed over in training.
        word_rate: How much faster words learn than what is beside them.
        popularity_prior: What an item's score in the item head gains in training for each e-fold of its
            interactions: vectors then need not say what sells anyway, and say more of what sells little.
            Answers take back as much of it as pays, see `Config.popularity_discounts`.
        guided: Let the decoder start from what the item head says of the whole catalog, see `item_head`; with
            history_input "causal" and normalizer "trie" alone. Every product is scored for every shopper, as
            a dual tower without an index does it; turn it off where that is too much.
        normalizer: What a code competes with, in training and in answers: "trie" those that lead to an item,
            "level" its level's, "full" the whole vocabulary, as TIGER and HF have it. See `losses.CodeLoss`.
    """

    num_layers: int = 4
    num_decoder_layers: int = 0
    num_heads: int = 6
    d_kv: int = 64
    d_model: int = 128
    d_ff: int = 1024
    feed_forward: Literal["relu", "gated-gelu"] = "relu"
    dropout: float = 0.1
    history_input: HistoryInput = "causal"
    token_start: Literal["codebooks", "random"] = "codebooks"
    content: bool = True
    identity_dropout: float = 0.3
    words: int = 32
    word_dropout: float = 0.3
    word_rate: float = 2.0
    popularity_prior: float = 0.3
    guided: bool = True
    normalizer: Normalizer = "trie"

    def __post_init__(self) -> None:
        at_least("generator.model", self, popularity_prior=0)
        shares("generator.model", self, "identity_dropout")
        if self.words < 0 or not 0 <= self.word_dropout < 1 or not 0 < self.word_rate < float("inf"):
            raise ValueError(
                f"generator.model.words is {self.words}, word_dropout {self.word_dropout} and word_rate "
                f"{self.word_rate}; they must be 0 or above, from 0 to below 1, and above 0."
            )


@dataclass(frozen=True)
class LoraConfig:
    """LoRA's size.

    Attributes:
        rank: Of the matrices beside each linear layer but the output head.
        alpha: Their product is scaled by alpha / rank.
        dropout: On what goes into them.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"generator.finetune.lora: rank is {self.rank} (at least 1), alpha {self.alpha} (above 0), "
                f"dropout {self.dropout} (from 0 to below 1)."
            )


@dataclass(frozen=True)
class PromptConfig:
    """What a prompt shows beside the SIDs of a history.

    Attributes:
        titled_items: Newest items of the history whose titles follow their SIDs; 0 shows SIDs alone.
        title_tokens: Text tokens of such a title.
        cart_share: How often, 0 to 1, training shows the newest of a history as a current cart instead, one
            item or several; drawn like dropout. A model trained at 0 answers no request with a cart.
        cart_length: Items of a cart that are read: the newest ones.
    """

    titled_items: int = 0
    title_tokens: int = 12
    cart_share: float = 0.0
    cart_length: int = 5

    def __post_init__(self) -> None:
        shares("generator.finetune.prompt", self, "cart_share")
        at_least("generator.finetune.prompt", self, titled_items=0, title_tokens=1, cart_length=1)


@dataclass(frozen=True)
class AlignmentConfig:
    """What is mixed in: products' texts to SIDs and back.

    Attributes:
        content_to_sid: Weight of a product's SID told from its text, beside a target told from its history; 0
            leaves the task out.
        sid_to_content: Weight of its text told from its SID; a whole text weighs as much as a whole SID.
        share: Products of each task in a batch, as a share of its samples.
        text_tokens: Text tokens of a product that are read or told.
        cold_items: Whether products that nobody may have bought in training take part, with their text and SID;
            the run's metrics.json says so. What they are bought after stays hidden.
    """

    content_to_sid: float = 0.0
    sid_to_content: float = 0.0
    share: float = 0.25
    text_tokens: int = 24
    cold_items: bool = False

    def __post_init__(self) -> None:
        at_least("generator.finetune.alignment", self, content_to_sid=0, sid_to_content=0)
        if not 0 < self.share <= 1 or self.text_tokens < 1:
            raise ValueError(
                f"generator.finetune.alignment: share is {self.share} (above 0, up to 1), text_tokens "
                f"{self.text_tokens} (at least 1)."
            )

    @property
    def kinds(self) -> list[int]:
        """The tasks that are mixed in, numbered as in `alignment`."""
        return [kind for kind, weight in enumerate((self.content_to_sid, self.sid_to_content)) if weight]


@dataclass(frozen=True)
class FinetuneConfig:
    """How a backbone is fitted to SIDs; read where `generator.backbone` names a folder.

    Attributes:
        tuning: "full" trains every weight; "lora" small matrices beside them and the new tokens' rows.
        lora: Its size.
        save: "merged" writes whole weights, "adapter" what LoRA learnt alone: the base must stay where it is.
        token_start: "codebooks" starts a sid_token's row from its codebook entry, in the scale of the rows that
            are there; "random" draws it in that scale.
        prompt: What the model reads beside the SIDs of a history.
        alignment: Products' texts to SIDs and back, mixed in.
    """

    tuning: Literal["full", "lora"] = "full"
    lora: LoraConfig = field(default_factory=LoraConfig)
    save: Literal["merged", "adapter"] = "merged"
    token_start: Literal["codebooks", "random"] = "codebooks"
    prompt: PromptConfig = field(default_factory=PromptConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def __post_init__(self) -> None:
        if self.save == "adapter" and self.tuning != "lora":
            raise ValueError("generator.finetune.save is 'adapter'; only tuning 'lora' learns one.")


@dataclass(frozen=True)
class Config:
    """What the generator is and how it learns.

    Attributes:
        model: Its size.
        training: Length, speed and precision of training.
        stream: Folder of parquet shards with the histories to train on, where they are larger than memory: a
            column `history` with a list of item ids (or item_index) a row, see `history_shards`. They take the
            place of data/train.parquet. Empty trains on the latter. What the split hides must not be there,
            which is checked; nor must the targets of validation and test cases, which is not.
        stream_buffer: Histories of a stream that are shuffled and bucketed by length together, on each process.
        backbone: "scratch" trains the T5 that `model` describes; else a local Hugging Face folder of an
            encoder-decoder (T5, mT5, BART, ...), whose vocabulary gains the sid_tokens. Of `model` it reads the
            normalizer alone, and it has no item head, so that there is no hybrid.
        finetune: How a backbone is fitted; read where there is one.
        checkpointing: Hold one layer's activations at a time and compute the others again on the way back.
        init_from: Run folder whose generator it goes on from, over the same codebooks: for nightly retraining,
            or a catalog that has grown; its data/items.parquet says whose the identities are. The vectors must
            be of the same embedding, and its data/train.parquet must hold nothing that this split hides; what
            that run streamed, or itself went on from, is not checked. Empty starts afresh.
        history_length: Items of history that it reads: the newest ones.
        item_loss: Weight of the item head's loss of a target beside the sum of its codes'; 0 leaves it out. It
            needs an encoder state in front of each target: history_input "causal" alone has them.
        item_loss_others: Items that it compares a target with, drawn at each step, where the decoder is not
            guided by the head (a guided one scores all); 0 takes all.
        empty_histories: Train on each user's first item too, behind an empty history.
        repeat_targets: Train on items that the user had before; false saves time where the history is
            masked from the answers anyway.
        popularity_discounts: How much of an item's popularity in training answers take back: its score loses so
            much for each e-fold of interactions. Of these the best in validation is saved with the model, where
            it is `model.guided`: what sells next is less what sold most than a model trained on the past says.
            Validation during training takes nothing back.
        beam: Beams a user when recommending.
        valid_beam: Beams a user in validation during training.
        num_valid_cases: Validation cases looked at during training, drawn by seed; 0 takes all.
        mask_history: Validate with the history's items removed from the answers, and without the cases
            whose target is among them.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(learning_rate=1e-3, warmup_steps=200, num_epochs=20, patience=5)
    )
    stream: str = ""
    stream_buffer: int = 65_536
    backbone: str = SCRATCH
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    checkpointing: bool = False
    init_from: str = ""
    history_length: int = 20
    item_loss: float = 2.0
    item_loss_others: int = 2048
    empty_histories: bool = True
    repeat_targets: bool = True
    popularity_discounts: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    beam: int = 50
    valid_beam: int = 20
    num_valid_cases: int = 2000
    mask_history: bool = True

    LATER: ClassVar[tuple[str, ...]] = ("stream", "stream_buffer", "backbone", "finetune", "checkpointing")
    """See `training.config.decisive`."""

    def __post_init__(self) -> None:
        if self.backbone != SCRATCH and self.init_from:
            raise ValueError(
                f"generator.init_from is {self.init_from!r} and generator.backbone {self.backbone!r}: to go on "
                "from a backbone that was trained here, give its run's generator folder as generator.backbone."
            )
        if not self.backbone:
            raise ValueError(
                "generator.backbone is empty; it must be 'scratch' or a local Hugging Face folder."
            )
        if self.backbone == SCRATCH and self.finetune != FinetuneConfig():
            raise ValueError(
                "generator.finetune is how a backbone is fitted, and generator.backbone is 'scratch': name a "
                "backbone's folder, or leave generator.finetune out."
            )
        if not self.stream and self.stream_buffer != Config.stream_buffer:
            raise ValueError(
                f"generator.stream_buffer is {self.stream_buffer} and there is no generator.stream: name the "
                "folder of the shards, or leave it out."
            )
        if self.backbone != SCRATCH and self.stream:
            raise ValueError(
                f"generator.stream is {self.stream!r} and generator.backbone {self.backbone!r}: a backbone "
                "trains on data/train.parquet alone."
            )
        at_least("generator", self, history_length=1, beam=1, valid_beam=1, stream_buffer=1)
        at_least("generator", self, item_loss=0, item_loss_others=0)
        if not self.popularity_discounts or min(self.popularity_discounts) < 0:
            raise ValueError(
                f"generator.popularity_discounts is {self.popularity_discounts}; it must hold numbers from 0 "
                "on, [0.0] for none."
            )
