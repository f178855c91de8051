"""What a backbone trains on: prompts of shoppers and of products, made on the device from sample numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pressmark.catalog.embeddings import texts_of
from pressmark.catalog.items import Catalog
from pressmark.generator import alignment
from pressmark.generator.config import AlignmentConfig
from pressmark.generator.model import item_tokens
from pressmark.generator.prompts import Asked, Prompts, text_rows, with_drawn_carts
from pressmark.generator.samples import Samples, stretches
from pressmark.interactions.cases import Split
from pressmark.sids.table import SidTable

TEXT_COLUMNS = ("title", "brand", "category")
"""What alignment reads and tells of a product; a prompt shows titles alone."""


@dataclass(frozen=True)
class Data:
    """What training reads beside its samples.

    Attributes:
        table: SIDs.
        prompts: How shoppers are shown.
        texts: (N, T) int64 text tokens for alignment, `NOTHING` behind.
        bought: (n,) int64 item_index of the items that are targets.
        aligned: (n,) int64 item_index of the products that alignment may look at.
        num_cold_aligned: How many of those are hidden from training otherwise.
        context: (total,) int64 the context number of each interaction; None where the data say nothing of it.
    """

    table: SidTable
    prompts: Prompts
    texts: Tensor
    bought: np.ndarray
    aligned: np.ndarray
    num_cold_aligned: int
    context: np.ndarray | None

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        split: Split,
        table: SidTable,
        prompts: Prompts,
        text_tokenizer: Any,
        align: AlignmentConfig,
    ) -> Data:
        """Reads texts and contexts.

        Raises:
            ValueError: If alignment is asked for and no product that it may look at has a text.
        """
        texts = text_rows(text_tokenizer, texts_of(catalog, TEXT_COLUMNS), align.text_tokens)
        # What stage one may be fitted to is what alignment may look at, unless the config lets in more.
        hidden = ~split.fitted_on | split.cold
        aligned = np.flatnonzero((~hidden | align.cold_items) & (texts[:, 0] >= 0).numpy())
        if align.kinds and not len(aligned):
            raise ValueError("generator.finetune.alignment: no product that training may see has any text.")
        context = None
        if split.train_context is not None:
            context = prompts.words.numbers(split.train_context, len(split.train_context))
        bought = np.unique(split.train.values)
        shown = with_titles(prompts, text_tokenizer, catalog.title)
        return cls(table, shown, texts, bought, aligned, int(hidden[aligned].sum()), context)


def with_titles(prompts: Prompts, text_tokenizer: Any, titles: np.ndarray) -> Prompts:
    """Prompts that know the titles (N,) of items, where they show any."""
    if not prompts.config.titled_items:
        return prompts
    return replace(prompts, titles=text_rows(text_tokenizer, titles.tolist(), prompts.config.title_tokens))


@dataclass(frozen=True)
class Batch:
    """A batch of the recommendation task and of alignment.

    Attributes:
        prompts: (n, S) int64 and its mask: first histories, then products' texts.
        labels: (n, L) int64 sid_tokens.
        item_index: (n,) int64.
        num_targets: How many of those are told from histories.
        to_content: Prompts of SIDs (m, S') and their mask; None for none.
        texts: (m, T) int64 labels of those.
    """

    prompts: tuple[Tensor, Tensor]
    labels: Tensor
    item_index: Tensor
    num_targets: int
    to_content: tuple[Tensor, Tensor] | None
    texts: Tensor


class PromptCollator:
    """Turns sample numbers, see `alignment.Mixed`, into a `Batch` on a device.

    Args:
        samples: All samples of the recommendation task.
        data: What they are shown as.
        device: Where everything lives.
    """

    def __init__(self, samples: Samples, data: Data, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self.tokens, self.texts = item_tokens(data.table, device), data.texts.to(device)
        self.prompts = data.prompts.to(device)
        self.values = torch.from_numpy(samples.values).to(device)
        self.context = data.context

    def __call__(self, numbers: np.ndarray) -> Batch:
        """The samples and products `numbers` (n,) int64."""
        mixed = alignment.Mixed.of(numbers, len(self.samples), len(self.tokens) - 1)
        asked, item_index = self._asked(mixed.samples)
        shown = self.prompts.of(self.tokens, with_drawn_carts(asked, self.prompts.config))
        num_targets = len(item_index)
        if len(mixed.to_sid):
            items = torch.from_numpy(mixed.to_sid).to(self.device)
            texts = alignment.content_prompts(self.prompts, self.texts[items])
            shown = _stacked(shown, texts, self.prompts.words.pad)
            item_index = torch.cat([item_index, items])
        items = torch.from_numpy(mixed.to_content).to(self.device)
        to_content = alignment.sid_prompts(self.prompts, self.tokens, items) if len(items) else None
        labels = alignment.text_labels(self.texts[items], self.prompts.words.eos)
        return Batch(shown, self.tokens[item_index], item_index, num_targets, to_content, labels)

    def _asked(self, numbers: np.ndarray) -> tuple[Asked, Tensor]:
        """Shoppers of samples (n,), and their targets (n,)."""
        place, length = self.samples.place[numbers], self.samples.length[numbers]
        context = None if self.context is None else torch.from_numpy(self.context[place]).to(self.device)
        asked = Asked(*stretches(self.values, place - length, length), context)
        return asked, self.values[torch.from_numpy(place).to(self.device)]


def _stacked(above: tuple[Tensor, Tensor], below: tuple[Tensor, Tensor], pad: int) -> tuple[Tensor, Tensor]:
    """Two batches of prompts and their masks as one, padded to the longer."""
    width = max(above[0].shape[1], below[0].shape[1])
    ids = [F.pad(one[0], (0, width - one[0].shape[1]), value=pad) for one in (above, below)]
    masks = [F.pad(one[1], (0, width - one[1].shape[1])) for one in (above, below)]
    return torch.cat(ids), torch.cat(masks)
