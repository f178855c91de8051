"""The review table: one HTML file that needs nothing else, with a button that exports what was decided."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pressmark.insight.categories.assemble import Shop
from pressmark.insight.categories.duplicates import Duplicate
from pressmark.insight.categories.findings import Finding
from pressmark.insight.categories.leaves import Leaves
from pressmark.insight.categories.review import Key, pair
from pressmark.insight.categories.shapes import Shape

MOST_ROWS = 5000
"""Rows of a table in the page; the parquet files have all."""
Row = dict[str, Any]
T = TypeVar("T")


def render(
    about: str,
    shop: Shop,
    leaves: Leaves,
    found: Sequence[Finding],
    twins: Sequence[Duplicate],
    shaped: Sequence[Shape],
    decided: Collection[tuple[str, str, str, str]] = (),
) -> str:
    """The page.

    Args:
        about: One line on top.
        shop: The products.
        leaves: Their labels.
        found: Doubtful categories, in order.
        twins: Near duplicates, in order.
        shaped: Categories that the codes split or merge, in order.
        decided: Decisions of before, kind, subject, object and decision: they stand in the next export too.
    """
    tabs = [
        _tab("Categories", _FINDINGS, found, lambda one: finding_row(one, shop, leaves)),
        _tab("Near duplicates", _TWINS, twins, lambda one: twin_row(one, shop, leaves)),
        _tab("Split and merged", _SHAPES, shaped, lambda one: shape_row(one, shop, leaves)),
    ]
    data = {
        "about": about,
        "statement": f"Content: {shop.content.statement}.",
        "tabs": tabs,
        "decided": sorted(decided),
    }
    # "</" would end the script; JSON reads the escape as the same text.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return (Path(__file__).parent / "page.html").read_text("utf-8").replace("/*DATA*/", text)


_FINDINGS: list[Row] = [
    {"key": "title", "title": "Product", "sub": "item_id", "more": True},
    {"key": "current", "title": "Stands at", "kind": "was"},
    {"key": "suggested", "title": "Suggested", "kind": "be"},
    {"key": "confidence", "title": "Confidence", "number": True},
    {"key": "severity", "title": "Severity", "number": True},
]
_TWINS: list[Row] = [
    {"key": "title", "title": "Product", "sub": "item_id"},
    {"key": "other", "title": "All but the same as", "sub": "other_id"},
    {"key": "cosine", "title": "Cosine", "number": True, "digits": 3},
    {"key": "sid", "title": "Codes"},
]
_SHAPES: list[Row] = [
    {"key": "kind", "title": "Codes have it"},
    {"key": "category", "title": "Category"},
    {"key": "other", "title": "And"},
    {"key": "share", "title": "Share", "number": True},
    {"key": "examples", "title": "Such as"},
    {"key": "codes", "title": "First codes"},
]


def _tab(title: str, columns: list[Row], found: Sequence[T], row_of: Callable[[T], Row]) -> Row:
    rows = [row_of(one) for one in found[:MOST_ROWS]]
    for row in rows:
        row["search"] = " ".join(str(value) for name, value in row.items() if name != "key").lower()
    return {"title": title, "columns": columns, "rows": rows, "num": len(found)}


def finding_key(one: Finding, shop: Shop, leaves: Leaves) -> Key:
    """What a decision on a doubtful category is about."""
    return "category", str(shop.catalog.item_id[one.item_index]), leaves.name(one.current)


def twin_key(one: Duplicate, shop: Shop) -> Key:
    """What a decision on near duplicates is about."""
    return "duplicate", *pair(str(shop.catalog.item_id[one.first]), str(shop.catalog.item_id[one.second]))


def shape_key(one: Shape, leaves: Leaves) -> Key:
    """What a decision on a category's shape is about."""
    return one.kind, leaves.name(one.leaf), leaves.name(one.other)


def finding_row(one: Finding, shop: Shop, leaves: Leaves) -> Row:
    """A finding for the page; in `search` stands all that can be looked for."""
    titles = shop.catalog.title
    near = [
        f"{titles[other] or '(no title)'} — {leaves.name(int(leaves.label[other])) or 'no category'}, "
        f"cosine {cosine:.2f}"
        for other, cosine in zip(one.neighbours, one.cosines, strict=True)
    ]
    usual = [f"{leaves.name(leaf)}: {share:.0%}" for leaf, share in one.usual]
    prefix = "_".join(map(str, one.plain_prefix))
    sid = "_".join(map(str, one.sid))
    return {
        "key": finding_key(one, shop, leaves),
        "title": str(titles[one.item_index]) or "(no title)",
        "item_id": f"{shop.catalog.item_id[one.item_index]} {shop.catalog.brand[one.item_index]}".strip(),
        "current": leaves.name(one.current),
        "suggested": [
            f"{leaves.name(leaf)} ({sure:.0%})"
            for place, (leaf, sure) in enumerate(zip(one.suggested, one.suggested_confidence, strict=True))
            if not place or sure >= 0.01
        ],
        "confidence": one.confidence,
        "severity": one.severity,
        "evidence": [
            {"title": title, "lines": lines}
            for title, lines in (
                ("Nearest products", near),
                (f"Codes without labels: {prefix}, {one.plain_prefix_size} others with a category", usual),
                ("Its SID, trained on labels, so no evidence", [sid] if sid else []),
            )
            if lines
        ],
    }


def twin_row(one: Duplicate, shop: Shop, leaves: Leaves) -> Row:
    """A pair for the page."""
    ids = [str(shop.catalog.item_id[item]) for item in (one.first, one.second)]
    labels = leaves.label[one.first], leaves.label[one.second]
    return {
        "key": twin_key(one, shop),
        "title": str(shop.catalog.title[one.first]),
        "item_id": f"{ids[0]}  {leaves.name(int(labels[0]))}",
        "other": str(shop.catalog.title[one.second]),
        "other_id": f"{ids[1]}  {leaves.name(int(labels[1]))}",
        "cosine": one.cosine,
        "sid": "_".join(map(str, one.sid)),
    }


def shape_row(one: Shape, shop: Shop, leaves: Leaves) -> Row:
    """A split or merged category for the page."""
    return {
        "key": shape_key(one, leaves),
        "kind": one.kind,
        "category": leaves.name(one.leaf),
        "other": leaves.name(one.other),
        "share": one.share,
        "examples": [str(shop.catalog.title[item]) for item in one.examples],
        "codes": ", ".join(map(str, one.codes)),
    }
