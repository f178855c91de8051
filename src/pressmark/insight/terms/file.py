"""The vocabulary as a text file that people edit: one term a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pressmark import files
from pressmark.insight.words import words_of

_HEAD = """\
# Product terms, one a line, the commonest first. Delete what names no product, add what is missing; a term may
# have several words. Lines that begin with # and blank lines do not count. Use it with --vocabulary.
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
    line_of: dict[str, int] = {}
    for number, line in enumerate(files.read_lines(path, "--vocabulary"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        term = " ".join(word.text for word in words_of(line))
        if not term:
            raise ValueError(f"{path}: line {number}: {line.strip()!r} has no word. Delete the line.")
        if term in line_of:
            raise ValueError(
                f"{path}: line {number}: {term!r} stands in line {line_of[term]} already (case and hyphens do "
                "not count). A term stands there once: delete one of them."
            )
        line_of[term] = number
    if not line_of:
        raise ValueError(
            f"{path}: no term in it. Write one a line, or have a file made: "
            f"`pressmark terms --run R --out {path}`."
        )
    return list(line_of)
