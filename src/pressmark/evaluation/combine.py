"""Several run folders as one report: model seeds averaged case by case, cold-item seeds pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pressmark import files
from pressmark.evaluation.config import Config
from pressmark.evaluation.figures import BEYOND, Judged, measure
from pressmark.evaluation.lists import read_ranks
from pressmark.evaluation.protocols import TWIN
from pressmark.evaluation.report import intervals
from pressmark.evaluation.slices import MAIN


@dataclass(frozen=True)
class _Run:
    """An evaluated run folder: its report, its cases, and their slices."""

    folder: Path
    report: dict[str, Any]
    case_id: np.ndarray
    target: pa.Array
    kept: np.ndarray
    slices: dict[str, np.ndarray]

    @property
    def cases_fingerprint(self) -> str:
        """The same for runs that judged the same targets behind the same histories."""
        return str(self.report["cases_fingerprint"])


def combine(runs: Sequence[Path], config: Config, title: str = "Evaluation") -> dict[str, Any]:
    """One report of several evaluated run folders.

    Runs that judged the same cases are model seeds of one split: each case's values are averaged over them.
    Runs of other cold items or other shuffles judged other cases: those are pooled. Intervals resample users
    then, each with its cases of all splits, and in slices about few items the target items, see `unit_of`.

    Args:
        runs: Run folders that hold an evaluation, with the same protocols and models.
        config: Number of resamples, seed and pairs; the rest is as the runs were evaluated.
        title: Heading of the report.

    Returns:
        A report of the same shape as report.json.

    Raises:
        ValueError: If there is no run, or runs differ in protocols or models, or splits in the number of seeds,
            or a run's data/test.parquet lacks a case that was judged.
    """
    if not runs:
        raise ValueError("combine: no run folder given; name at least one.")
    loaded = [_read(Path(run)) for run in runs]
    models = {name: list(one["models"]) for name, one in loaded[0].report["protocols"].items()}
    for run in loaded[1:]:
        own = {name: list(one["models"]) for name, one in run.report["protocols"].items()}
        if own != models:
            raise ValueError(
                f"{run.folder}: has {own} and {loaded[0].folder} has {models}; evaluate both alike."
            )
    splits: dict[str, list[_Run]] = {}
    for run in loaded:
        splits.setdefault(run.cases_fingerprint, []).append(run)
    seeds = {str(runs[0].folder): len(runs) for runs in splits.values()}
    if len(set(seeds.values())) > 1:
        raise ValueError(f"combine: model seeds a split differ, {seeds}; evaluate as many of each split.")
    protocols: dict[str, Any] = {}
    paired: list[dict[str, Any]] = []
    num_cases: dict[str, int] = {}
    for twin in (False, True):
        chosen = {name: one for name, one in models.items() if (name == TWIN) is twin}
        if chosen:
            found, differences, counted = _measure(list(splits.values()), chosen, config)
            protocols, paired, num_cases = protocols | found, paired + differences, num_cases or counted
    _average_beyond(protocols, [run.report for run in loaded])
    statement = _statement(list(splits.values()), loaded[0].report["statement"], config)
    return {
        "title": title,
        "statement": statement,
        "num_cases": num_cases,
        "protocols": protocols,
        "paired": paired,
    }


def _read(folder: Path) -> _Run:
    table = files.read_parquet(folder / "evaluation" / "cases.parquet")
    names = table.column("slices").to_pylist()
    row = np.repeat(np.arange(len(names)), [len(one) for one in names])
    flat = np.array([name for one in names for name in one], object)
    slices = {name: np.zeros(len(names), bool) for name in dict.fromkeys((*MAIN, *flat))}
    for name, inside in slices.items():
        inside[row[flat == name]] = True
    return _Run(
        folder,
        files.read_json(folder / "evaluation" / "report.json"),
        table.column("case_id").to_numpy(),
        table.column("item_id").combine_chunks(),
        ~table.column("target_in_history").to_numpy(zero_copy_only=False),
        slices,
    )


def _measure(
    splits: Sequence[Sequence[_Run]], models: Mapping[str, Sequence[str]], config: Config
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, int]]:
    """Protocols over the same cases: the masked ones together, or the unmasked twin."""
    twin = TWIN in models
    judged = {
        protocol: {
            model: Judged(np.concatenate([_ranks(runs, protocol, model) for runs in splits], axis=1), None, {})
            for model in names
        }
        for protocol, names in models.items()
    }
    names = MAIN if twin else tuple(dict.fromkeys(name for runs in splits for name in runs[0].slices))
    slices = {
        name: np.concatenate(
            [
                runs[0].slices.get(name, np.zeros(len(runs[0].case_id), bool))[_rows(runs[0], twin)]
                for runs in splits
            ]
        )
        for name in names
    }
    targets = np.concatenate([np.array(runs[0].target.to_pylist())[_rows(runs[0], twin)] for runs in splits])
    _, items = np.unique(targets, return_inverse=True)
    users = None
    if len(splits) > 1:
        asking = np.concatenate([_users(runs[0])[_rows(runs[0], twin)] for runs in splits])
        _, users = np.unique(asking, return_inverse=True)
    bootstrap = (config.pairs(), config.num_resamples, config.seed)
    protocols, paired = measure(judged, slices, items, *bootstrap, users)
    return protocols, paired, {name: int(inside.sum()) for name, inside in slices.items()}


def _rows(run: _Run, twin: bool) -> np.ndarray:
    return np.ones(len(run.kept), bool) if twin else run.kept


def _users(run: _Run) -> np.ndarray:
    """(C,) str: who asks in each case."""
    path = run.folder / "data" / "test.parquet"
    table = files.read_parquet(path)
    user_of = dict(zip(table.column("case_id").to_pylist(), table.column("user_id").to_pylist(), strict=True))
    cases = run.case_id.tolist()
    missing = [one for one in cases if one not in user_of]
    if missing:
        raise ValueError(
            f"{path}: lacks case_id {missing[0]} (and {len(missing) - 1} others) that "
            f"{run.folder / 'evaluation'} holds. Delete that folder and evaluate again."
        )
    return np.array([user_of[one] for one in cases])


def _ranks(runs: Sequence[_Run], protocol: str, model: str) -> np.ndarray:
    """(S, C) int64: ranks by the model seeds of one split."""
    name = f"{model}.parquet"
    ranks = [read_ranks(run.folder / "evaluation" / protocol / name, run.case_id, run.target) for run in runs]
    return np.stack(ranks)[:, _rows(runs[0], protocol == TWIN)]


def _average_beyond(protocols: dict[str, Any], reports: Sequence[Mapping[str, Any]]) -> None:
    """Beyond accuracy is a property of one run's lists: the runs' mean, without an interval."""
    for protocol, one in protocols.items():
        for model, slices in one["models"].items():
            for metric in BEYOND:
                cells = [
                    report["protocols"][protocol]["models"][model]["all"].get(metric) for report in reports
                ]
                values = [cell["mean"] for cell in cells if cell and cell["mean"] is not None]
                if values:
                    slices["all"][metric] = {"mean": float(np.mean(values)), "low": None, "high": None}


def _statement(splits: Sequence[Sequence[_Run]], first: Mapping[str, Any], config: Config) -> dict[str, Any]:
    single = {"cases", "items", "split", "masking"}
    return {
        **{key: value for key, value in first.items() if key not in single},
        "intervals": intervals(config, pooled=len(splits) > 1),
        "seeds": (
            "Per-case values are averaged over model seeds first; splits with other cold items or other "
            "shuffles have different cases of the same users and are pooled. Beyond accuracy: the mean of the "
            "runs."
        ),
        "runs": [
            {
                "run": str(run.folder),
                "cases_of_split": number,
                **{
                    key: run.report["statement"][key]
                    for key in sorted(single)
                    if key in run.report["statement"]
                },
            }
            for number, runs in enumerate(splits)
            for run in runs
        ],
    }
