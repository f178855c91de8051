"""The doctor: every measure of a run's tokenizer, with a verdict, a reason and a key to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pressmark import files
from pressmark.catalog.embeddings import read_vectors
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.insight import sizes
from pressmark.insight.cold import cold_against_warm
from pressmark.insight.definitions import definition_of, pattern_of
from pressmark.insight.rules import GRADES, Grade
from pressmark.insight.verdicts import Verdict, judge, unite
from pressmark.interactions.cases import Split
from pressmark.interactions.split_files import read_split
from pressmark.sids.codebooks import read_codebooks
from pressmark.sids.table import SidTable, read_sids
from pressmark.tokenizer import quality
from pressmark.tokenizer.coherence import above_chance, tree_categories
from pressmark.tokenizer.collisions import Resolution
from pressmark.tokenizer.quantizer import Quantizer, dequantize_rows
from pressmark.tokenizer.train import load_quantizer


@dataclass(frozen=True)
class Patient:
    """A run's own N items and what its tokenizer makes of them. Items appended later are not among them.

    Attributes:
        catalog: The items.
        taxonomy: Their tree.
        split: Who was hidden from what.
        vectors: (N, D) float32.
        quantizer: The tokenizer.
        kind: "rqvae" or "rqkmeans".
        codes: (N, L) int64 nearest codes.
        table: The SIDs as saved; one level more than L where collisions got a suffix.
    """

    catalog: Catalog
    taxonomy: Taxonomy
    split: Split
    vectors: np.ndarray
    quantizer: Quantizer
    kind: str
    codes: np.ndarray
    table: SidTable

    @property
    def suffix(self) -> bool:
        """Whether a further level tells items with equal codes apart."""
        return self.table.num_levels > len(self.quantizer.level_sizes)


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        run: The run folder.
        seed: Of sampled pairs and shuffles.
        kind: "rqvae" or "rqkmeans".
        level_sizes: Codes a level.
        num_items: Items of the run.
        num_cold: Of them, cold.
        num_fitted: Items that the tokenizer was fitted on.
        figures: Name -> value; `definitions` says what each means.
        verdicts: Of the figures that there is a rule for; their changes say one thing a key.
        suggestion: Levels and sizes for as many items.
        left_out: What was not measured, and why.
    """

    run: str
    seed: int
    kind: str
    level_sizes: tuple[int, ...]
    num_items: int
    num_cold: int
    num_fitted: int
    figures: Mapping[str, float]
    verdicts: tuple[Verdict, ...]
    suggestion: sizes.Suggestion
    left_out: tuple[str, ...]

    def count(self, grade: Grade) -> int:
        """Verdicts of one grade."""
        return sum(one.grade == grade for one in self.verdicts)


def read_patient(run: str | Path) -> Patient:
    """Reads what the doctor looks at; the data that the run was prepared from need not be there.

    Raises:
        ValueError: If the run is not prepared or its tokenizer not trained, if its vectors are missing, or if
            files do not belong together.
    """
    run = Path(run)
    catalog = read_tokenized(run)
    vectors = read_vectors(run)
    quantizer = load_quantizer(run / "tokenizer")
    table = read_sids(run / "tokenizer" / "sids.parquet", catalog.item_id)
    saved = read_codebooks(run / "tokenizer" / "codebooks.safetensors", table)
    num_levels = len(quantizer.level_sizes)
    if files.fingerprint(*quantizer.codebooks()) != files.fingerprint(*saved[:num_levels]):
        raise ValueError(
            f"{run / 'tokenizer'}: model.safetensors has other codebooks than codebooks.safetensors. "
            "All files must come from one run of train_tokenizer: run it again."
        )
    kind = files.read_json(run / "tokenizer" / "config.json")["model_type"].removeprefix("pressmark_")
    return Patient(
        catalog,
        build_taxonomy(catalog.category),
        read_split(run / "data", catalog),
        vectors,
        quantizer,
        kind,
        quantizer.encode(vectors),
        table,
    )


def read_tokenized(run: Path) -> Catalog:
    """A run's items, where it has SIDs too.

    Raises:
        ValueError: If the run is not prepared or its tokenizer not trained.
    """
    if not (run / "data" / "items.parquet").is_file():
        raise ValueError(f"{run}: not a run folder (no data/items.parquet). Run `pressmark run` first.")
    if not (run / "tokenizer" / "sids.parquet").is_file():
        raise ValueError(f"{run / 'tokenizer' / 'sids.parquet'} is missing. Run train_tokenizer first.")
    return read_catalog(run / "data" / "items.parquet")


def diagnose(run: str | Path, patient: Patient, seed: int = 0) -> Diagnosis:
    """Measures and judges.

    Args:
        run: The run folder, for the record.
        patient: What `read_patient` found there.
        seed: Of sampled pairs and shuffles.
    """
    figures = measure(patient, seed)
    num_fitted = int(patient.split.fitted_on.sum())
    suggestion = sizes.suggest(len(patient.catalog), num_fitted)
    level_sizes = tuple(patient.quantizer.level_sizes)
    better = suggestion.level_sizes if suggestion.level_sizes != level_sizes else None
    return Diagnosis(
        run=str(run),
        seed=seed,
        kind=patient.kind,
        level_sizes=level_sizes,
        num_items=len(patient.catalog),
        num_cold=int(patient.split.cold.sum()),
        num_fitted=num_fitted,
        figures=figures,
        verdicts=unite(judge(figures, patient.kind), better),
        suggestion=suggestion,
        left_out=_left_out(patient),
    )


