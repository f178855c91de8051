"""The evaluation commands: one protocol, several seeds, one table, and the result on record."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Literal

from pressmark import stages
from pressmark.experiment import Experiment, as_dict, parse

Protocol = Literal["leave_one_out", "cold_items", "temporal"]


def main(protocol: Protocol, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains what is missing and judges every model for each seed; prints the table.

    Several seeds have a report together beside their runs, `evaluation-seeds-0-1/report.html`.

    Args:
        protocol: "leave_one_out", "cold_items" or "temporal"; overrides the config's split.protocol.
        argv: Command line; sys.argv by default. Beside the experiment's options: `--seeds [0,1,2]` or
            `--seeds 3`, and `--record true` to write eval/results/<what>-<dataset>.json.

    Returns:
        The report, over all seeds.
    """
    from pressmark.evaluation.combine import combine
    from pressmark.evaluation.record import record
    from pressmark.evaluation.report import terminal_table, write

    experiment, extra = parse(
        argv,
        extra={
            "seeds": {
                "type": int | list[int],
                "default": [],
                "help": "seeds to run and combine, or how many: 5 is [0,1,2,3,4] (default: seed)",
            },
            "record": {"type": bool, "default": False, "help": "write eval/results/<what>-<dataset>.json"},
        },
    )
    seeds = named_seeds(extra["seeds"]) or [experiment.seed]
    if experiment.run_dir and len(seeds) > 1:
        raise ValueError("--run_dir names one run; leave it out to judge several seeds.")
    runs = [_with(experiment, protocol, seed) for seed in seeds]
    reports = [stages.evaluate(one) for one in runs]
    title = f"{experiment.name}: {protocol}, seeds {', '.join(map(str, seeds))}"
    report = reports[0] if len(runs) == 1 else combine([one.run for one in runs], experiment.evaluation, title)
    print(terminal_table(report))
    folders = [one.run / "evaluation" for one in runs]
    if len(runs) > 1:
        folders.append(runs[0].run.parent / f"evaluation-seeds-{'-'.join(map(str, seeds))}")
        write(folders[-1], report)
    for folder in folders:
        print(f"report: {folder / 'report.html'}")
    if extra["record"]:
        what = {"cold_items": "cold_start"}.get(protocol, protocol)
        dataset = experiment.name + ("-shuffled" if experiment.split.ties == "shuffled" else "")
        made = {
            "stage_seconds": {str(one.seed): stages.stamped(one, "seconds") for one in runs},
            "stage_commits": {str(one.seed): stages.stamped(one, "commit") for one in runs},
        }
        record(what, dataset, report | made, _command(argv), as_dict(runs[0]), seeds)
        print(f"recorded: eval/results/{what}-{dataset}.json")
    return report


def named_seeds(asked: int | Sequence[int]) -> list[int]:
    """The seeds that a command line asks for: a list of them, or how many.

    >>> named_seeds(3), named_seeds([4, 7]), named_seeds([])
    ([0, 1, 2], [4, 7], [])
    """
    return list(range(asked)) if isinstance(asked, int) else list(asked)


def _with(experiment: Experiment, protocol: Protocol, seed: int) -> Experiment:
    split = dataclasses.replace(experiment.split, protocol=protocol)
    return dataclasses.replace(experiment, seed=seed, split=split)


def _command(argv: Sequence[str] | None) -> str:
    return shlex.join(["python", *sys.argv] if argv is None else ["pressmark.judging", *argv])
