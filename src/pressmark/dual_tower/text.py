"""The item tower that reads text itself: one transformer for products, shoppers and queries.

Its tokenizer is trained on the catalog, or it goes on from a local pretrained folder. A product is a row of
tokens; a shopper may be one too, the newest product first; and so is whatever somebody types.

Source: CLIP-like dual towers for product terms share one encoder so: 6 layers, 512 dimensions, 100 tokens. Gao
et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", for gradient caching.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel, BertConfig

from pressmark.dual_tower.config import TextConfig
from pressmark.dual_tower.identity import Identity

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from pressmark.dual_tower.towers import DualTowerConfig

PAD, UNKNOWN = "[PAD]", "[UNK]"
PADS = (PAD, "<pad>")
"""What tokenizers call their padding."""
BEHIND_PADDING = {"roberta", "xlm-roberta", "mpnet", "camembert"}
GROUPS = 4
"""Of like length that a batch of texts is read in: padding costs as much as words."""


def tokenizer_of(config: TextConfig, texts: Sequence[str]) -> Tokenizer:
    """The tokenizer of a pretrained folder, or one of byte pairs trained on texts.

    Raises:
        ValueError: If the folder has none, it has no padding token, or there is not a word in the texts.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if config.encoder != "scratch":
        path = _folder(config) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"dual_tower.text.encoder: {path} is missing; save the tokenizer as a fast one.")
        found = Tokenizer.from_file(str(path))
        found.no_padding()
        found.no_truncation()
        return found
    if not any(text.strip() for text in texts):
        raise ValueError(
            "dual_tower.text.encoder is 'scratch', and no item that may be fitted on has any text."
        )
    # Nothing marks what goes on within a word: with prefixes or suffixes the same texts give another vocabulary
    # each time, and a training that goes on after a kill would read another language.
    found = Tokenizer(models.BPE(unk_token=UNKNOWN))
    found.normalizer = normalizers.BertNormalizer()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    found.train_from_iterator(texts, trainer)
    return found


def pad_of(tokenizer: Tokenizer) -> int:
    """The number of the token that stands for nothing."""
    for name in PADS:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    raise ValueError(f"dual_tower.text.encoder: its tokenizer has no padding token ({' or '.join(PADS)}).")


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> np.ndarray:
    """(n, length) int32 tokens of texts, cut off there and padded behind."""
    rows = np.full((len(texts), length), pad_of(tokenizer), np.int32)
    for row, one in enumerate(tokenizer.encode_batch(list(texts))):
        ids = one.ids[:length]
        rows[row, : len(ids)] = ids
    return rows


