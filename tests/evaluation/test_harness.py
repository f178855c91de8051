from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pressmark import files, metrics
from pressmark.evaluation.config import Config
from pressmark.evaluation.figures import BEYOND, FINE_METRICS, PAIRED_METRICS
from pressmark.evaluation.harness import evaluate
from pressmark.evaluation.slices import MAIN

PROTOCOLS = ("full", "quota_0.1", "quota_0.3", "cold_only")


def judge(store: Any, run: Path, config: Config, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    recommenders = store.recommenders()
    report = evaluate(run, recommenders, store.catalog, store.split, store.vectors, config, **more)
    return report, recommenders


def test_report_has_the_shape_of_the_contract(evaluated: Any) -> None:
    report = evaluated.report
    assert files.read_json(evaluated.run / "evaluation" / "report.json") == report
    assert set(report["protocols"]) == {*PROTOCOLS, "full_unmasked"}
    assert report["num_cases"]["all"] == report["num_cases"]["warm"] + report["num_cases"]["cold"]
    assert report["statement"]["dataset"] == "tiny <i>& co</i>"
    assert (
        report["statement"]["cases"]["excluded_target_in_history"]["all"]
        == 240 - report["num_cases"]["all"]
        > 0
    )
    for protocol, one in report["protocols"].items():
        assert list(one["models"]) == ["generator", "popularity", "dual_tower"]
        for slices in one["models"].values():
            for name, figures in slices.items():
                wanted = metrics.ACCURACY if name in MAIN else FINE_METRICS
                beyond = BEYOND if name == "all" and protocol != "full_unmasked" else ()
                assert set(figures) == {*wanted, *beyond}
                for cell in figures.values():
                    assert set(cell) == {"mean", "low", "high"}
                    if cell["low"] is not None:
                        # A constant column's resamples differ from its mean in the last place.
                        assert cell["low"] - 1e-12 <= cell["mean"] <= cell["high"] + 1e-12
    assert {name for name in report["num_cases"] if name.startswith("cold_cosine")}


def test_paired_differences_follow_the_config(evaluated: Any) -> None:
    rows = evaluated.report["paired"]
    assert {(row["a"], row["b"]) for row in rows} == {
        ("generator", "dual_tower"),
        ("generator", "popularity"),
        ("dual_tower", "popularity"),
    }
    assert len(rows) == 3 * 5 * 3 * len(PAIRED_METRICS)
    for row in rows:
        models = evaluated.report["protocols"][row["protocol"]]["models"]
        a, b = (models[row[side]][row["slice"]][row["metric"]]["mean"] for side in "ab")
        assert row["difference"] == a - b
        assert row["low"] <= row["difference"] <= row["high"]


def read_cases(run: Path) -> list[dict[str, Any]]:
    return pq.read_table(run / "data" / "test.parquet").to_pylist()


def outsiders_ranks(run: Path, protocol: str, model: str, kept: list[dict[str, Any]]) -> np.ndarray:
    places = {
        (row["case_id"], row["item_id"]): row["rank"]
        for row in pq.read_table(run / "evaluation" / protocol / f"{model}.parquet").to_pylist()
    }
    return np.array([places.get((case["case_id"], case["item_id"]), 0) for case in kept])


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "full_unmasked"])
def test_an_outsider_arrives_at_the_same_figures(evaluated: Any, protocol: str) -> None:
    """From data/test.parquet and the lists alone, by plain Python and the documented stream."""
    cases = read_cases(evaluated.run)
    masked = protocol != "full_unmasked"
    kept = [case for case in cases if not masked or case["item_id"] not in case["history"]]
    cold = np.array([case["cold"] for case in kept])
    target = np.array([case["item_id"] for case in kept])
    for model in ("generator", "dual_tower"):
        rank = outsiders_ranks(evaluated.run, protocol, model, kept)
        for name, inside in (("all", cold | ~cold), ("warm", ~cold), ("cold", cold)):
            found = evaluated.report["protocols"][protocol]["models"][model][name]
            own, num = rank[inside], int(inside.sum())
            assert found["recall_at_10"]["mean"] == sum(1 for r in own if 1 <= r <= 10) / num
            gains = [1 / math.log2(r + 1) for r in own if 1 <= r <= 20]
            assert found["ndcg_at_20"]["mean"] == pytest.approx(math.fsum(gains) / num, rel=1e-15)
            assert found["mrr_at_5"]["mean"] == math.fsum(1 / r for r in own if 1 <= r <= 5) / num
            units = np.unique(target[inside], return_inverse=True)[1] if name == "cold" else np.arange(num)
            sizes = np.bincount(units)
            hits = np.bincount(units, weights=(own >= 1) & (own <= 10))
            drawn = np.random.default_rng(0).integers(0, len(sizes), (200, len(sizes)))
            draws = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
            low, high = np.percentile(draws, [2.5, 97.5])
            assert (found["recall_at_10"]["low"], found["recall_at_10"]["high"]) == (low, high)


