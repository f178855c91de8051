from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pressmark.evaluation.combine import combine
from pressmark.evaluation.config import Config
from pressmark.evaluation.figures import PER_LIST
from pressmark.evaluation.harness import evaluate
from pressmark.evaluation.report import terminal_table, write
from pressmark.files import read_json
from pressmark.interactions.split_files import write_split


@pytest.fixture(scope="module")
def runs(store: Any, other_store: Any, small: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two model seeds on one split, and two on a split with other cold items."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pressmark.evaluation.page.render", lambda report: ("", {}))
        return evaluated_runs(store, other_store, small, tmp_path_factory.mktemp("runs"))


def evaluated_runs(store: Any, other_store: Any, small: Config, folder: Path) -> list[Path]:
    folders = []
    for number, (one, noise) in enumerate([(store, 0), (store, 1), (other_store, 0), (other_store, 1)]):
        jitter = np.random.default_rng(noise).normal(size=one.affinity.shape) * noise
        seeded = replace(one, affinity=(one.affinity + jitter).astype(np.float32))
        folders.append(folder / f"seed{number}")
        write_split(folders[-1] / "data", one.split, one.catalog)
        recommenders = {name: seeded.recommenders()[name] for name in ("generator", "popularity")}
        evaluate(folders[-1], recommenders, one.catalog, one.split, one.vectors, small)
    return folders


def outsiders_hits(run: Path, name: str) -> np.ndarray:
    """Recall@10 of each kept case of a slice."""
    cases = pq.read_table(run / "evaluation" / "cases.parquet").to_pylist()
    rows = pq.read_table(run / "evaluation" / "full" / "generator.parquet").to_pylist()
    top = {(row["case_id"], row["item_id"]) for row in rows if row["rank"] <= 10}
    kept = [case for case in cases if not case["target_in_history"] and name in case["slices"]]
    return np.array([(case["case_id"], case["item_id"]) in top for case in kept], float)


def users_of(run: Path, name: str) -> np.ndarray:
    """Who asks in each kept case of a slice."""
    user = {row["case_id"]: row["user_id"] for row in pq.read_table(run / "data" / "test.parquet").to_pylist()}
    cases = pq.read_table(run / "evaluation" / "cases.parquet").to_pylist()
    kept = [case for case in cases if not case["target_in_history"] and name in case["slices"]]
    return np.array([user[case["case_id"]] for case in kept])


def test_one_run_is_its_own_report(runs: list[Path], small: Config) -> None:
    alone, report = combine(runs[:1], small), read_json(runs[0] / "evaluation" / "report.json")
    for one in report["protocols"].values():
        for slices in one["models"].values():
            for metric in PER_LIST:
                # Beyond accuracy has no interval over runs.
                if metric in slices["all"]:
                    slices["all"][metric].update(low=None, high=None)
    for name in ("protocols", "paired", "num_cases"):
        assert alone[name] == report[name]


def test_model_seeds_are_averaged_case_by_case(runs: list[Path], small: Config) -> None:
    combined = combine(runs[:2], small)
    values = (outsiders_hits(runs[0], "warm") + outsiders_hits(runs[1], "warm")) / 2
    assert set(values) == {0.0, 0.5, 1.0}
    found = combined["protocols"]["full"]["models"]["generator"]["warm"]["recall_at_10"]
    assert combined["num_cases"]["warm"] == len(values)
    assert found["mean"] == values.mean()
    drawn = np.random.default_rng(0).integers(0, len(values), (200, len(values)))
    np.testing.assert_allclose(
        [found["low"], found["high"]], np.percentile(values[drawn].mean(axis=1), [2.5, 97.5]), rtol=1e-12
    )


def test_cold_item_seeds_are_pooled(runs: list[Path], small: Config) -> None:
    combined = combine(runs, small, title="Four runs")
    seeds = [[outsiders_hits(run, "cold") for run in pair] for pair in (runs[:2], runs[2:])]
    values = np.concatenate([(first + second) / 2 for first, second in seeds])
    assert combined["num_cases"]["cold"] == len(values)
    found = combined["protocols"]["full"]["models"]["generator"]["cold"]["recall_at_10"]
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-15)
    assert [one["cases_of_split"] for one in combined["statement"]["runs"]] == [0, 0, 1, 1]
    assert combined["title"] == "Four runs"
    assert "test cases have a target that the user already had" in terminal_table(combined)


def test_pooled_splits_are_resampled_by_user(runs: list[Path], small: Config) -> None:
    combined = combine(runs, small)
    seeds = [[outsiders_hits(run, "warm") for run in pair] for pair in (runs[:2], runs[2:])]
    values = np.concatenate([(first + second) / 2 for first, second in seeds])
    users = np.concatenate([users_of(run, "warm") for run in (runs[0], runs[2])])
    names, unit = np.unique(users, return_inverse=True)
    assert len(names) < len(users)
    total, size = np.bincount(unit, values), np.bincount(unit)
    drawn = np.random.default_rng(0).integers(0, len(names), (200, len(names)))
    expected = np.percentile(total[drawn].sum(axis=1) / size[drawn].sum(axis=1), [2.5, 97.5])
    found = combined["protocols"]["full"]["models"]["generator"]["warm"]["recall_at_10"]
    np.testing.assert_allclose([found["low"], found["high"]], expected, rtol=1e-12)
    units = combined["protocols"]["full"]["units"]
    assert units["warm"] == {"unit": "user", "num": len(names)}
    # Of the twin's cases none is left out: all users are there.
    assert combined["protocols"]["full_unmasked"]["units"]["all"] == {"unit": "user", "num": 240}
    assert units["cold"]["unit"] == "target item"
    assert "users with all their cases of all splits are resampled" in combined["statement"]["intervals"]
    assert read_json(runs[0] / "evaluation" / "report.json")["protocols"]["full"]["units"]["warm"] == {
        "unit": "case",
        "num": len(seeds[0][0]),
    }


def test_a_judged_case_that_the_split_lacks_is_refused(runs: list[Path], small: Config, tmp_path: Path) -> None:
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    path = copy / "data" / "test.parquet"
    pq.write_table(pq.read_table(path).slice(2), path)
    with pytest.raises(ValueError, match=r"test\.parquet: lacks case_id 5 \(and 1 others\)"):
        combine([copy, runs[2]], small)


def test_several_runs_have_a_page(runs: list[Path], small: Config, tmp_path: Path) -> None:
    write(tmp_path / "joint", combine(runs, small, title="Four runs"))
    page = (tmp_path / "joint" / "report.html").read_text("utf-8")
    assert "<h1>Four runs</h1>" in page
    assert "<code>data/test.parquet</code> of each run" in page
    assert "users, which are resampled" in page
    assert "target items</small>" in page
    assert str(runs[3]) in page


def test_uneven_seeds_and_models_are_refused(runs: list[Path], small: Config, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model seeds"):
        combine(runs[:3], small)
    with pytest.raises(ValueError, match="no run folder"):
        combine([], small)
    copy = shutil.copytree(runs[1], tmp_path / "copy")
    report = copy / "evaluation" / "report.json"
    report.write_text(report.read_text("utf-8").replace('"popularity"', '"sasrec"'), "utf-8")
    with pytest.raises(ValueError, match="sasrec"):
        combine([runs[0], copy], small)
