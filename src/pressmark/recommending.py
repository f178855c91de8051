"""`pressmark recommend`: next items for a file of histories, or for a folder of files on several processes.

Memory is that of the model and one batch, however many users there are. A shard is answered by itself, so that
the answers do not depend on the number of processes.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from pressmark import distributed, files, living, shard_work
from pressmark.files import replacing
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests

if TYPE_CHECKING:
    from pressmark.load import LoadedRecommender

SUFFIXES = (".parquet", ".jsonl")
COLUMNS = ("user_id", "history", "context", "cart")
SCHEMA = pa.schema(
    [("user_id", pa.string()), ("rank", pa.int64()), ("item_id", pa.string()), ("score", pa.float32())]
)

EXACT = "exact"
"""Column of certified answers: whether a user's list is proven; null from a model that proves nothing."""


def recommend(arguments: list[str]) -> None:
    """`pressmark recommend --run R --histories H --out O`."""
    from pressmark.load import chosen

    parser = argparse.ArgumentParser(
        prog="pressmark recommend", description="Next items for a file of histories, or a folder of such files."
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="run folder, such as runs/grocery/cold_items/seed0"
    )
    parser.add_argument(
        "--histories",
        type=Path,
        required=True,
        help="JSONL or parquet, one row a user: user_id, history (item ids), and where there are any context "
        "(a string, of a model that reads one) and cart (item ids); or a folder of such files, shared among "
        "processes",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="parquet to write: user_id, rank, item_id, score, with --certify exact too; for a folder of "
        "histories a folder",
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
    _check_out(options)
    if options.certify and (model := chosen(options.run, options.model)) != "generator":
        print(f"mind: --certify is for the generator's search; the {model} looks at every product anyway.")
    if options.histories.is_dir():
        _recommend_folder(options)
    else:
        _recommend_file(options)


def _check_out(options: argparse.Namespace) -> None:
    """Raises ValueError where --out cannot be written, before anything is loaded or asked."""
    out = options.out
    if blocked := next((one for one in out.parents if one.exists() and not one.is_dir()), None):
        raise ValueError(f"--out {out}: {blocked} is a file, no folder.")
    if options.histories.is_file():
        if out.is_dir():
            raise ValueError(
                f"--out {out}: is a folder; the answers to a file need a file, such as {out}/answers.parquet."
            )
        if out.exists() and out.samefile(options.histories):
            raise ValueError(f"--out {out}: is the file of the histories; give another one.")


def _recommend_file(options: argparse.Namespace) -> None:
    from pressmark.load import load

    if distributed.start().num_processes > 1:
        raise ValueError(
            f"--histories {options.histories}: a file is answered by one process; give a folder of shards to "
            "share them among several."
        )
    if not options.histories.is_file():
        raise ValueError(f"--histories {options.histories}: no such file.")
    model = load(options.run, options.model)
    wanted = _register_filters(model, options)
    users, unknown, short = answer_file(model, wanted, options, options.histories, options.out)
    print(f"{options.out}: {users} users, at most {options.k} items each")
    _say(model, options, unknown, short)


def _recommend_folder(options: argparse.Namespace) -> None:
    """Answers each file of a folder, this process its share of them."""
    from pressmark.load import load

    state = distributed.start()
    shards = shard_work.shards_of(options.histories, options.out, SUFFIXES)
    model = load(options.run, options.model)
    wanted = _register_filters(model, options)
    counts, failed = np.zeros(3, np.int64), list[ValueError]()
    for shard in shard_work.to_do(shards, "recommend", _settings(options)):
        try:
            counts += answer_file(model, wanted, options, shard.source, shard.place, shard.metadata)
        except ValueError as error:
            failed.append(error)
    users, unknown, short = distributed.all_reduce_sum(torch.from_numpy(counts).to(state.device)).tolist()
    if distributed.rank() == 0:
        print(f"{options.out}: {users} users answered now, at most {options.k} items each")
        _say(model, options, unknown, short)
    shard_work.failures(failed, "recommend")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on beside the histories."""
    from pressmark.hybrid.trend import PLACE
    from pressmark.load import TRAINED, chosen

    # Whatever the files of a model are called: a backbone keeps an adapter beside its tables, or all in shards.
    built_on = [options.run / "tokenizer" / "sids.parquet", options.run / PLACE]
    for folder in (options.run / model for model in TRAINED):
        built_on += [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    kept = ("k", "filter", "certify", "keep_history", "batch_size")
    return {
        "model": chosen(options.run, options.model),
        "built_on": files.fingerprint(*(files.file_hash(one) for one in built_on if one.is_file())),
        **{name: getattr(options, name) for name in kept},
        **{
            name: path and files.file_hash(path)
            for name in ("allow", "deny")
            if (path := getattr(options, name))
        },
    }


def _say(model: LoadedRecommender, options: argparse.Namespace, unknown: int, short: int) -> None:
    if unknown:
        print(f"{unknown:,} history items are not in the run's catalog: left out")
    if options.k > model.num_items:
        print(f"mind: --k {options.k}: the model knows {model.num_items:,} products, and nobody got more")
    elif short:
        print(f"mind: {short:,} users got fewer than {options.k} items: filter and history leave them no more")


def answer_file(
    model: LoadedRecommender,
    wanted: str | None,
    options: argparse.Namespace,
    source: Path,
    place: Path,
    metadata: dict[bytes, bytes] | None = None,
) -> tuple[int, int, int]:
    """Answers every history of a file and writes one parquet, whole or not at all.

    Args:
        model: Whom to ask.
        wanted: The filter, see `Requests`.
        options: Of the command.
        source: JSONL or parquet.
        place: The parquet.
        metadata: For its schema.

    Returns:
        Users, items of their histories and carts that the catalog lacks, and users who got fewer than k.

    Raises:
        ValueError: For a record that is no history, or if not one item of any history is known: then the ids
            mean something else. Nothing is written then.
    """
    # More there is not, and the places would be held in memory all the same.
    index, k = model.catalog.rows, min(options.k, model.num_items)
    users = short = given = lost = lost_of_carts = 0
    first: tuple[int, str] | None = None
    item_id = pa.array(model.catalog.item_id, pa.string())
    schema = SCHEMA.append(pa.field(EXACT, pa.bool_())) if options.certify else SCHEMA
    whole, bar = schema.with_metadata(metadata), tqdm(desc=source.name, unit="user", disable=None, leave=False)
    with replacing(place) as partial, pq.ParquetWriter(partial, whole) as writer, bar:
        for records in batches(source, options.batch_size):
            first = first or next(((one.number, one.history[0]) for one in records if one.history), None)
            known = [_known(one.history, index) for one in records]
            carts = [_known(one.cart, index) for one in records]
            given += sum(len(one.history) for one in records)
            lost += sum(len(one.history) for one in records) - sum(map(len, known))
            lost_of_carts += sum(len(one.cart) for one in records) - sum(map(len, carts))
            requests = Requests(
                Histories.from_lists(known),
                wanted,
                not options.keep_history,
                certify=options.certify,
                context=np.array([one.context for one in records], object),
                cart=Histories.from_lists(carts) if any(carts) else None,
            )
            answer = model.recommend(requests, k)
            writer.write_table(_table([one.user_id for one in records], answer, item_id, whole))
            users += len(records)
            short += int((answer.num_valid < k).sum())
            bar.update(len(records))
        if first and given == lost:
            row, item = first
            raise ValueError(
                f"{source}: record {row}: item id {item!r}, like all {given:,} others, is not in the run's "
                f"catalog (which has {item_id[0].as_py()!r}). Ids are compared letter by letter."
            )
    return users, lost + lost_of_carts, short


def _known(item_ids: list[str], index: Mapping[str, int]) -> list[int]:
    return [index[item] for item in item_ids if item in index]


def _table(user_id: list[str], answer: Recommendations, item_id: pa.Array, schema: pa.Schema) -> pa.Table:
    row, rank = np.nonzero(answer.item_index >= 0)
    columns = {
        "user_id": pa.array(user_id, pa.string()).take(pa.array(row)),
        "rank": pa.array(rank + 1),
        "item_id": item_id.take(pa.array(answer.item_index[row, rank])),
        "score": pa.array(answer.scores[row, rank]),
    }
    if EXACT in schema.names:
        proven = pa.nulls(len(row), pa.bool_()) if answer.exact is None else pa.array(answer.exact[row])
        columns[EXACT] = proven
    return pa.table(columns, schema=schema)


def _register_filters(model: LoadedRecommender, options: argparse.Namespace) -> str | None:
    """Registers what the options name; the filter to ask for."""
    from pressmark.load import chosen

    parts = [options.filter] if options.filter else []
    for name, path in (("allow", options.allow), ("deny", options.deny)):
        if path:
            known = set(model.catalog.item_id)
            ids = living.read_ids(path, f"--{name}")
            found = [one for one in ids if one in known]
            if not found:
                none = f"--{name} {path}: the catalog holds none of its {len(ids):,} ids, such as {ids[0]!r}"
                if name == "allow":
                    raise ValueError(f"{none}.")
                print(f"mind: {none}: nothing is denied")
                continue
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
                f"--filter appended: the model {chosen(options.run, options.model)} of {options.run} knows no "
                "appended item. Append some; hybrid, generator, dual_tower and content_neighbours know them."
            )
    return " & ".join(parts) or None


class Record(NamedTuple):
    """One user of a file.

    Attributes:
        number: From 1, blank lines not counted.
        user_id: Or the row's number, where the file names no user.
        history: Item ids, oldest first.
        context: "" where the file names none.
        cart: Item ids; empty where the file names none.
    """

    number: int
    user_id: str
    history: list[str]
    context: str
    cart: list[str]


def batches(path: Path, size: int) -> Iterator[list[Record]]:
    """The records of a file, `size` at a time.

    Raises:
        ValueError: Naming the file, the row and the rule.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--histories {path}: the name must end in {' or '.join(SUFFIXES)}.")
    read = _parquet_rows if path.suffix == ".parquet" else _json_lines
    records = (_checked(path, number, *one) for number, one in enumerate(read(path), start=1))
    while some := list(itertools.islice(records, size)):
        yield some


def _checked(path: Path, number: int, row: int, record: Any) -> Record:
    example = 'write {"user_id": "u1", "history": ["milk-1", "bread-2"]}'
    if not isinstance(record, Mapping):
        raise ValueError(f"{path}: row {row}: is {record!r}, no object; {example}.")
    if "history" not in record:
        raise ValueError(f"{path}: row {row}: the field 'history' is missing; {example}.")
    history = record["history"]
    if not _are_ids(history):
        raise ValueError(
            f"{path}: row {row}: history is {history!r}; it must be a list of item ids (strings): {example}."
        )
    user, context, cart = record.get("user_id"), record.get("context") or "", record.get("cart") or []
    if not _are_ids(cart):
        raise ValueError(f"{path}: row {row}: cart is {cart!r}; it must be a list of item ids (strings).")
    if not isinstance(context, str):
        raise ValueError(f"{path}: row {row}: context is {context!r}; it must be a string.")
    user = str(row if user is None else user)
    try:
        user.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path}: row {row}: user_id is {user!r}; it must be text that UTF-8 can write ({error.reason})."
        ) from error
    return Record(number, user, history, context, cart)


def _are_ids(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = [one for one in COLUMNS if one in file.schema_arrow.names]
            if "history" not in columns:
                yield 1, {}
            for batch in file.iter_batches(16_384, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read as parquet ({error}).") from error


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields each record with its line number."""
    import json

    with path.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield row, json.loads(line.decode("utf-8-sig"))
                except ValueError as error:
                    raise ValueError(f"{path}: row {row}: not valid JSON ({error}).") from error
