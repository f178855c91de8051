"""The explorer as one file: markup, style, script and data, and nothing that is fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files as resources
from typing import Any

from pressmark.evaluation.page import headline_table
from pressmark.insight.command import number
from pressmark.insight.doctor import Diagnosis
from pressmark.insight.explorer.content import packed
from pressmark.insight.rules import GRADES
from pressmark.insight.verdicts import Verdict

SCRIPTS = ("store.js", "parts.js", "tree.js", "table.js", "details.js", "map.js", "app.js")


@dataclass(frozen=True)
class Page:
    """What a page is made of.

    Attributes:
        heading: What it is about.
        content: As `content.content` gives it.
        diagnosis: The doctor's, None to leave the tab out.
        report: evaluation/report.json, None to leave the tab out.
    """

    heading: str
    content: Mapping[str, Any]
    diagnosis: Diagnosis | None = None
    report: Mapping[str, Any] | None = None


def render(page: Page) -> str:
    """The HTML. Texts of the catalog are in the packed data alone, which the script sets as text."""
    tabs = {"products": "Products", "map": "Map"}
    if page.diagnosis:
        tabs["quality"] = "Quality"
    if page.report:
        tabs["evaluation"] = "Evaluation"
    parts = {
        "title": escape(f"{page.heading} \N{MIDDLE DOT} Pressmark"),
        "heading": escape(page.heading),
        "facts": escape(_facts(page.content)),
        "style": _asset("page.css"),
        "script": "\n".join(
            _asset(name).replace('"use strict";\n', "", int(name != SCRIPTS[0])) for name in SCRIPTS
        ),
        "tabs": "".join(_tab(name, title) for name, title in tabs.items()),
        "quality": _quality(page.diagnosis) if page.diagnosis else "",
        "evaluation": _evaluation(page.report) if page.report else "",
        "data": packed(page.content),
    }
    # In one pass, so that no part is searched for the names of others.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (resources("pressmark.insight.explorer") / "assets" / name).read_text("utf-8")


def _facts(content: Mapping[str, Any]) -> str:
    items, flags = content["items"], content["flags"]
    facts = [f"{len(items['id']):,} products", f"{content['num_levels']} codes a SID"]
    if items["cold"]:
        facts.append(f"{len(items['cold']):,} new")
    if flags["item"]:
        facts.append(f"{len(set(flags['item'])):,} flagged")
    return " \N{MIDDLE DOT} ".join(facts)


def _tab(name: str, title: str) -> str:
    return (
        f'<button type="button" role="tab" id="tab-{name}" aria-controls="{name}" aria-selected="false" '
        f'tabindex="-1">{title}</button>'
    )


def _quality(diagnosis: Diagnosis) -> str:
    counts = ", ".join(f"{diagnosis.count(grade)} {grade}" for grade in GRADES)
    sizes = " x ".join(map(str, diagnosis.level_sizes))
    worst_first = sorted(diagnosis.verdicts, key=lambda one: -GRADES.index(one.grade))
    notes = "".join(f"<p>Left out: {escape(note)}</p>" for note in diagnosis.left_out)
    return (
        f"<h2>The doctor's verdicts</h2><p>{escape(diagnosis.kind)}, {sizes} codes, fitted on "
        f"{diagnosis.num_fitted:,} of {diagnosis.num_items:,} products: {counts}.</p>"
        + "".join(map(_verdict, worst_first))
        + notes
    )


def _verdict(one: Verdict) -> str:
    values = " ".join(number(value) for value in one.values.values())
    sign = "&ge;" if one.rule.better == "high" else "&le;"
    changes = "".join(f"<br><code>{escape(change.key)}</code> {escape(change.how)}" for change in one.changes)
    why = f'<div class="why">{escape(one.rule.why)}{changes}</div>' if one.grade != "good" else ""
    grade = f'<span class="grade {one.grade}">{one.grade}</span>'
    good = f'<span class="soft">good {sign} {number(one.rule.good)}</span>'
    return (
        f'<div class="verdict">{grade}<span>{escape(one.rule.title)}</span>'
        f'<span><span class="values">{values}</span> {good}</span>{why}</div>'
    )


def _evaluation(report: Mapping[str, Any]) -> str:
    intro = (
        "Cold: every interaction with the target was hidden from training. Warm: the rest. The whole report, "
        "with what each protocol means, is evaluation/report.html in the run's folder."
    )
    return f"<h2>{escape(str(report['title']))}</h2><p>{intro}</p>" + headline_table(report)
