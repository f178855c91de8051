from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.integration.tiny import tiny_arguments

from pressmark import stages
from pressmark.experiment import Experiment, parse
from pressmark.files import read_json, write_json
from pressmark.hybrid import train
from pressmark.hybrid.config import Config
from pressmark.hybrid.fusion import from_json
from pressmark.hybrid.recommend import load_hybrid
from pressmark.hybrid.train import FEWEST, STANDARD, _drawn
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories
from pressmark.load import load
from pressmark.recommender import Requests

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hybrid")
    one = {"generator.training.num_epochs": 2, "dual_tower.training.num_epochs": 2, "hybrid.cold_share": 0.3}
    experiment, _ = parse(tiny_arguments(place, **one))
    stages.train_hybrid(experiment)
    return experiment.run


def test_it_is_fitted_and_is_what_a_run_recommends_with(run: Path) -> None:
    fusion, numbers = (
        from_json(read_json(run / "hybrid" / "config.json")),
        read_json(run / "hybrid" / "metrics.json"),
    )
    assert fusion != STANDARD
    assert numbers["num_cases"] >= 2 * FEWEST
    assert 0 <= numbers["ndcg_at_10_unbought"] <= numbers["recall_at_10_unbought"] <= 1
    assert not (run / "training").exists() or not list((run / "training").iterdir())
    history = [load(run).catalog.item_id[:2].tolist()]
    assert load(run).recommend(history, 5) == load(run, "hybrid").recommend(history, 5)
    assert load(run).recommend(history, 5) != load(run, "generator").recommend(history, 5)


def test_a_hybrid_of_other_models_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "dual_tower" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"hybrid/config\.json.*dual_tower of this run was trained again"):
        load(tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.history_input", "items", "history_input is 'items': the hybrid takes the item head"),
        ("backbone", "somewhere", "backbone is 'somewhere': it has no item head"),
        ("stream", "shards", "stream is 'shards': the hybrid holds products"),
    ],
)
def test_a_generator_that_cannot_be_part_of_it_leaves_it_out(
    tmp_path: Path, key: str, value: str, message: str
) -> None:
    experiment, _ = parse(tiny_arguments(tmp_path, **{f"generator.{key}": value}))
    with pytest.raises(ValueError, match=message):
        stages.train_hybrid(experiment)
    assert "hybrid" not in stages._names(experiment)
    assert "generator" in stages._names(experiment)


@pytest.mark.parametrize(
    ("part", "silent", "heard"),
    [("generator", ("generator", "neighbours"), "trend"), ("trend", ("trend", "age"), "generator")],
)
def test_what_a_part_is_worth_can_be_asked(run: Path, part: str, silent: tuple[str, str], heard: str) -> None:
    path, name = run / "hybrid" / "config.json", f"hybrid_without_{part}"
    made = read_json(path)
    without = made["without"][part]
    for kind in ("sold", "unbought"):
        assert all(without[kind].get(one, 0.0) == 0 for one in silent)
        assert without[kind]["dual_tower"] != 0
    assert without["sold"][heard] != 0
    asked = Requests(Histories.from_lists([[1, 2], [3]]))
    whole, rest = (load(run, one).recommend(asked, 5) for one in ("hybrid", name))
    assert not np.array_equal(whole.scores, rest.scores)
    assert name not in Experiment().models
    write_json(path, {key: one for key, one in made.items() if key != "without"})
    with pytest.raises(ValueError, match="of an earlier version"):
        load_hybrid(run, without=part)
    write_json(path, made)


def test_a_killed_fit_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, _ = parse(
        tiny_arguments(run.parent, **{"hybrid.cold_share": 0.3, "hybrid.num_cases": 50}),
    )
    whole = train._fitted

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_fitted", killed)
    before = (run / "hybrid" / "config.json").read_text()
    arguments = (run, experiment.hybrid, experiment.generator, experiment.dual_tower, 0)
    with pytest.raises(KeyboardInterrupt):
        train.train(*arguments)
    inner = run / "training" / "hybrid"
    other = dataclasses.replace(experiment.hybrid, cold_share=0.4)
    made = (inner / "generator" / "model.safetensors").stat().st_mtime_ns
    assert (run / "hybrid" / "config.json").read_text() == before
    seen = []

    def watched(run: Path, inner: Path, config: Config, seed: int) -> tuple[object, object]:
        seen.append((inner / "generator" / "model.safetensors").stat().st_mtime_ns)
        return whole(run, inner, config, seed)

    monkeypatch.setattr(train, "_fitted", watched)
    train.train(*arguments)
    assert seen == [made]
    # What was trained for other settings is not gone on with.
    monkeypatch.setattr(train, "_fitted", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(*arguments)
    stale = (inner / "generator" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(train, "_fitted", watched)
    train.train(run, other, experiment.generator, experiment.dual_tower, 0)
    assert seen[1] != stale
    assert not inner.exists()
    assert (run / "hybrid" / "config.json").read_text() != before


def test_too_few_cases_take_standard_weights(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "FEWEST", 10_000)
    experiment, _ = parse(tiny_arguments(run.parent))
    train.train(run, experiment.hybrid, experiment.generator, experiment.dual_tower, 0)
    assert from_json(read_json(run / "hybrid" / "config.json")) == STANDARD
    assert "too few to fit the hybrid on" in capsys.readouterr().out


def test_every_case_of_a_new_product_and_some_of_the_others() -> None:
    target = np.arange(100) % 10
    names = np.array([str(one) for one in range(100)], object)
    cases = Cases(np.arange(100), names, Histories.from_lists([[]] * 100), target, np.zeros(100, bool))
    found, weight = _drawn(cases, np.arange(10) == 3, 30, 0)
    assert len(found) == 40
    assert (found.target == 3).sum() == 10
    assert weight[found.target == 3].tolist() == [1.0] * 10
    assert weight[found.target != 3].tolist() == [3.0] * 30


@pytest.mark.parametrize(
    "wrong", [{"cold_share": 0.0}, {"generator_epochs": 0.0}, {"given_up": 1.0}, {"num_cases": 0}]
)
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"hybrid.{next(iter(wrong))}"):
        Config(**wrong)  # type: ignore[arg-type]
