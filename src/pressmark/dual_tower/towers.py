"""Two towers as a Hugging Face model: products and shoppers as unit vectors in one space.

Both towers start as the content neighbours: the item tower as the principal axes of the content vectors,
the user tower as a recency-weighted mean of the history. Training moves away from there only as far as it
pays, so products that nobody has bought keep their place among their like.

The words of a product's text have vectors of their own beside that, see `training.word_bag`: what the shop's
histories say of a brand or a line holds for a product that nobody has bought too.

A product that sells also has an identity: a vector of its own that holds what its text cannot know. It is
dropped at random in training, so that text alone has to do as well, as it must for a product without sales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from pressmark.catalog.principal_axes import principal_axes
from pressmark.dual_tower.identity import Identity
from pressmark.dual_tower.text import TextTower, joined
from pressmark.interactions.histories import Histories
from pressmark.training.word_bag import WordBag

ROWS_AT_ONCE = 4096
"""Rows of a forward pass outside training, which bounds memory for any catalog."""


class DualTowerConfig(PreTrainedConfig):
    """Shape of a `DualTower`.

    Args:
        vector_dim: D, width of the content vectors; with an encoder, tokens of a text.
        num_items: N, items in the catalog.
        dim: d, width of the shared space.
        hidden_dim: Hidden units of the item tower's MLP; 0 leaves the MLP out.
        user_dim: Width of the user tower's transformer.
        num_layers: Its layers.
        num_heads: Attention heads a layer; they divide user_dim.
        identity_dropout: How often an item goes without its identity in training; 1 = no identities.
        item_dropout: In the item tower's MLP.
        dropout: In the user tower.
        history_length: Newest items of a history that the user tower reads.
        words: W, words of a text that are read beside its vector; 0 for none.
        num_words: V, words that there are.
        word_dropout: How often a word is passed over in training.
        word_rate: See `WordBag`.
        holds_items: The model holds the embeddings of all items, as it does once trained.
        encoder: A Hugging Face encoder's configuration where the item tower reads text; see `text`.
        pad: The tokenizer's padding.
        user_length: Tokens of a history where shoppers are read as text; 0 where they are not.
        rows_at_once: See `config.TextConfig`.
        checkpointing: See `config.TextConfig`.
    """

    model_type = "pressmark_dual_tower"

    def __init__(
        self,
        vector_dim: int = 384,
        num_items: int = 0,
        dim: int = 256,
        hidden_dim: int = 0,
        user_dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        identity_dropout: float = 0.15,
        item_dropout: float = 0.2,
        dropout: float = 0.3,
        history_length: int = 20,
        words: int = 0,
        num_words: int = 0,
        word_dropout: float = 0.0,
        word_rate: float = 1.0,
        holds_items: bool = False,
        encoder: dict[str, Any] | None = None,
        pad: int = 0,
        user_length: int = 0,
        rows_at_once: int = 0,
        checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vector_dim = vector_dim
        self.num_items = num_items
        self.dim = dim
        self.hidden_dim = hidden_dim
        self.user_dim = user_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.identity_dropout = identity_dropout
        self.item_dropout = item_dropout
        self.dropout = dropout
        self.history_length = history_length
        self.words = words
        self.num_words = num_words
        self.word_dropout = word_dropout
        self.word_rate = word_rate
        self.holds_items = holds_items
        self.encoder = encoder
        self.pad = pad
        self.user_length = user_length
        self.rows_at_once = rows_at_once
        self.checkpointing = checkpointing
        super().__init__(**kwargs)


@dataclass
class DualTowerOutput(ModelOutput):
    """One training batch in the shared space.

    Attributes:
        users: (B, d) float32 of length 1.
        targets: (B, d) float32 of length 1, each user's own item.
    """

    users: Tensor | None = None
    targets: Tensor | None = None


class ItemTower(nn.Module):
    """Content -> unit vectors: a linear map of the vector, plus what starts at zero: MLP, words and identity.

    A row of content is a vector and, behind it, the numbers of the text's words.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: DualTowerConfig) -> None:
        super().__init__()
        # Persistent: transformers fills other buffers with garbage on loading.
        self.register_buffer("mean", torch.zeros(config.vector_dim))
        self.register_buffer("scale", torch.ones(()))
        self.projection = nn.Linear(config.vector_dim, config.dim)
        self.mlp: nn.Sequential | None = None
        if config.hidden_dim:
            last = nn.Linear(config.hidden_dim, config.dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = nn.Linear(config.vector_dim, config.hidden_dim)
            self.mlp = nn.Sequential(first, nn.GELU(), nn.Dropout(config.item_dropout), last)
        self.words: WordBag | None = None
        if config.words:
            self.words = WordBag(config.num_words, config.dim, config.word_dropout, config.word_rate)
        self.identity: Identity | None = None
        if config.identity_dropout < 1:
            self.identity = Identity(config.num_items, config.dim, config.identity_dropout)

    def forward(self, content: Tensor, item_index: Tensor) -> Tensor:
        """(n, D + W) float32, (n,) int64 -> (n, d) float32 of length 1; -1 is an item without an identity."""
        width = len(self.mean)
        standard = (content[:, :width] - self.mean) / self.scale
        out = self.projection(standard)
        if self.mlp is not None:
            out = out + self.mlp(standard)
        if self.words is not None:
            out = out + self.words(content[:, width:].long())
        if self.identity is not None:
            out = out + self.identity(item_index)
        return F.normalize(out.float(), dim=-1)

    @torch.no_grad()
    def start_from(self, vectors: np.ndarray) -> None:
        """Fits the standardisation to (n, D) float32 vectors and the projection to their principal axes.

        All dimensions are divided by one number, which makes the mean squared length 1 and keeps cosines.
        Dividing each by its own deviation would blow up dead dimensions: MiniLM has three.
        """
        mean = vectors.mean(axis=0, dtype=np.float64)
        length = float(np.sqrt(np.square(vectors - mean).sum(axis=1).mean()))
        axes, _ = principal_axes(vectors, mean, 1.0, self.projection.out_features)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.fill_(length if length > 1e-6 else 1.0)
        self.projection.weight.copy_(torch.from_numpy(axes))
        self.projection.bias.zero_()


class Block(nn.Module):
    """One pre-norm transformer layer; each item attends to the whole history."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.attended = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, inside: Tensor) -> Tensor:
        """(B, W, h) states and (B, W) bool, True on items, to (B, W, h)."""
        batch, width, dim = states.shape
        qkv = self.qkv(self.attention_norm(states)).view(batch, width, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=inside[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(batch, width, dim)
        states = states + self.dropout(self.attended(mixed))
        return states + self.dropout(self.mlp(self.mlp_norm(states)))


class UserTower(nn.Module):
    """A history of item embeddings -> one vector of length 1.

    A recency-weighted mean of the items plus what a small transformer adds at the newest item, which is
    zero at the start. An empty history has a learned vector.
    """

    def __init__(self, config: DualTowerConfig) -> None:
        super().__init__()
        self.input = nn.Linear(config.dim, config.user_dim)
        self.age = nn.Embedding(config.history_length, config.user_dim)
        self.input_norm, self.output_norm = nn.LayerNorm(config.user_dim), nn.LayerNorm(config.user_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config.user_dim, config.num_heads, config.dropout) for _ in range(config.num_layers)
        )
        self.output = nn.Linear(config.user_dim, config.dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        # Logits of the weights by age: each item counts 1/e of the next newer one at the start.
        self.recency = nn.Parameter(-torch.arange(config.history_length, dtype=torch.float32))
        self.empty = nn.Parameter(torch.randn(config.dim) * config.dim**-0.5)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """(B, W, d) float32 item embeddings, oldest first and left-aligned, (B,) int64 -> (B, d) float32."""
        column = torch.arange(items.shape[1], device=items.device)
        newest = (lengths - 1).clamp_min(0)
        # An empty history attends to one padded place: attention over nothing would be NaN.
        inside = column <= newest[:, None]
        age = (newest[:, None] - column).clamp_min(0)
        states = self.dropout(self.input_norm(self.input(items) + self.age(age)))
        for block in self.blocks:
            states = block(states, inside)
        last = states[torch.arange(len(items), device=items.device), newest]
        weights = self.recency[age].masked_fill(~inside, -torch.inf).softmax(dim=1)
        mean = (weights[..., None] * items).sum(dim=1)
        out = mean + self.output(self.output_norm(last)).float()
        return F.normalize(torch.where(lengths[:, None] > 0, out, self.empty), dim=-1)


def with_words(vectors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(n, D) float32 vectors, (n, W) int32 words -> (n, D + W) float32, exact for whole numbers up to 2**24."""
    return np.concatenate([vectors, words.astype(np.float32)], axis=1)


class DualTower(PreTrainedModel):
    """Item tower, user tower and, once trained, the embedding of every item of the catalog.

    What an item tower reads is called content below: (N, D + W) float32, a vector and the numbers of W words;
    or (N, W) int32 tokens.
    """

    config_class = DualTowerConfig
    main_input_name = "vectors"
    item_embeddings: Tensor
    item_tokens: Tensor

    def __init__(self, config: DualTowerConfig) -> None:
        super().__init__(config)
        self.item_tower: ItemTower | TextTower = TextTower(config) if config.encoder else ItemTower(config)
        # A parameter that no loss reaches would stop several processes.
        self.user_tower = None if config.user_length else UserTower(config)
        held = config.num_items if config.holds_items else 0
        self.register_buffer("item_embeddings", torch.zeros(held, config.dim))
        tokens = torch.zeros(held if config.user_length else 0, config.vector_dim, dtype=torch.int32)
        self.register_buffer("item_tokens", tokens, persistent=config.user_length > 0)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keeps the initialisation of the towers' own constructors."""

    def forward(
        self, vectors: Tensor, item_index: Tensor, history: Tensor, lengths: Tensor, target: Tensor
    ) -> DualTowerOutput:
        """Encodes a batch; each distinct item of it once.

        Args:
            vectors: (U, ...) content of the batch's distinct items.
            item_index: (U,) int64, which items they are.
            history: (B, W) int64 rows of `vectors`, oldest first, left-aligned, padded with -1.
            lengths: (B,) int64 items a history.
            target: (B,) int64 rows of `vectors`.
        """
        items = self.item_tower(vectors, item_index)
        users = self.users(items, vectors, history, lengths)
        return DualTowerOutput(users=users, targets=items[target])

    def users(self, items: Tensor, content: Tensor, history: Tensor, lengths: Tensor) -> Tensor:
        """(B, d) float32 of length 1.

        Args:
            items: (U, d) float32 embeddings of items.
            content: (U, D) what they were made of; read only where shoppers are text.
            history: (B, W) int64 rows of both, oldest first, left-aligned, padded with -1.
            lengths: (B,) int64 items a history.
        """
        if self.user_tower is None:
            assert isinstance(self.item_tower, TextTower)
            return self.item_tower(joined(content, history, self.config.user_length, self.config.pad))
        return self.user_tower(items[history.clamp_min(0)], lengths)

    @torch.no_grad()
    def embed_items(self, vectors: np.ndarray) -> Tensor:
        """Content of the whole catalog -> (N, d) float32 of length 1.

        Raises:
            ValueError: If the model was made for vectors of another width or for another catalog.
        """
        expected = (self.config.num_items, self.config.vector_dim + self.config.words)
        if vectors.shape != expected:
            raise ValueError(
                f"vectors have shape {vectors.shape}; this dual tower reads {expected}: items, width. It was "
                "trained on another catalog or other text vectors: embed as before, or train it again."
            )
        return self._embed(vectors, np.arange(len(vectors)))

    @torch.no_grad()
    def embed_new(self, vectors: np.ndarray, words: np.ndarray | None = None) -> Tensor:
        """Products that the model was not trained with, (n, D) vectors -> (n, d) float32 of length 1.

        Args:
            vectors: Or tokens, of a model that reads text.
            words: (n, W) int32 of a model that reads words; None for none.

        Raises:
            ValueError: If the vectors are of another width, or not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.config.vector_dim:
            raise ValueError(
                f"vectors have shape {vectors.shape}; this dual tower reads vectors of width "
                f"{self.config.vector_dim}: embed new products as the others were."
            )
        if len(rows := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            raise ValueError(f"the vector of new product {rows[0]} holds a number that is not finite.")
        if self.config.words:
            none = np.zeros((len(vectors), self.config.words), np.int32)
            vectors = with_words(vectors, none if words is None else words)
        return self._embed(vectors, np.full(len(vectors), -1))

    def _embed(self, vectors: np.ndarray, item_index: np.ndarray) -> Tensor:
        parts = [torch.empty(0, self.config.dim, device=self.device)]
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            chunk = torch.from_numpy(np.ascontiguousarray(vectors[rows])).to(self.device)
            parts.append(self.item_tower(chunk, torch.from_numpy(item_index[rows]).to(self.device)))
        return torch.cat(parts)

    @torch.no_grad()
    def embed_users(
        self, histories: Histories, item_embeddings: Tensor, content: Tensor | None = None
    ) -> Tensor:
        """B histories and (N, d) embeddings of all items -> (B, d) float32 of length 1.

        Args:
            histories: Of items 0 to N - 1.
            item_embeddings: (N, d) float32.
            content: (N, D) of all items, read where shoppers are text; None takes what the model holds of it.
        """
        content = self.item_tokens if content is None else content
        items, lengths = histories.newest(self.config.history_length)
        items = items[:, : max(1, int(lengths.max(initial=0)))]
        parts = [torch.empty(0, self.config.dim, device=self.device)]
        for start in range(0, len(items), ROWS_AT_ONCE):
            rows = torch.from_numpy(items[start : start + ROWS_AT_ONCE]).to(self.device)
            length = torch.from_numpy(lengths[start : start + ROWS_AT_ONCE]).to(self.device)
            parts.append(self.users(item_embeddings, content, rows, length))
        return torch.cat(parts)

    @torch.no_grad()
    def hold_items(self, vectors: np.ndarray) -> None:
        """Embeds the whole catalog, (N, D) content, and keeps it, so that recommending needs no vectors."""
        self.item_embeddings = self.embed_items(vectors)
        if self.config.user_length:
            self.item_tokens = torch.from_numpy(vectors).to(self.device)
        self.config.holds_items = True
