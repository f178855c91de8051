"""Train the dual tower of a run: contrastive, on every prefix of every training history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pressmark import distributed
from pressmark.catalog.embeddings import item_texts, read_vectors
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.catalog.lexicon import Lexicon, read_words
from pressmark.catalog.text_models import model_folder
from pressmark.dual_tower import text
from pressmark.dual_tower.auxiliary import ItemGraph
from pressmark.dual_tower.config import Config, Kind, TextConfig
from pressmark.dual_tower.geometry import alignment, uniformity
from pressmark.dual_tower.index import ItemIndex, faiss_installed
from pressmark.dual_tower.learner import Learner
from pressmark.dual_tower.loss import gather_candidates, info_nce, log_shares
from pressmark.dual_tower.towers import DualTower, DualTowerConfig, DualTowerOutput, ItemTower, with_words
from pressmark.files import fingerprint, replacing, write_json
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split
from pressmark.metrics import ndcg_at_k, recall_at_k
from pressmark.training import loop
from pressmark.training.config import decisive

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SCORES_AT_ONCE = 2**23
"""Validation scores held in memory at a time (32 MiB)."""

EVENLY = 2000
"""Cases, and items, that alignment and uniformity are measured on."""

BATCHES_A_POOL = 16
"""Batches that are sorted by history length together: little padding, and still well mixed."""


@dataclass(frozen=True)
class Batch:
    """B training samples; each distinct item stands in `vectors` once.

    Attributes:
        vectors: (U, D) float32 content vectors.
        item_index: (U,) int64, which items they are.
        history: (B, W) int64 rows of `vectors`, padded with -1.
        lengths: (B,) int64.
        target: (B,) int64 rows of `vectors`.
        history_index: (B, W) int64 item_index, padded with -1.
        target_index: (B,) int64 item_index.
    """

    vectors: Tensor
    item_index: Tensor
    history: Tensor
    lengths: Tensor
    target: Tensor
    history_index: Tensor
    target_index: Tensor


class DualTowerTask:
    """What the training loop needs: see `pressmark.training.loop.Task`.

    A sample is a place in `train.values`: the item there is the target, those before it in its sequence
    are the history.

    Args:
        train: Training sequences.
        valid: Validation cases.
        vectors: (N, D) content of all items: float32 vectors, or int32 tokens.
        config: The dual tower's.
        seed: Decides every epoch's order.

    Raises:
        ValueError: If there is nothing to train on.
    """

    name = "dual tower"
    metric = "ndcg_at_10"

    def __init__(self, train: Histories, valid: Cases, vectors: np.ndarray, config: Config, seed: int) -> None:
        self.train, self.valid, self.vectors = train, valid, vectors
        self.config, self.seed = config, seed
        self.start = np.repeat(train.offsets[:-1], train.lengths)
        place = np.arange(len(train.values))
        self.later, self.first = place[place > self.start], place[place == self.start]
        if len(self.later) < (least := max(2, distributed.num_processes())):
            raise ValueError(
                f"the training split holds {len(self.later)} purchases that follow another one; the dual tower "
                f"needs at least {least}. Give more interactions, or users with more of them."
            )
        self.num_first = min(round(config.empty_share * len(self.later)), len(self.first))
        self.log_q = log_shares(self._expected_draws())
        self._vectors = torch.from_numpy(vectors)
        self._seen: list[tuple[Tensor, Tensor]] = []  # the targets of a step, for the queue

    def _expected_draws(self) -> np.ndarray:
        """(N,) how often an epoch draws each item as a target."""
        num_items = len(self.vectors)
        later = np.bincount(self.train.values[self.later], minlength=num_items)
        first = np.bincount(self.train.values[self.first], minlength=num_items)
        return later + first * (self.num_first / max(1, len(self.first)))

    def plan(self, epoch: int) -> Sequence[np.ndarray]:
        """Shuffled batches of one size: the last few samples wait for another epoch.

        A smaller batch would have fewer negatives, and processes must hold equally many rows.
        """
        rng = np.random.default_rng([self.seed, epoch])
        samples = np.concatenate([self.later, rng.choice(self.first, self.num_first, replace=False)])
        size, world = self.config.training.batch_size, distributed.num_processes()
        size = min(size, len(samples)) // world * world
        samples = rng.permutation(samples)[: len(samples) // size * size]
        batches: list[np.ndarray] = []
        for pool in np.split(samples, range(size * BATCHES_A_POOL, len(samples), size * BATCHES_A_POOL)):
            lengths = np.minimum(pool - self.start[pool], self.config.history_length)
            batches.extend(pool[np.argsort(lengths, kind="stable")].reshape(-1, size))
        return [batches[number] for number in rng.permutation(len(batches))]

    def collate(self, samples: np.ndarray, device: torch.device) -> Batch:
        """Histories, targets and their content vectors."""
        lengths = np.minimum(samples - self.start[samples], self.config.history_length)
        column = np.arange(max(1, lengths.max()))
        inside = column < lengths[:, None]
        places = np.where(inside, (samples - lengths)[:, None] + column, 0)
        history = np.where(inside, self.train.values[places], -1)
        target = self.train.values[samples]
        items, rows = np.unique(np.concatenate([target, history[inside]]), return_inverse=True)
        # Few shapes are quicker than many for a library that compiles its products for them.
        items = np.pad(items, (0, -len(items) % 64), mode="edge")
        history_rows = np.full(history.shape, -1, np.int64)
        history_rows[inside] = rows[len(target) :]
        if self._vectors.device != device:
            self._vectors = self._vectors.to(device)
        arrays = (items, history_rows, lengths, rows[: len(target)], history, target)
        distinct, *others = (torch.from_numpy(one).to(device) for one in arrays)
        return Batch(self._vectors[distinct], distinct, *others)

    def weight(self, batch: Batch) -> float:
        """Rows."""
        return float(len(batch.lengths))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE summed over this process's rows; `alignment` is the mean cosine of users and their items.

        Auxiliary losses are means; they count as often as there are rows.
        """
        output: DualTowerOutput = model(batch)
        assert output.users is not None
        assert output.targets is not None
        learner = getattr(model, "module", model)
        assert isinstance(learner, Learner)
        candidates = gather_candidates(output.targets, batch.target_index)
        candidates = learner.with_past(candidates)
        candidates = learner.with_nearest(candidates, output.users, batch, self._vectors)
        config = self.config
        if self.log_q.device != output.users.device:
            self.log_q = self.log_q.to(output.users.device)
        history = None if config.history_negatives else batch.history_index
        rows = info_nce(output.users, candidates, self.log_q, learner.temperature, config.logq, history)
        alignment = (output.users * output.targets).sum(dim=1).mean()
        others = learner.auxiliary_losses(batch, self._vectors)
        logged = {name: one.detach() for name, one in others.items()}
        logged |= {"info_nce": rows.detach().mean(), "alignment": alignment.detach()}
        if config.learn_temperature:
            logged["temperature"] = learner.temperature.detach()
        if learner.slow is not None:
            self._seen.append((batch.vectors[batch.target], batch.target_index))
        return rows.sum() + len(rows) * sum(others.values()), logged

    def after_step(self, model: nn.Module, step: int) -> None:
        """Moves on what the learner keeps: the queue, and now and then the catalog's embeddings."""
        assert isinstance(model, Learner)
        if model.slow is not None:
            model.remember(*(distributed.gather_rows(torch.cat(one)) for one in zip(*self._seen, strict=True)))
            self._seen.clear()
        if step % self.config.refresh_every == 0:
            model.refresh(self._vectors)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """NDCG and recall at 10 over the whole catalog, histories masked; processes share the cases."""
        assert isinstance(model, Learner)
        if not len(self.valid):
            return {}
        rank = ranks(model.tower, self.vectors, self.valid)
        groups = {"": np.ones(len(rank), bool)}
        if self.valid.cold.any():
            groups |= {"_cold": self.valid.cold, "_warm": ~self.valid.cold}
        metrics = self._geometry(model.tower)
        for name, rows in groups.items():
            num = max(1, int(rows.sum()))
            metrics[f"ndcg_at_10{name}"] = float(ndcg_at_k(rank[rows], 10).sum()) / num
            metrics[f"recall_at_10{name}"] = float(recall_at_k(rank[rows], 10).sum()) / num
        return metrics

    def _geometry(self, tower: DualTower) -> dict[str, float]:
        """Alignment over validation cases and uniformity over items, evenly spaced ones of each."""
        embeddings = tower.embed_items(self.vectors)
        cases, items = (
            np.linspace(0, num - 1, min(num, EVENLY)).astype(np.int64)
            for num in (len(self.valid), len(embeddings))
        )
        asked = self.valid.take(cases)
        users = tower.embed_users(asked.histories, embeddings, self._vectors)
        return {
            "alignment": alignment(users, embeddings[asked.target]),
            "uniformity": uniformity(embeddings[items]),
        }


