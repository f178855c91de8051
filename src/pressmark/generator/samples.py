"""Training samples: every prefix of every training sequence, and the item that follows it.

`prefix_samples` makes each prefix a sample of its own, which any encoder can read. `windows` keeps sequences
whole for an encoder that only looks back: one sample then holds all their next items.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pressmark.generator.config import HistoryInput
from pressmark.generator.model import history_tokens, item_tokens
from pressmark.interactions.histories import Histories
from pressmark.sids.table import SidTable
from pressmark.sids.vocabulary import Vocabulary

WINDOWS = 16
"""Batches hold a multiple of so many windows."""


@dataclass(frozen=True)
class Samples:
    """S samples as places in the flat array of all training sequences; no sample is ever spelled out.

    Attributes:
        values: (total,) int64 item_index, the sequences end to end.
        place: (S,) int64 place of each sample's target in `values`.
        length: (S,) int64 items of history right before that place, 0 to the history length.
    """

    values: np.ndarray
    place: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.place)

    @property
    def num_targets(self) -> np.ndarray:
        """(S,) int64: one each."""
        return np.ones(len(self), np.int64)

    def item_counts(self, num_items: int) -> np.ndarray:
        """(num_items,) int64: how often each item stands in the sequences."""
        return np.bincount(self.values, minlength=num_items)

    def contents(self) -> list[Any]:
        """What a fingerprint is made of."""
        return list(vars(self).values())

    def plan(self, epoch: int, batch_size: int, seed: int) -> list[np.ndarray]:
        """The epoch's batches: samples of about equal history length together, in random order.

        A function of (seed, epoch) alone. Every sample comes once; batches differ by one sample at most, so
        none is left too small to share among processes.

        Returns:
            int64 arrays of at most `batch_size` sample numbers.
        """
        return self.cut(math.ceil(len(self) / batch_size), np.random.default_rng([seed, epoch]))

    def cut(self, num_batches: int, rng: np.random.Generator) -> list[np.ndarray]:
        """`plan` of so many batches."""
        if not len(self):
            return []
        order = rng.permutation(len(self))
        # Stable: which samples of one length meet in a batch stays random.
        order = order[np.argsort(self.length[order], kind="stable")]
        batches = np.array_split(order, num_batches)
        return [batches[number] for number in rng.permutation(len(batches))]


def prefix_samples(
    train: Histories, history_length: int, empty_histories: bool, repeat_targets: bool
) -> Samples:
    """Every position of every sequence as a target, with the newest items before it as history.

    Args:
        train: One sequence a user, oldest first.
        history_length: Items of history, at most.
        empty_histories: Whether a user's first item is a target too, behind an empty history. It teaches
            the model what to say to a newcomer.
        repeat_targets: Whether an item that the user had before counts as a target.

    Returns:
        The samples, in the order of `train`.
    """
    before = np.arange(len(train.values)) - train.offsets[train.row_of_value()]
    place = np.flatnonzero(_targets(train, empty_histories, repeat_targets))
    return Samples(train.values, place, np.minimum(before[place], history_length))


def _targets(train: Histories, empty_histories: bool, repeat_targets: bool) -> np.ndarray:
    """(total,) bool: which places of all sequences are targets."""
    user = train.row_of_value()
    wanted = np.arange(len(train.values)) - train.offsets[user] >= (0 if empty_histories else 1)
    if not repeat_targets:
        pair = user * (train.values.max(initial=0) + 1) + train.values
        first = np.zeros(len(pair), bool)
        first[np.unique(pair, return_index=True)[1]] = True
        wanted &= first
    return wanted


@dataclass(frozen=True)
class Windows:
    """C stretches of sequences; each place of one is read and, where it counts, told from those before it.

    Attributes:
        values: (total,) int64 item_index, the sequences end to end.
        start: (C,) int64 place of a window's first item in `values`.
        length: (C,) int64 its items, at most the history length and one.
        overlap: (C,) int64 how many of its first items were targets of the window before.
        wanted: (total,) bool, the places that are targets.
    """

    values: np.ndarray
    start: np.ndarray
    length: np.ndarray
    overlap: np.ndarray
    wanted: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def num_targets(self) -> np.ndarray:
        """(C,) int64 targets that count in each window."""
        before = np.concatenate([[0], np.cumsum(self.wanted)])
        return before[self.start + self.length] - before[self.start + self.overlap]

    def item_counts(self, num_items: int) -> np.ndarray:
        """(num_items,) int64: how often each item stands in the sequences."""
        return np.bincount(self.values, minlength=num_items)

    def contents(self) -> list[Any]:
        """What a fingerprint is made of."""
        return list(vars(self).values())

    def plan(self, epoch: int, batch_size: int, seed: int) -> list[np.ndarray]:
        """The epoch's batches: windows of about equal length together, in random order.

        A function of (seed, epoch) alone. Every window comes once; a batch ends with the window that fills it
        to its share of the targets.

        Returns:
            int64 arrays of window numbers, of about `batch_size` targets each.
        """
        return self.cut(math.ceil(self.num_targets.sum() / batch_size), np.random.default_rng([seed, epoch]))

    def cut(self, num_batches: int, rng: np.random.Generator) -> list[np.ndarray]:
        """`plan` of so many batches, or fewer where single windows are more than a batch."""
        if not len(self):
            return []
        order = rng.permutation(len(self))
        order = order[np.argsort(self.length[order], kind="stable")]
        targets = np.cumsum(self.num_targets[order])
        ends = np.searchsorted(targets, targets[-1] * np.arange(1, num_batches) / num_batches) + 1
        batches = [batch for batch in np.split(order, ends) if len(batch)]
        return [batches[number] for number in rng.permutation(len(batches))]


def windows(train: Histories, history_length: int, empty_histories: bool, repeat_targets: bool) -> Windows:
    """Every sequence as windows of at most history_length + 1 items.

    A sequence that is longer has several: each later one begins with half a history (at least an item) of items
    that were targets before, so that none of its own is told from less.

    Args:
        train: One sequence a user, oldest first.
        history_length: Items of history, at most.
        empty_histories: See `prefix_samples`.
        repeat_targets: See `prefix_samples`.

    Returns:
        The windows that hold a target, in the order of `train`.
    """
    longest, overlap = history_length + 1, max(1, history_length // 2)
    step = longest - overlap
    num = 1 + -(-np.maximum(train.lengths - longest, 0) // step)
    user = np.repeat(np.arange(len(train)), num)
    number = np.arange(len(user)) - np.repeat(np.cumsum(num) - num, num)
    start = train.offsets[user] + number * step
    length = np.minimum(train.offsets[user + 1] - start, longest)
    wanted = _targets(train, empty_histories, repeat_targets)
    every = Windows(train.values, start, length, np.where(number > 0, overlap, 0), wanted)
    some = every.num_targets > 0
    return Windows(train.values, start[some], length[some], every.overlap[some], wanted)


@dataclass(frozen=True)
class Batch:
    """n targets and what they follow, as the model reads it.

    Attributes:
        input_ids: (n, S) or (n, S, L) int64, see `model.history_tokens`; (B, S, L) of B windows.
        attention_mask: (n, S) int64, (B, S) of windows.
        labels: (n, L) int64 sid_tokens of the targets, without EOS: a SID ends after L codes.
        item_index: (n,) int64 the targets.
        next_items: (B, T, L) int64 sid_tokens of what follows each window's last T positions, padding where
            that is no target. None where each target has a history of its own.
        place: (n,) int64 where the targets stand among those B * T, in the order of `item_index`.
        told: (R,) int64 which of those B * T * L codes a model has to tell; None for all.
        read: (B, S) int64 item_index of what stands at each position, -1 for no item; of windows alone.
        content: (B, S, D) float32 of those items; None where the model reads none.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    item_index: Tensor
    next_items: Tensor | None = None
    place: Tensor | None = None
    told: Tensor | None = None
    read: Tensor | None = None
    content: Tensor | None = None


