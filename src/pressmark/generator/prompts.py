"""What a backbone reads: a context token, a history and a cart as sid_tokens, titles and words between.

    <context_3> history : <sid_0_35> <sid_1_7> <sid_2_120> ... cart : <sid_0_9> ... </s>

Prompts are put together from numbers on the device; no text is tokenized on the way, where a space too many
between two sid_tokens would be a token of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pressmark.generator.config import PromptConfig
from pressmark.sids.vocabulary import NUM_SPECIAL

HISTORY, CART, CONTENT, SPELLED = "history:", "cart:", "product:", "title of"
"""The words in front of a history, of a cart, of a product's text and of its SID."""
NOTHING = -1


@dataclass(frozen=True)
class Words:
    """The numbers of a backbone's vocabulary that prompts are made of.

    Attributes:
        first_sid: Of code 0 of level 0; the other sid_tokens follow, level after level.
        first_context: Of the first context; the others follow.
        contexts: The contexts, such as stores, in the order of their tokens.
        pad, eos: Of the text tokenizer.
        phrases: The tokens of each of the fixed words.
    """

    first_sid: int
    first_context: int
    contexts: tuple[str, ...]
    pad: int
    eos: int
    phrases: dict[str, list[int]]

    def numbers(self, context: np.ndarray | None, num: int) -> np.ndarray:
        """(num,) int64 numbers of contexts (num,) object str, `NOTHING` for "" and where there are none.

        Raises:
            ValueError: For a context that training has not seen, naming it.
        """
        if context is None or not self.contexts:
            return np.full(num, NOTHING, np.int64)
        number = {"": NOTHING, **{one: place for place, one in enumerate(self.contexts)}}
        unknown = next((one for one in context if one not in number), None)
        if unknown is not None:
            shown = ", ".join(map(repr, self.contexts[:8])) + (", ..." if len(self.contexts) > 8 else "")
            raise ValueError(
                f"context {unknown!r} is unknown; this generator was trained on {shown}. '' is none."
            )
        return np.array([number[one] for one in context], np.int64)


@dataclass(frozen=True)
class Asked:
    """B shoppers as arrays.

    Attributes:
        items: (B, W) int64 item_index of the histories, oldest first, padded with -1 on the right.
        lengths: (B,) int64.
        context: (B,) int64 numbers, `NOTHING` for none; None for none at all.
        cart: (B, C) int64 item_index, padded with -1; None for no carts.
    """

    items: Tensor
    lengths: Tensor
    context: Tensor | None = None
    cart: Tensor | None = None


