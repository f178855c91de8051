"""The page's file: what is in it, and that nothing of a catalog can leave its place."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.insight.conftest import titles, with_catalog

from pressmark.cli import main
from pressmark.insight.doctor import Patient
from pressmark.insight.explain import label_run
from pressmark.insight.explorer import content as module
from pressmark.insight.explorer.content import content, packed
from pressmark.insight.explorer.flags import Flag
from pressmark.insight.explorer.page import Page, render

EVIL = "</script><script>alert(1)</script>{{style}}<img src=x onerror=alert(2)>"


def unpacked(text: str) -> Any:
    """What `packed` was given."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.fixture(autouse=True)
def _small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    place = module.place_items
    monkeypatch.setattr(module, "place_items", lambda vectors, seed: place(vectors, seed, 40))


def test_as_a_user_calls_it(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    found = {"item_id": ["nobody"], "suggested": [["Dairy"]], "confidence": [0.9], "severity": [1.0]}
    pq.write_table(pa.table(found), tmp_path / "audit.parquet")
    main(["report", "--run", str(run), "--audit", str(tmp_path / "audit.parquet")])
    assert "1 of 1 flags are of products not in this run" in capsys.readouterr().out
    html = (run / "explorer.html").read_text("utf-8")
    assert "The doctor" in html
    assert 'id="tab-evaluation"' not in html
    # The same data again, but for the audit that was not given.
    main(["report", "--run", str(run), "--out", str(tmp_path / "again.html")])
    pages = [html, (tmp_path / "again.html").read_text("utf-8")]
    data = [unpacked(re.search(r'id="data">([^<]*)<', one)[1]) for one in pages]  # type: ignore[index]
    data[0]["flags"]["num_unknown"] = 0
    assert data[0] == data[1]
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", html)


def test_the_columns_are_those_of_the_run(patient: Patient) -> None:
    labelled = label_run("r", patient)
    ids = patient.catalog.item_id
    found = content(labelled, [Flag(one, "", 0.5, 1.0) for one in (str(ids[3]), "nobody")])
    assert unpacked(packed(found)) == found
    items, order = found["items"], labelled.prefixes.order
    assert items["id"] == ids[order].tolist()
    assert np.array_equal(np.reshape(items["sid"], (-1, 3)), patient.table.sids[order])
    assert [items["id"][at] for at in items["cold"]] == ids[order][patient.split.cold[order]].tolist()
    assert items["id"][found["flags"]["item"][0]] == ids[3]
    assert found["flags"]["num_unknown"] == 1
    for name in ("substitutes", "cousins"):
        near = np.reshape(items[name], (-1, items["num_relatives"]))
        assert near.max() < len(ids)
        assert not (near == np.arange(len(ids))[:, None]).any()
    prefixes = found["prefixes"]
    for length, start, end in zip(prefixes["length"], prefixes["start"], prefixes["end"], strict=True):
        rows = np.reshape(items["sid"], (-1, 3))[start:end, :length]
        assert end - start > 1
        assert (rows == rows[0]).all()
    assert len(found["map"]["item"]) == 40


def test_texts_of_the_catalog_stay_inside_the_data(patient: Patient) -> None:
    evil = with_catalog(patient, title=titles(EVIL, *patient.catalog.title[1:]))
    found = content(label_run("r", evil), [Flag(str(patient.catalog.item_id[1]), EVIL, 0.5, 1.0)])
    html = render(Page(EVIL, found))
    assert "alert(" not in html.replace("&lt;script&gt;alert(1)", "").replace("onerror=alert(2)&gt;", "")
    assert html.count("</script>") == 2
    assert EVIL in unpacked(re.search(r'id="data">([^<]*)<', html)[1])["items"]["title"]  # type: ignore[index]


@pytest.mark.parametrize("category", [(), (("Shop",),)])
def test_no_category_and_one(patient: Patient, category: tuple[tuple[str, ...], ...]) -> None:
    bare = with_catalog(patient, category=(category,) * len(patient.catalog))
    found = content(label_run("r", bare), [])
    assert set(found["items"]["cousins"]) == {-1}
    assert len(found["categories"]["path"]) == len(category)


def test_a_folder_as_out(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--run", str(tiny_run), "--out", str(tmp_path)])
    assert "is a folder; name a file" in capsys.readouterr().err