@torch.no_grad()
def ranks(model: DualTower, vectors: np.ndarray, cases: Cases) -> np.ndarray:
    """Where each case's target stands in the model's ranking of the whole catalog without its history.

    Args:
        model: In eval mode.
        vectors: (N, D) content of all items: vectors, or tokens.
        cases: C cases; each process ranks its share of them.

    Returns:
        (C,) int64 from 1; 0 where the target itself is in the history. The same on every process.

    Raises:
        ValueError: If a score is NaN or infinite: it is ahead of nothing, and would flatter the model.
    """
    embeddings = model.embed_items(vectors)
    content = torch.from_numpy(vectors).to(embeddings.device)
    num_items, column = len(embeddings), torch.arange(len(embeddings), device=embeddings.device)
    found = torch.zeros(len(cases), dtype=torch.int64, device=embeddings.device)
    mine = np.arange(distributed.rank(), len(cases), distributed.num_processes())
    for rows in np.array_split(mine, max(1, math.ceil(len(mine) * num_items / SCORES_AT_ONCE))):
        histories = cases.histories.take(rows)
        target = torch.from_numpy(cases.target[rows]).to(embeddings.device)[:, None]
        scores = model.embed_users(histories, embeddings, content) @ embeddings.T
        scores[torch.from_numpy(histories.row_of_value()), torch.from_numpy(histories.values)] = -torch.inf
        if not (scores < torch.inf).all():
            raise ValueError(
                "the dual tower scores an item with NaN or infinity: its weights or content vectors hold one. "
                "Train it again."
            )
        own = scores.gather(1, target)
        ahead = (scores > own) | ((scores == own) & (column < target))
        rank = torch.where(own[:, 0].isfinite(), ahead.sum(dim=1) + 1, 0)
        found[torch.from_numpy(rows).to(found.device)] = rank
    return distributed.all_reduce_sum(found).cpu().numpy()