@dataclass(frozen=True)
class Prompts:
    """Makes prompts.

    Attributes:
        words: Numbers of the vocabulary.
        config: What they show.
        titles: (N, T) int64 text tokens of the items' titles, `NOTHING` behind; None where none are shown.
            Items behind those have no title.
    """

    words: Words
    config: PromptConfig
    titles: Tensor | None = None

    @property
    def reads(self) -> frozenset[str]:
        """What of a request is read beside its history."""
        context = {"context"} if self.words.contexts else set()
        return frozenset(context | ({"cart"} if self.config.cart_share else set()))

    def to(self, device: torch.device | str) -> Prompts:
        """These on a device."""
        return self if self.titles is None else replace(self, titles=self.titles.to(device))

    def longest(self, history_length: int, num_levels: int) -> int:
        """Tokens of the longest prompt."""
        titles = min(history_length, self.config.titled_items) * self.config.title_tokens
        carts = len(self._phrase(CART)) + self.config.cart_length * num_levels if self.config.cart_share else 0
        return 2 + len(self._phrase(HISTORY)) + history_length * num_levels + titles + carts

    def of(self, tokens: Tensor, asked: Asked) -> tuple[Tensor, Tensor]:
        """Prompts of shoppers.

        Args:
            tokens: (N + 1, L) int64 sid_tokens from `model.item_tokens`; the last row is that of no item.
            asked: Histories, contexts and carts.

        Returns:
            input_ids: (B, S) int64, padded on the right.
            attention_mask: (B, S) int64.
        """
        num = len(asked.items)
        parts = []
        if asked.context is not None:
            number = asked.context[:, None]
            parts.append(torch.where(number < 0, NOTHING, number + self.words.first_context))
        parts += [self._column(HISTORY, asked.items), self._items(tokens, asked)]
        if asked.cart is not None and asked.cart.shape[1]:
            phrase = self._column(CART, asked.items)
            there = (asked.cart >= 0).any(1, keepdim=True)
            parts += [torch.where(there, phrase, NOTHING), self.spelled(tokens, asked.cart).flatten(1)]
        return self.joined([one.reshape(num, -1) for one in parts])

    def spelled(self, tokens: Tensor, items: Tensor) -> Tensor:
        """(..., L) int64 the backbone's numbers of items (...), `NOTHING` for -1."""
        return (tokens[items] + self.words.first_sid - NUM_SPECIAL).masked_fill(items[..., None] < 0, NOTHING)

    def joined(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Parts (B, any), side by side without the `NOTHING` among them and with EOS behind, and the mask."""
        flat = torch.cat([*parts, torch.full_like(parts[0][:, :1], self.words.eos)], 1)
        inside = flat != NOTHING
        width = int(inside.sum(1).max())
        order = (~inside).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        mask = inside.gather(1, order)
        return flat.gather(1, order).masked_fill(~mask, self.words.pad), mask.long()

    def phrased(self, name: str, like: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts of a fixed phrase and parts (B, any) behind it, see `joined`."""
        return self.joined([self._column(name, like), *parts])

    def _items(self, tokens: Tensor, asked: Asked) -> Tensor:
        """(B, any) the histories, the newest with their titles."""
        spelled = self.spelled(tokens, asked.items)  # (B, W, L)
        if self.titles is None or not self.config.titled_items:
            return spelled.flatten(1)
        column = torch.arange(asked.items.shape[1], device=asked.items.device)
        newest = column >= asked.lengths[:, None] - self.config.titled_items
        known = (asked.items >= 0) & (asked.items < len(self.titles)) & newest
        titles = self.titles[torch.where(known, asked.items, 0)].masked_fill(~known[..., None], NOTHING)
        return torch.cat([spelled, titles], 2).flatten(1)

    def _phrase(self, name: str) -> list[int]:
        return self.words.phrases[name]

    def _column(self, name: str, like: Tensor) -> Tensor:
        phrase = torch.tensor(self._phrase(name), dtype=torch.int64, device=like.device)
        return phrase.expand(len(like), -1)


def text_rows(text_tokenizer: Any, texts: Sequence[str], length: int) -> Tensor:
    """(n, length) int64 tokens of texts, cut off there, `NOTHING` behind; no special token among them."""
    rows = torch.full((len(texts), length), NOTHING, dtype=torch.int64)
    if texts:
        for row, ids in enumerate(text_tokenizer(list(texts), add_special_tokens=False)["input_ids"]):
            rows[row, : len(ids)] = torch.tensor(ids[:length], dtype=torch.int64)
    return rows


def with_drawn_carts(asked: Asked, config: PromptConfig) -> Asked:
    """Shows, for `cart_share` of the shoppers, the newest items of the history as the cart."""
    if not config.cart_share or not asked.items.shape[1]:
        return asked
    most = min(config.cart_length, asked.items.shape[1])
    # Drawn on the CPU, so that a GPU draws what a CPU does.
    wanted = torch.rand(len(asked.items)) < config.cart_share
    size = (torch.randint(1, most + 1, (len(asked.items),)) * wanted).to(asked.lengths.device)
    size = torch.minimum(size, asked.lengths)
    left = asked.lengths - size
    column = torch.arange(asked.items.shape[1], device=asked.items.device)
    place = left[:, None] + torch.arange(most, device=left.device)
    inside = place < asked.lengths[:, None]
    cart = asked.items.gather(1, place.clamp_max(asked.items.shape[1] - 1)).masked_fill(~inside, NOTHING)
    return replace(
        asked, items=asked.items.masked_fill(column >= left[:, None], NOTHING), lengths=left, cart=cart
    )
