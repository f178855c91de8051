"""`pressmark doctor`: read a run, judge its tokenizer, print the table, write JSON and pictures."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from pressmark import files
from pressmark.insight.definitions import definition_of
from pressmark.insight.doctor import Diagnosis, as_json, diagnose, read_patient
from pressmark.insight.rules import BY_THUMB, GRADES, Rule
from pressmark.insight.verdicts import Verdict, advice
from pressmark.tokenizer.state import read_living

WIDTH = 110


def doctor(arguments: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        The exit status: 1 with --strict and a bad verdict, else 0.

    Raises:
        ValueError: For a run that cannot be looked at.
    """
    options = _parser().parse_args(arguments)
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; it must be 0 or more.")
    out = options.out or options.run / "doctor"
    if out.is_file():
        raise ValueError(f"--out {out}: is a file; name a folder.")
    patient = read_patient(options.run)
    diagnosis = diagnose(options.run, patient, options.seed)
    print(terminal_table(diagnosis, options.explain))
    for note in _changed_since(options.run):
        print(f"mind: {note}")
    files.write_json(out / "doctor.json", as_json(diagnosis))
    written = ["doctor.json"]
    if options.plots:
        from pressmark.insight.pictures import draw

        print("\ndrawing; the map takes half a minute ...", flush=True)
        for name, png in draw(patient, diagnosis).items():
            with files.replacing(out / f"{name}.png") as partial:
                partial.write_bytes(png)
            written.append(f"{name}.png")
    print(f"\n{out}: {', '.join(written)}")
    return int(options.strict and diagnosis.count("bad") > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pressmark doctor",
        description="What is good and what is wrong with a run's SIDs, and which key of the config to change.",
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="run folder, such as runs/grocery/cold_items/seed0"
    )
    parser.add_argument("--out", type=Path, help="folder for doctor.json and pictures (default: RUN/doctor)")
    parser.add_argument("--seed", type=int, default=0, help="of sampled pairs and of the map (default: 0)")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="no pictures")
    parser.add_argument("--explain", action="store_true", help="say what every measure is and why it matters")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if any verdict is bad")
    return parser


def terminal_table(diagnosis: Diagnosis, explain: bool = False) -> str:
    """The verdicts as plain text, and what to change below: one thing a key, what is worst first.

    Args:
        diagnosis: What was found.
        explain: Below every verdict also what was measured and why.
    """
    sizes = " x ".join(map(str, diagnosis.level_sizes))
    lines = [
        f"{diagnosis.run}: {diagnosis.kind}, {sizes} codes, {diagnosis.num_items:,} items "
        f"({diagnosis.num_cold:,} cold), fitted on {diagnosis.num_fitted:,}",
        "",
    ]
    title = max(len(one.rule.title) for one in diagnosis.verdicts)
    shown = [_values(one) for one in diagnosis.verdicts]
    width = max(map(len, shown))
    for one, values in zip(diagnosis.verdicts, shown, strict=True):
        lines.append(f"{one.grade:5}  {one.rule.title:{title}}  {values:{width}}  {_limit(one.rule)}".rstrip())
        if explain:
            definition = definition_of(next(iter(one.values)))
            lines += _wrapped(f"{definition[0].upper()}{definition[1:]}.")
            lines += _wrapped(f"Limits: {one.rule.source}.")
        if explain or one.grade != "good":
            lines += _wrapped(one.rule.why)
    lines += ["", ", ".join(f"{diagnosis.count(grade)} {grade}" for grade in GRADES)]
    if any("*" in values for values in shown):
        lines.append("* the level that the verdict is about")
    lines += [line for note in diagnosis.left_out for line in _wrapped(f"left out: {note}", 0)]
    asked = advice(diagnosis.verdicts)
    lines += [""] if asked else []
    for change, titles in asked.items():
        lines += _wrapped(f"-> {change.key}: {change.how} ({'; '.join(titles)})", 0)
    suggestion = diagnosis.suggestion
    wanted = f"[{','.join(map(str, suggestion.level_sizes))}]"
    # Where a verdict speaks of the sizes, a rule of thumb that says otherwise would contradict it.
    if all(wanted in one.how for one in asked if one.key == BY_THUMB.key):
        same = ", as here" if suggestion.level_sizes == diagnosis.level_sizes else ""
        lines += _wrapped(f"rule of thumb: {BY_THUMB.key} {wanted}{same}. {suggestion.reason}", 0)
    return "\n".join(lines)


def _changed_since(run: Path) -> list[str]:
    """What became of the catalog after the run was prepared, which the verdicts do not know."""
    living = read_living(run)
    appended = int(living.listed[living.num_own :].sum())
    removed = int((~living.listed[: living.num_own]).sum())
    found = [(appended, "appended later: not looked at"), (removed, "removed later: still looked at")]
    return [f"{num:,} products were {what}." for num, what in found if num]


def _wrapped(text: str, indent: int = 7) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 3))


def _values(verdict: Verdict) -> str:
    """The values of a row, level after level.

    An asterisk marks those that the verdict is about, where others of the row are better.
    """
    several = len(verdict.worst) < len(verdict.values)
    parts = [
        number(value) + ("*" if several and name in verdict.worst else "")
        for name, value in verdict.values.items()
    ]
    return " ".join(parts)


def _limit(rule: Rule) -> str:
    sign = ">=" if rule.better == "high" else "<="
    if rule.good == rule.watch:
        return f"good {sign} {number(rule.good)}"
    return f"good {sign} {number(rule.good)}, watch {sign} {number(rule.watch)}"


def number(value: float) -> str:
    """Three digits for shares, none for counts.

    >>> number(0.0471), number(-0.0378), number(16.24), number(354930.0), number(0)
    ('.047', '-.038', '16.2', '354,930', '0')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.3g}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
