"""`pressmark explain` as a user calls it, and what it says of odd catalogs."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.insight.conftest import titles, with_catalog
from tests.integration.tiny import tiny_arguments

from pressmark.cli import main
from pressmark.experiment import parse
from pressmark.insight.doctor import Patient, read_patient
from pressmark.insight.explain import explain, find_item, label_run, shared_codes
from pressmark.insight.explain_command import text_of
from pressmark.tokenizer.train import train


def test_as_a_user_calls_it(tiny_run: Path, patient: Patient, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (str(patient.catalog.item_id[row]) for row in (0, 1))
    main(["explain", "--run", str(tiny_run), "--k", "2", one, other])
    shown = capsys.readouterr().out
    for row in (0, 1):
        assert patient.catalog.title[row] in shown
        assert f"SID {'_'.join(map(str, patient.table.sids[row]))}" in shown
    assert "accounts for" in shown
    assert shown.count("its category went into its vector") == sum(map(bool, patient.catalog.category[:2]))
    assert "substitutes (2 codes or more in common)" in shown
    assert "cousins in other categories" in shown


def test_two_runs_side_by_side(
    tiny_run: Path, patient: Patient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = Path(shutil.copytree(tiny_run, tmp_path / "second"))
    train(second, parse(tiny_arguments(tmp_path, **{"tokenizer.kind": "rqkmeans"}))[0].tokenizer, 0)
    item = str(patient.catalog.item_id[5])
    main(["explain", "--run", str(tiny_run), "--and", str(second), item])
    lines = capsys.readouterr().out.splitlines()
    other = read_patient(second)
    sids = ["_".join(map(str, one.table.sids[5])) for one in (patient, other)]
    both = next(line for line in lines if line.startswith("SID "))
    assert both.split() == ["SID", sids[0], "SID", sids[1]]
    assert max(map(len, lines)) <= 110
    assert any(line.startswith("substitutes in both: ") for line in lines)


def test_the_steps_account_for_the_content(patient: Patient) -> None:
    labelled = label_run("r", patient)
    latents, books = patient.quantizer.latents(patient.vectors), patient.quantizer.codebooks()
    for item in (3, 77):
        found = explain(labelled, item)
        assert [step.code for step in found.steps] == patient.table.sids[item].tolist()
        rest = latents[item].astype(np.float64)
        for level, step in enumerate(found.steps):
            distance = np.linalg.norm(rest - books[level], axis=1)
            others = np.delete(distance, step.code)
            assert step.times_as_far == pytest.approx(others.min() / distance[step.code], rel=1e-4)
            rest = rest - books[level][step.code]
            assert step.explained == pytest.approx(
                1 - (rest @ rest) / (latents[item] @ latents[item]), abs=1e-5
            )
            assert (
                step.num_items
                == (patient.table.sids[:, : level + 1] == patient.table.sids[item, : level + 1]).all(1).sum()
            )


def test_a_product_that_is_its_code_has_no_ratio(patient: Patient) -> None:
    labelled = label_run("r", patient)
    book = patient.quantizer.codebooks()[0]
    code = int(patient.table.sids[3, 0])

    class Exact:
        level_sizes = patient.quantizer.level_sizes

        def latents(self, vectors: np.ndarray) -> np.ndarray:
            return book[[code] * len(vectors)]

        def codebooks(self) -> list[np.ndarray]:
            return patient.quantizer.codebooks()

    exact = replace(labelled, patient=replace(patient, quantizer=Exact()))  # type: ignore[arg-type]
    shown = " ".join(text_of([exact], [3], 2).split())
    assert "accounts for 100% of its content so far, exactly; next best " in shown
    assert not re.search(r"\d,\d{3} times as far", shown)


def test_a_moved_product_says_who_has_its_codes(patient: Patient) -> None:
    moved = np.flatnonzero((patient.table.sids != patient.codes).any(axis=1))
    assert len(moved)  # 240 items in 16 x 16 x 16 collide
    found = explain(label_run("r", patient), int(moved[0]))
    assert found.nearest == tuple(patient.codes[moved[0]])
    for holder in found.holders:
        assert tuple(patient.table.sids[holder]) == found.nearest
    assert found.holders
    assert "belong to" in text_of([label_run("r", patient)], [int(moved[0])], 2)


@pytest.mark.parametrize(
    ("category", "words"),
    [((), "the catalog has no categories"), ((("Shop",),), "the catalog has one category")],
)
def test_no_category_and_one(patient: Patient, category: tuple[tuple[str, ...], ...], words: str) -> None:
    bare = with_catalog(patient, category=(category,) * len(patient.catalog))
    assert words in text_of([label_run("r", bare)], [0], 3)


def test_no_cousin_says_why(patient: Patient) -> None:
    own, other = (("Shop", "Milk"),), (("Shop", "Pets"),)
    of_code = np.flatnonzero(patient.table.sids[:, 0] == patient.table.sids[0, 0])
    assert len(of_code) > 2

    def shown(of: dict[int, tuple]) -> str:
        category = [other] * len(patient.catalog)
        for item in of_code:
            category[item] = of.get(int(item), ())
        text = text_of([label_run("r", with_catalog(patient, category=tuple(category)))], [0], 500)
        return " ".join(text.split("cousins in other categories")[1].split())

    first = int(of_code[1])
    assert "no other product with its first code has a category" in shown({0: own})
    assert "with its first code that have a category are of its own kind" in shown({0: own, first: own})
    assert "with its first code are of its own kind" in shown({int(item): own for item in of_code})


def test_items_without_text(patient: Patient) -> None:
    vectors = patient.vectors.copy()
    vectors[0] = 0
    one = with_catalog(patient, title=titles("", *patient.catalog.title[1:]))
    labelled = label_run("r", replace(one, vectors=vectors, codes=patient.quantizer.encode(vectors)))
    shown = text_of([labelled], [0], 3)
    assert shown.startswith("(no title)\n")
    assert "it has no text, so its codes mean nothing" in shown
    assert all(step.explained is None for step in explain(labelled, 0).steps)


def test_an_unknown_item_names_those_that_are_written_alike(
    tiny_run: Path, patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    known = str(patient.catalog.item_id[7])
    for wrong in (known.lower(), known[:-1], f" {known}"):
        with pytest.raises(ValueError, match=rf"not among the 240 items of here.*Did you mean .*{known}"):
            find_item(patient.catalog, wrong, "here")
    with pytest.raises(ValueError, match=r"Its ids look like [^?]*\. Ids are compared"):
        find_item(patient.catalog, "\u00fc\u00fc", "here")
    with pytest.raises(SystemExit) as ended:
        main(["explain", "--run", str(tiny_run), "nothing-like-it", known])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "error: item_id 'nothing-like-it'" in shown.err
    assert patient.catalog.title[7] in shown.out  # the other one is explained all the same


@pytest.mark.parametrize("command", ["explain", "report", "terms"])
def test_a_run_without_tokenizer(
    tiny_run: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("tokenizer")))
    more = {"explain": ["x"], "report": [], "terms": ["--out", str(tmp_path / "t.txt")]}[command]
    with pytest.raises(SystemExit):
        main([command, "--run", str(run), *more])
    shown = capsys.readouterr().err
    assert "sids.parquet is missing" in shown
    assert "Run train_tokenizer first" in shown
    with pytest.raises(SystemExit):
        main([command, "--run", str(tmp_path), *more])
    assert "not a run folder" in capsys.readouterr().err


def test_shared_codes() -> None:
    assert shared_codes(np.array([[1, 2, 3], [1, 5, 3]]), 0, 1) == 1
