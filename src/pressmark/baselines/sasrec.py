"""SASRec: a causal transformer over a shopper's items, each told from all others by a full softmax.

Items are ids: one vector each, learnt from who bought what next to what. It is the honest baseline for products
that sell, and has nothing to say of others: an item that was never bought in training is left out of answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from pressmark import distributed
from pressmark.baselines.content_neighbours import ContentNeighbours, load_content_neighbours
from pressmark.baselines.dense import recommend_by_scores
from pressmark.baselines.popularity import count_items
from pressmark.baselines.sasrec_config import Config
from pressmark.files import fingerprint, replacing, write_json
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests
from pressmark.training import loop
from pressmark.training.config import decisive
from pressmark.training.validation import validated

TARGETS = 64
"""Targets of a batch come in multiples of this: few shapes are quicker than many, see `training.precision`."""

BATCHES_A_POOL = 16
"""Batches whose windows are sorted by length together: little padding, and still well mixed."""


class SASRecConfig(PreTrainedConfig):
    """Shape of a `SASRec`: as in `Config`, and N, the items of the catalog."""

    model_type = "pressmark_sasrec"

    def __init__(
        self,
        num_items: int = 0,
        dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 2,
        dropout: float = 0.5,
        history_length: int = 50,
        **kwargs: Any,
    ) -> None:
        self.num_items = num_items
        self.dim = dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dropout = dropout
        self.history_length = history_length
        super().__init__(**kwargs)


class SASRec(PreTrainedModel):
    """States of every prefix of a history; their inner products with the items' vectors are scores.

    Attributes:
        known: (N,) bool, the items that were bought in training.

    Source: Kang and McAuley 2018, "Self-Attentive Sequential Recommendation", with layer norms in front, a
    start in place of the empty history, and the full softmax of Klenitskiy and Vasilev 2023.
    """

    config_class = SASRecConfig
    main_input_name = "items"
    known: Tensor

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        # The last vector is the start, which every history begins with.
        self.items = nn.Embedding(config.num_items + 1, config.dim)
        nn.init.normal_(self.items.weight, std=config.dim**-0.5)
        self.positions = nn.Embedding(config.history_length + 1, config.dim)
        nn.init.normal_(self.positions.weight, std=config.dim**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.dim, config.num_heads, config.dim, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, config.num_layers, nn.LayerNorm(config.dim), enable_nested_tensor=False
        )
        # Persistent: transformers fills other buffers with garbage on loading.
        self.register_buffer("known", torch.zeros(config.num_items, dtype=torch.bool))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keeps the initialisation of the constructor."""

    def forward(self, items: Tensor) -> Tensor:
        """(B, W) int64 items, oldest first, left-aligned, padded with -1 -> (B, W + 1, D) float32 states.

        State 0 is that of the empty history, state t that after t items; behind a history's end they mean
        nothing.
        """
        start = self.config.num_items
        items = F.pad(items, (1, 0), value=start)
        items = torch.where(items < 0, start, items)
        width = items.shape[1]
        states = self.items(items) * self.config.dim**0.5 + self.positions.weight[:width]
        # What stands behind is never looked at: padding needs no mask of its own.
        ahead = torch.ones(width, width, dtype=torch.bool, device=items.device).triu(1)
        return self.layers(self.dropout(states), mask=ahead, is_causal=True)

    @torch.no_grad()
    def states(self, histories: Histories) -> Tensor:
        """(B, D) float32, a state for each history, which may be empty."""
        items, lengths = histories.newest(self.config.history_length)
        items = items[:, : int(lengths.max(initial=0))]
        found = self(torch.from_numpy(items).to(self.device))
        return found[torch.arange(len(items)), torch.from_numpy(lengths).to(self.device)]

    @torch.no_grad()
    def scores(self, histories: Histories) -> Tensor:
        """(B, N) float32; -inf for items that were never bought in training."""
        found = self.states(histories) @ self.items.weight[:-1].T
        return found.masked_fill(~self.known, -torch.inf)


@dataclass(frozen=True)
class Batch:
    """Windows of training sequences.

    Attributes:
        items: (B, W) int64 histories, padded with -1.
        place: (n,) int64, where the targets stand in the flat (B, W + 1) states; the last repeats to fill up.
        target: (n,) int64 rows of the bought items.
        num: How many of the n are targets and no filling.
    """

    items: Tensor
    place: Tensor
    target: Tensor
    num: int


