"""The tables of docs/scale.md: what `bench_scale.py` measured, and what larger numbers would take by that."""

from typing import Any

Result = dict[str, Any]
ITEMS, INTERACTIONS = 100_000_000, 1_000_000_000


def _rows(result: Result, what: str) -> list[dict[str, Any]]:
    return [row for row in result["rows"] if row["what"] == what]


def _work(result: Result, command: str) -> float:
    """Units of a command that a core does in a second, without what starting costs."""
    for row in _rows(result, f"{command}_alone"):
        return float(row["units"] / row["cpu_seconds"])
    row = _rows(result, f"{command}_processes")[0]
    seconds = sorted(one["work"]["cpu_seconds"] for one in row["rounds"] if one["processes"] == 1)
    return float(row["units"] / seconds[len(seconds) // 2])


def measured(result: Result) -> str:
    """What was measured."""
    lines = ["| | size | CPU seconds | a CPU second | peak GiB a process |", "|---|---|---|---|---|"]
    for row in _rows(result, "stream"):
        spent = f"{row['cpu_seconds']:.1f}, and {row['look_cpu_seconds']:.1f} to look through them before"
        lines.append(f"| batches from shards, no model | {_size(row)} | {spent} | {_speed(row)} |")
    for row in _rows(result, "memory"):
        lines.append(
            f"| the same from memory | {_size(row)} | {row['batches_cpu_seconds']:.1f} | {_speed(row)} |"
        )
    for command, unit in (("tokenize", "items"), ("recommend", "users")):
        for row in _rows(result, f"{command}_alone") or _rows(result, f"{command}_processes"):
            speed = _work(result, command)
            spent = f"{row['units'] / speed:.1f}, start left out"
            lines.append(
                f"| `{command}`, one process | {row['units']:,} {unit} | {spent} | {speed:,.0f} {unit} | |"
            )
        for row in _rows(result, f"{command}_all"):
            rest = f"{row['units'] / row['cpu_seconds']:,.0f} {unit} | {row['peak_gib']:.3f}"
            lines.append(
                f"| `{command}`, two processes | {row['units']:,} {unit} | {row['cpu_seconds']:.1f} | {rest} |"
            )
    return "\n".join(lines) + "\n\n" + _ratios(result)


def _size(row: dict[str, Any]) -> str:
    return f"{row['num_histories']:,} histories, {row['targets']:,} targets"


def _speed(row: dict[str, Any]) -> str:
    return f"{row['targets_per_cpu_second']:,} targets | {row['peak_gib']:.3f}"


def _ratios(result: Result) -> str:
    """The ratios that were asked for."""
    said = []
    for row in _rows(result, "train"):
        rounds = len(row["stream_cpu_seconds"])
        said.append(
            f"Training from shards goes at {row['stream_over_memory']:.2f} of the speed of training from "
            f"memory: CPU seconds of {row['steps']} steps of {row['batch_size']:,} targets, median of {rounds} "
            "in turns, the look through the shards left out."
        )
    for command in ("tokenize", "recommend"):
        for row in _rows(result, f"{command}_processes"):
            said.append(
                f"`{command}`: two processes take {row['cpu_seconds_of_two_over_one']:.2f} times the CPU "
                f"seconds of one for the same work, and were {row['speedup_median']:.2f} times as fast by the "
                f"clock, median of {len(row['rounds']) // 2} rounds, start taken off."
            )
    return "\n".join(f"- {one}" for one in said)


def plan(result: Result, others: dict[str, Result]) -> str:
    """What 100 M items and 1 G interactions would take.

    Args:
        result: Of bench_scale.
        others: "tokenizer-bench" and "training-beauty".
    """
    stream = max(_rows(result, "stream"), key=lambda row: row["num_histories"])
    shares = stream["targets"] / stream["num_histories"]
    look = stream["look_cpu_seconds"] / stream["targets"] * INTERACTIONS
    read = INTERACTIONS / stream["targets_per_cpu_second"]
    encode = next(row for row in others["tokenizer-bench"]["rows"] if row["what"] == "encode")
    of_text = encode["num_items"] / encode["cpu_seconds"]
    targets = next(row for row in others["training-beauty"]["rows"] if row["engine"] == "pressmark")
    rows = [
        (
            f"SIDs of {ITEMS:,} items, vectors of 64 numbers (reduced quantizer), parquet in and out",
            ITEMS / _work(result, "tokenize"),
        ),
        ("the same, vectors of 384 numbers, encoding alone (`tokenizer-bench.json`)", ITEMS / of_text),
        (f"looking through {INTERACTIONS:,} interactions ({INTERACTIONS / shares:,.0f} histories)", look),
        ("reading them once more as batches, one epoch", read),
        (
            "training on them, one epoch, TIGER's size on CPU cores (`training-beauty.json`)",
            INTERACTIONS / targets["samples_per_second"],
        ),
        (f"{ITEMS:,} users answered by the reduced generator", ITEMS / _work(result, "recommend")),
    ]
    lines = ["| | core hours | minutes on 64 cores |", "|---|---|---|"]
    lines += [f"| {what} | {seconds / 3600:,.2f} | {seconds / 60 / 64:,.1f} |" for what, seconds in rows]
    return "\n".join(lines)