def measure(patient: Patient, seed: int) -> dict[str, float]:
    """Every figure that the run allows, by name; see `definitions`."""
    one, level_sizes = patient, patient.quantizer.level_sizes
    decoded = one.quantizer.decode(one.codes)
    figures = quality.quality(
        one.vectors, one.codes, decoded, level_sizes, one.taxonomy, seed, one.split.train, _resolution(one)
    )
    if one.suffix:  # nobody moves: the further level numbers equal codes
        del figures["share_relocated"], figures["mean_extra_distance"]
    for level, size in enumerate(level_sizes, start=1):
        figures[f"perplexity_share_{level}"] = figures[f"perplexity_{level}"] / size
    figures.update(_against_tree(figures, one.taxonomy))
    categories = tree_categories(one.taxonomy, np.arange(len(one.catalog)))
    figures.update(cold_against_warm(one.vectors, one.codes, decoded, one.split.cold, categories))
    figures["share_equal_vectors"] = _share_equal(one.vectors)
    figures["items_per_code"] = float(one.split.fitted_on.sum() / max(level_sizes))
    figures["sids_per_item"] = sizes.sids_per_item(level_sizes, len(one.catalog))
    return figures


def _resolution(one: Patient) -> Resolution:
    """The saved SIDs against the nearest codes."""
    num_levels = len(one.quantizer.level_sizes)
    latents, codebooks = one.quantizer.latents(one.vectors), one.quantizer.codebooks()
    sids = one.table.sids[:, :num_levels]
    now, nearest = (np.square(latents - dequantize_rows(x, codebooks)).sum(axis=1) for x in (sids, one.codes))
    moved = (sids != one.codes).any(axis=1)
    return Resolution(one.table.sids, one.table.level_sizes, moved, now - nearest)


def _against_tree(figures: Mapping[str, float], taxonomy: Taxonomy) -> dict[str, float]:
    """Purity and mutual information of the first code without what chance gives; {} without categories."""
    depth = f"depth{taxonomy.num_stripped + 2}"
    depth = depth if f"purity1_{depth}" in figures else "leaf"
    return {
        f"{figure}1_above_chance": above_chance(
            figures[f"{figure}1_{place}"], figures[f"{figure}1_{place}_chance"]
        )
        for figure, place in (("purity", depth), ("nmi", "leaf"))
        if f"{figure}1_{place}" in figures
    }


def _share_equal(vectors: np.ndarray) -> float:
    rows = np.ascontiguousarray(vectors).view(f"V{vectors.dtype.itemsize * vectors.shape[1]}").ravel()
    counts = np.unique(rows, return_counts=True)[1]
    return float(counts[counts > 1].sum() / len(rows))


def _left_out(one: Patient) -> tuple[str, ...]:
    notes = []
    num_uncategorised = int((one.taxonomy.path_length[:, 0] == 0).sum())
    if num_uncategorised == len(one.catalog):
        notes.append("No item has a category: purity, mutual information and the tree's part of cold items.")
    elif not tree_categories(one.taxonomy, np.arange(len(one.catalog))):
        notes.append("All categories are one: purity, mutual information and the tree's part of cold items.")
    elif num_uncategorised:
        notes.append(
            f"{num_uncategorised:,} items without a category: left out of purity and mutual information."
        )
    if not one.split.cold.any():
        notes.append("This split has no cold items: cold against warm. (split.protocol cold_items has some.)")
    elif one.split.fitted_on[one.split.cold].all():
        notes.append("The tokenizer was fitted on cold items too: cold against warm says nothing of new ones.")
    if one.suffix:
        notes.append("Collisions got a suffix: nobody was relocated; the suffix level is not judged.")
    if not (np.diff(one.split.train.offsets) > 1).any():
        notes.append("No training history has two items: co-occurrence.")
    num_blank = int((np.linalg.norm(one.vectors, axis=1) == 0).sum())
    if num_blank:
        notes.append(f"{num_blank:,} items have a vector of zeros (no text): left out of all cosines.")
    return tuple(notes)


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values, each figure with its definition."""
    suggestion = diagnosis.suggestion
    return {
        "run": diagnosis.run,
        "seed": diagnosis.seed,
        "kind": diagnosis.kind,
        "level_sizes": list(diagnosis.level_sizes),
        "num_items": diagnosis.num_items,
        "num_cold": diagnosis.num_cold,
        "num_fitted": diagnosis.num_fitted,
        "grades": {grade: diagnosis.count(grade) for grade in GRADES},
        "verdicts": [_verdict(one) for one in diagnosis.verdicts],
        "suggestion": {
            "level_sizes": list(suggestion.level_sizes),
            "items_per_code": suggestion.items_per_code,
            "sids_per_item": suggestion.sids_per_item,
            "items_per_prefix": list(suggestion.items_per_prefix),
            "reason": suggestion.reason,
        },
        "left_out": list(diagnosis.left_out),
        "figures": dict(diagnosis.figures),
        "definitions": {pattern_of(name): definition_of(name) for name in diagnosis.figures},
    }


def _verdict(one: Verdict) -> dict[str, Any]:
    rule = one.rule
    return {
        "title": rule.title,
        "grade": one.grade,
        "values": dict(one.values),
        "worst": list(one.worst),
        "better": rule.better,
        "good": rule.good,
        "watch": rule.watch,
        "why": rule.why,
        "changes": [{"key": change.key, "how": change.how} for change in one.changes],
        "source": rule.source,
    }
