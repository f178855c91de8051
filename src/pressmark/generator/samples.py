"""Training samples: every prefix of every training sequence, and the item that follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pressmark.generator.model import HistoryInput, history_tokens, item_tokens
from pressmark.interactions.histories import Histories
from pressmark.sids.table import SidTable
from pressmark.sids.vocabulary import Vocabulary


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

    def plan(self, epoch: int, batch_size: int, seed: int) -> list[np.ndarray]:
        """The epoch's batches: samples of about equal history length together, in random order.

        A function of (seed, epoch) alone. Every sample comes once; batches differ by one sample at most, so
        none is left too small to share among processes.

        Returns:
            int64 arrays of at most `batch_size` sample numbers.
        """
        if not len(self):
            return []
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self))
        # Stable: which samples of one length meet in a batch stays random.
        order = order[np.argsort(self.length[order], kind="stable")]
        batches = np.array_split(order, math.ceil(len(self) / batch_size))
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
    user = train.row_of_value()
    before = np.arange(len(train.values)) - train.offsets[user]
    wanted = before >= (0 if empty_histories else 1)
    if not repeat_targets:
        pair = user * (train.values.max(initial=0) + 1) + train.values
        first = np.zeros(len(pair), bool)
        first[np.unique(pair, return_index=True)[1]] = True
        wanted &= first
    place = np.flatnonzero(wanted)
    return Samples(train.values, place, np.minimum(before[place], history_length))


@dataclass(frozen=True)
class Batch:
    """n samples as the model reads them.

    Attributes:
        input_ids: (n, S) or (n, S, L) int64, see `model.history_tokens`.
        attention_mask: (n, S) int64.
        labels: (n, L) int64 sid_tokens of the targets, without EOS: a SID ends after L codes.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


class Collator:
    """Turns sample numbers into a `Batch`, by index arithmetic on the device.

    Args:
        samples: All samples.
        table: SIDs.
        history_input: How items enter the encoder.
        device: Where the flat array, the SIDs and the batches live.
    """

    def __init__(
        self, samples: Samples, table: SidTable, history_input: HistoryInput, device: torch.device | str = "cpu"
    ) -> None:
        self.samples, self.history_input, self.device = samples, history_input, device
        self.tokens = item_tokens(table, device)
        self.first_recency = Vocabulary(table.level_sizes).size
        self.values = torch.from_numpy(samples.values).to(device)

    def __call__(self, numbers: np.ndarray) -> Batch:
        """The samples `numbers` (n,) int64, padded to the longest history among them."""
        place, length = self.samples.place[numbers], self.samples.length[numbers]
        column = np.arange(length.max(initial=0))
        # Places behind a history are in range and overwritten: they are its target's or the next ones.
        window = np.minimum((place - length)[:, None] + column, len(self.samples.values) - 1)
        items = self.values[torch.from_numpy(window).to(self.device)]
        items[torch.from_numpy(column >= length[:, None]).to(self.device)] = -1
        lengths = torch.from_numpy(length).to(self.device)
        input_ids, attention_mask = history_tokens(
            self.tokens, items, lengths, self.history_input, self.first_recency
        )
        return Batch(
            input_ids, attention_mask, self.tokens[self.values[torch.from_numpy(place).to(self.device)]]
        )
