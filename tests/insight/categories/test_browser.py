"""The review page in headless Chromium: sorted, decided by mouse and keys, exported, read back."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.scripts import load_script

from pressmark.cli import main
from pressmark.files import read_parquet

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FLAGS = load_script("bench_explorer").FLAGS


@pytest.fixture(scope="module")
def audited(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "audit.parquet"
    main(["audit", "--run", str(tiny_run), "--out", str(out), "--confidence", "0"])
    return out


@pytest.fixture
def page(audited: Path) -> Iterator[Any]:
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = chromium.new_page(viewport={"width": 1400, "height": 800})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(audited.with_suffix(".html").as_uri())
        yield page
        chromium.close()
    assert errors == []


def test_sorted_by_a_click(page: Any, audited: Path) -> None:
    rows = read_parquet(audited).to_pylist()
    column = page.locator("th", has_text="Confidence")
    for state, down in (("descending", True), ("ascending", False)):
        column.get_by_role("button").click()
        assert column.get_attribute("aria-sort") == state
        shown = [float(one) for one in page.locator("tbody tr td:nth-child(4)").all_inner_texts()]
        right = sorted((row["confidence"] for row in rows), reverse=down)[: len(shown)]
        assert shown == pytest.approx(right, abs=0.006)
    column.get_by_role("button").press("Enter")  # and back to the order of the table
    assert page.evaluate("document.activeElement.textContent").startswith("Confidence")  # the focus stays
    assert column.get_attribute("aria-sort") == "none"
    assert page.locator("tbody tr").first.inner_text().split("\n")[0] == rows[0]["title"]
    page.fill("#find", rows[1]["item_id"])
    assert rows[1]["title"] in page.locator("tbody tr").all_inner_texts()[0]


def test_decided_by_keys_exported_and_read_back(
    page: Any, audited: Path, tiny_run: Path, tmp_path: Path
) -> None:
    rows = read_parquet(audited).to_pylist()
    accept = page.get_by_role("button", name="Accept").first
    accept.focus()
    page.keyboard.press("Enter")
    assert accept.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # rejected after all
    assert accept.get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Accept").nth(1).click()
    assert page.locator("#decided").inner_text() == "2 decided"
    leaving = "dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    assert not page.evaluate(leaving)  # the browser asks before decisions are lost
    with page.expect_download() as download:
        page.get_by_role("button", name="Export decisions").press("Enter")
    assert page.evaluate(leaving)
    review = tmp_path / download.value.suggested_filename
    download.value.save_as(review)
    with review.open(newline="", encoding="utf-8") as file:
        _, *written = csv.reader(file)
    assert sorted(written) == sorted(
        ["category", row["item_id"], row["current"], decision]
        for row, decision in zip(rows, ("rejected", "accepted"), strict=False)
    )
    again = tmp_path / "again.parquet"
    main(["audit", "--run", str(tiny_run), "--out", str(again), "--confidence", "0", "--review", str(review)])
    assert read_parquet(again)["item_id"].to_pylist() == [row["item_id"] for row in rows[2:]]
