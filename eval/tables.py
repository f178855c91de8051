"""Rewrites the tables of README.md from eval/results: `python eval/tables.py` (or `make tables`).

A table stands between `<!-- table NAME -->` and `<!-- end -->`; `--check` exits with 1 where it is out of date.
"""

import re
import sys
from pathlib import Path
from typing import Any

from pressmark.evaluation.report import figure, models_of, short
from pressmark.files import read_json

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

COLUMNS = {
    "cold_start": [
        ("warm", "full", "recall_at_10", "warm R@10"),
        ("warm", "full", "ndcg_at_10", "warm N@10"),
        ("cold", "full", "recall_at_10", "cold R@10"),
        ("cold", "quota_0.1", "recall_at_10", "cold R@10, quota 0.1"),
        ("cold", "quota_0.3", "recall_at_10", "cold R@10, quota 0.3"),
        ("cold", "cold_only", "recall_at_10", "cold R@10, cold only"),
    ],
    "leave_one_out": [
        ("all", "full", "recall_at_5", "R@5"),
        ("all", "full", "recall_at_10", "R@10"),
        ("all", "full", "recall_at_20", "R@20"),
        ("all", "full", "ndcg_at_10", "N@10"),
        ("all", "full_unmasked", "recall_at_10", "R@10 unmasked"),
    ],
}

ROWS = {
    "tokenizer": [
        ("perplexity_1", "perplexity 1", 0),
        ("perplexity_4", "perplexity 4", 0),
        ("items_sharing_a_sid", "items sharing a SID", 3),
        ("share_relocated", "relocated", 3),
        ("reconstruction_r2", "R2", 3),
        ("spearman_neighbours", "Spearman, 50 neighbours", 3),
        ("share_cosine90_code1", "cosine >= .9 share code 1", 3),
        ("purity1_depth3", "purity, depth 3", 3),
        ("lift_1", "lift, 1 code", 1),
        ("lift_2", "lift, 2 codes", 1),
    ],
}
"""Of results that are rows: key, title, decimals."""


def table(name: str) -> str:
    """The Markdown table of eval/results/<name>.json with a line on where it came from."""
    path = ROOT / "eval" / "results" / f"{name}.json"
    if not path.is_file():
        return f"(not measured yet: `eval/results/{name}.json`)"
    result = read_json(path)
    if "rows" in result:
        return _rows_table(name, result)
    columns = [
        one
        for one in COLUMNS[name.partition("-")[0]]
        if figure(result, one[1], models_of(result)[0], *one[::2][:1], one[2])
    ]
    lines = ["| | " + " | ".join(title for *_, title in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for model in models_of(result):
        cells = [_cell(figure(result, protocol, model, part, metric)) for part, protocol, metric, _ in columns]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    counts = ", ".join(
        f"{result['num_cases'][one]:,} {one}" for one in ("warm", "cold") if result["num_cases"].get(one)
    )
    seeds = ", ".join(map(str, result["seeds"]))
    machine = f"{result['hardware']['cores']} cores of a {result['hardware']['cpu']}"
    source = f"`eval/results/{name}.json`: {counts} cases, seed {seeds}, {machine}, {result['date'][:10]}."
    cost = [sum(stages.values()) / 60 for stages in result.get("stage_seconds", {}).values()]
    if cost:
        source += f" Preparing and training took {sum(cost) / len(cost):.0f} minutes a seed."
    note = "95 % intervals in brackets; item-level hits, history masked."
    return "\n".join(lines) + f"\n\n<sub>{source} {note}</sub>"


def _rows_table(name: str, result: dict[str, Any]) -> str:
    """Means over seeds, with the least and the greatest in brackets."""
    columns = ROWS[name.partition("-")[0]]
    lines = ["| | " + " | ".join(title for _, title, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind in dict.fromkeys(row["tokenizer"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["tokenizer"] == kind]
        cells = []
        for key, _, decimals in columns:
            values = [row[key] for row in rows]
            mean, low, high = (
                f"{one:.{decimals}f}" for one in (sum(values) / len(values), min(values), max(values))
            )
            cells.append(mean if low == high else f"{mean} <sub>[{low}, {high}]</sub>")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, result["seeds"]))
    machine = f"{result['hardware']['cores']} cores of a {result['hardware']['cpu']}"
    source = f"`eval/results/{name}.json`: seeds {seeds}, {machine}, {result['date'][:10]}; least and greatest"
    return "\n".join(lines) + f"\n\n<sub>{source} in brackets.</sub>"


def _cell(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return ""
    interval = (
        "" if found["low"] is None else f" <sub>[{short(found['low'], 3)}, {short(found['high'], 3)}]</sub>"
    )
    return short(found["mean"]) + interval


def main() -> None:
    """Rewrites README.md, or checks it."""
    old = README.read_text("utf-8")
    pattern = re.compile(r"(<!-- table ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    new = pattern.sub(lambda found: found[1] + table(found[2]) + "\n" + found[3], old)
    if "--check" in sys.argv:
        raise SystemExit(int(new != old))
    README.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
