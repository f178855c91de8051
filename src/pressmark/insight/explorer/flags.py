"""What `pressmark audit` says of products, to be shown beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pressmark import files

DOUBTFUL = "doubtful category"
COLUMNS = ("item_id", "suggested", "confidence", "severity")
"""Of an audit's file, those that are read; see `insight.categories.findings`."""


@dataclass(frozen=True)
class Flag:
    """One finding about one product.

    Attributes:
        item_id: The product.
        kind: What is wrong, in a word or two.
        suggested_path: The category that it belongs in, "" where the audit names none.
        confidence: How sure the audit is, 0 to 1; None where it does not say.
        severity: How bad it is, in words; "" where it does not say.
    """

    item_id: str
    kind: str
    suggested_path: str = ""
    confidence: float | None = None
    severity: str = ""


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
        Flag(
            row["item_id"],
            DOUBTFUL,
            (row["suggested"] or [""])[0],
            row["confidence"],
            f"severity {row['severity']:.2f}",
        )
        for row in table.select(COLUMNS).to_pylist()
    ]
