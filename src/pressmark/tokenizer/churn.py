"""Churn: what share of the products changed its SID, by length of the prefix, from one table to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pressmark.sids.table import LISTED, Register, read_register
from pressmark.tokenizer.quantizer import prefix_number


def find_register(path: Path, version: int | None = None) -> Register:
    """The SIDs of a run folder, a tokenizer folder or a sids.parquet, at a version or as they are.

    Raises:
        ValueError: If there are none there, or not at that version.
    """
    path = Path(path)
    for candidate in (path / "tokenizer" / "sids.parquet", path / "sids.parquet", path):
        if candidate.is_file():
            register = read_register(candidate)
            return register if version is None else register.at(version)
    raise ValueError(f"{path}: neither a run folder, a tokenizer folder nor a sids.parquet.")


def churn(old: Register, new: Register) -> dict[str, Any]:
    """Compares two tables over the items that both have.

    Codes of other codebooks are other names, so after a new training nearly every prefix changes; `kept_pairs`
    says whether what was together stayed together, whatever its name.

    Args:
        old: N items.
        new: M items.

    Returns:
        num_old, num_new, num_both: items; removed: both's items listed in `old` and not in `new`;
        same_codebooks; rows, one a prefix length l up to the longer SID: `length`, `changed`: share of both's
        items whose first l codes differ (a table whose SIDs are shorter changed wherever l is beyond them),
        `pairs`: pairs of both's items with equal first l codes in `old`, `kept_pairs`: share of these that
        have equal first l codes in `new` too, None without such pairs.

    Raises:
        ValueError: If no item is in both.
    """
    row_of = {one: row for row, one in enumerate(new.item_id)}
    in_old = np.array([row for row, one in enumerate(old.item_id) if one in row_of], np.int64)
    if not len(in_old):
        raise ValueError(
            f"no item_id is in both tables: the old one has {str(old.item_id[0])!r}, the new one "
            f"{str(new.item_id[0])!r}. Churn compares the same products."
        )
    in_new = np.array([row_of[old.item_id[row]] for row in in_old], np.int64)
    before, after = old.table.sids[in_old], new.table.sids[in_new]
    both = min(before.shape[1], after.shape[1])
    rows = []
    for length in range(1, max(before.shape[1], after.shape[1]) + 1):
        differ = (
            (before[:, :length] != after[:, :length]).any(axis=1) if length <= both else np.ones(len(before))
        )
        pairs, kept = _pairs(before[:, :length], after[:, :length])
        rows.append(
            {
                "length": length,
                "changed": float(differ.mean()),
                "pairs": pairs,
                "kept_pairs": kept / pairs if pairs else None,
            }
        )
    gone = (old.status[in_old] == LISTED) & (new.status[in_new] != LISTED)
    return {
        "num_old": len(old),
        "num_new": len(new),
        "num_both": len(in_old),
        "removed": int(gone.sum()),
        "same_codebooks": old.table.codebook_fingerprint == new.table.codebook_fingerprint,
        "rows": rows,
    }


def _pairs(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Pairs of rows that are equal in `before`, and those of them that are equal in `after` too."""
    first = prefix_number(before)
    second = prefix_number(np.column_stack([first, prefix_number(after)]))

    def count(groups: np.ndarray) -> int:
        sizes = np.bincount(groups)
        return int((sizes * (sizes - 1) // 2).sum())

    return count(first), count(second)


def table_of(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"items: {report['num_old']:,} old, {report['num_new']:,} new, {report['num_both']:,} in both; "
        f"{report['removed']:,} of these removed since",
        "codebooks: the same"
        if report["same_codebooks"]
        else "codebooks: others, so codes are other names; mind the pairs that stayed together",
        "",
        "prefix length    changed    pairs together before    still together",
    ]
    for row in report["rows"]:
        kept = "-" if row["kept_pairs"] is None else f"{row['kept_pairs']:.1%}"
        lines.append(f"{row['length']:>13}    {row['changed']:>7.1%}    {row['pairs']:>21,}    {kept:>14}")
    return "\n".join(lines)
