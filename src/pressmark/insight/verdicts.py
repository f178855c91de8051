"""Good, watch or bad: the rules applied to the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pressmark.insight.definitions import matching
from pressmark.insight.rules import GRADES, RULES, Change, Grade, Rule


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