class SASRecTask:
    """What the training loop needs: see `pressmark.training.loop.Task`.

    A sample is a window of one training sequence; each item is a target in exactly one window.

    Args:
        train: Training sequences.
        valid: Validation cases.
        num_items: N.
        config: SASRec's.
        seed: Decides every epoch's order.

    Raises:
        ValueError: If there is nothing to train on.
    """

    name = "sasrec"
    metric = "ndcg_at_10"

    def __init__(self, train: Histories, valid: Cases, num_items: int, config: Config, seed: int) -> None:
        self.train, self.valid, self.config, self.seed = train, valid, config, seed
        count = count_items(train, num_items)
        self.bought = torch.from_numpy(np.flatnonzero(count))
        if len(self.bought) < 2:
            raise ValueError(
                f"the training split holds {len(self.bought)} distinct items; SASRec needs at least 2."
            )
        self.row = torch.from_numpy(np.cumsum(count > 0) - 1)  # (N,) where each bought item stands among them
        starts, ends = [], []
        width = config.history_length + 1  # targets, the first of which has no history in it
        for start, end in zip(train.offsets[:-1], train.offsets[1:], strict=True):
            # The newest window is whole; older ones end where it begins.
            last = np.arange(end, start, -width)[::-1]
            ends.append(last)
            starts.append(np.maximum(last - width, start))
        self.start, self.end = np.concatenate(starts), np.concatenate(ends)

    def plan(self, epoch: int) -> Sequence[np.ndarray]:
        """Shuffled batches of windows of like length."""
        rng = np.random.default_rng([self.seed, epoch])
        size = self.config.training.batch_size
        samples = rng.permutation(len(self.start))
        lengths = self.end - self.start
        batches: list[np.ndarray] = []
        for pool in np.split(samples, range(size * BATCHES_A_POOL, len(samples), size * BATCHES_A_POOL)):
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            batches.extend(np.split(pool, range(size, len(pool), size)))
        return [batches[number] for number in rng.permutation(len(batches))]

    def collate(self, samples: np.ndarray, device: torch.device) -> Batch:
        """Histories of the windows, and where each target's state stands."""
        start, lengths = self.start[samples], (self.end - self.start)[samples]
        column = np.arange(lengths.max())
        inside = column < lengths[:, None]
        items = np.full(inside.shape, -1, np.int64)
        items[inside] = self.train.values[(start[:, None] + column)[inside]]
        width = inside.shape[1]  # the last item of a window is no history: states 0 to W - 1 are wanted
        place = (np.arange(len(samples))[:, None] * width + column)[inside]
        target = self.row[items[inside]]
        num = len(place)
        filled = np.pad(place, (0, -num % TARGETS), mode="edge")
        target = F.pad(target, (0, len(filled) - num))
        return Batch(
            torch.from_numpy(items[:, :-1].copy()).to(device),
            torch.from_numpy(filled).to(device),
            target.to(device),
            num,
        )

    def weight(self, batch: Batch) -> float:
        """Targets."""
        return float(batch.num)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the log-probability of each target among the bought items, summed."""
        bare: Any = getattr(model, "module", model)
        states = model(batch.items).flatten(0, 1)[batch.place]
        vectors = bare.items(self.bought.to(states.device))
        rows = F.cross_entropy((states @ vectors.T)[: batch.num], batch.target[: batch.num], reduction="sum")
        return rows, {}

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """NDCG and recall at 10 over the whole catalog, histories masked; processes share the cases."""
        assert isinstance(model, SASRec)
        return validated(SASRecRecommender(model), self.valid, model.device)


@dataclass
class SASRecRecommender:
    """Ranks the items that were bought in training; the others are left out.

    Attributes:
        model: In eval mode.
        filters: name -> (num_items,) bool.
    """

    model: SASRec
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = self.model.config.num_items

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items that score highest after each history."""
        return recommend_by_scores(self, self.scores, requests, k)

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32; -inf for items that were not bought."""
        return self.model.scores(histories).cpu().numpy()


@dataclass
class SASRecWithNeighbours(SASRecRecommender):
    """SASRec's ranking, and behind it what was never bought, by how like it is to the history.

    Under a quota of new products its slots for them go to the content neighbours.

    Attributes:
        neighbours: Over the same items.
    """

    neighbours: ContentNeighbours = field(kw_only=True)

    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32."""
        own, content = super().scores(histories), self.neighbours.scores(histories)
        known = np.isfinite(own)
        least = np.where(known, own, np.inf).min(axis=1, keepdims=True)
        behind = np.where(np.isfinite(least), least, 0.0) - 1 - content.max(axis=1, keepdims=True)
        return np.where(known, own, content + behind).astype(np.float32)


def train(run: Path, config: Config, seed: int) -> None:
    """Trains SASRec on a prepared run and writes `<run>/sasrec`, whole or not at all.

    Raises:
        ValueError: If there is nothing to train on.
    """
    from pressmark.catalog.items import read_catalog
    from pressmark.interactions.split_files import read_split

    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    model = new_model(len(catalog), config, seed)
    task = SASRecTask(split.train, split.valid, len(catalog), config, seed)
    model.known[task.bought] = True
    built_on = _fingerprint(split, config, seed)
    record = loop.fit(model, task, config.training, run / "training" / "sasrec", seed, built_on)
    if distributed.rank() == 0:
        with replacing(run / "sasrec") as partial:
            nn.Module.to(model, "cpu").save_pretrained(partial)
            write_json(partial / "metrics.json", record)


def new_model(num_items: int, config: Config, seed: int) -> SASRec:
    """An untrained model for a catalog of so many items."""
    torch.manual_seed(seed)
    shape = {key: value for key, value in dataclasses.asdict(config).items() if key != "training"}
    return SASRec(SASRecConfig(num_items=num_items, **shape))


def load_sasrec(run: Path) -> SASRecRecommender:
    """Loads a trained SASRec from a run folder.

    Raises:
        ValueError: If it has not been trained.
    """
    folder = run / "sasrec"
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no SASRec: run src/train_sasrec.py for this run first.")
    return SASRecRecommender(SASRec.from_pretrained(folder, dtype=torch.float32).eval())


def load_with_neighbours(run: Path) -> SASRecWithNeighbours:
    """Loads a trained SASRec with the run's content neighbours behind it; errors as `load_sasrec`."""
    return SASRecWithNeighbours(load_sasrec(run).model, neighbours=load_content_neighbours(run))


def _fingerprint(split: Split, config: Config, seed: int) -> str:
    cases = split.valid
    arrays = (
        split.train.values,
        split.train.offsets,
        cases.target,
        cases.histories.values,
        cases.histories.offsets,
    )
    return fingerprint("sasrec", decisive(config), seed, len(split.cold), *arrays)