def new_model(
    content: np.ndarray,
    fitted_on: np.ndarray,
    config: Config,
    seed: int,
    tokenizer: Tokenizer | None = None,
    lexicon: Lexicon | None = None,
) -> DualTower:
    """An untrained model; over content vectors it recommends like the content neighbours.

    Args:
        content: Of all N items: tokens of a text encoder; or vectors, and behind them words where there is a
            lexicon.
        fitted_on: (N,) bool, the items that the standardisation may see.
        config: Shapes.
        seed: Of the random initial weights.
        tokenizer: Of a text encoder.
        lexicon: Of the words.
    """
    torch.manual_seed(seed)
    words = 0 if lexicon is None else config.words
    model = DualTower(
        DualTowerConfig(
            vector_dim=content.shape[1] - words,
            num_items=len(content),
            dim=config.dim,
            hidden_dim=config.hidden_dim,
            user_dim=config.user_dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            identity_dropout=config.identity_dropout,
            item_dropout=config.item_dropout,
            dropout=config.dropout,
            history_length=config.history_length,
            words=words,
            num_words=0 if lexicon is None else len(lexicon.words),
            word_dropout=config.word_dropout,
            word_rate=config.word_rate,
            encoder=None if tokenizer is None else text.encoder_config(config.text, tokenizer),
            pad=0 if tokenizer is None else text.pad_of(tokenizer),
            user_length=config.text.user_length if config.text.users == "text" else 0,
            rows_at_once=config.text.rows_at_once,
            checkpointing=config.text.checkpointing,
        )
    )
    if isinstance(model.item_tower, ItemTower):
        model.item_tower.start_from(content[fitted_on, : model.config.vector_dim])
        if lexicon is not None and model.item_tower.words is not None:
            model.item_tower.words.start_from(lexicon.rarity)
    elif config.text.encoder != "scratch":
        model.item_tower.load_encoder(model_folder(config.text.encoder))
    return model


