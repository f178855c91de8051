"""The `pressmark` command; `_USAGE` lists what it can do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from pressmark.files import DiskFull

Command = Callable[[list[str]], None]
"""The words behind the command's name -> what it does."""

_USAGE = """usage: pressmark COMMAND [options]

  prepare     read, check and split the data, compute text vectors
  run         every stage in order, then the comparison table; a finished stage is not done again
  recommend   next items for a file of histories, or for a folder of them on any number of processes
  doctor      what is good and what is wrong with the SIDs of a run, and what to change
  explain     why a product has its SID, its substitutes, and its cousins in other categories
  report      a run as one HTML page: shelves, products, a map, verdicts
  terms       the product terms of a catalog, and which of them a title is about
  audit       products on a doubtful shelf, near duplicates, categories that the codes split or merge
  categorize  a category for products that have none, as deep as is sure
  tokenize    SIDs for new products of a trained run, or for a folder of them; or removes products
  trend       what sells now, counted anew from all purchases; nothing is trained
  churn       which share of the products changed its SID from one version or run to another

pressmark COMMAND --help lists the options of a command.
"""

_AGAIN = "Give the same command again to go on."


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `pressmark` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    commands = {
        "prepare": _prepare,
        "run": _run,
        "recommend": _of("recommending", "recommend"),
        "doctor": _doctor,
        "explain": _of("insight.explain_command", "explain_items"),
        "report": _of("insight.explorer.command", "report"),
        "terms": _of("insight.terms.command", "terms"),
        "audit": _categories("audit_command", "audit"),
        "categorize": _categories("predict_command", "categorize"),
        "tokenize": _of("living", "tokenize"),
        "trend": _of("living", "trend"),
        "churn": _of("living", "churn"),
    }
    if command in {"--help", "-h"}:
        print(_USAGE, end="")
        return
    if command not in commands:
        print(f"pressmark: unknown command {command!r}\n\n{_USAGE}", end="", file=sys.stderr)
        raise SystemExit(2)
    guarded(commands[command], rest)


def truth(word: str) -> bool:
    """`true` or `false` of a command line, as the experiment's own options are given."""
    if word not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")
    return word == "true"


def guarded(command: Any, *arguments: Any) -> None:
    """Runs a command; what the user can set right ends in one clear line and status 2, not in a traceback.

    Ctrl-C ends with status 130, as shells have it.
    """
    try:
        command(*arguments)
    except (ValueError, FloatingPointError, DiskFull) as error:
        _refuse(error, str(error))
    except OSError as error:
        # Without a file's name it is none of the user's files.
        if error.filename is None:
            raise
        _refuse(error, f"{error.filename}: {error.strerror}.")
    except RuntimeError as error:
        from pressmark.distributed import LostProcess, noticing

        try:
            with noticing(_AGAIN):
                raise
        except LostProcess as lost:
            _refuse(error, str(lost))
    except KeyboardInterrupt:
        print(f"\nstopped. {_AGAIN}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None


def _refuse(error: Exception, why: str) -> NoReturn:
    print(f"error: {why}", file=sys.stderr, flush=True)
    raise SystemExit(2) from error


# Each command imports what it needs: torch and transformers take seconds.


def _prepare(arguments: list[str]) -> None:
    from pressmark.experiment import parse

    experiment, _ = parse(arguments, prog="pressmark prepare")
    from pressmark import stages

    if stages.is_done(experiment, "prepare"):
        print(f"{experiment.run}: prepared before")
    stages.prepare(experiment)


def _run(arguments: list[str]) -> None:
    from pressmark.experiment import parse

    experiment, _ = parse(arguments, prog="pressmark run")
    from pressmark import stages
    from pressmark.evaluation.report import terminal_table

    report = stages.evaluate(experiment)
    print(terminal_table(report))
    print(f"\nreport: {experiment.run / 'evaluation' / 'report.html'}")


def _doctor(arguments: list[str]) -> None:
    from pressmark.insight.command import doctor
    from pressmark.load import quiet_libraries

    quiet_libraries()
    raise SystemExit(doctor(arguments))


def _of(module: str, command: str) -> Command:
    """A command that a module of the package has."""

    def run(arguments: list[str]) -> None:
        from pressmark.load import quiet_libraries

        quiet_libraries()
        getattr(import_module(f"pressmark.{module}"), command)(arguments)

    return run


def _categories(module: str, command: str) -> Command:
    """The same for those that embed a run's texts again, as it was configured."""

    def run(arguments: list[str]) -> None:
        from pressmark.load import quiet_libraries
        from pressmark.run_config import read_run

        quiet_libraries()
        room = import_module(f"pressmark.insight.categories.{module}")
        getattr(room, command)(arguments, read_run(room.parser().parse_args(arguments).run)[1])

    return run


if __name__ == "__main__":
    main()
