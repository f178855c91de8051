"""Good, watch or bad: the rules applied to the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pressmark.insight.definitions import matching
from pressmark.insight.rules import BY_THUMB, GRADES, RULES, Change, Grade, Rule


@dataclass(frozen=True)
class Verdict:
    """A rule, applied.

    Attributes:
        rule: The rule.
        grade: The worst of its figures'.
        values: Figure -> value.
        worst: The figures with that grade, where it is not good.
        changes: Those of the rule that fit the tokenizer, where it is not good.
    """

    rule: Rule
    grade: Grade
    values: Mapping[str, float]
    worst: tuple[str, ...]
    changes: tuple[Change, ...]


def judge(figures: Mapping[str, float], kind: str) -> tuple[Verdict, ...]:
    """Applies every rule that the figures allow, in the order of RULES.

    Args:
        figures: Name -> value.
        kind: "rqvae" or "rqkmeans": what can be changed depends on it.
    """
    verdicts = []
    for rule in RULES:
        values = {name: figures[name] for name in matching(rule.figure, figures)}
        if not values:
            continue
        grades = {name: rule.grade(value) for name, value in values.items()}
        grade = max(grades.values(), key=GRADES.index)
        failed = grade != "good"
        verdicts.append(
            Verdict(
                rule,
                grade,
                values,
                tuple(name for name, one in grades.items() if failed and one == grade),
                tuple(one for one in rule.changes if failed and one.kind in ("", kind)),
            )
        )
    return tuple(verdicts)


def unite(verdicts: Sequence[Verdict], sizes: Sequence[int] | None = None) -> tuple[Verdict, ...]:
    """The same verdicts, whose changes say one thing a key: where they differ the worst speaks, then the first.

    Args:
        verdicts: As `judge` gives them.
        sizes: What the rule of thumb has in place of the run's sizes; None where it has the same.
    """
    thumb = replace(BY_THUMB, how=f"set [{','.join(map(str, sizes))}], the rule of thumb") if sizes else None
    said = [[thumb if change == BY_THUMB else change for change in one.changes] for one in verdicts]
    spoken: dict[str, Change] = {}
    for place in sorted(range(len(said)), key=lambda place: -GRADES.index(verdicts[place].grade)):
        for change in filter(None, said[place]):
            spoken.setdefault(change.key, change)
    return tuple(
        replace(one, changes=tuple(change for change in changes if change and spoken[change.key] == change))
        for one, changes in zip(verdicts, said, strict=True)
    )


def advice(verdicts: Sequence[Verdict]) -> dict[Change, list[str]]:
    """What united verdicts ask for -> the titles of those that do; the worst verdicts' wishes first."""
    found: dict[Change, list[str]] = {}
    for one in sorted(verdicts, key=lambda one: -GRADES.index(one.grade)):
        for change in one.changes:
            found.setdefault(change, []).append(one.rule.title)
    return found
