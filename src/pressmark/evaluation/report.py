"""The report: what was measured and how, as JSON, as a page and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pressmark import files
from pressmark.evaluation.protocols import LIST_LENGTH, TWIN, describe
from pressmark.evaluation.slices import DESCRIPTIONS, MAIN, UNBOUGHT, Facts
from pressmark.interactions.cases import Cases, Split

if TYPE_CHECKING:
    from pressmark.evaluation.config import Config

DASH = "\N{EN DASH}"
"""Stands where there is no figure."""

METRIC_DESCRIPTIONS = {
    "recall_at_k": "1 where the target is among the first k, else 0 (one target a case, so also the hit rate).",
    "ndcg_at_k": "1 / log2(rank + 1) where rank <= k, else 0.",
    "mrr_at_k": "1 / rank where rank <= k, else 0.",
    "catalog_coverage_at_10": "Share of the catalog in at least one list's first 10. No interval.",
    "exposure_gini_at_10": "Gini coefficient of slots an item over the whole catalog; 0 = even. No interval.",
    "popularity_percentile_at_10": "Mean share of items less popular in training, ties counting one half.",
    "category_diversity_at_10": "Share of a list's pairs without a common leaf category; unlabelled left out.",
    "brand_diversity_at_10": "Share of a list's pairs of different brands; items without a brand left out.",
    "cold_share_at_10": "Share of the slots that hold a cold item.",
}


def statement(
    cases: Cases,
    known: Facts,
    split: Split,
    config: Config,
    protocols: Iterable[str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """What a reader has to know before a figure means anything.

    Args:
        cases: The cases judged, those with a target in the history included.
        known: Their facts.
        split: Where they are from.
        config: How they were judged.
        protocols: Names of the protocols in the report.
        extra: The caller's own lines, first in the statement.
    """
    excluded = {name: int((known.target_in_history & known.slices[name]).sum()) for name in MAIN}
    drawn = f"a random subset of {len(cases)} of them (seed {config.seed})"
    return {
        **extra,
        "ranking": (
            "Over the full catalog, at item level: another item with the target's SID is a miss, and so is an "
            f"item that a model cannot score. Lists of {LIST_LENGTH}, or as long as there are valid items; "
            "equal scores: lower item_index first."
        ),
        "masking": (
            "Items of the whole visible history are removed from the ranking, and cases whose target is in the "
            f"history are excluded ({excluded['all']:,} of {len(cases):,})."
            + (f" {TWIN} shows all cases without masking." if TWIN in protocols else "")
        ),
        "intervals": intervals(config, pooled=False),
        "cases": {
            "test": len(split.test),
            "judged": "all" if len(cases) == len(split.test) else drawn,
            "excluded_target_in_history": excluded,
            "empty_histories": int((known.history_length == 0).sum()),
        },
        "items": {"catalog": len(split.cold), "cold": int(split.cold.sum())},
        "split": dict(split.counts),
        "protocols": {name: describe(name) for name in protocols},
        "slices": {name: DESCRIPTIONS[name] for name in known.slices},
        "metrics": dict(METRIC_DESCRIPTIONS),
    }


def intervals(config: Config, pooled: bool) -> str:
    """What the limits are, for the statement.

    Args:
        config: How cases were judged.
        pooled: Whether several splits are judged together.
    """
    whole = "users with all their cases of all splits" if pooled else "cases"
    return (
        f"95 % percentile bootstrap, {config.num_resamples:,} resamples, seed {config.seed}: {whole} are "
        f"resampled for all and warm slices, target items with all their cases for cold slices and {UNBOUGHT}; "
        "protocols.<protocol>.units names the unit of each slice. Paired differences a - b use the same "
        "resamples."
    )


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes report.json, report.html and its plots as *.png into an evaluation folder."""
    from pressmark.evaluation.page import render

    files.write_json(folder / "report.json", report)
    html, pictures = render(report)
    for name, png in pictures.items():
        with files.replacing(folder / f"{name}.png") as partial:
            partial.write_bytes(png)
    with files.replacing(folder / "report.html") as partial:
        partial.write_text(html, "utf-8")


def figure(report: Mapping[str, Any], protocol: str, model: str, slice_name: str, metric: str) -> Any:
    """{mean, low, high} of one cell, or None where the report has none (an empty slice)."""
    models = report["protocols"].get(protocol, {}).get("models", {})
    return models.get(model, {}).get(slice_name, {}).get(metric)


def models_of(report: Mapping[str, Any]) -> list[str]:
    """Model names, in the order they were judged."""
    return list(dict.fromkeys(model for one in report["protocols"].values() for model in one["models"]))


def headline_protocols(report: Mapping[str, Any], slice_name: str) -> list[str]:
    """Protocols worth a column: no unmasked twin, and no cold_only for a slice with warm targets."""
    return [
        name
        for name in report["protocols"]
        if name != TWIN and (name != "cold_only" or slice_name.startswith("cold"))
    ]


def short(value: float | None, digits: int = 4) -> str:
    """A figure the field's way: .0589, 1.0000; a dash where there is none.

    >>> short(0.05891), short(1.0), short(-0.002, 3), short(None)
    ('.0589', '1.0000', '-.002', '\u2013')
    """
    if value is None:
        return DASH
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a rounded zero
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def terminal_table(report: Mapping[str, Any], metric: str = "recall_at_10") -> str:
    """The headline as plain text: warm and cold cases, one line a model, one column a protocol.

    A last line says how many cases are in no figure, since their target stands in their history.
    """
    blocks = []
    for slice_name in ("warm", "cold"):
        num_cases = report["num_cases"].get(slice_name, 0)
        if not num_cases:
            continue
        protocols = headline_protocols(report, slice_name)
        rows = [["", *protocols]]
        for model in models_of(report):
            cells = [figure(report, protocol, model, slice_name, metric) for protocol in protocols]
            rows.append([model, *(_with_interval(cell) for cell in cells)])
        name = metric.replace("_at_", "@")
        blocks.append(f"{name} on {num_cases:,} {slice_name} cases [95 % interval]\n{_aligned(rows)}")
    return "\n\n".join([*blocks, *_left_out(report)])


def _left_out(report: Mapping[str, Any]) -> list[str]:
    statement = report["statement"]
    # Seeds of one split leave the same cases out.
    splits = {one.get("cases_of_split"): one["cases"] for one in statement.get("runs", [statement])}
    number = sum(one["excluded_target_in_history"]["all"] for one in splits.values())
    if not number:
        return []
    shown = (
        f"with them: 'With and without masking' in report.html, {TWIN} in report.json"
        if TWIN in report["protocols"]
        else "with them: --evaluation.unmasked_twin true"
    )
    return [
        f"{number:,} of {number + report['num_cases']['all']:,} test cases have a target that the user already "
        f"had; masking the history leaves them out ({shown})."
    ]


def _with_interval(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return DASH
    if cell["low"] is None:
        return short(cell["mean"])
    return f"{short(cell['mean'])} [{short(cell['low'], 3)}, {short(cell['high'], 3)}]"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join(lines)