def encoder_config(config: TextConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What `DualTowerConfig.encoder` holds of it.

    Raises:
        ValueError: If the folder holds no encoder, or one of fewer positions than are asked for.
    """
    longest = max(config.length, config.user_length if config.users == "text" else 0)
    if config.encoder != "scratch":
        found = AutoConfig.from_pretrained(_folder(config), local_files_only=True).to_dict()
        if found.get("is_encoder_decoder") or found.get("is_decoder"):
            raise ValueError(
                f"dual_tower.text.encoder {config.encoder}: {found.get('model_type')} is no encoder alone."
            )
        # RoBERTa and its kin count positions from behind the padding's number.
        most = found.get("max_position_embeddings")
        behind = pad_of(tokenizer) + 1 if found.get("model_type") in BEHIND_PADDING else 0
        if most is not None and longest > most - behind:
            raise ValueError(
                f"dual_tower.text.length (or user_length) is {longest}; the encoder of {config.encoder} has "
                f"{most - behind} positions."
            )
        return {**found, "dtype": "float32"}
    made = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=4 * config.width,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        max_position_embeddings=longest,
        pad_token_id=pad_of(tokenizer),
        type_vocab_size=1,
    )
    return dict(made.to_dict())


def _folder(config: TextConfig) -> Path:
    from pressmark.catalog.text_models import model_folder

    return model_folder(config.encoder)


class TextTower(nn.Module):
    """Tokens -> unit vectors: a transformer's mean over a text's tokens, and an identity that starts at zero.

    Args:
        config: The dual tower's; `encoder` and `vector_dim`, the tokens of a row, are of this tower.

    Attributes:
        groups: Of like length that a batch is read in.
    """

    def __init__(self, config: DualTowerConfig) -> None:
        super().__init__()
        assert config.encoder is not None
        self.encoder = AutoModel.from_config(AutoConfig.for_model(**config.encoder))
        # BERT's and its kin's is made for something else, and parameters that no loss reaches stop processes.
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        self.pad, self.groups = config.pad, GROUPS
        self.projection = nn.Linear(self.encoder.config.hidden_size, config.dim)
        self.rows_at_once = config.rows_at_once
        if config.checkpointing:
            # transformers renames it on the way to version 6.
            names = "activation_checkpointing_enable", "gradient_checkpointing_enable"
            enable = next(getattr(self.encoder, name) for name in names if hasattr(self.encoder, name))
            enable({"use_reentrant": False})
        self.identity: Identity | None = None
        if config.identity_dropout < 1:
            self.identity = Identity(config.num_items, config.dim, config.identity_dropout)

    def load_encoder(self, folder: Path) -> None:
        """Takes the weights of a local pretrained folder.

        Raises:
            ValueError: If some are missing.
        """
        found = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        missing, _ = self.encoder.load_state_dict(found.state_dict(), strict=False)
        if missing:
            raise ValueError(f"dual_tower.text.encoder {folder}: no weights for {missing[0]}.")

    def forward(self, tokens: Tensor, item_index: Tensor | None = None) -> Tensor:
        """(n, W) integer tokens, and (n,) int64 items, -1 without an identity -> (n, d) float32 of length 1."""
        out = self.projection(self._texts(tokens.long()))
        if self.identity is not None and item_index is not None:
            out = out + self.identity(item_index)
        return F.normalize(out.float(), dim=-1)

    def _texts(self, tokens: Tensor) -> Tensor:
        """(n, W) -> (n, width): texts of like length together, some at a time where that is asked for."""
        # Up to the last token: a view of a text has gaps.
        column = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        lengths = ((tokens != self.pad) * column).amax(1)
        order = lengths.argsort(stable=True)
        groups = self.groups if len(tokens) >= 16 * self.groups else 1
        size = max(1, -(-len(tokens) // groups))
        if self.rows_at_once:
            size = min(size, self.rows_at_once)
        parts = []
        for rows in order.split(size):
            some = tokens[rows, : max(1, int(lengths[rows].max()))]
            if self.rows_at_once and self.training:
                # Only the result is held; the way back reads these texts a second time.
                parts.append(checkpoint(self._mean, some, use_reentrant=False))
            else:
                parts.append(self._mean(some))
        if not parts:
            return self.projection.weight.new_zeros(0, self.projection.in_features)
        return torch.cat(parts)[order.argsort()]

    def _mean(self, tokens: Tensor) -> Tensor:
        inside = tokens != self.pad
        # A text without a word attends to its first place: attention over nothing would be NaN.
        attended = inside.clone()
        attended[:, 0] = True
        states = self.encoder(input_ids=tokens, attention_mask=attended.long()).last_hidden_state
        weight = inside[..., None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def joined(tokens: Tensor, history: Tensor, length: int, pad: int) -> Tensor:
    """Histories as texts: (U, W) tokens of items, (B, H) rows of them padded with -1 -> (B, length).

    The newest item stands first, so that what is cut off is the oldest.
    """
    rows = tokens[history.clamp_min(0)].masked_fill((history < 0)[..., None], pad)  # (B, H, W)
    flat = F.pad(rows.flip(1).flatten(1), (0, length), value=pad)
    order = (flat == pad).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
    return flat.gather(1, order)
