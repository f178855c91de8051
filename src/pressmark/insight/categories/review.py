"""What somebody has decided about findings, read back so that nothing is asked twice."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from pressmark.files import read_lines
from pressmark.insight.categories.leaves import Leaves
from pressmark.tokenizer.state import Living

COLUMNS = ("kind", "subject", "object", "decision")
KINDS = ("category", "duplicate", "split", "merged")
DECISIONS = ("accepted", "rejected")
Key = tuple[str, str, str]
"""kind, subject, object: what a finding is about. A product and its path; two products; a path; two paths.

A product that has moved since is another finding, and is shown again.
"""


@dataclass(frozen=True)
class Review:
    """Decisions of a file.

    Attributes:
        rows: kind, subject, object and decision, each finding once.
        notes: What in the file is about nothing in this run, for the reader.
    """

    rows: tuple[tuple[str, str, str, str], ...]
    notes: tuple[str, ...]

    @property
    def decided(self) -> frozenset[Key]:
        """Findings never to be shown again."""
        return frozenset(row[:3] for row in self.rows)


NOTHING = Review((), ())


def pair(one: str, other: str) -> tuple[str, str]:
    """Two products in the order that a decision names them in, whatever order the catalog has them in."""
    return (one, other) if one <= other else (other, one)


def read_review(path: Path, living: Living, leaves: Leaves) -> Review:
    """Reads what the page's export button wrote: CSV with kind, subject, object, decision.

    Products and categories that the catalog no longer holds are normal life and only counted. Of two decisions
    on one finding the later counts.

    Args:
        path: The file.
        living: All products that the run ever had.
        leaves: The categories of today.

    Raises:
        ValueError: If the file is missing, is no such CSV, lacks a column, holds another kind or decision, or
            names products of which the run never had one.
    """
    decided: dict[Key, str] = {}
    twice = []
    for number, row in _rows(path):
        _check(path, number, row)
        named = row["subject"], row["object"]
        key = row["kind"], *(pair(*named) if row["kind"] == "duplicate" else named)
        if decided.get(key, row["decision"]) != row["decision"]:
            twice.append(key)
        decided[key] = row["decision"]
    products = list(dict.fromkeys(one for key in decided for one in _products(key)))
    ever = set(living.catalog.item_id)
    if products and ever.isdisjoint(products):
        raise ValueError(
            f"--review {path}: the run's catalog holds none of its {len(products)} products, such as "
            f"{products[0]!r}. It is the review of another catalog."
        )
    listed, names = set(living.catalog.item_id[living.listed]), {leaves.name(one) for one in range(len(leaves))}
    gone = [one for one in products if one not in listed]
    paths = dict.fromkeys(one for key in decided if listed.issuperset(_products(key)) for one in _paths(key))
    lost = [one for one in paths if one not in names]
    notes = []
    if gone:
        notes.append(f"{len(gone)} product ids are not in the catalog, such as {gone[0]!r}: left.")
    if lost:
        notes.append(f"{len(lost)} categories are not in the catalog, such as {lost[0]!r}: left.")
    if twice:
        notes.append(
            f"{len(twice)} decisions are taken back further down, such as on {' '.join(twice[0])!r}: "
            "the last counts."
        )
    rows = tuple((*key, decision) for key, decision in decided.items())
    return Review(rows, tuple(f"--review {path}: {note}" for note in notes))


def _products(key: Key) -> tuple[str, ...]:
    return {"category": key[1:2], "duplicate": key[1:]}.get(key[0], ())


def _paths(key: Key) -> tuple[str, ...]:
    return {"category": key[2:], "split": key[1:2], "merged": key[1:]}.get(key[0], ())


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows, each with its number."""
    text = "\n".join(read_lines(path, "--review"))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"--review {path}: its first line does not name {missing[0]!r}; it must name "
                f"{', '.join(COLUMNS)}, as the page's export button does."
            )
        return list(enumerate(reader, start=2))
    except csv.Error as error:
        raise ValueError(
            f"--review {path}: line {reader.line_num}: not CSV ({error}). Is a quotation mark not closed?"
        ) from error


def _check(path: Path, number: int, row: dict[str, str]) -> None:
    missing = [name for name in COLUMNS if row.get(name) is None]
    if missing:
        raise ValueError(
            f"--review {path}: row {number} has no {missing[0]!r}; it must have {', '.join(COLUMNS)}, as the "
            "page's export button writes them."
        )
    for name, allowed in (("kind", KINDS), ("decision", DECISIONS)):
        if row[name] not in allowed:
            raise ValueError(
                f"--review {path}: row {number}: {name} is {row[name]!r}; write one of {', '.join(allowed)}."
            )