def test_fine_slices_follow_from_cases_parquet(evaluated: Any) -> None:
    rows = pq.read_table(evaluated.run / "evaluation" / "cases.parquet").to_pylist()
    kept = [row for row in rows if not row["target_in_history"]]
    rank = outsiders_ranks(evaluated.run, "full", "generator", kept)
    checked = 0
    for name, figures in evaluated.report["protocols"]["full"]["models"]["generator"].items():
        inside = np.array([name in row["slices"] for row in kept])
        assert evaluated.report["num_cases"][name] == inside.sum()
        assert figures["recall_at_10"]["mean"] == ((rank >= 1) & (rank <= 10))[inside].sum() / inside.sum()
        checked += name not in MAIN
    assert checked >= 10


def test_beyond_accuracy_follows_from_the_lists(evaluated: Any, store: Any) -> None:
    table = pq.read_table(evaluated.run / "evaluation" / "quota_0.3" / "generator.parquet").to_pylist()
    short = [row for row in table if row["rank"] <= 10]
    cold_ids = set(store.catalog.item_id[store.split.cold])
    found = evaluated.report["protocols"]["quota_0.3"]["models"]["generator"]["all"]
    shares: dict[int, list[bool]] = {}
    for row in short:
        shares.setdefault(row["case_id"], []).append(row["item_id"] in cold_ids)
    assert found["cold_share_at_10"]["mean"] == pytest.approx(
        np.mean([np.mean(one) for one in shares.values()])
    )
    assert found["cold_share_at_10"]["mean"] == pytest.approx(0.3)
    coverage = len({row["item_id"] for row in short}) / len(store.catalog)
    assert found["catalog_coverage_at_10"] == {"mean": coverage, "low": None, "high": None}


def test_masking_and_filters_on_disk(evaluated: Any, store: Any) -> None:
    cases = {
        case["case_id"]: case for case in pq.read_table(evaluated.run / "data" / "test.parquet").to_pylist()
    }
    cold_ids = set(store.catalog.item_id[store.split.cold])
    for protocol in PROTOCOLS:
        rows = pq.read_table(evaluated.run / "evaluation" / protocol / "generator.parquet").to_pylist()
        assert all(row["item_id"] not in cases[row["case_id"]]["history"] for row in rows)
        if protocol == "cold_only":
            assert all(row["item_id"] in cold_ids for row in rows)
        if protocol == "quota_0.1":
            cold_rows = [row for row in rows if row["item_id"] in cold_ids]
            assert {row["rank"] for row in cold_rows} == {10, 20, 30, 40, 50}
    twin = evaluated.run / "evaluation" / "full_unmasked" / "generator.parquet"
    unmasked = pq.read_table(twin).to_pylist()
    assert any(row["item_id"] in cases[row["case_id"]]["history"] for row in unmasked)
    assert {row["case_id"] for row in unmasked} == set(cases)


