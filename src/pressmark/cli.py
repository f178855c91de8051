"""The `pressmark` command: prepare, run, recommend, doctor, tokenize, churn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pressmark import living, stages
from pressmark.experiment import parse
from pressmark.files import read_parquet, replacing

if TYPE_CHECKING:
    from pressmark.load import LoadedRecommender

_USAGE = """usage: pressmark COMMAND [options]

  prepare     read, check and split the data, compute text vectors
  run         every stage in order, then the comparison table; a finished stage is not done again
  recommend   next items for a file of histories
  doctor      what is good and what is wrong with the SIDs of a run, and what to change
  tokenize    SIDs for new products of a trained run; or removes products
  churn       which share of the products changed its SID from one version or run to another

pressmark COMMAND --help lists the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `pressmark` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    commands = {
        "prepare": _prepare,
        "run": _run,
        "recommend": _recommend,
        "doctor": _doctor,
        "tokenize": living.tokenize,
        "churn": living.churn,
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
    """Runs a command; a user's mistake ends in one clear line and status 2 rather than a traceback."""
    try:
        command(*arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _prepare(arguments: list[str]) -> None:
    experiment, _ = parse(arguments, prog="pressmark prepare")
    if stages.is_done(experiment, "prepare"):
        print(f"{experiment.run}: prepared before")
    stages.prepare(experiment)


def _run(arguments: list[str]) -> None:
    from pressmark.evaluation.report import terminal_table

    experiment, _ = parse(arguments, prog="pressmark run")
    report = stages.evaluate(experiment)
    print(terminal_table(report))
    print(f"\nreport: {experiment.run / 'evaluation' / 'report.html'}")


def _doctor(arguments: list[str]) -> None:
    from pressmark.insight.command import doctor
    from pressmark.load import quiet_libraries

    quiet_libraries()
    raise SystemExit(doctor(arguments))


def _recommend(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="pressmark recommend", description="Next items for a file of histories."
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="run folder, such as runs/grocery/cold_items/seed0"
    )
    parser.add_argument(
        "--histories",
        type=Path,
        required=True,
        help="JSONL or parquet: user_id, history (item ids); optional context (a string) and cart (item ids)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="parquet to write: user_id, rank, item_id, score"
    )
    parser.add_argument("--k", type=int, default=10, help="items a user (default: 10)")
    parser.add_argument(
        "--model", default="", help="a model of the run (default: hybrid, or generator where there is none)"
    )
    parser.add_argument(
        "--filter",
        help="cold (hidden from training, or appended since), warm (the others), appended (these alone), or "
        'several: "warm & !appended"',
    )
    parser.add_argument("--allow", type=Path, help="these products alone: .txt, one id a line, or a table")
    parser.add_argument("--deny", type=Path, help="none of these products")
    parser.add_argument(
        "--certify",
        action="store_true",
        help="search further for users whose answer is not yet proven to be the best (generator)",
    )
    parser.add_argument("--keep-history", action="store_true", help="allow items that the history holds")
    parser.add_argument("--batch-size", type=int, default=1024, help="users at a time (default: 1024)")
    options = parser.parse_args(arguments)
    if options.k < 1 or options.batch_size < 1:
        raise ValueError(f"--k ({options.k}) and --batch-size ({options.batch_size}) must be at least 1.")
    recommend_file(options)


def recommend_file(options: argparse.Namespace) -> None:
    """Answers every history of a file and writes one parquet, whole or not at all."""
    from pressmark.load import load

    asked = _read_histories(options.histories)
    user_id = asked.user_id
    model = load(options.run, options.model)
    histories, num_unknown = _known_items(options.histories, asked.histories, model.catalog.item_id)
    # A cart's unknown items are left out alike; a file of carts alone is no mistake.
    known = set(model.catalog.item_id)
    carts = [[item for item in one if item in known] for one in asked.carts]
    num_unknown += sum(map(len, asked.carts)) - sum(map(len, carts))
    wanted = _register_filters(model, options)
    schema = pa.schema(
        [("user_id", pa.string()), ("rank", pa.int64()), ("item_id", pa.string()), ("score", pa.float32())]
    )
    with replacing(options.out) as partial, pq.ParquetWriter(partial, schema) as writer:
        starts = range(0, len(histories), options.batch_size)
        for start in tqdm(starts, desc="recommend", unit="batch", disable=None):
            stop = start + options.batch_size
            answers = model.recommend(
                histories[start:stop],
                options.k,
                filter=wanted,
                mask_history=not options.keep_history,
                certify=options.certify,
                context=asked.contexts[start:stop],
                cart=carts[start:stop] if any(carts) else None,
            )
            rows = list(_rows(user_id[start:stop], answers))
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    print(f"{options.out}: {len(histories)} users, at most {options.k} items each")
    if num_unknown:
        print(f"{num_unknown:,} history items are not in the run's catalog: left out")


def _register_filters(model: LoadedRecommender, options: argparse.Namespace) -> str | None:
    """Registers what the options name; the filter to ask for."""
    parts = [options.filter] if options.filter else []
    for name, path in (("allow", options.allow), ("deny", options.deny)):
        if path:
            known = set(model.catalog.item_id)
            ids = living.read_ids(path, f"--{name}")
            found = [one for one in ids if one in known]
            if not found:
                raise ValueError(f"--{name} {path}: the catalog holds none of its {len(ids)} ids.")
            if len(found) < len(ids):
                print(f"--{name} {path}: {len(ids) - len(found):,} of {len(ids):,} ids are not in the catalog")
            model.filters[name] = model.mask(found)
            parts.append(name if name == "allow" else "!deny")
    if options.filter:
        cold = model.appended.copy()
        cold_path = options.run / "data" / "cold_items.parquet"
        cold |= model.mask(pq.read_table(cold_path).column("item_id").to_pylist())
        model.filters.update(cold=cold, warm=~cold, appended=model.appended)
        if options.filter == "appended" and not model.appended.any():
            raise ValueError(
                f"--filter appended: the model {options.model} of {options.run} knows no appended item. "
                "Append some; hybrid, generator, dual_tower and content_neighbours know them."
            )
    return " & ".join(parts) or None


def _known_items(path: Path, histories: list[list[str]], item_id: np.ndarray) -> tuple[list[list[str]], int]:
    """The histories without items that the catalog lacks, and how many those are.

    Raises:
        ValueError: If not one item of any history is known: then the ids mean something else.
    """
    catalog = set(item_id)
    known = [[item for item in history if item in catalog] for history in histories]
    given, left = sum(map(len, histories)), sum(map(len, known))
    if given and not left:
        row, first = next((row, one[0]) for row, one in enumerate(histories, start=1) if one)
        raise ValueError(
            f"{path}: record {row}: item id {first!r}, like all {given:,} others, is not in the run's catalog "
            f"(which has {str(item_id[0])!r}). Ids are compared letter by letter."
        )
    return known, given - left


def _rows(user_id: list[str], answers: list[list[Any]]) -> Iterator[dict[str, Any]]:
    for user, answer in zip(user_id, answers, strict=True):
        for rank, one in enumerate(answer, start=1):
            yield {"user_id": user, "rank": rank, "item_id": one.item_id, "score": one.score}


class _Histories(NamedTuple):
    """Columns of a file of histories; contexts "" and carts empty where the file says nothing of them."""

    user_id: list[str]
    histories: list[list[str]]
    contexts: list[str]
    carts: list[list[str]]


def _read_histories(path: Path) -> _Histories:
    """Reads user ids, histories, contexts and carts.

    Raises:
        ValueError: Naming the file, the row and the rule.
    """
    if not path.is_file():
        raise ValueError(f"--histories {path}: no such file.")
    found = _Histories([], [], [], [])
    for row, record in _parquet_rows(path) if path.suffix == ".parquet" else _json_lines(path):
        history = record.get("history") if isinstance(record, dict) else None
        if not isinstance(history, list) or not all(isinstance(item, str) for item in history):
            raise ValueError(
                f"{path}: row {row}: history is {history!r}; it must be a list of item ids (strings), "
                'such as {"user_id": "u1", "history": ["milk-1", "bread-2"]}.'
            )
        cart, context = record.get("cart") or [], record.get("context") or ""
        if not isinstance(cart, list) or not all(isinstance(item, str) for item in cart):
            raise ValueError(f"{path}: row {row}: cart is {cart!r}; it must be a list of item ids (strings).")
        if not isinstance(context, str):
            raise ValueError(f"{path}: row {row}: context is {context!r}; it must be a string.")
        user = record.get("user_id")
        found.user_id.append(str(row if user is None else user))
        found.histories.append(history)
        found.contexts.append(context)
        found.carts.append(cart)
    return found


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    yield from enumerate(read_parquet(path).to_pylist(), start=1)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields each record with its line number."""
    import json

    for row, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                yield row, json.loads(line.decode("utf-8-sig"))
            except ValueError as error:
                raise ValueError(f"{path}: row {row}: not valid JSON ({error}).") from error


if __name__ == "__main__":
    main()