def train(run: Path, config: Config, seed: int) -> None:
    """Trains the dual tower of a prepared run and writes `<run>/dual_tower`, whole or not at all.

    Raises:
        ValueError: If the batch does not divide among the processes, or there is nothing to train on.
    """
    world = distributed.num_processes()
    if config.training.batch_size % world:
        raise ValueError(
            f"dual_tower.training.batch_size is {config.training.batch_size}; it must be a multiple of the "
            f"{world} processes, which exchange equally many negatives."
        )
    catalog = read_catalog(run / "data" / "items.parquet")
    split, tokenizer, lexicon = read_split(run / "data", catalog), None, None
    if config.text.encoder:
        tokenizer, content = _read_texts(catalog, split.fitted_on, config.text)
    else:
        content = read_vectors(run)
        if config.words:
            lexicon, words = read_words(catalog, split.fitted_on, config.words)
            content = with_words(content, words)
    model = new_model(content, split.fitted_on, config, seed, tokenizer, lexicon)
    task = DualTowerTask(split.train, split.valid, content, config, seed)
    built_on = _fingerprint(split, content, config, seed)
    learner = new_learner(model, split.train, config)
    record = loop.fit(learner, task, config.training, run / "training" / "dual_tower", seed, built_on)
    if distributed.rank() == 0:
        save(run / "dual_tower", model.cpu(), content, record, config.index, tokenizer, lexicon)


def _read_texts(catalog: Catalog, fitted_on: np.ndarray, config: TextConfig) -> tuple[Tokenizer, np.ndarray]:
    """A tokenizer of the texts that may be fitted on, the same on every process, and all items' tokens."""
    from tokenizers import Tokenizer

    texts = item_texts(catalog)
    made = ""
    if distributed.rank() == 0:
        seen = [one for one, fitted in zip(texts, fitted_on, strict=True) if fitted]
        made = text.tokenizer_of(config, seen).to_str()
    tokenizer = Tokenizer.from_str(distributed.broadcast_object(made))
    return tokenizer, text.tokens_of(tokenizer, texts, config.length)


def new_learner(model: DualTower, train: Histories, config: Config) -> Learner:
    """A model with what its configuration's losses need around it."""
    graph = ItemGraph(train, model.config.num_items) if config.auxiliary.graph else None
    return Learner(
        model,
        config.auxiliary,
        graph,
        config.temperature,
        config.learn_temperature,
        config.queue,
        config.momentum,
        config.hard_negatives,
        torch.from_numpy(np.bincount(train.values, minlength=model.config.num_items) > 0),
    )


def save(
    folder: Path,
    model: DualTower,
    content: np.ndarray,
    record: dict[str, Any],
    index: Kind = "auto",
    tokenizer: Tokenizer | None = None,
    lexicon: Lexicon | None = None,
) -> None:
    """Writes config.json, model.safetensors (with all items' embeddings), index.faiss and metrics.json.

    Beside them tokenizer.json, where the model reads text, and words.json, where it reads words.
    """
    model.hold_items(content)
    with replacing(folder) as partial:
        model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizer.save(str(partial / "tokenizer.json"))
        if lexicon is not None:
            lexicon.save(partial)
        if faiss_installed():
            made = ItemIndex(model.item_embeddings.numpy(), index)
            made.save(partial / "index.faiss")
            record = {**record, "index": made.kind}
            if made.kind != "flat":
                some = np.linspace(0, len(made) - 1, min(len(made), EVENLY)).astype(np.int64)
                record["index_recall_at_10"] = made.recall_at(10, made.embeddings[some])
        else:
            print("dual tower: FAISS is not installed here; the index is built when the model is loaded.")
        write_json(partial / "metrics.json", record)


def _fingerprint(split: Split, vectors: np.ndarray, config: Config, seed: int) -> str:
    cases = split.valid
    return fingerprint(
        "dual_tower",
        decisive(config),
        seed,
        vectors,
        split.train.values,
        split.train.offsets,
        split.fitted_on,
        cases.target,
        cases.histories.values,
        cases.histories.offsets,
    )
