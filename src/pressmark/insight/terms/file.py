"""The vocabulary as a text file that people edit: one term a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pressmark import files
from pressmark.insight.terms.matching import Spoken, spoken
from pressmark.insight.words import words_of

_HEAD = """\
# Product terms, one a line, the commonest first. Delete what names no product, add what is missing; a term may
# have several words; signs between them ("salt & pepper") must stand in a title too. Lines that begin with #
# and blank lines do not count. Use it with --vocabulary.
"""


def write_terms(path: Path, terms: Sequence[str]) -> None:
    """Writes a vocabulary for somebody to edit."""
    with files.replacing(path) as partial:
        partial.write_text(_HEAD + "".join(f"{term}\n" for term in terms), "utf-8")


def read_terms(path: Path) -> list[str]:
    """The terms of a file, in its order.

    Raises:
        ValueError: If there is no such file, it is not UTF-8, it holds no term, a line holds no word, or a term
            stands there twice; the message names the lines.
    """
    found: dict[Spoken, tuple[str, int]] = {}
    for number, line in enumerate(files.read_lines(path, "--vocabulary"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = spoken(line)
        if not words:
            raise ValueError(f"{path}: line {number}: {line.strip()!r} has no word. Delete the line.")
        if words in found:
            term, before = found[words]
            raise ValueError(
                f"{path}: line {number}: {term!r} stands in line {before} already (case and hyphens do "
                "not count). A term stands there once: delete one of them."
            )
        found[words] = _written(line), number
    if not found:
        raise ValueError(
            f"{path}: no term in it. Write one a line, or have a file made: "
            f"`pressmark terms --run R --out {path}`."
        )
    return [term for term, _ in found.values()]


def _written(line: str) -> str:
    """A term in lower case: its words, and the signs between them that count."""
    first, *others = words_of(line)
    term, before = first.text, first
    for word in others:
        between = line[before.end : word.start]
        term += (" " if word.phrase == before.phrase else re.sub(r"\s+", " ", between)) + word.text
        before = word
    return term
