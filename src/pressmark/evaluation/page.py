"""report.html: one file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from pressmark.evaluation.figures import BEYOND
from pressmark.evaluation.markup import (
    STYLE,
    definitions,
    grouped_table,
    interval,
    picture,
    table,
    words,
)
from pressmark.evaluation.plots import draw, slice_protocol
from pressmark.evaluation.protocols import TWIN, describe
from pressmark.evaluation.report import DASH, figure, headline_protocols, models_of, short
from pressmark.evaluation.slices import LABELS
from pressmark.metrics import ACCURACY

_METRIC = "recall_at_10"


def render(report: Mapping[str, Any]) -> tuple[str, dict[str, bytes]]:
    """The page and its pictures.

    Args:
        report: Content of report.json; every text in it is escaped.

    Returns:
        HTML with the pictures inlined, and name -> PNG of each.
    """
    pictures = draw(report)
    sections = [
        ("headline", "Warm and cold", _headline(report, pictures)),
        ("paired", "Who is better than whom", _paired(report)),
        ("curves", "Recall at k", picture(pictures, "recall_curves") + picture(pictures, "intervals")),
        ("slices", "Slices", _slices(report, pictures)),
        ("beyond", "Beyond accuracy", _beyond(report)),
        ("masking", "With and without masking", _masking(report)),
        ("statement", "How this was measured", definitions(report["statement"])),
        ("figures", "All figures", _all_figures(report)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{content}</section>\n' for name, heading, content in sections
    )
    title = escape(str(report["title"]))
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f'<header><h1>{title}</h1>{_facts(report)}<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>\n{body}</main>\n<footer>{_footer(report)}</footer>\n</body>\n</html>\n"
    )
    return html, {name: png for name, (png, _) in pictures.items()}


def _facts(report: Mapping[str, Any]) -> str:
    num_cases, items = report["num_cases"], report["statement"].get("items", {})
    facts = [(f"{name} cases", num_cases.get(name)) for name in ("all", "warm", "cold")]
    facts += [("items in the catalog", items.get("catalog")), ("of them cold", items.get("cold"))]
    cells = "".join(f"<div><dt>{name}</dt><dd>{num:,}</dd></div>" for name, num in facts if num is not None)
    return f'<dl class="facts">{cells}</dl>'


def _headline(report: Mapping[str, Any], pictures: Mapping[str, tuple[bytes, str]]) -> str:
    return (
        '<p class="soft">Cold: every interaction with the target was hidden from training. Warm: the rest.</p>'
        + headline_table(report)
        + definitions({protocol: describe(protocol) for protocol, _ in _columns(report)})
        + picture(pictures, "tradeoff", "narrow")
    )


def headline_table(report: Mapping[str, Any]) -> str:
    """Every model's recall on warm and cold cases, protocol by protocol."""
    models, columns = models_of(report), _columns(report)
    best = {}
    for protocol, side in columns:
        cells = [figure(report, protocol, model, side, _METRIC) for model in models]
        best[protocol, side] = max((one["mean"] for one in cells if one), default=0.0)

    def cell(model: str, protocol: str, side: str) -> tuple[str, str]:
        found = figure(report, protocol, model, side, _METRIC)
        is_best = found is not None and 0 < found["mean"] == best[protocol, side]
        return interval(found, strong=is_best), "best" if is_best else ""

    caption = "Recall@10 with its 95 % interval; the best mean of a column is shaded."
    return grouped_table(caption, models, columns, cell)


def _paired(report: Mapping[str, Any]) -> str:
    rows = {
        (row["a"], row["b"], row["protocol"], row["slice"]): row
        for row in report["paired"]
        if row["metric"] == _METRIC
    }

    def cell(pair: tuple[str, str], protocol: str, side: str) -> tuple[str, str]:
        row = rows.get((*pair, protocol, side))
        if row is None:
            return DASH, ""
        kind = "up" if row["low"] > 0 else "down" if row["high"] < 0 else ""
        verdict = {"up": "first better", "down": "second better", "": "undecided"}[kind]
        limits = f"{short(row['low'], 3)} to {short(row['high'], 3)}"
        text = f'{short(row["difference"])}<small>{limits}</small><span class="hidden">{verdict}</span>'
        return text, kind

    across = [row for (*_, protocol, side), row in rows.items() if ":" in protocol and side == "all"]
    pairs = list(dict.fromkeys((a, b) for a, b, protocol, _ in rows if ":" not in protocol))
    caption = (
        "Difference in Recall@10 over the same cases and resamples, with its 95 % interval. Green: the first "
        "is better; red: the second is; unshaded: the interval holds zero."
    )
    if not pairs:
        return ""
    whole = grouped_table(
        caption, pairs, _columns(report), cell, lambda pair: " against ".join(map(words, pair)), "Models"
    )
    return whole + "".join(_across(row) for row in across)


