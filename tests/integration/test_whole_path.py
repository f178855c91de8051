"""The whole path on a store of 240 products: every stage, the judge, loading, recommending."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.integration.tiny import REPOSITORY, tiny_arguments
from transformers.utils import logging

import pressmark
from pressmark import files, judging, stages
from pressmark.cli import main
from pressmark.experiment import parse
from pressmark.files import read_json, read_tensors
from pressmark.load import LOADERS

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny")
    experiment, _ = parse(tiny_arguments(place))
    stages.evaluate(experiment)
    return experiment.run


def launch(script: str, arguments: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Runs an entry point under `accelerate launch`, as a user would."""
    command = [*LAUNCH, *options, str(REPOSITORY / "src" / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_the_run_folder_is_laid_out_as_documented(run: Path) -> None:
    expected = [
        "config.yaml",
        "data/items.parquet",
        "data/train.parquet",
        "data/valid.parquet",
        "data/test.parquet",
        "data/cold_items.parquet",
        "data/split.json",
        "data/vectors.json",
        "tokenizer/config.json",
        "tokenizer/model.safetensors",
        "tokenizer/codebooks.safetensors",
        "tokenizer/sids.parquet",
        "tokenizer/metrics.json",
        "generator/config.json",
        "generator/model.safetensors",
        "generator/metrics.json",
        "dual_tower/config.json",
        "dual_tower/model.safetensors",
        "dual_tower/index.faiss",
        "dual_tower/metrics.json",
        "hybrid/config.json",
        "hybrid/metrics.json",
        "sasrec/config.json",
        "sasrec/model.safetensors",
        "sasrec/metrics.json",
        "evaluation/report.json",
        "evaluation/report.html",
        "evaluation/full/generator.parquet",
        "evaluation/cold_only/dual_tower.parquet",
        "evaluation/quota_0.1/popularity.parquet",
        "evaluation/full/bm25.parquet",
        "evaluation/full/cooccurrence.parquet",
        "evaluation/full/sasrec.parquet",
    ]
    assert [name for name in expected if not (run / name).is_file()] == []
    assert not list(run.rglob("*.partial*"))
    assert not [one for one in run.rglob("*") if one.suffix in {".pkl", ".pt", ".bin", ".pickle"}]


def test_every_item_has_its_own_sid_cold_ones_too(run: Path) -> None:
    table = pq.read_table(run / "tokenizer" / "sids.parquet")
    sids = {tuple(sid) for sid in table.column("sid").to_pylist()}
    assert len(sids) == table.num_rows == pq.read_table(run / "data" / "items.parquet").num_rows


def test_no_stage_saw_a_cold_interaction(run: Path) -> None:
    cold = set(pq.read_table(run / "data" / "cold_items.parquet").column("item_id").to_pylist())
    assert cold
    train = set(pq.read_table(run / "data" / "train.parquet").column("item_id").to_pylist())
    histories = (
        pq.read_table(run / "data" / "test.parquet").column("history").combine_chunks().flatten().to_pylist()
    )
    assert not cold & (train | set(histories))


def test_a_finished_stage_is_not_done_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "generator" / "model.safetensors").stat().st_mtime_ns
    experiment, _ = parse(tiny_arguments(run.parent))
    logging.enable_progress_bar()
    stages.evaluate(experiment)
    assert (run / "generator" / "model.safetensors").stat().st_mtime_ns == before
    said = capsys.readouterr()
    assert "--- generator" not in said.out
    # Nor does transformers draw a bar for each of the models.
    assert "Loading weights" not in said.err


def test_other_settings_in_the_same_run_folder_are_refused(run: Path) -> None:
    experiment, _ = parse(tiny_arguments(run.parent, **{"tokenizer.contrastive_weight": 0.5}))
    with pytest.raises(ValueError, match=r"tokenizer.contrastive_weight was .* is 0.5"):
        stages.train_tokenizer(experiment)


def test_a_stage_whose_folder_was_deleted_is_done_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tokenizer")
    experiment, _ = parse(
        tiny_arguments(run.parent, run_dir=tmp_path / "run", **{"tokenizer.contrastive_weight": 0.5})
    )
    stages.train_tokenizer(experiment)
    assert (tmp_path / "run" / "tokenizer" / "sids.parquet").is_file()
    # What was built on the one before is not taken for one that is built on this.
    with pytest.raises(
        ValueError, match=r"generator was done with other settings: the data or an earlier stage"
    ):
        stages.train_generator(experiment)


def test_what_was_cut_off_goes_on_with_the_settings_that_it_had(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "sasrec", ignore_errors=True)
    begun = tmp_path / "run" / "training" / "sasrec" / "settings.json"
    (begun.parent / "step-00000001").mkdir(parents=True)
    files.write_json(begun, {"sasrec.dim": 8, "seed": 0})
    experiment, _ = parse(tiny_arguments(run.parent, run_dir=tmp_path / "run"))
    with pytest.raises(
        ValueError, match=r"sasrec that was cut off there had other settings: .*sasrec\.dim was 8"
    ):
        stages.train_sasrec(experiment)


def test_a_stage_is_not_done_twice_at_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "tokenizer")
    experiment, _ = parse(tiny_arguments(run.parent, run_dir=tmp_path / "run"))
    before = (experiment.run / "config.yaml").stat().st_mtime_ns
    with files.holding(experiment.run / "stages" / ".tokenizer.lock", "pressmark tokenizer") as take:
        take(False)
        with pytest.raises(ValueError, match=r"another `pressmark tokenizer` is at work on it"):
            stages.train_tokenizer(experiment)
        assert (experiment.run / "config.yaml").stat().st_mtime_ns == before
    stages.train_tokenizer(experiment)
    # Done by another command between the question and the lock.
    asked, is_done = [False], stages.is_done
    monkeypatch.setattr(
        stages,
        "is_done",
        lambda one, stage: asked.pop() if asked and stage == "tokenizer" else is_done(one, stage),
    )
    with pytest.raises(ValueError, match=r"another command has just done tokenizer"):
        stages.train_tokenizer(experiment)


