"""Runs an evaluation: asks every model under every protocol, and writes what it found into the run folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pressmark import files
from pressmark.catalog.items import Catalog
from pressmark.evaluation import lists as listing
from pressmark.evaluation import report as reporting
from pressmark.evaluation.config import Config
from pressmark.evaluation.figures import Judged, item_facts, judge, measure
from pressmark.evaluation.protocols import TWIN, merge_quota, quota_of
from pressmark.evaluation.slices import MAIN, Facts, facts
from pressmark.interactions.cases import Cases, Split
from pressmark.metrics import rank_of_target
from pressmark.recommender import Recommendations, Recommender


def evaluate(
    run: Path,
    recommenders: Mapping[str, Recommender],
    catalog: Catalog,
    split: Split,
    vectors: np.ndarray | None,
    config: Config,
    fingerprints: Mapping[str, str] | None = None,
    statement: Mapping[str, Any] | None = None,
    title: str = "Evaluation",
) -> dict[str, Any]:
    """Judges models on the test cases of a split and writes <run>/evaluation.

    Writes <protocol>/<model>.parquet, cases.parquet (slices of each case), report.json, report.html and *.png.
    A parquet of the same model and the same cases is not computed again.

    Args:
        run: Run folder.
        recommenders: Model name -> model; names become file names. Each gets the filters `cold` and `warm`.
        catalog: N items.
        split: Its test cases are judged, its training interactions define popularity.
        vectors: (N, D) float32 content vectors for the slices by cosine, or None to leave those out.
        config: How to judge.
        fingerprints: Model name -> fingerprint of its weights; without one a model is always asked again.
        statement: What the report says besides: what each stage saw, counts of the split.
        title: Heading of report.html.

    Returns:
        The content of report.json.

    Raises:
        ValueError: If there is no model or no case to judge, or an answer breaks the recommender's contract.
    """
    if not recommenders:
        raise ValueError("evaluate: recommenders is empty; name at least one model.")
    for model in recommenders:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", model):
            raise ValueError(f"evaluate: model {model!r} cannot be a file name; use letters, digits and _ . -")
    cases = _chosen(split.test, config)
    known = facts(cases, split, catalog, vectors)
    kept = np.flatnonzero(~known.target_in_history)
    if not len(kept):
        raise ValueError(f"evaluate: none of {len(cases)} test cases has a target outside its history.")
    config = replace(config, protocols=config.protocols if split.cold.any() else ("full",))
    judged = _judge_all(run, recommenders, catalog, split, cases, kept, config, fingerprints or {})
    twin = judged.pop(TWIN, {})
    slices = {name: inside[kept] for name, inside in known.slices.items()}
    bootstrap = (config.pairs(), config.num_resamples, config.seed)
    protocols, paired = measure(judged, slices, cases.target[kept], *bootstrap)
    if twin:
        main = {name: known.slices[name] for name in MAIN}
        of_twin, paired_twin = measure({TWIN: twin}, main, cases.target, *bootstrap)
        protocols, paired = protocols | of_twin, paired + paired_twin
    report = {
        "title": title,
        "statement": reporting.statement(cases, known, split, config, protocols, statement or {}),
        "num_cases": {name: int(inside.sum()) for name, inside in slices.items()},
        "cases_fingerprint": listing.fingerprint_of(cases, catalog.item_id, split.cold),
        "protocols": protocols,
        "paired": paired,
    }
    _write_cases(run / "evaluation" / "cases.parquet", cases, known, catalog)
    reporting.write(run / "evaluation", report)
    return report


def _chosen(cases: Cases, config: Config) -> Cases:
    """The cases to judge in order of case_id, which the bootstrap numbers them by."""
    rows = np.argsort(cases.case_id, kind="stable")
    if 0 < config.max_cases < len(cases):
        drawn = np.random.default_rng(config.seed).choice(len(rows), config.max_cases, replace=False)
        rows = rows[np.sort(drawn)]
    return cases.take(rows)


def _judge_all(
    run: Path,
    recommenders: Mapping[str, Recommender],
    catalog: Catalog,
    split: Split,
    cases: Cases,
    kept: np.ndarray,
    config: Config,
    fingerprints: Mapping[str, str],
) -> dict[str, dict[str, Judged]]:
    """protocol -> model -> figures of every case; the lists themselves stay on disk."""
    items = item_facts(catalog, split)
    names = (*config.protocols, *((TWIN,) if config.unmasked_twin and "full" in config.protocols else ()))
    judged: dict[str, dict[str, Judged]] = {name: {} for name in names}
    masked = cases.take(kept)
    for model, recommender in recommenders.items():
        if recommender.num_items != len(catalog):
            raise ValueError(
                f"{model}: ranks {recommender.num_items} items and the catalog has {len(catalog)}; "
                "train it on this run's data."
            )
        recommender.filters.update(cold=split.cold, warm=~split.cold)
        desk = _Desk(run / "evaluation", model, recommender, catalog, config, fingerprints.get(model, ""))
        for protocol, answer in desk.masked(masked, split.cold):
            judged[protocol][model] = judge(answer, masked, items)
        if TWIN in judged:
            # The twin stands beside the accuracy figures; beyond accuracy one table is enough.
            rank = rank_of_target(desk.unmasked(cases, split.cold).item_index, cases.target)
            judged[TWIN][model] = Judged(rank[None], None, {})
    return judged


@dataclass(frozen=True)
class _Desk:
    """Asks one model, or reads what it answered before."""

    folder: Path
    model: str
    recommender: Recommender
    catalog: Catalog
    config: Config
    fingerprint: str

    def masked(self, cases: Cases, cold: np.ndarray) -> Iterator[tuple[str, Recommendations]]:
        """Yields each protocol's lists; the cold and the warm ranking are asked for once and shared."""
        cases_fingerprint = listing.fingerprint_of(cases, self.catalog.item_id, cold)
        sides: dict[str, Recommendations] = {}

        def side(name: str) -> Recommendations:
            if name not in sides:
                sides[name] = self._ask(cases, name, True)
            return sides[name]

        def answer(protocol: str) -> Recommendations:
            epsilon = quota_of(protocol)
            if epsilon is not None:
                return merge_quota(side("cold"), side("warm"), epsilon)
            return side("cold") if protocol == "cold_only" else self._ask(cases, None, True)

        # cold_only ahead of the quotas: its file is then the cold side of a resumed evaluation.
        for protocol in sorted(self.config.protocols, key=lambda name: quota_of(name) is not None):
            lists = self._kept(protocol, cases, cases_fingerprint, partial(answer, protocol))
            if protocol == "cold_only":
                sides["cold"] = lists
            yield protocol, lists

    def unmasked(self, cases: Cases, cold: np.ndarray) -> Recommendations:
        """Lists of the unmasked twin."""
        cases_fingerprint = listing.fingerprint_of(cases, self.catalog.item_id, cold)
        return self._kept(TWIN, cases, cases_fingerprint, lambda: self._ask(cases, None, False))

    def _ask(self, cases: Cases, filter_name: str | None, mask: bool) -> Recommendations:
        what = f"{self.model}: {filter_name or 'all'} items{'' if mask else ', unmasked'}"
        return listing.ask(self.recommender, cases, filter_name, mask, self.config.batch_size, what)

    def _kept(
        self, protocol: str, cases: Cases, cases_fingerprint: str, make: Callable[[], Recommendations]
    ) -> Recommendations:
        path = self.folder / protocol / f"{self.model}.parquet"
        whole = files.fingerprint(self.fingerprint, protocol, cases_fingerprint) if self.fingerprint else ""
        if listing.is_finished(path, whole):
            return listing.read_lists(path, cases.case_id, self.catalog)
        lists = make()
        listing.write_lists(path, lists, cases.case_id, self.catalog.item_id, whole)
        return lists


def _write_cases(path: Path, cases: Cases, known: Facts, catalog: Catalog) -> None:
    """Writes what an outsider needs to cut the slices as we did; one row a case."""
    inside = np.stack(list(known.slices.values()), axis=1)
    names = np.array(list(known.slices))
    table = pa.table(
        {
            "case_id": cases.case_id,
            "item_id": pa.array(catalog.item_id[cases.target].tolist(), pa.string()),
            "cold": cases.cold,
            "target_in_history": known.target_in_history,
            "history_length": known.history_length,
            "num_interactions": known.num_interactions,
            "nearest_warm_cosine": pa.array(known.nearest_warm_cosine, from_pandas=True),
            "slices": pa.array([names[row].tolist() for row in inside], pa.list_(pa.string())),
        }
    )
    files.write_parquet(path, table)
