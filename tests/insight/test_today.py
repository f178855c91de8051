from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pressmark.cli import main
from pressmark.insight.doctor import Patient, read_patient
from pressmark.insight.explain import explain, find_item, read_labelled
from pressmark.insight.today import as_of_today
from pressmark.sids.table import read_register


def test_a_run_that_nobody_touched_is_as_it_came(tiny_run: Path, patient: Patient) -> None:
    assert as_of_today(tiny_run, patient) is patient


def test_appended_products_are_in_and_removed_ones_out(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    items = pl.read_parquet(run / "data" / "items.parquet").head(6)
    new = items.with_columns(pl.format("new-{}", "item_id").alias("item_id"))
    new.write_parquet(tmp_path / "new.parquet")
    main(["tokenize", "--run", str(run), "--items", str(tmp_path / "new.parquet"), "--append"])
    gone = str(items["item_id"][3])
    (tmp_path / "gone.txt").write_text(gone + "\n", "utf-8")
    main(["tokenize", "--run", str(run), "--remove", str(tmp_path / "gone.txt")])

    patient = read_patient(run)
    today = as_of_today(run, patient)
    ids = list(today.catalog.item_id)
    assert len(ids) == 240 + 6 - 1
    assert gone not in ids
    register = read_register(run / "tokenizer" / "sids.parquet")
    sid_of = dict(zip(register.item_id, register.table.sids.tolist(), strict=True))
    assert [sid_of[one] for one in ids] == today.table.sids.tolist()
    row = ids.index(f"new-{items['item_id'][0]}")
    twin = ids.index(str(items["item_id"][0]))
    assert np.allclose(today.vectors[row], today.vectors[twin], atol=1e-5)
    assert today.split.cold[row]
    assert today.split.cold[twin] == patient.split.cold[list(patient.catalog.item_id).index(ids[twin])]

    labelled = read_labelled(run)
    found = explain(labelled, find_item(labelled.patient.catalog, ids[row], "r"))
    assert twin in found.substitutes
    capsys.readouterr()
    main(["report", "--run", str(run), "--out", str(tmp_path / "page.html")])
    assert "245 products" in capsys.readouterr().out
    with pytest.raises(ValueError, match="removed products are not explained"):
        find_item(labelled.patient.catalog, gone, "r")
