"""What `pressmark audit` says of products, to be shown beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pressmark import files

COLUMNS = ("item_id", "suggested", "confidence", "severity")
"""Of an audit's file, those that are read; see `insight.categories.findings`."""


@dataclass(frozen=True)
class Flag:
    """A product whose category the audit doubts.

    Attributes:
        item_id: The product.
        suggested_path: The category that it belongs in, "" where the audit names none.
        confidence: How sure the audit is, 0 to 1.
        severity: How bad it is, 0 to 1.
    """

    item_id: str
    suggested_path: str
    confidence: float
    severity: float


def read_flags(path: Path) -> list[Flag]:
    """Reads the parquet of `pressmark audit`.

    Raises:
        ValueError: If the file cannot be read, or is not of an audit.
    """
    if not path.is_file():
        raise ValueError(f"--audit {path}: no such file. `pressmark audit --run R --out {path}` writes one.")
    table = files.read_parquet(path)
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ValueError(
            f"--audit {path}: no column {missing[0]!r}, but {', '.join(table.column_names) or 'none'}. "
            "Give the file that `pressmark audit --out` names."
        )
    return [
        Flag(row["item_id"], (row["suggested"] or [""])[0], row["confidence"], row["severity"])
        for row in table.select(COLUMNS).to_pylist()
    ]
