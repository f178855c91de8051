"""`pressmark report`: a run as one HTML page to look through."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pressmark import files
from pressmark.insight.doctor import diagnose, read_patient
from pressmark.insight.explain import label_run
from pressmark.insight.explorer.content import content
from pressmark.insight.explorer.flags import read_flags
from pressmark.insight.explorer.page import Page, render
from pressmark.insight.today import as_of_today


def report(arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        ValueError: For a run or an audit that cannot be read.
    """
    options = _parser().parse_args(arguments)
    out = options.out or options.run / "explorer.html"
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file, such as {out / 'explorer.html'}.")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}; it must be 0 or more.")
    flags = read_flags(options.audit) if options.audit else []
    print("reading the run ...", flush=True)
    patient = read_patient(options.run)
    print("labelling prefixes ...", flush=True)
    labelled = label_run(options.run, as_of_today(options.run, patient))
    print("substitutes, cousins and the map; half a minute ...", flush=True)
    shown = content(labelled, flags, options.seed)
    if num_unknown := shown["flags"]["num_unknown"]:
        print(
            f"--audit {options.audit}: {num_unknown:,} of {len(flags):,} flags are of products not in this run"
        )
    print("the doctor's verdicts ...", flush=True)
    page = Page(
        options.title or _name(options.run),
        shown,
        diagnose(options.run, patient, options.seed),
        _evaluation(options.run),
    )
    with files.replacing(out) as partial:
        partial.write_text(render(page), "utf-8")
    num_items, size = len(labelled.patient.catalog), out.stat().st_size / 2**20
    print(f"{out}: {num_items:,} products, {size:.1f} MiB; open it in a browser")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pressmark report",
        description="Writes a run as one HTML page: shelves, products, a map, verdicts. It needs no network.",
    )
    parser.add_argument("--run", type=Path, required=True, help="run folder with a trained tokenizer")
    parser.add_argument("--out", type=Path, help="file to write (default: RUN/explorer.html)")
    parser.add_argument("--audit", type=Path, help="parquet of `pressmark audit`: its flags are shown")
    parser.add_argument("--title", default="", help="heading of the page (default: the run's name)")
    parser.add_argument("--seed", type=int, default=0, help="of the map and of sampled pairs (default: 0)")
    return parser


def _name(run: Path) -> str:
    """The last names of a run's folder, as in "beauty / cold_items / seed0"."""
    names = [one for one in run.parts if one not in ("/", ".", "..", "runs")]
    return " / ".join(names[-3:])


def _evaluation(run: Path) -> Any:
    path = run / "evaluation" / "report.json"
    return files.read_json(path) if path.is_file() else None
