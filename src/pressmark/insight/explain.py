"""Why a product has its SID: code by code, what stood to choose, and whom it ends beside."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from pressmark.catalog.items import Catalog
from pressmark.catalog.paths import CategoryPath
from pressmark.insight.doctor import Patient, read_patient
from pressmark.insight.labels import Labels, category_mix, label_prefixes
from pressmark.insight.prefixes import Prefixes, find_prefixes
from pressmark.insight.relatives import relatives
from pressmark.insight.today import as_of_today
from pressmark.insight.words import grams_of
from pressmark.run_config import read_run


@dataclass(frozen=True)
class LabelledRun:
    """A run whose prefixes can be read.

    Attributes:
        run: The run folder.
        patient: Its items, vectors, tokenizer and SIDs.
        prefixes: Of the SIDs.
        labels: Of the prefixes.
        reads_category: The category is a part of the texts that became vectors.
    """

    run: str
    patient: Patient
    prefixes: Prefixes
    labels: Labels
    reads_category: bool = False

    def label_of(self, prefix: int) -> str:
        """A prefix in words: its terms, else its commonest category, else an item's title."""
        if self.labels.terms[prefix]:
            return ", ".join(self.labels.terms[prefix])
        items = self.prefixes.items(prefix)
        mix = category_mix(self.patient.taxonomy, items, 1) if len(items) > 1 else []
        title = self.patient.catalog.title[items[0]]
        return mix[0][0][-1] if mix else title or "(no title)"


@dataclass(frozen=True)
class Step:
    """One code of a SID.

    Attributes:
        code: The code.
        prefix: The prefix that it ends.
        num_items: Items with that prefix.
        label: In words.
        said: Terms of the label that the product's own title says.
        mix: The commonest categories of the prefix and their shares.
        explained: Share of the product's content, as the tokenizer sees it, that the codes so far account for;
            None for a number that tells equal codes apart, or a product without content.
        runner_up: The second nearest code at this place, -1 without.
        times_as_far: Its distance over that of the chosen code.
        runner_up_label: What begins with it, "" where no item does.
    """

    code: int
    prefix: int
    num_items: int
    label: str
    said: tuple[str, ...]
    mix: tuple[tuple[CategoryPath, float], ...]
    explained: float | None
    runner_up: int
    times_as_far: float
    runner_up_label: str


@dataclass(frozen=True)
class Explanation:
    """What there is to say of one product in one run.

    Attributes:
        item: Its item_index.
        steps: One a code.
        substitutes: Rows of items that share its deep prefix, nearest first.
        cousins: Rows of further items that share its first code, of other categories, nearest first.
        nearest: Its nearest codes where it has others; else ().
        holders: Rows of the items that have the nearest codes; () where nobody has them.
    """

    item: int
    steps: tuple[Step, ...]
    substitutes: tuple[int, ...]
    cousins: tuple[int, ...]
    nearest: tuple[int, ...]
    holders: tuple[int, ...]


def read_labelled(run: str | Path) -> LabelledRun:
    """Reads a run as it stands today and labels its prefixes.

    Raises:
        ValueError: As `read_patient`.
    """
    return label_run(run, as_of_today(run, read_patient(run)))


def label_run(run: str | Path, patient: Patient) -> LabelledRun:
    """Labels the prefixes of a run that was read."""
    prefixes = find_prefixes(patient.table.sids)
    labels = label_prefixes(prefixes, patient.catalog, patient.vectors)
    config = read_run(Path(run))[1] if (Path(run) / "config.yaml").is_file() else None
    reads = config is not None and config.model != "precomputed" and "category" in config.columns
    return LabelledRun(str(run), patient, prefixes, labels, reads)


def find_item(catalog: Catalog, item_id: str, where: str) -> int:
    """The row of an item id.

    Raises:
        ValueError: If the catalog lacks it; names ids that are written alike.
    """
    if item_id in catalog.rows:
        return catalog.rows[item_id]
    ids = [str(one) for one in catalog.item_id]
    folded = [one for one in ids if one.casefold() == item_id.strip().casefold()]
    near = folded or get_close_matches(item_id, ids, 3, 0.6) or ids[:3]
    names = ", ".join(near)
    hint = f"Did you mean {names}?" if folded or near != ids[:3] else f"Its ids look like {names}."
    raise ValueError(
        f"item_id {item_id!r} is not among the {len(catalog):,} items of {where}. {hint} "
        "Ids are compared letter by letter; removed products are not explained."
    )


def explain(labelled: LabelledRun, item: int, most: int = 5) -> Explanation:
    """Explains one item.

    Args:
        labelled: Its run.
        item: Its item_index.
        most: Substitutes and cousins to name.
    """
    patient = labelled.patient
    substitutes, cousins = relatives(
        labelled.prefixes, patient.taxonomy, patient.vectors, np.array([item]), most
    )
    sid, nearest = patient.table.sids[item, : patient.codes.shape[1]], patient.codes[item]
    moved = not np.array_equal(sid, nearest)
    same = (patient.table.sids[:, : len(nearest)] == nearest).all(axis=1)
    return Explanation(
        item,
        tuple(_steps(labelled, item)),
        tuple(one for one in substitutes[0].tolist() if one >= 0),
        tuple(one for one in cousins[0].tolist() if one >= 0),
        tuple(nearest.tolist()) if moved else (),
        tuple(np.flatnonzero(same).tolist()) if moved else (),
    )


def _steps(labelled: LabelledRun, item: int) -> list[Step]:
    patient, prefixes = labelled.patient, labelled.prefixes
    said, sid = grams_of(patient.catalog.title[item], 3), patient.table.sids[item]
    residual = patient.quantizer.latents(patient.vectors[item : item + 1])[0].astype(np.float64)
    # A product without text has no content, whatever latent the tokenizer makes of nothing.
    content = float(np.square(residual).sum()) if patient.vectors[item].any() else 0.0
    codebooks = patient.quantizer.codebooks()
    steps = []
    for level, code in enumerate(sid.tolist()):
        prefix = int(prefixes.of_item[item, level + 1])
        explained, other = None, (-1, 0.0)
        if level < len(codebooks):
            distance = np.sqrt(np.square(residual - codebooks[level]).sum(axis=1))
            other = _second(distance, code)
            residual = residual - codebooks[level][code]
            explained = 1 - float(np.square(residual).sum()) / content if content > 0 else None
        rival = prefixes.find([*sid[:level].tolist(), other[0]]) if other[0] >= 0 else -1
        steps.append(
            Step(
                code,
                prefix,
                int(prefixes.num_items[prefix]),
                labelled.label_of(prefix),
                tuple(term for term in labelled.labels.terms[prefix] if term in said),
                tuple(category_mix(patient.taxonomy, prefixes.items(prefix), 2)),
                explained,
                *other,
                labelled.label_of(rival) if rival >= 0 else "",
            )
        )
    return steps


def _second(distance: np.ndarray, code: int) -> tuple[int, float]:
    """The nearest other code, and its distance over the chosen one's; (-1, 0) where there is none."""
    others = distance.copy()
    others[code] = np.inf
    best = int(others.argmin())
    if not np.isfinite(others[best]):
        return -1, 0.0
    return best, float(others[best] / max(distance[code], 1e-12))


def shared_codes(sids: np.ndarray, a: int, b: int) -> int:
    """How many first codes two items share."""
    return int(np.logical_and.accumulate(sids[a] == sids[b]).sum())