def test_a_run_is_screened_beside_itself(run: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "eval" / "screen.py"), "--runs", str(run), str(run)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("+0.000 +- 0.000") for line in lines)
    # 240 products: a generator that knew nothing but the trie would be surprised by log(240) = 5.5 nats.
    assert 0 < float(lines[0].split("-log p ")[1].split()[0]) < 15


def test_where_a_stage_logs_is_no_setting_of_it(run: Path) -> None:
    elsewhere = {"tokenizer.training.log_with": "tensorboard", "tokenizer.training.checkpoint_every": 7}
    experiment, _ = parse(tiny_arguments(run.parent, **elsewhere))
    before = (run / "tokenizer" / "model.safetensors").stat().st_mtime_ns
    stages.train_tokenizer(experiment)
    assert (run / "tokenizer" / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_folder_trains_where_its_data_is_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def from_a_checkout(name: str) -> str:
        if name == "pressmark":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", from_a_checkout)
    travelled = tmp_path / "run"
    shutil.copytree(run, travelled)
    (travelled / "stages" / "generator.json").unlink()
    shutil.rmtree(travelled / "generator")
    elsewhere = {"run_dir": travelled, "data.path": tmp_path / "nowhere"}
    experiment, _ = parse(tiny_arguments(tmp_path, **elsewhere))
    stages.train_generator(experiment)
    assert (travelled / "config.yaml").read_text().startswith("pressmark: not installed\n")
    ours, theirs = (read_tensors(one / "generator" / "model.safetensors") for one in (run, travelled))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert set(stages.models_of(experiment)) >= {"generator", "oracle"}
    shutil.rmtree(tmp_path / "nowhere")
    other, _ = parse(tiny_arguments(tmp_path, **elsewhere, **{"split.cold_share": 0.2}))
    with pytest.raises(ValueError, match=r"split\.cold_share was 0\.05, is 0\.2"):
        stages.prepare(other)


def test_the_judge_puts_a_result_on_record_that_its_files_confirm(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judging.main("cold_items", tiny_arguments(run.parent, record="true"))
    result = read_json(tmp_path / "eval" / "results" / "cold_start-tiny.json")
    assert {"command", "commit", "config", "hardware", "date", "protocols", "paired"} <= result.keys()
    assert result["seeds"] == [0]
    for key in ("stage_seconds", "stage_commits"):
        assert set(result[key]["0"]) == {"prepare", "tokenizer", "generator", "dual_tower", "sasrec", "hybrid"}

    cases = pq.read_table(run / "evaluation" / "cases.parquet").to_pylist()
    target = {one["case_id"]: one["item_id"] for one in cases if not one["target_in_history"]}
    for protocol, model in (("full", "generator"), ("quota_0.3", "dual_tower")):
        lists = pq.read_table(run / "evaluation" / protocol / f"{model}.parquet").to_pylist()
        hits = sum(one["rank"] <= 10 and target[one["case_id"]] == one["item_id"] for one in lists)
        figure = result["protocols"][protocol]["models"][model]["all"]["recall_at_10"]
        assert figure["mean"] == pytest.approx(hits / len(target))


@pytest.mark.parametrize("model", list(LOADERS))
def test_every_model_loads_and_answers_in_item_ids(run: Path, model: str) -> None:
    shop = pressmark.load(run, model)
    history = [str(one) for one in shop.catalog.item_id[[5, 9]]]
    answers = shop.recommend([history, []], k=7)
    for answer in answers:
        assert len({one.item_id for one in answer}) == 7
        assert all(np.isfinite(one.score) for one in answer)
    assert not set(history) & {one.item_id for one in answers[0]}
    with pytest.raises(ValueError, match="no-such-item"):
        shop.recommend([["no-such-item"]])


def test_load_names_what_is_missing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known models"):
        pressmark.load(run, "oracel")
    with pytest.raises(ValueError, match="not a run folder"):
        pressmark.load(tmp_path)


def test_the_command_recommends_to_a_file(run: Path, tmp_path: Path) -> None:
    items = pq.read_table(run / "data" / "items.parquet").column("item_id").to_pylist()
    lines = [{"user_id": "a", "history": items[:3]}, {"user_id": "b", "history": []}]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["recommend", "--run", str(run), "--histories", str(tmp_path / "h.jsonl"), "--k", "4"]
    main([*arguments, "--out", str(tmp_path / "r.parquet")])
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [(one["user_id"], one["rank"]) for one in table] == [
        (user, rank) for user in "ab" for rank in range(1, 5)
    ]
    main([*arguments, "--filter", "cold", "--out", str(tmp_path / "c.parquet")])
    cold = set(pq.read_table(run / "data" / "cold_items.parquet").column("item_id").to_pylist())
    assert set(pq.read_table(tmp_path / "c.parquet").column("item_id").to_pylist()) <= cold
    # Lists of products, joined with a filter; ids that the catalog does not hold do no harm.
    (tmp_path / "stock.txt").write_text("\n".join([*items[:40], "sold out long ago"]))
    (tmp_path / "wine.txt").write_text("\n".join(items[20:]))
    lists = ["--allow", str(tmp_path / "stock.txt"), "--deny", str(tmp_path / "wine.txt")]
    lists += ["--model", "generator", "--certify"]
    main([*arguments, *lists, "--filter", "!cold", "--out", str(tmp_path / "l.parquet")])
    found = set(pq.read_table(tmp_path / "l.parquet").column("item_id").to_pylist())
    assert found
    assert found <= set(items[:20]) - cold
    (tmp_path / "stock.txt").write_text("nothing of ours")
    with pytest.raises(SystemExit):
        main([*arguments, *lists, "--out", str(tmp_path / "n.parquet")])
    assert not (tmp_path / "n.parquet").exists()


@pytest.mark.parametrize("stage", ["tokenizer", "generator", "dual_tower"])
def test_two_processes_train_as_one(run: Path, tmp_path: Path, stage: str) -> None:
    """Dropout draws differ between processes, so it is off; all else must agree. The tower reads text."""
    still = {
        "generator.model.dropout": 0.0,
        "generator.model.identity_dropout": 0.0,
        "generator.model.word_dropout": 0.0,
        "dual_tower.identity_dropout": 0.0,
        "dual_tower.text.encoder": "scratch",
        "dual_tower.text.users": "text",
        "dual_tower.text.num_layers": 1,
        "dual_tower.text.width": 16,
        "dual_tower.text.num_heads": 2,
        "dual_tower.text.length": 16,
        "dual_tower.text.user_length": 24,
        "dual_tower.text.dropout": 0.0,
        "dual_tower.text.rows_at_once": 100,
        "dual_tower.training.max_steps": 8,
        "run_dir": tmp_path / "one",
    }
    experiment, _ = parse(tiny_arguments(run.parent, **still))
    getattr(stages, f"train_{stage}")(experiment)
    # Both start from the same earlier stages: sums in another order may move an item on a cell's edge.
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / stage)
    (tmp_path / "two" / "stages" / f"{stage}.json").unlink()
    arguments = tiny_arguments(run.parent, **{**still, "run_dir": tmp_path / "two"})
    two = str(REPOSITORY / "configs" / "accelerate" / "cpu2.yaml")
    done = launch(f"train_{stage}.py", arguments, "--config_file", two)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, together = (stages.training_of(tmp_path / name, stage) for name in ("one", "two"))
    assert (alone["num_processes"], together["num_processes"]) == (1, 2)
    assert together["losses"][:50] == pytest.approx(alone["losses"][:50], rel=1e-5)


def test_one_saved_tokenizer_gives_the_same_sids_in_any_batch_size(run: Path) -> None:
    from pressmark.catalog.embeddings import read_vectors
    from pressmark.tokenizer.train import load_quantizer

    quantizer, vectors = load_quantizer(run / "tokenizer"), read_vectors(run)
    whole = np.asarray(quantizer.encode(vectors))
    pieces = np.concatenate(
        [np.asarray(quantizer.encode(vectors[start : start + 7])) for start in range(0, len(vectors), 7)]
    )
    assert (whole == pieces).all()


@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_a_killed_stage_resumes_and_ends_bit_for_bit_the_same(run: Path, tmp_path: Path, stage: str) -> None:
    place = tmp_path / "run"
    arguments = tiny_arguments(run.parent, **{"run_dir": place, f"{stage}.training.checkpoint_every": 0})
    command = [sys.executable, str(REPOSITORY / "src" / f"train_{stage}.py"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((place / "training" / stage).glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (place / "stages" / f"{stage}.json").exists(), "the kill came too late to test anything"
    subprocess.run(command, check=True, capture_output=True)
    whole = read_tensors(run / stage / "model.safetensors")
    resumed = read_tensors(place / stage / "model.safetensors")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert (tensor == resumed[name]).all(), name