@pytest.mark.usefixtures("no_page")
def test_a_finished_model_is_not_asked_again(store: Any, small: Config, tmp_path: Path) -> None:
    prints = {"generator": "g1", "popularity": "p1", "dual_tower": "d1"}
    first, asked = judge(store, tmp_path, small, fingerprints=prints)
    assert all(model.num_calls > 0 for model in asked.values())
    again, asked = judge(store, tmp_path, small, fingerprints=prints)
    assert again == first
    assert [model.num_calls for model in asked.values()] == [0, 0, 0]
    _, asked = judge(store, tmp_path, small, fingerprints={**prints, "popularity": "p2"})
    assert [model.num_calls > 0 for model in asked.values()] == [False, True, False]
    # Killed between the cold ranking and the quotas: the cold side is read, the warm side asked for.
    (tmp_path / "evaluation" / "quota_0.1" / "generator.parquet").unlink()
    resumed, asked = judge(store, tmp_path, small, fingerprints={**prints, "popularity": "p2"})
    assert [model.num_calls for model in asked.values()] == [4, 0, 0]
    assert resumed == first
    _, asked = judge(store, tmp_path, small, fingerprints={"generator": "g1"})
    assert [model.num_calls > 0 for model in asked.values()] == [False, True, True]


@pytest.mark.usefixtures("no_page")
def test_other_cases_are_computed_again(store: Any, small: Config, tmp_path: Path) -> None:
    prints = {"generator": "g1", "popularity": "p1", "dual_tower": "d1"}
    judge(store, tmp_path, small, fingerprints=prints)
    report, asked = judge(store, tmp_path, replace(small, max_cases=50), fingerprints=prints)
    assert all(model.num_calls > 0 for model in asked.values())
    assert "random subset of 50" in report["statement"]["cases"]["judged"]
    assert report["statement"]["cases"]["test"] == 240
    assert report["protocols"]["full_unmasked"]["num_cases"]["all"] == 50


@pytest.mark.usefixtures("no_page")
def test_a_split_without_cold_items_has_the_full_protocol_alone(
    store: Any, small: Config, tmp_path: Path
) -> None:
    none = np.zeros(len(store.catalog), bool)
    test = replace(store.split.test, cold=np.zeros(len(store.split.test), bool))
    warm = replace(store, split=replace(store.split, cold=none, test=test))
    report, _ = judge(warm, tmp_path, small)
    assert set(report["protocols"]) == {"full", "full_unmasked"}
    assert report["num_cases"]["cold"] == 0
    assert "cold" not in report["protocols"]["full"]["models"]["generator"]


@pytest.mark.usefixtures("no_page")
def test_without_twin_and_vectors(store: Any, small: Config, tmp_path: Path) -> None:
    bare = replace(store, vectors=None)
    report, _ = judge(bare, tmp_path, replace(small, unmasked_twin=False, protocols=("cold_only",)))
    assert set(report["protocols"]) == {"cold_only"}
    assert not any("cosine" in name for name in report["num_cases"])
    models = report["protocols"]["cold_only"]["models"]
    assert models["generator"]["warm"]["recall_at_50"]["mean"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocols": ("full", "half")}, "half"),
        ({"protocols": ("full", "full")}, "once"),
        ({"num_resamples": 0}, "num_resamples is 0"),
        ({"paired": ("generator",)}, "a:b"),
    ],
)
def test_config_is_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**change)


def test_wrong_recommenders_are_refused(store: Any, small: Config, tmp_path: Path) -> None:
    model = store.recommenders()["generator"]
    others = (store.catalog, store.split, None, small)
    with pytest.raises(ValueError, match="at least one"):
        evaluate(tmp_path, {}, *others)
    with pytest.raises(ValueError, match="file name"):
        evaluate(tmp_path, {"a/b": model}, *others)
    with pytest.raises(ValueError, match="catalog has 130"):
        evaluate(tmp_path, {"short": replace(model, affinity=model.affinity[:9])}, *others)
