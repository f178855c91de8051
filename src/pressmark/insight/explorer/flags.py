"""What an audit says of products, as far as its file says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pressmark import files


@dataclass(frozen=True)
class Flag:
    """One finding about one product.

    Attributes:
        item_id: The product.
        kind: What is wrong, in a word or two.
        suggested_path: The category that it belongs in, "" where the audit names none.
        confidence: How sure the audit is, 0 to 1; None where it does not say.
        severity: How bad it is, as the audit words it; "" where it does not say.
    """

    item_id: str
    kind: str
    suggested_path: str = ""
    confidence: float | None = None
    severity: str = ""


def read_flags(path: Path) -> list[Flag]:
    """Reads the parquet of `pressmark audit`; columns but item_id may be missing.

    Raises:
        ValueError: If the file cannot be read, or has no column item_id.
    """
    if not path.is_file():
        raise ValueError(f"--audit {path}: no such file. `pressmark audit --run R --out {path}` writes one.")
    table = files.read_parquet(path)
    if "item_id" not in table.column_names:
        raise ValueError(
            f"--audit {path}: no column 'item_id', but {', '.join(table.column_names) or 'none'}. "
            "Give the file that `pressmark audit` wrote."
        )
    return [_flag(row) for row in table.to_pylist() if row["item_id"] is not None]


def _flag(row: dict[str, Any]) -> Flag:
    confidence = row.get("confidence")
    return Flag(
        str(row["item_id"]),
        _words(row.get("kind")) or "flagged",
        _path(row.get("suggested_path")),
        float(confidence) if confidence is not None and confidence == confidence else None,
        _words(row.get("severity")),
    )


def _words(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.2g}" if isinstance(value, float) else str(value)
    return text.replace("_", " ").strip()


def _path(value: Any) -> str:
    """A category path, whether one string, a list of names or a list of paths (the first counts)."""
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and isinstance(value[0], Sequence) and not isinstance(value[0], str):
            value = value[0]
        return " > ".join(str(one) for one in value)
    return str(value)
