"""`pressmark doctor` on tiny runs: as a user calls it, and what it says of each kind of run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.insight.conftest import with_catalog
from tests.integration.tiny import tiny_arguments

from pressmark.catalog.embeddings import read_vectors
from pressmark.catalog.items import Catalog, read_catalog, write_catalog
from pressmark.cli import main
from pressmark.experiment import parse
from pressmark.files import read_json, write_json
from pressmark.insight import pictures
from pressmark.insight.command import number, terminal_table
from pressmark.insight.definitions import matching
from pressmark.insight.doctor import as_json, diagnose, read_patient
from pressmark.insight.prefix_tree import largest_prefixes
from pressmark.interactions.split_files import read_split, write_split
from pressmark.tokenizer.train import train


@pytest.fixture
def run(tiny_run: Path) -> Path:
    return tiny_run


def travelled(run: Path, place: Path) -> Path:
    """A copy of the run alone, without the store that it was prepared from."""
    return Path(shutil.copytree(run, place / "run"))


def status(*arguments: str | Path) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, arguments)])
    return ended.value.code


def test_as_a_user_calls_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = travelled(run, tmp_path)
    assert status("--run", run) == 0
    shown = capsys.readouterr().out
    assert {one.name for one in (run / "doctor").iterdir()} == {
        "doctor.json",
        *(f"{one}.png" for one in pictures.NAMES),
    }
    assert all(
        (run / "doctor" / f"{one}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for one in pictures.NAMES
    )

    found = read_json(run / "doctor" / "doctor.json")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["kind"], found["level_sizes"], found["num_items"]) == ("rqvae", [16, 16, 16], 240)
    assert found["num_cold"] == found["num_items"] - found["num_fitted"] > 0
    # Every figure is defined, every verdict stands in the table with the change it asks for.
    for figure in found["figures"]:
        assert any(matching(pattern, [figure]) for pattern in found["definitions"]), figure
    assert sum(found["grades"].values()) == len(found["verdicts"]) > 15
    for verdict in found["verdicts"]:
        assert f"{verdict['grade']:5}  {verdict['title']}" in shown
        assert not verdict["changes"] or verdict["grade"] != "good"
    said = {(one["key"], one["how"]) for verdict in found["verdicts"] for one in verdict["changes"]}
    assert len(dict(said)) == len(said) > 2
    assert sorted(re.findall(r"^-> (\S+): ", shown, re.MULTILINE)) == sorted(dict(said))
    assert "[16,16,16,16,16]" in shown

    # What training measured of the same codes.
    trained = read_json(run / "tokenizer" / "metrics.json")
    for name, value in trained["quality"].items():
        assert found["figures"][name] == pytest.approx(value), name
    assert found["figures"]["share_relocated"] == trained["sids"]["share_relocated"]
    assert found["figures"]["mean_extra_distance"] == pytest.approx(
        trained["sids"]["mean_extra_distance"], rel=1e-4
    )


def test_options(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("stays")
    code = status("--run", run, "--out", out, "--no-plots", "--strict", "--explain", "--seed", "3")
    found = read_json(out / "doctor.json")
    assert code == int(found["grades"]["bad"] > 0)
    assert found["seed"] == 3
    assert {one.name for one in out.iterdir()} == {"doctor.json", "mine.txt"}
    assert not (run / "doctor").exists()
    shown = " ".join(capsys.readouterr().out.split())
    assert "Share of the level's codes that some item has." in shown
    assert all(verdict["why"] in shown for verdict in found["verdicts"])


def test_strict_fails_on_a_bad_verdict_alone(run: Path, tmp_path: Path) -> None:
    run = travelled(run, tmp_path)
    train(run, parse(tiny_arguments(tmp_path, **{"tokenizer.kind": "rqkmeans"}))[0].tokenizer, 0)
    table = read_json(run / "tokenizer" / "metrics.json")
    assert table["kind"] == "rqkmeans"
    assert status("--run", run, "--no-plots") == 0
    bad = read_json(run / "doctor" / "doctor.json")["grades"]["bad"]
    assert status("--run", run, "--no-plots", "--strict") == int(bad > 0)


def test_pictures_and_figures_are_the_same_bytes_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAP_ITEMS", 60)
    patient = read_patient(run)
    one, other = (diagnose(run, patient, 0) for _ in range(2))
    assert as_json(one) == as_json(other)
    assert pictures.draw(patient, one) == pictures.draw(patient, other)


def test_suffix_collisions_move_nobody(run: Path, tmp_path: Path) -> None:
    run = travelled(run, tmp_path)
    changes = {"tokenizer.collisions": "suffix", "tokenizer.kind": "rqkmeans"}
    train(run, parse(tiny_arguments(tmp_path, **changes))[0].tokenizer, 0)
    patient = read_patient(run)
    found = diagnose(run, patient)
    assert found.figures["num_item_collisions_after"] == 0 < found.figures["num_item_collisions"]
    assert "share_relocated" not in found.figures
    assert "usage_4" not in found.figures
    assert any("suffix" in note for note in found.left_out)
    assert "rqkmeans, 16 x 16 x 16 codes" in terminal_table(found)
    assert not any("revive" in change.key for one in found.verdicts for change in one.changes)


def test_a_catalog_without_categories_and_a_split_without_cold_items(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAP_ITEMS", 60)
    run = travelled(run, tmp_path)
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    bare = Catalog(catalog.item_id, catalog.title, catalog.brand, ((),) * len(catalog), catalog.text)
    write_catalog(run / "data" / "items.parquet", bare)
    everyone = np.ones(len(catalog), bool)
    write_split(run / "data", type(split)(**{**vars(split), "cold": ~everyone, "fitted_on": everyone}), bare)
    patient = read_patient(run)
    found = diagnose(run, patient)
    assert any("No item has a category" in note for note in found.left_out)
    assert any("no cold items" in note for note in found.left_out)
    assert not [one for one in found.figures if one.startswith(("purity", "nmi", "majority", "prefix_shared"))]
    assert not [one for one in found.verdicts if one.rule.title.startswith(("Purity", "Mutual", "Cold"))]
    assert set(pictures.draw(patient, found)) == set(pictures.NAMES)
    assert "left out: No item has a category" in terminal_table(found)


def test_one_category_is_none(run: Path) -> None:
    patient = read_patient(run)
    one = with_catalog(patient, category=((), *((("Food",),),) * (len(patient.catalog) - 1)))
    found = diagnose(run, one)
    assert not [one for one in found.figures if one.startswith(("purity", "nmi", "majority"))]
    assert not [one for one in found.verdicts if one.rule.title.startswith(("Purity", "Mutual", "Cold: cat"))]
    assert "left out: All categories are one" in terminal_table(found)


def test_what_came_and_went_later_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = travelled(run, tmp_path)
    assert status("--run", run, "--no-plots") == 0
    assert "mind:" not in capsys.readouterr().out
    items = pl.read_parquet(run / "data" / "items.parquet").head(3)
    items.with_columns(pl.format("new-{}", "item_id").alias("item_id")).write_parquet(tmp_path / "new.parquet")
    main(["tokenize", "--run", str(run), "--items", str(tmp_path / "new.parquet"), "--append"])
    (tmp_path / "gone.txt").write_text("\n".join(items["item_id"].head(2)), "utf-8")
    main(["tokenize", "--run", str(run), "--remove", str(tmp_path / "gone.txt")])
    assert status("--run", run, "--no-plots") == 0
    shown = capsys.readouterr().out
    assert "mind: 3 products were appended later: not looked at." in shown
    assert "mind: 2 products were removed later: still looked at." in shown


def test_what_cannot_be_looked_at_says_why(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("--run", tmp_path / "nowhere") == 2
    assert "not a run folder" in capsys.readouterr().err

    untrained = travelled(run, tmp_path)
    shutil.move(untrained / "tokenizer", untrained / "aside")
    assert status("--run", untrained) == 2
    assert "Run train_tokenizer first" in capsys.readouterr().err
    shutil.move(untrained / "aside", untrained / "tokenizer")

    pointer = read_json(untrained / "data" / "vectors.json")
    write_json(untrained / "data" / "vectors.json", {**pointer, "path": "vectors/gone.safetensors"})
    assert status("--run", untrained) == 2
    assert "gone.safetensors is missing" in capsys.readouterr().err
    write_json(untrained / "data" / "vectors.json", pointer)

    (tmp_path / "taken").write_text("")
    assert status("--run", untrained, "--out", tmp_path / "taken") == 2
    assert "taken: is a file" in capsys.readouterr().err
    assert status("--run", untrained, "--seed", "-1") == 2
    assert "--seed is -1" in capsys.readouterr().err
    assert not (untrained / "doctor").exists()


def test_a_model_of_another_training_is_refused(run: Path, tmp_path: Path) -> None:
    run = travelled(run, tmp_path)
    model = (run / "tokenizer" / "model.safetensors").read_bytes()
    settings = parse(tiny_arguments(tmp_path, **{"tokenizer.training.num_epochs": 1}))[0].tokenizer
    train(run, settings, 1)
    (run / "tokenizer" / "model.safetensors").write_bytes(model)
    with pytest.raises(ValueError, match=r"other codebooks than codebooks\.safetensors"):
        read_patient(run)


def test_equal_vectors_are_counted(run: Path, tmp_path: Path) -> None:
    patient = read_patient(run)
    vectors = read_vectors(run).copy()
    vectors[[3, 5, 8]] = vectors[0]
    doubled = type(patient)(**{**vars(patient), "vectors": vectors})
    assert diagnose(run, doubled).figures["share_equal_vectors"] - diagnose(run, patient).figures[
        "share_equal_vectors"
    ] == pytest.approx(4 / 240)


def test_the_tree_of_prefixes_by_hand(run: Path) -> None:
    taxonomy = read_patient(run).taxonomy
    codes = np.array([[1, 0, 2], [1, 0, 2], [1, 3, 0], [0, 1, 1], [2, 0, 0], [2, 1, 0]])
    titles = np.array([f"title {row}" for row in range(6)], object)
    first, second = largest_prefixes(codes, taxonomy, titles, widths=(2, 1, 1))
    assert (first.codes, first.num_items, first.num_children) == ((1,), 3, 2)
    assert (second.codes, second.num_items) == ((2,), 2)
    (child,) = first.children
    assert (child.codes, child.num_items, child.children[0].codes) == ((1, 0), 2, (1, 0, 2))
    top = taxonomy.item_nodes[:3, 0, 0]
    assert first.share == pytest.approx((top == first.top).mean())
    assert taxonomy.node_path[first.top] == (first.name,)


def test_numbers_are_short() -> None:
    assert [number(one) for one in (1.0, 0.9999, -0.0004, 99.96, 1386.4)] == [
        "1.000",
        "1.000",
        "-.000",
        "100",
        "1,386",
    ]
