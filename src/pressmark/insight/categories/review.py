"""What somebody has decided about findings, read back so that nothing is asked twice."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pressmark.files import read_lines

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
        rows: kind, subject, object and decision, each once.
        notes: What in the file is about nothing in this run, for the reader.
    """

    rows: tuple[tuple[str, str, str, str], ...]
    notes: tuple[str, ...]

    @property
    def decided(self) -> frozenset[Key]:
        """Findings never to be shown again."""
        return frozenset(row[:3] for row in self.rows)


NOTHING = Review((), ())


def read_review(path: Path, item_ids: set[str]) -> Review:
    """Reads what the page's export button wrote: CSV with kind, subject, object, decision.

    Products that the catalog no longer holds are normal life and only counted.

    Raises:
        ValueError: If the file is missing, lacks a column, holds another kind or decision, or names products of
            which the catalog has not one.
    """
    rows = list(csv.DictReader(read_lines(path, "--review")))
    decided: dict[tuple[str, str, str, str], None] = {}
    named, unknown = 0, []
    for number, row in enumerate(rows, start=2):
        _check(path, number, row)
        products = {"category": (row["subject"],), "duplicate": (row["subject"], row["object"])}.get(
            row["kind"], ()
        )
        named += len(products)
        unknown += [one for one in products if one not in item_ids]
        decided[row["kind"], row["subject"], row["object"], row["decision"]] = None
    if named and len(unknown) == named:
        raise ValueError(
            f"--review {path}: the run's catalog holds none of its {named} products, such as {unknown[0]!r}. "
            "It is the review of another catalog."
        )
    notes = []
    if unknown:
        notes.append(
            f"--review {path}: {len(unknown)} product ids are not in the catalog, such as {unknown[0]!r}: left."
        )
    return Review(tuple(decided), tuple(notes))


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
