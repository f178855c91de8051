"""Stage two: trains the generator of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration

from pressmark import distributed, files
from pressmark.catalog.lexicon import FILE, Lexicon, read_words
from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.checkpointing import checkpoint_activations
from pressmark.generator.config import SCRATCH, Config
from pressmark.generator.dropout import quicken_dropout
from pressmark.generator.item_head import ItemHead
from pressmark.generator.losses import CodeLoss, ItemLoss
from pressmark.generator.model import (
    ItemFacts,
    build_model,
    encoder_arguments,
    load_lexicon,
    load_model,
    reads_content,
    start_from_codebooks,
)
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.generator.samples import Batch, Collator, Samples, Windows, prefix_samples, windows
from pressmark.generator.stream import StreamedSamples, open_stream
from pressmark.interactions.cases import Cases
from pressmark.interactions.split_files import read_split
from pressmark.sids.codebooks import read_codebooks
from pressmark.sids.table import SidTable, read_sids
from pressmark.training import loop
from pressmark.training.config import decisive
from pressmark.training.own import Own
from pressmark.training.validation import validated

EARLIER = ("generator/model.safetensors", f"generator/{FILE}", "data/items.parquet")
"""What a generator takes from the run that it goes on from."""

IDENTITIES = "item_head.identity.weight"
"""The weights that belong to items and not to the model."""
WORD_VECTORS, RARITY = "item_head.words.vectors.weight", "item_head.words.rarity"
"""Those that belong to words."""


def train(run: Path, config: Config, seed: int) -> None:
    """Trains on `run`/data and `run`/tokenizer and writes `run`/generator, whole or not at all.

    Every process calls it; the first one writes.

    Args:
        run: The run folder.
        config: What and how.
        seed: Of weights, batches, dropout and the choice of validation cases.

    Raises:
        ValueError: If an earlier stage is missing, or there is nothing to train on.
    """
    if config.backbone != SCRATCH:
        from pressmark.generator import backbone_train

        backbone_train.train(run, config, seed)
        return
    model, task = assemble(run, config, seed)
    built_on = files.fingerprint(
        "generator",
        decisive(config),
        seed,
        *task.samples.contents(),
        task.valid.case_id,
        task.table.sids,
        task.table.codebook_fingerprint,
        "" if task.facts.content is None else task.facts.content.numpy(),
        *(
            files.file_hash(Path(config.init_from) / one)
            for one in EARLIER
            if config.init_from and (Path(config.init_from) / one).is_file()
        ),
    )
    record = loop.fit(model, task, config.training, run / "training" / "generator", seed, built_on)
    tried = task.choose_discount(model)
    if distributed.rank() == 0:
        _save(run / "generator", model, task, record | {"popularity_discounts": tried})
    distributed.barrier()


def assemble(run: Path, config: Config, seed: int) -> tuple[T5ForConditionalGeneration, GeneratorTask]:
    """The fresh model of a run, and what the training loop asks of it.

    Raises:
        ValueError: If an earlier stage is missing, or there is nothing to train on.
    """
    from pressmark.catalog.embeddings import read_vectors
    from pressmark.catalog.items import read_catalog

    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    table = read_sids(run / "tokenizer" / "sids.parquet", catalog.item_id)
    spell = partial(
        windows if config.model.history_input == "causal" else prefix_samples,
        history_length=config.history_length,
        empty_histories=config.empty_histories,
        repeat_targets=config.repeat_targets,
    )
    samples: Samples | Windows | StreamedSamples
    if config.stream:
        samples = open_stream(Path(config.stream), catalog.item_id, split.hidden, spell, config.stream_buffer)
    else:
        samples = spell(split.train)
    if not len(samples):
        raise ValueError(
            f"{config.stream or run / 'data' / 'train.parquet'}: no user has two interactions, so there is no "
            "next item to learn. Check the split, or set generator.empty_histories to true."
        )
    torch.manual_seed(seed)
    vectors = read_vectors(run) if reads_content(config.model) else None
    fitted = None if vectors is None else vectors[split.fitted_on]
    lexicon, words = None, None
    if vectors is not None and config.model.words:
        lexicon, words = read_words(catalog, split.fitted_on, config.model.words)
    model = build_model(config.model, table, config.history_length, config.beam, fitted, lexicon)
    if config.init_from:
        _refuse_hidden(Path(config.init_from), catalog.item_id[split.hidden])
        _go_on_from(model, Path(config.init_from), table, catalog.item_id, lexicon)
    elif config.model.token_start == "codebooks":
        start_from_codebooks(model, read_codebooks(run / "tokenizer" / "codebooks.safetensors", table))
    content = None
    if isinstance(model, CausalT5):
        if vectors is not None:
            content = model.item_head.content(vectors, words)
        if not config.item_loss and not model.config.guided:
            # Processes that train together wait for every weight's gradient. The encoder reads codes with text.
            model.item_head.query.requires_grad_(False)
            model.item_head.age.requires_grad_(False)
            if model.item_head.read is None:
                model.item_head.codes.requires_grad_(False)
    quicken_dropout(model)
    if config.checkpointing:
        checkpoint_activations(model)
    # What nobody has bought is told from nothing: as something to avoid it would be buried, new or not.
    bought = np.flatnonzero(samples.item_counts(len(table)))
    valid = choose_cases(split.valid, config, seed)
    return model, GeneratorTask(samples, valid, table, bought, config, seed, content, lexicon)


def _refuse_hidden(run: Path, hidden: np.ndarray) -> None:
    """Keeps a run from going on from a generator that was trained on what this split hides.

    Args:
        run: The earlier run.
        hidden: (H,) object array of str, the items hidden here.

    Raises:
        ValueError: If that run's training interactions hold one of them, or cannot be read.
    """
    if not len(hidden):
        return
    path = run / "data" / "train.parquet"
    bought = set(files.read_parquet(path).column("item_id").unique().to_pylist())
    leaked = [one for one in hidden if one in bought]
    if leaked:
        raise ValueError(
            f"{path}: holds interactions with {len(leaked)} of the {len(hidden)} items that this run's split "
            f"hides as cold, such as {leaked[0]!r}; a generator that goes on from that run knows them. Give as "
            "generator.init_from a run that hid them too (the same split and seed, or one that ended before "
            "they were first bought), or leave it out."
        )


def _go_on_from(
    model: T5ForConditionalGeneration,
    run: Path,
    table: SidTable,
    item_id: np.ndarray,
    lexicon: Lexicon | None,
) -> None:
    """Gives a fresh model the weights of an earlier run's.

    Items that are new since have no identity yet, and words that are new no vector.

    Raises:
        ValueError: If there is none, or one of other codebooks or of another shape.
    """
    from pressmark.catalog.items import read_catalog

    folder = run / "generator"
    before = load_model(folder, table)
    earlier, own = before.state_dict(), model.state_dict()
    identities = earlier.pop(IDENTITIES, None)
    if IDENTITIES in own and identities is None:
        earlier[IDENTITIES] = own[IDENTITIES]
    elif IDENTITIES in own:
        row = {one: number for number, one in enumerate(read_catalog(run / "data" / "items.parquet").item_id)}
        rows = torch.tensor([row.get(one, -1) for one in item_id])
        earlier[IDENTITIES] = F.pad(identities, (0, 0, 0, 1))[rows]
    known, vectors = load_lexicon(folder, before), earlier.pop(WORD_VECTORS, None)
    earlier.pop(RARITY, None)
    if WORD_VECTORS in own:
        earlier |= {name: own[name] for name in (WORD_VECTORS, RARITY)}
        if known is not None and vectors is not None and lexicon is not None:
            row = {one: number for number, one in enumerate(known.words, 1)}
            earlier[WORD_VECTORS] = vectors[torch.tensor([0, *(row.get(one, 0) for one in lexicon.words)])]
    for name, weight in own.items():
        if name not in earlier or earlier[name].shape != weight.shape:
            there = f"is {tuple(earlier[name].shape)}" if name in earlier else "is not there"
            raise ValueError(
                f"{folder}: generator.init_from needs a generator of this configuration; its {name} {there}, "
                f"here it is {tuple(weight.shape)}. Give generator.model the sizes of that run."
            )
    model.load_state_dict(earlier)


def choose_cases(cases: Cases, config: Config, seed: int) -> Cases:
    """The validation cases that training looks at: answerable ones, and at most as many as configured."""
    if config.mask_history:
        cases = cases.take(~cases.target_in_history())
    if 0 < config.num_valid_cases < len(cases):
        chosen = np.random.default_rng(seed).choice(len(cases), config.num_valid_cases, replace=False)
        cases = cases.take(np.sort(chosen))
    return cases


class GeneratorTask:
    """What the training loop asks of the generator; see `training.loop.Task`."""

    name = "generator"
    metric = "ndcg_at_10"
    blocks = ()
    """The causal encoder and decoder work on the weights of all their layers in one pass."""

    def __init__(
        self,
        samples: Samples | Windows | StreamedSamples,
        valid: Cases,
        table: SidTable,
        items: np.ndarray,
        config: Config,
        seed: int,
        content: Tensor | None = None,
        lexicon: Lexicon | None = None,
    ) -> None:
        self.facts = ItemFacts.of(content, samples.item_counts(len(table)))
        self.lexicon = lexicon
        self.samples, self.valid, self.table, self.items = samples, valid, table, items
        self.config, self.seed = config, seed
        self._device: torch.device | None = None

    def plan(self, epoch: int) -> Sequence[np.ndarray] | Sequence[Own]:
        """The epoch's batches."""
        return self.samples.plan(epoch, self.config.training.batch_size, self.seed)

    def collate(self, samples: np.ndarray | Own, device: torch.device) -> Batch:
        """These samples on `device`."""
        if isinstance(samples, Own):
            source, numbers = samples.source, samples.numbers
        else:
            source, numbers = self.samples, samples
        if self._device != device:
            config, table = self.config, self.table
            content = self.facts.content
            content = None if content is None else F.pad(content, (0, 0, 0, 1))
            self._code_loss = CodeLoss(table, self.items, config.model.normalizer, device)
            self._collator = Collator(
                source, table, config.model.history_input, device, content, self._code_loss.needed
            )
            bias = (config.model.popularity_prior * self.facts.log_count).to(device)
            of_items = self._collator.tokens, self._collator.content, self.items, bias
            self._item_loss = ItemLoss(*of_items, config.item_loss_others)
            self._bias = bias
            self._device = device
        if self._collator.samples is not source:
            self._collator = self._collator.over(source)
        return self._collator(numbers)

    def weight(self, batch: Batch) -> float:
        """Tokens that the loss sums over."""
        return float(batch.labels.numel())

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The codes' losses summed over the targets, and the item head's; means of each to log."""
        terms, items = self.losses(model, batch)
        parts = {f"loss_level_{level}": mean for level, mean in enumerate(terms.detach().mean(0))}
        loss = terms.sum()
        if items is not None:
            loss = loss + self.config.item_loss * items.sum()
            parts["item_loss"] = items.detach().mean()
        return loss, parts

    def losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What the model makes of a batch of n targets.

        Returns:
            (n, L) float32: minus the log-probability of each target's codes, given its history and its coarser
                codes.
            (n,) float32: minus that of the target as the item head sees it; None where nobody asks it.
        """
        bare: Any = getattr(model, "module", model)
        if batch.next_items is None:
            # Labels shifted right behind the start token, as HF does it; HF's own loss is a mean.
            logits = model(
                **encoder_arguments(bare, batch.input_ids),
                attention_mask=batch.attention_mask,
                decoder_input_ids=bare.prepare_decoder_input_ids_from_labels(batch.labels),
                use_cache=False,
            ).logits
            found = self._code_loss(lambda level, rows: logits[:, level, rows], batch.labels, batch.item_index)
            return found, None
        assert batch.place is not None
        assert batch.read is not None
        head: ItemHead = bare.item_head
        known = None if batch.content is None else head.known(batch.content, batch.read)
        vectors = head.items(batch.input_ids, known) * (batch.read >= 0)[..., None]
        hidden, states = model(
            **encoder_arguments(bare, batch.input_ids, vectors),
            next_items=batch.next_items,
            needed=batch.told,
        )
        hidden, prior, items = hidden.flatten(0, 1)[batch.place], None, None
        if bare.config.guided or self.config.item_loss:
            width, num_targets = batch.input_ids.shape[1], states.shape[1]
            position = torch.arange(width - num_targets, width, device=states.device)[None]
            queries = head.queries(states, vectors, position).flatten(0, 1)[batch.place]
            if bare.config.guided:
                prior, items = self._guide(head, queries, batch.item_index)
            else:
                items = self._item_loss(head, queries, batch.item_index)
        weight = bare.shared.weight
        terms = self._code_loss(
            lambda level, rows: F.linear(hidden[:, level], weight[rows]), batch.labels, batch.item_index, prior
        )
        return terms, items

    def _guide(self, head: ItemHead, queries: Tensor, item_index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Where the decoder starts for each target, and the item head's own losses."""
        paths, content = self._code_loss.prior, self._collator.content
        known = None if content is None else head.known(content[paths.items], paths.items)
        vectors = head.items(self._collator.tokens[paths.items], known)
        # Sums and results in float32: bf16 has 8 bits, too few to tell scores apart that are tens.
        return paths(vectors, queries, self._bias[paths.items], self._code_loss.nodes[item_index], item_index)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to do."""

    def choose_discount(self, model: T5ForConditionalGeneration) -> list[dict[str, float]]:
        """Sets the popularity discount that is best in validation; says what each was worth."""
        tried: list[dict[str, float]] = []
        if model.config.guided and len(self.valid):
            for discount in self.config.popularity_discounts:
                tried.append({"discount": discount, **self.validate(model, discount)})
            model.config.popularity_discount = max(tried, key=lambda one: one[self.metric])["discount"]
        return tried

    def validate(self, model: nn.Module, popularity_discount: float = 0.0) -> dict[str, float]:
        """Item-level metrics of constrained beam search; each process decodes its share of the cases."""
        assert isinstance(model, T5ForConditionalGeneration)
        recommender = GeneratorRecommender(
            model,
            self.table,
            self.config.valid_beam,
            facts=self.facts,
            popularity_discount=popularity_discount,
        )
        return validated(recommender, self.valid, model.device, self.config.mask_history)


def _save(folder: Path, model: T5ForConditionalGeneration, task: GeneratorTask, record: dict[str, Any]) -> None:
    with files.replacing(folder) as partial:
        nn.Module.to(model, "cpu").save_pretrained(partial)
        task.facts.save(partial)
        if task.lexicon is not None and model.config.num_words:
            task.lexicon.save(partial)
        numbers = {
            "codebook_fingerprint": task.table.codebook_fingerprint,
            "sid_version": task.table.version,
            "num_parameters": model.num_parameters(),
            "num_samples": int(task.samples.num_targets.sum()),
            "num_valid_cases": len(task.valid),
            "training": record,
        }
        files.write_json(partial / "metrics.json", numbers)
