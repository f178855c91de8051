"""Stage two on a backbone: prompts to the next SID, with alignment tasks mixed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pressmark import distributed, files
from pressmark.catalog.items import read_catalog
from pressmark.generator import alignment, lora
from pressmark.generator.backbone import BuiltFor, build_backbone
from pressmark.generator.backbone_data import Batch, Data, PromptCollator
from pressmark.generator.checkpointing import checkpoint_activations
from pressmark.generator.hf_folder import fingerprint_of
from pressmark.generator.losses import CodeLoss
from pressmark.generator.model import ItemFacts
from pressmark.generator.prompts import Prompts
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.generator.samples import Samples, prefix_samples
from pressmark.generator.saved_backbone import save_backbone
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.split_files import read_split
from pressmark.sids.codebooks import read_codebooks
from pressmark.sids.table import read_sids
from pressmark.sids.vocabulary import NUM_SPECIAL
from pressmark.training import loop
from pressmark.training.config import decisive
from pressmark.training.validation import validated

if TYPE_CHECKING:
    from pressmark.generator.config import Config


def train(run: Path, config: Config, seed: int) -> None:
    """Fits `config.backbone` to `run`/data and `run`/tokenizer and writes `run`/generator, whole or not at all.

    Every process calls it; the first one writes.

    Raises:
        ValueError: If the backbone cannot be used or is to be divided, an earlier stage is missing, or there is
            nothing to learn.
    """
    if distributed.sharding():
        raise ValueError(
            f"generator.backbone {config.backbone}: a backbone is not divided by {distributed.sharding()}, but "
            "trained whole on each GPU: launch it with configs/accelerate/ddp.yaml."
        )
    model, text_tokenizer, task = assemble(run, config, seed)
    data = task.data
    built_on = files.fingerprint(
        "backbone",
        decisive(config) | {"backbone": fingerprint_of(Path(config.backbone))},
        seed,
        *vars(task.samples).values(),
        task.valid.case_id,
        data.table.sids,
        data.table.codebook_fingerprint,
        data.texts.numpy(),
        list(data.prompts.words.contexts),
    )
    record = loop.fit(model, task, config.training, run / "training" / "generator", seed, built_on)
    if distributed.rank() == 0:
        _save(run / "generator", model, text_tokenizer, task, record)
    distributed.barrier()


def assemble(run: Path, config: Config, seed: int) -> tuple[Any, Any, BackboneTask]:
    """The backbone of a run before training, its text tokenizer, and what the training loop asks of it.

    Raises:
        ValueError: As `train` does.
    """
    from pressmark.generator.train import choose_cases

    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    table = read_sids(run / "tokenizer" / "sids.parquet", catalog.item_id)
    samples = prefix_samples(split.train, config.history_length, config.empty_histories, config.repeat_targets)
    if not len(samples):
        raise ValueError(
            f"{run / 'data' / 'train.parquet'}: no user has two interactions, so there is no next item to "
            "learn. Check the split, or set generator.empty_histories to true."
        )
    tuning = config.finetune
    built = BuiltFor(table, config.history_length, config.model.normalizer, config.beam, _contexts(split))
    books = read_codebooks(run / "tokenizer" / "codebooks.safetensors", table)
    torch.manual_seed(seed)
    model, text_tokenizer, words = build_backbone(Path(config.backbone), tuning, built, books)
    if config.checkpointing:
        checkpoint_activations(model)
    data = Data.of(catalog, split, table, Prompts(words, tuning.prompt), text_tokenizer, tuning.alignment)
    valid = choose_cases(split.valid, config, seed)
    return model, text_tokenizer, BackboneTask(samples, valid, data, config, seed)


def _contexts(split: Split) -> tuple[str, ...]:
    """The contexts that training knows, sorted."""
    if split.train_context is None:
        return ()
    return tuple(sorted({str(one) for one in split.train_context} - {""}))


class BackboneTask:
    """What the training loop asks of a backbone; see `training.loop.Task`."""

    name = "generator"
    metric = "ndcg_at_10"

    def __init__(self, samples: Samples, valid: Cases, data: Data, config: Config, seed: int) -> None:
        self.samples, self.valid, self.data, self.config, self.seed = samples, valid, data, config, seed
        self.align = config.finetune.alignment
        self.facts = ItemFacts.of(None, np.bincount(samples.values, minlength=len(data.table)))
        self._shift = data.prompts.words.first_sid - NUM_SPECIAL
        self._device: torch.device | None = None

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The epoch's batches: samples, and behind them the products of alignment."""
        batches = self.samples.plan(epoch, self.config.training.batch_size, self.seed)
        if not self.align.kinds:
            return batches
        size = len(self.samples), len(self.data.table)
        return alignment.mixed_in(batches, self.align, self.data.aligned, *size, [self.seed, epoch, 1])

    def collate(self, samples: np.ndarray, device: torch.device) -> Batch:
        """These samples on `device`."""
        if self._device != device:
            data, normalizer = self.data, self.config.model.normalizer
            self._collator = PromptCollator(self.samples, data, device)
            self._code_loss = CodeLoss(data.table, data.bought, normalizer, device)
            # A product that nobody has bought is a target of alignment, and its SID a way of its trie.
            known = np.union1d(data.bought, data.aligned)
            self._aligned_loss = CodeLoss(data.table, known, normalizer, device)
            self._device = device
        return self._collator(samples)

    def weight(self, batch: Batch) -> float:
        """Codes of the recommendation task: alignment comes on top of it."""
        return float(batch.num_targets * batch.labels.shape[1])

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The codes' losses summed over the targets, and alignment's by its weights; means of each to log."""
        loss = torch.zeros((), device=batch.labels.device)
        parts: dict[str, Tensor] = {}
        if len(batch.labels):
            terms, aligned = self.code_losses(model, batch)
            loss = loss + terms.sum() + self.align.content_to_sid * aligned.sum()
            if len(terms):
                parts |= {f"loss_level_{level}": mean for level, mean in enumerate(terms.detach().mean(0))}
            if len(aligned):
                parts["content_to_sid"] = aligned.detach().mean()
        if batch.to_content is not None:
            told = self.text_losses(model, batch)
            loss = loss + self.align.sid_to_content * batch.labels.shape[1] * told.sum()
            parts["sid_to_content"] = told.detach().mean()
        return loss, parts

    def code_losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n, L) float32 losses of the codes of targets, and (m, L) of products told from their texts."""
        own = batch.labels + self._shift
        logits = self._logits(model, batch.prompts, own)
        # Where the whole vocabulary competes, it is the backbone's, and so are the labels' numbers.
        labels = own if self.config.model.normalizer == "full" else batch.labels
        losses = []
        for loss, part in (
            (self._code_loss, slice(0, batch.num_targets)),
            (self._aligned_loss, slice(batch.num_targets, None)),
        ):
            losses.append(loss(self._scores(logits[part]), labels[part], batch.item_index[part]))
        return losses[0], losses[1]

    def _scores(self, logits: Tensor) -> Callable[[int, slice], Tensor]:
        """Logits (n, L, V) of the backbone, asked for by rows of our vocabulary."""

        def scores(level: int, rows: slice) -> Tensor:
            if rows.stop is None:
                return logits[:, level]
            return logits[:, level, rows.start + self._shift : rows.stop + self._shift]

        return scores

    def text_losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(m,) float32 mean losses a token of products' texts told from their SIDs."""
        assert batch.to_content is not None
        told = batch.texts.masked_fill(batch.texts < 0, self.data.prompts.words.pad)
        return alignment.text_losses(self._logits(model, batch.to_content, told), batch.texts)

    def _logits(self, model: Any, shown: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
        """(n, T, V) what the model says in front of each label (n, T), in the backbone's numbers."""
        bare: Any = getattr(model, "module", model)
        before = F.pad(labels[:, :-1], (1, 0), value=bare.config.start_token)
        out = model(input_ids=shown[0], attention_mask=shown[1], decoder_input_ids=before, use_cache=False)
        return out.logits

    def after_step(self, model: nn.Module, step: int) -> None:
        """Nothing to do."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Item-level metrics of constrained beam search; each process decodes its share of the cases."""
        recommender = GeneratorRecommender(
            lora.merged(model),
            self.data.table,
            self.config.valid_beam,
            facts=self.facts,
            prompts=self.data.prompts,
        )
        return validated(recommender, self.valid, recommender.device, self.config.mask_history)


def _save(folder: Path, model: Any, text_tokenizer: Any, task: BackboneTask, record: dict[str, Any]) -> None:
    config, data, align = task.config, task.data, task.align
    base = Path(config.backbone)
    numbers = {
        "codebook_fingerprint": data.table.codebook_fingerprint,
        "sid_version": data.table.version,
        "backbone": fingerprint_of(base),
        "num_parameters": sum(one.numel() for one in model.parameters()),
        "num_trained_parameters": sum(one.numel() for one in model.parameters() if one.requires_grad),
        "num_samples": int(task.samples.num_targets.sum()),
        "num_valid_cases": len(task.valid),
        "alignment": {
            "content_to_sid": align.content_to_sid,
            "sid_to_content": align.sid_to_content,
            "num_products": len(data.aligned) if align.kinds else 0,
            "num_cold_products": data.num_cold_aligned if align.kinds else 0,
        },
        "contexts": list(data.prompts.words.contexts),
        "training": record,
    }
    with files.replacing(folder) as partial:
        partial.mkdir(parents=True)
        save_backbone(partial, model, text_tokenizer, config.finetune, base)
        task.facts.save(partial)
        files.write_json(partial / "metrics.json", numbers)
