"""Pieces of report.html: style, tables and definition lists, in plain accessible markup.

Arguments named `html` or `cell` are markup already; every other text is escaped here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeVar

from pressmark.evaluation.report import DASH, short

Row = TypeVar("Row", bound=Hashable)

STYLE = """
:root { --ink: #1c2128; --soft: #57606a; --line: #dfe3e8; --tint: #f6f8fa; --best: #e8f3ec; --accent: #0b5cad; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.75rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .35rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, dl { max-width: 46rem; }
p { margin: .4rem 0 .9rem; }
.soft, figcaption, caption { color: var(--soft); }
a { color: var(--accent); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: 0; margin: 1rem 0 0;
  font-size: .92rem; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1.4rem 0 0; max-width: none; }
.facts div { background: var(--tint); border: 1px solid var(--line); border-radius: .6rem;
  padding: .55rem .95rem; }
.facts dt { font-size: .8rem; color: var(--soft); }
.facts dd { margin: 0; font-size: 1.2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; margin: .9rem 0; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .65rem .7rem; font-size: .87rem; max-width: calc(100vw - 3rem); }
th, td { padding: .45rem .7rem; text-align: right; border-top: 1px solid var(--line); }
td { white-space: nowrap; }
thead th { font-weight: 600; background: var(--tint); vertical-align: bottom; }
thead th[colspan] { text-align: center; }
tbody th, thead tr:first-child th:first-child { text-align: left; font-weight: 600; }
td.first, th.first { border-left: 1px solid var(--line); }
td small { display: block; color: var(--soft); font-size: .76rem; }
td.best { background: var(--best); }
td.up { background: #e8f3ec; } td.down { background: #fcebe6; }
tbody th { position: sticky; left: 0; background: #fff; }
tbody tr:hover th, tbody th { position: sticky; left: 0; background: #fff; }
tbody tr:hover td:not(.best):not(.up):not(.down) { background: #fafbfc; }
figure { margin: 1rem 0 1.6rem; }
figure img { width: 100%; height: auto; display: block; }
figure.narrow img { max-width: 46rem; }
figcaption { font-size: .87rem; }
dl.statement { display: grid; grid-template-columns: minmax(7rem, 11rem) 1fr; gap: .5rem 1.25rem;
  max-width: 60rem; }
dl.statement dl.statement { gap: .15rem 1rem; grid-template-columns: minmax(6rem, max-content) 1fr; }
.statement dt { font-weight: 600; overflow-wrap: anywhere; }
.statement .statement { font-size: .92rem; }
.statement .statement dt { font-weight: 400; color: var(--soft); }
.statement dd, .statement dl { margin: 0; overflow-wrap: anywhere; }
details { border-top: 1px solid var(--line); padding: .7rem 0; }
summary { cursor: pointer; font-weight: 600; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
footer { color: var(--soft); font-size: .87rem; padding-top: 2rem; padding-bottom: 3rem; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 40rem) { dl.statement { grid-template-columns: 1fr; gap: .1rem; }
  .statement dd { margin-bottom: .7rem; } }
@media print { .scroll { overflow: visible; } nav { display: none; } }
"""


def words(name: Any) -> str:
    """A name of a model, slice or protocol as escaped text."""
    return escape(str(name).replace("_", " "))


def classes(*names: str) -> str:
    """A class attribute, or nothing."""
    kept = " ".join(name for name in names if name)
    return f' class="{kept}"' if kept else ""


def interval(cell: Mapping[str, Any] | None, strong: bool = False) -> str:
    """A mean above its limits; a dash where the report has no figure."""
    if cell is None:
        return DASH
    mean = f"<strong>{short(cell['mean'])}</strong>" if strong else short(cell["mean"])
    if cell["low"] is None:
        return mean
    return f"{mean}<small>{short(cell['low'])} {DASH} {short(cell['high'])}</small>"


def picture(pictures: Mapping[str, tuple[bytes, str]], name: str, kind: str = "") -> str:
    """A PNG as part of the page, or nothing where it was not drawn."""
    if name not in pictures:
        return ""
    png, text = pictures[name]
    source = base64.b64encode(png).decode()
    return (
        f'<figure{classes(kind)}><img alt="{escape(text)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of markup cells whose first column names the row."""
    head = "".join(f'<th scope="col">{one}</th>' for one in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{one}</td>" for one in rest)}</tr>'
        for first, *rest in rows
    )
    return _framed(caption, f"<tr>{head}</tr>", body)


def grouped_table(
    caption: str,
    rows: Iterable[Row],
    columns: Sequence[tuple[str, str]],
    cell: Callable[[Row, str, str], tuple[str, str]],
    label: Callable[[Row], str] = words,
    corner: str = "Model",
) -> str:
    """A table with protocols above their slices.

    Args:
        caption: Text above the table.
        rows: What the rows are about.
        columns: (protocol, slice), those of a protocol together.
        cell: Row, protocol and slice -> markup and a class, either may be empty.
        label: Row -> markup of its head.
        corner: Markup of the corner.
    """
    protocols = [protocol for protocol, _ in columns]
    first = [number == protocols.index(protocol) for number, protocol in enumerate(protocols)]
    top = "".join(
        f'<th scope="colgroup" class="first" colspan="{protocols.count(name)}">{words(name)}</th>'
        for name in dict.fromkeys(protocols)
    )
    second = "".join(
        f'<th scope="col"{classes("first" if begins else "")}>{words(slice_name)}</th>'
        for begins, (_, slice_name) in zip(first, columns, strict=True)
    )
    body = []
    for row in rows:
        cells = [cell(row, *column) for column in columns]
        inner = "".join(
            f"<td{classes(kind, 'first' if begins else '')}>{text}</td>"
            for begins, (text, kind) in zip(first, cells, strict=True)
        )
        body.append(f'<tr><th scope="row">{label(row)}</th>{inner}</tr>')
    head = f'<tr><th scope="col" rowspan="2">{corner}</th>{top}</tr><tr>{second}</tr>'
    return _framed(caption, head, "".join(body))


def _framed(caption: str, head: str, body: str) -> str:
    """Scrolls sideways on a narrow screen, by keyboard too."""
    caption = escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
        f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def definitions(value: Any) -> str:
    """Nested mappings as definition lists, everything else as text."""
    if isinstance(value, Mapping):
        rows = "".join(f"<dt>{words(key)}</dt><dd>{definitions(one)}</dd>" for key, one in value.items())
        return f'<dl class="statement">{rows}</dl>'
    if isinstance(value, list | tuple):
        return "".join(f"<div>{definitions(one)}</div>" for one in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escape(str(value))