class Collator:
    """Turns sample numbers into a `Batch`, by index arithmetic on the device, which is never waited for.

    Args:
        samples: All samples.
        table: SIDs.
        history_input: How items enter the encoder.
        device: Where the flat array, the SIDs and the batches live.
        content: (N + 1, D) float32 of the items, the last row zeros, for windows of a model that reads it.
        needed: Of windows, item_index (...) -> (..., L) bool which codes of an item a model has to tell.
    """

    def __init__(
        self,
        samples: Samples | Windows,
        table: SidTable,
        history_input: HistoryInput,
        device: torch.device | str = "cpu",
        content: Tensor | None = None,
        needed: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.needed = needed
        self.content = None if content is None else content.to(device)
        self.samples, self.history_input, self.device = samples, history_input, device
        self.tokens = item_tokens(table, device)
        self.first_recency = Vocabulary(table.level_sizes).size
        self.values = torch.from_numpy(samples.values).to(device)

    def over(self, samples: Samples | Windows) -> Collator:
        """The same of other samples."""
        other = copy.copy(self)
        other.samples, other.values = samples, torch.from_numpy(samples.values).to(self.device)
        return other

    def __call__(self, numbers: np.ndarray) -> Batch:
        """The samples `numbers` (n,) int64, padded to the longest among them."""
        if isinstance(self.samples, Windows):
            return self._windows(self.samples, numbers)
        place, length = self.samples.place[numbers], self.samples.length[numbers]
        items, lengths = stretches(self.values, place - length, length)
        input_ids, attention_mask = history_tokens(
            self.tokens, items, lengths, self.history_input, self.first_recency
        )
        target = self.values[torch.from_numpy(place).to(self.device)]
        return Batch(input_ids, attention_mask, self.tokens[target], target)

    def _windows(self, samples: Windows, numbers: np.ndarray) -> Batch:
        # Empty windows fill up: few shapes are quicker than many for a library that compiles them.
        start, length, overlap = (
            np.pad(one[numbers], (0, -len(numbers) % WINDOWS))
            for one in (samples.start, samples.length, samples.overlap)
        )
        items, lengths = stretches(self.values, start, length)
        # An item is read where the next one is to be told; a window's last one is told alone.
        input_ids, attention_mask = history_tokens(
            self.tokens, items[:, :-1], (lengths - 1).clamp_min(0), self.history_input, self.first_recency
        )
        column = np.arange(items.shape[1])
        place = np.minimum(start[:, None] + column, len(samples.values) - 1)
        fresh = (column >= overlap[:, None]) & (column < length[:, None])
        counted = fresh & samples.wanted[place]
        # Nothing follows an empty history unless it is to be learned: then its position is no query.
        first = 0 if counted[:, 0].any() else 1
        known = np.where(counted, samples.values[place], -1)[:, first:]
        following = torch.from_numpy(known).to(self.device)
        chosen = torch.from_numpy(np.flatnonzero(known >= 0)).to(self.device)
        told = None
        if self.needed is not None:
            told = torch.from_numpy(np.flatnonzero(self.needed(known))).to(self.device)
        target, spelled = following.flatten()[chosen], self.tokens[following]
        read = F.pad(items[:, :-1], (1, 0), value=-1)
        content = None if self.content is None else self.content[read]
        labels = spelled.flatten(0, 1)[chosen]
        return Batch(input_ids, attention_mask, labels, target, spelled, chosen, told, read, content)


def stretches(values: Tensor, start: np.ndarray, length: np.ndarray) -> tuple[Tensor, Tensor]:
    """(n, W) int64 of `values` (total,) from each start on, padded with -1; and (n,) int64 their lengths."""
    column = np.arange(length.max(initial=0))
    # Places behind a stretch are in range and overwritten.
    place = np.minimum(start[:, None] + column, len(values) - 1)
    items = values[torch.from_numpy(place).to(values.device)]
    items = items.masked_fill(torch.from_numpy(column >= length[:, None]).to(values.device), -1)
    return items, torch.from_numpy(length).to(values.device)
