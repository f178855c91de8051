"""The demo: the cold-start evaluation on the synthetic grocery store, with a check that it shows something.

Exits with status 1 where the generator's recall@10 on warm cases is not above twice popularity's, or the
dual tower's on cold cases is not above popularity's: a demo that shows nothing is broken.
"""

import sys
from typing import Any

from pressmark.cli import guarded
from pressmark.evaluation.report import figure
from pressmark.judging import main


def failures(report: dict[str, Any]) -> list[str]:
    """What the demo fails to show, in words."""

    def recall(model: str, slice_name: str) -> float:
        return float(figure(report, "full", model, slice_name, "recall_at_10")["mean"])

    found = []
    if not recall("generator", "warm") > 2 * recall("popularity", "warm"):
        found.append(
            f"generator's warm recall@10 {recall('generator', 'warm'):.4f} is not above twice popularity's "
            f"{recall('popularity', 'warm'):.4f}"
        )
    if not recall("dual_tower", "cold") > recall("popularity", "cold"):
        found.append(
            f"dual tower's cold recall@10 {recall('dual_tower', 'cold'):.4f} is not above popularity's "
            f"{recall('popularity', 'cold'):.4f}"
        )
    return found


def demo() -> None:
    """Runs the evaluation and checks it."""
    broken = failures(main("cold_items"))
    for one in broken:
        print(f"demo failed: {one}", file=sys.stderr)
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    guarded(demo)
