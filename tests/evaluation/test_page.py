from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from pressmark.evaluation.page import render


class Reader(HTMLParser):
    """Notes every tag and attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(evaluated: Any) -> tuple[str, Reader]:
    text = (evaluated.run / "evaluation" / "report.html").read_text("utf-8")
    reader = Reader()
    reader.feed(text)
    return text, reader


def test_the_page_needs_nothing_else(page: tuple[str, Reader]) -> None:
    text, reader = page
    assert reader.open == []
    for tag, attributes in reader.tags:
        assert tag not in {"script", "iframe", "object"}
        for name in ("src", "href"):
            if attributes.get(name) is not None:
                assert str(attributes[name]).startswith(("data:", "#")), (tag, attributes)
    assert not re.search(r"https?://|@import|url\(", text)


def test_text_of_others_is_escaped(page: tuple[str, Reader]) -> None:
    text, _ = page
    assert "<script" not in text
    assert "Tiny &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "tiny &lt;i&gt;&amp; co&lt;/i&gt;" in text


def test_tables_and_pictures_are_accessible(page: tuple[str, Reader]) -> None:
    _, reader = page
    assert all(one.get("scope") for one in reader.all("th"))
    assert len(reader.all("caption")) == len(reader.all("table")) > 10
    assert all(one.get("alt") for one in reader.all("img"))
    links = {str(one["href"])[1:] for one in reader.all("a")}
    assert links == {str(one["id"]) for one in reader.all("section")}
    assert "statement" in links


def test_the_headline_holds_the_figures(page: tuple[str, Reader], evaluated: Any) -> None:
    text, _ = page
    mean = evaluated.report["protocols"]["quota_0.3"]["models"]["generator"]["cold"]["recall_at_10"]["mean"]
    assert f"{mean:.4f}".lstrip("0") in text.split('id="paired"')[0]


def test_pictures_are_saved_too(page: tuple[str, Reader], evaluated: Any) -> None:
    names = {path.stem for path in (evaluated.run / "evaluation").glob("*.png")}
    assert names == {"tradeoff", "recall_curves", "intervals", "slices"}
    assert len(page[1].all("img")) == 4
    assert (evaluated.run / "evaluation" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_of_one_protocol_and_no_cold_case_renders() -> None:
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
    figures = {f"{name}_at_{k}": cell for name in ("recall", "ndcg", "mrr") for k in (1, 5, 10, 20, 50)}
    num_cases = {"all": 9, "warm": 9, "cold": 0}
    report = {
        "title": "Only warm",
        "statement": {},
        "num_cases": num_cases,
        "protocols": {"full": {"num_cases": num_cases, "models": {"a$b": {"all": figures, "warm": figures}}}},
        "paired": [],
    }
    html, pictures = render(report)
    assert set(pictures) == {"recall_curves", "intervals"}
    assert "Who is better" not in html