def _across(row: Mapping[str, Any]) -> str:
    """One line: what a model under one protocol has over another under another."""
    sides = zip((row["a"], row["b"]), row["protocol"].split(":"), strict=True)
    who = " against ".join(f"{words(model)} under {words(protocol)}" for model, protocol in sides)
    limits = f"{short(row['low'])} to {short(row['high'])}"
    return f"<p>Over all cases, {who}: {short(row['difference'])} ({limits}).</p>"


def _slices(report: Mapping[str, Any], pictures: Mapping[str, tuple[bytes, str]]) -> str:
    models, parts = models_of(report), [picture(pictures, "slices")]
    for side in ("warm", "cold"):
        protocol = slice_protocol(report, side)
        names = [name for name, num in report["num_cases"].items() if name.startswith(f"{side}_") and num]
        if not names:
            continue
        body = [
            [escape(LABELS[name]), f"{report['num_cases'][name]:,}{_units(report, protocol, name)}"]
            + [interval(figure(report, protocol, model, name, _METRIC)) for model in models]
            for name in names
        ]
        head = [f"{side.capitalize()} slice", "Cases", *map(words, models)]
        parts.append(table(f"Recall@10, {side} cases, {protocol.replace('_', ' ')}.", head, body))
    return "".join(parts)


def _units(report: Mapping[str, Any], protocol: str, name: str) -> str:
    """What was resampled for a slice's limits, where that is not its cases."""
    found = report["protocols"][protocol].get("units", {}).get(name, {"unit": "case"})
    return "" if found["unit"] == "case" else f"<small>{found['num']:,} {found['unit']}s</small>"


def _beyond(report: Mapping[str, Any]) -> str:
    heads = ["Model", *(words(metric.removesuffix("_at_10")) for metric in BEYOND)]
    parts = []
    for protocol in headline_protocols(report, "warm"):
        body = [
            [words(model), *(interval(figure(report, protocol, model, "all", metric)) for metric in BEYOND)]
            for model in models_of(report)
        ]
        parts.append(table(f"The first 10 places of every list, {protocol.replace('_', ' ')}.", heads, body))
    rest = f"<details><summary>Under the quotas</summary>{''.join(parts[1:])}</details>" if parts[1:] else ""
    return "".join(parts[:1]) + rest


def _masking(report: Mapping[str, Any]) -> str:
    if TWIN not in report["protocols"]:
        return ""
    columns = [
        (protocol, side)
        for protocol in ("full", TWIN)
        for side in ("all", "warm", "cold")
        if report["protocols"][protocol]["num_cases"].get(side)
    ]

    def cell(model: str, protocol: str, side: str) -> tuple[str, str]:
        return interval(figure(report, protocol, model, side, _METRIC)), ""

    caption = (
        "Recall@10. Without masking the items of the history stay in the ranking, and cases whose target is in "
        "the history are kept."
    )
    return grouped_table(caption, models_of(report), columns, cell)


def _all_figures(report: Mapping[str, Any]) -> str:
    heads = ["Model", *(metric.replace("_at_", "@") for metric in ACCURACY)]
    parts = []
    for protocol, one in report["protocols"].items():
        tables = []
        for side in ("all", "warm", "cold"):
            num_cases = one["num_cases"].get(side)
            body = [
                [words(model), *(interval(slices[side].get(metric)) for metric in ACCURACY)]
                for model, slices in one["models"].items()
                if side in slices
            ]
            if num_cases:
                of = one.get("units", {}).get(side, {"unit": "case"})
                units = "" if of["unit"] == "case" else f" of {of['num']:,} {of['unit']}s, which are resampled"
                tables.append(table(f"{side.capitalize()}: {num_cases:,} cases{units}.", heads, body))
        parts.append(f"<details><summary>{words(protocol)}</summary>{''.join(tables)}</details>")
    return "".join(parts)


def _footer(report: Mapping[str, Any]) -> str:
    whose = " of each run" if "runs" in report["statement"] else ""
    files = (
        f"Every figure can be computed again from <code>data/test.parquet</code>{whose} and the lists in "
        "<code>evaluation/&lt;protocol&gt;/&lt;model&gt;.parquet</code>; <code>cases.parquet</code> holds the "
        "slices, <code>report.json</code> all figures."
    )
    names = [name for name in ("command", "commit", "date") if report.get(name)]
    made = "; ".join(f"{name}: <code>{escape(str(report[name]))}</code>" for name in names)
    return f"<p>{files}</p>" + (f"<p>{made}</p>" if made else "")


def _columns(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(protocol, side) of the headline, protocol by protocol."""
    return [
        (protocol, side)
        for protocol in headline_protocols(report, "cold")
        for side in ("warm", "cold")
        if report["num_cases"].get(side) and protocol in headline_protocols(report, side)
    ]
