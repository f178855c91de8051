"""Training samples of histories that are larger than memory: a buffer at a time, shuffled and bucketed.

The order is a function of (seed, epoch): that of the shards, and that of the samples of each buffer. Resuming
reads the epoch again up to the batch, without making batches of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from tqdm import tqdm

from pressmark import distributed
from pressmark.generator.samples import Samples, Windows
from pressmark.interactions.histories import Histories
from pressmark.interactions.history_shards import HistoryShards, open_shards
from pressmark.training.own import Own

Spell = Callable[[Histories], Samples | Windows]
"""Makes samples of histories, see `samples`."""


@dataclass(frozen=True)
class StreamedSamples:
    """What `Samples` and `Windows` are to histories in memory.

    Attributes:
        shards: The histories.
        spell: Makes samples of them.
        buffer: Histories that are shuffled and bucketed together, on each process.
        counts: (N,) int64 how often each item stands in the histories.
        targets: Items that are told, in all.
    """

    shards: HistoryShards
    spell: Spell
    buffer: int
    counts: np.ndarray
    targets: int

    def __len__(self) -> int:
        return self.targets

    @property
    def num_targets(self) -> np.ndarray:
        """(1,) int64: all of them."""
        return np.array([self.targets], np.int64)

    def item_counts(self, num_items: int) -> np.ndarray:
        """(num_items,) int64: how often each item stands in the histories."""
        assert num_items == len(self.counts)
        return self.counts

    def contents(self) -> list[Any]:
        """What a fingerprint is made of: the shards' names and rows and all items, not their order."""
        names = [path.name for path in self.shards.paths]
        return [names, self.shards.num_rows, self.counts, self.targets]

    def plan(self, epoch: int, batch_size: int, seed: int) -> Sequence[Own]:
        """The epoch's batches, of about `batch_size` targets over all processes; as many on each of them.

        Raises:
            ValueError: If there are more processes than histories.
        """
        world = distributed.num_processes()
        order = np.random.default_rng([seed, epoch]).permutation(len(self.shards.paths))
        if not min(self.shards.share(rank, world, order) for rank in range(world)):
            raise ValueError(
                f"{self.shards.paths[0].parent}: {len(self.shards)} histories in {len(order)} shards leave one "
                f"of {world} processes without any. Start fewer, or write the shards evenly."
            )
        num_batches = math.ceil(self.targets / batch_size)
        return StreamedPlan(partial(self._batches, order, num_batches, (seed, epoch)), num_batches)

    def _batches(self, order: np.ndarray, num_batches: int, seed: tuple[int, int]) -> Iterator[Own]:
        """This process's batches: of each buffer so many as keep in step with the histories that are read."""
        rank, world = distributed.rank(), distributed.num_processes()
        whole, read, done = self.shards.share(rank, world, order), 0, 0
        waiting: list[Histories] = []
        for number, histories in enumerate(self.shards.read(rank, world, order, self.buffer)):
            read += len(histories)
            waiting.append(histories)
            due = num_batches * read // whole - done
            if due:
                samples = self.spell(Histories.join(waiting))
                # The same on every process, so that all have batches of about one length at a time.
                batches = samples.cut(due, np.random.default_rng([*seed, number]))
                if min(map(len, batches), default=0) == 0 or len(batches) < due:
                    raise ValueError(
                        f"{self.shards.paths[0].parent}: {len(samples)} samples on this process cannot be "
                        f"{due} batches. Raise generator.training.batch_size, or start fewer processes."
                    )
                waiting, done = [], done + due
                yield from (Own(samples, batch) for batch in batches)
        if done < num_batches:
            raise ValueError(f"{self.shards.paths[0].parent}: the shards changed while they were read.")


class StreamedPlan(Sequence[Own]):
    """An epoch's batches, made as they are asked for, in order.

    Args:
        start: Begins the epoch.
        num_batches: That it has.
    """

    def __init__(self, start: Callable[[], Iterator[Own]], num_batches: int) -> None:
        self._start, self._num_batches, self._next = start, num_batches, 0
        self._batches: Iterator[Own] = iter(())

    def __len__(self) -> int:
        return self._num_batches

    @overload
    def __getitem__(self, number: int) -> Own: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Own]: ...

    def __getitem__(self, number: int | slice) -> Own | Sequence[Own]:
        """Batch `number`; one before the last that was asked for begins the epoch again."""
        assert isinstance(number, int)
        if not 0 <= number < self._num_batches:
            raise IndexError(number)
        if self._next == 0 or number < self._next:
            self._batches, self._next = self._start(), 0
        while self._next < number:
            next(self._batches)
            self._next += 1
        self._next += 1
        return next(self._batches)


def open_stream(
    folder: Path, item_id: np.ndarray, hidden: np.ndarray, spell: Spell, buffer: int
) -> StreamedSamples:
    """Reads all shards once, each process its own part of them, for what training has to know beforehand.

    Args:
        folder: See `open_shards`.
        item_id: (N,) object array of str, the catalog.
        hidden: (N,) bool, items whose interactions the split hides, see `Split.hidden`. Whether a history
            holds a case's target that is not among them is not checked: shards say nothing of whose they are.
        spell: Makes samples of histories.
        buffer: Histories to be shuffled together.

    Raises:
        ValueError: For shards that cannot be read, or histories that hold what the split hides.
    """
    shards = open_shards(folder, item_id)
    counts, targets = np.zeros(len(item_id), np.int64), 0
    own = range(distributed.rank(), len(shards.paths), distributed.num_processes())
    for number in tqdm(
        own, desc="look through histories", unit="shard", disable=distributed.rank() != 0 or None
    ):
        for histories in shards.read_one(number):
            counts += np.bincount(histories.values, minlength=len(counts))
            targets += int(spell(histories).num_targets.sum())
    sums = torch.from_numpy(np.append(counts, targets)).to(distributed.start().device)
    *_, targets = counted = distributed.all_reduce_sum(sums).cpu().numpy()
    found = np.flatnonzero(hidden & (counted[:-1] > 0))
    if len(found):
        raise ValueError(
            f"{folder}: the histories hold {item_id[found[0]]!r} (and {len(found) - 1} others), whose "
            "interactions the split hides from training. Leave out of the shards what data/cold_items.parquet "
            "and not_fitted_on in data/split.json name, and the cold targets of data/valid.parquet."
        )
    return StreamedSamples(shards, spell, buffer, counted[:-1], int(targets))
