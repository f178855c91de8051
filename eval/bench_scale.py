"""What scale costs: histories from shards beside histories in memory, and commands on several processes.

    python eval/bench_scale.py [--only stream,train,recommend,tokenize] [--record true]

The data are synthetic and the models small; `eval/results/scale-bench.json` has the sizes. Memory is what a
process holds beyond files, sampled (Linux). Where other jobs share the cores wall time says little: CPU seconds
stand beside it, and two processes scale as far as they need no more of them than one.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from bench_tokenizer import measured, say
from pressmark import files, stages
from pressmark.cli import guarded, truth
from pressmark.evaluation.memory import held_gib
from pressmark.evaluation.record import commit, record
from pressmark.experiment import parse
from pressmark.generator.causal_t5 import CausalT5
from pressmark.generator.config import Config, ModelConfig
from pressmark.generator.model import build_model
from pressmark.generator.samples import Collator, Windows, windows
from pressmark.generator.stream import StreamedSamples, open_stream
from pressmark.generator.train import GeneratorTask
from pressmark.interactions.cases import Cases
from pressmark.interactions.histories import Histories
from pressmark.interactions.history_shards import write_shard
from pressmark.sids.table import SidTable
from pressmark.training import loop
from pressmark.training.config import TrainingConfig

Report = dict[str, Any]
PER_SHARD = 100_000
"""Histories of a shard."""
SPELL = partial(windows, history_length=20, empty_histories=True, repeat_targets=True)
SMALL = {
    "generator.model.d_model": 32, "generator.model.d_kv": 8, "generator.model.d_ff": 64,
    "generator.model.num_layers": 1, "generator.model.num_heads": 2, "generator.training.num_epochs": 1,
    "generator.beam": 10, "tokenizer.training.num_epochs": 2, "vectors.dim": 64, "vectors.model": "tfidf",
}  # fmt: skip
"""The store's generator, reduced: what is measured is the way to it and from it."""


def histories(number: int, num: int, num_items: int) -> Histories:
    """Shard `number`: 2 to 20 items each, some items far more often than others."""
    rng = np.random.default_rng(number)
    lengths = rng.integers(2, 21, num)
    values = (num_items * rng.random(lengths.sum()) ** 3).astype(np.int64)
    return Histories(values, np.concatenate([[0], np.cumsum(lengths)]))


def write_histories(folder: Path, num: int, num_items: int) -> Path:
    """Shards of 100,000 histories, which are not written again."""
    for number in range(-(-num // PER_SHARD)):
        path = folder / f"part-{number:04d}.parquet"
        if not path.exists():
            size = min(PER_SHARD, num - number * PER_SHARD)
            write_shard(path, histories(number, size, num_items))
    return folder


def sid_table(num_items: int) -> SidTable:
    """Random SIDs of three levels."""
    cells = np.random.default_rng(0).choice(256**3, num_items, replace=False)
    return SidTable(np.stack([cells // 65_536, cells // 256 % 256, cells % 256], 1), (256, 256, 256), "none")


def names(num_items: int) -> np.ndarray:
    """Item ids."""
    return np.array([f"item{number:07d}" for number in range(num_items)], object)


def bench_stream(arguments: argparse.Namespace) -> list[Report]:
    """Batches of a tenth of the histories and of all, and those of the tenth in memory; no model."""
    num_items, rows = 100_000, []
    table, item_id = sid_table(num_items), names(num_items)
    whole = write_histories(arguments.folder / "histories", arguments.histories, num_items)
    few = sorted(whole.iterdir())[: arguments.histories // PER_SHARD // 10]
    tenth = linked(arguments.folder / "histories_tenth", few)
    none = np.zeros(num_items, bool)
    for folder in (tenth, whole):
        with measured() as looked:
            samples = open_stream(folder, item_id, none, SPELL, 65_536)
        with measured() as found:
            batches, targets = read_all(samples, table)
        rows.append(
            say({
                "what": "stream", "num_histories": len(samples.shards), "targets": targets, "batches": batches,
                "look_seconds": looked["seconds"], "look_cpu_seconds": looked["cpu_seconds"], **found,
                "targets_per_cpu_second": round(targets / found["cpu_seconds"]),
            })
        )  # fmt: skip
    num = arguments.histories // 10
    with measured() as found:
        parts = [histories(number, PER_SHARD, num_items) for number in range(num // PER_SHARD)]
        in_memory = SPELL(Histories.join(parts))
        start = time.process_time()
        collate = Collator(in_memory, table, "causal")
        plan = in_memory.plan(0, 4096, 0)
        for numbers in plan:
            collate(numbers)
        found["batches_cpu_seconds"] = round(time.process_time() - start, 2)
    targets = int(in_memory.num_targets.sum())
    rows.append(
        say({
            "what": "memory", "num_histories": num, "targets": targets, "batches": len(plan), **found,
            "targets_per_cpu_second": round(targets / found["batches_cpu_seconds"]),
        })
    )  # fmt: skip
    return rows


def read_all(samples: StreamedSamples, table: SidTable) -> tuple[int, int]:
    """Makes every batch of an epoch; their number, and that of the targets."""
    collate, targets = None, 0
    plan = samples.plan(0, 4096, 0)
    for own in plan:
        if collate is None or collate.samples is not own.source:
            collate = collate.over(own.source) if collate else Collator(own.source, table, "causal")
        targets += len(collate(own.numbers).item_index)
    return len(plan), targets


def bench_train(arguments: argparse.Namespace) -> list[Report]:
    """The same steps of training from memory and from shards, in turns."""
    num_items, num = 4000, 2 * PER_SHARD
    table, item_id = sid_table(num_items), names(num_items)
    folder = write_histories(arguments.folder / "histories_train", num, num_items)
    in_memory = SPELL(Histories.join([histories(number, PER_SHARD, num_items) for number in (0, 1)]))
    training = TrainingConfig(
        batch_size=2048,
        num_epochs=1,
        max_steps=arguments.steps,
        log_with="",
        mixed_precision="no",
        checkpoint_every=1e9,
    )
    model = ModelConfig(num_layers=2, d_model=64, d_kv=16, d_ff=128, num_heads=4, history_input="causal")
    config = Config(model=model, training=training)
    seconds: dict[str, list[float]] = {"memory": [], "stream": []}
    none = np.zeros(0, np.int64)
    no_cases = Cases(none, none.astype(object), Histories.from_lists([]), none, none.astype(bool))
    for turn in range(arguments.rounds):
        for name in ("memory", "stream") if turn % 2 == 0 else ("stream", "memory"):
            torch.manual_seed(0)
            samples: Windows | StreamedSamples = in_memory
            if name == "stream":
                samples = open_stream(folder, item_id, np.zeros(num_items, bool), SPELL, 65_536)
            vectors = np.random.default_rng(0).normal(size=(num_items, 64)).astype(np.float32)
            built = build_model(model, table, 20, 10, vectors)
            assert isinstance(built, CausalT5)
            content = built.item_head.content(vectors)
            task = GeneratorTask(samples, no_cases, table, np.arange(num_items), config, 0, content)
            start = time.process_time()
            loop.fit(
                built, task, training, arguments.folder / "training" / f"{name}-{turn}-{time.time_ns()}", 0, "f"
            )
            seconds[name].append(round(time.process_time() - start, 2))
    ratio = [one / other for one, other in zip(seconds["memory"], seconds["stream"], strict=True)]
    return [
        say({
            "what": "train", "num_histories": num, "steps": arguments.steps, "batch_size": 2048,
            **{f"{name}_cpu_seconds": one for name, one in seconds.items()},
            "stream_over_memory": round(float(np.median(ratio)), 3),
        })
    ]  # fmt: skip


def command(arguments: list[str], processes: int) -> Report:
    """Runs `pressmark ...` on so many processes of one thread; time, CPU time and the largest one's memory."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launch += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "pressmark.cli", "--"]
    if processes == 1:
        launch = [sys.executable, "-m", "pressmark.cli"]
    before, start = os.times(), time.perf_counter()
    process = subprocess.Popen(
        [*launch, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], *(held_gib("RssAnon", one) or 0.0 for one in descendants(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    done.set()
    watcher.join()
    after = os.times()
    if process.returncode:
        raise ValueError(f"{' '.join(arguments)}: {said[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "processes": processes, "seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(cpu, 1),
        "peak_gib": round(peak[0], 3),
    }  # fmt: skip


def descendants(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return [pid]
    return [pid, *(one for child in children for one in descendants(child))]


def rounds(name: str, base: list[str], folder: Path, units: int, arguments: argparse.Namespace) -> list[Report]:
    """A command over some shards, by one process and by two in turns, each time into a new folder.

    What starting costs is measured by giving the command once more, when everything is done, and taken off.
    """
    rows = []
    for turn in range(arguments.rounds):
        for processes in (1, 2) if turn % 2 == 0 else (2, 1):
            out = folder / f"{name}-{turn}-{processes}-{time.time_ns()}"
            found = command([*base, "--out", str(out)], processes)
            idle = command([*base, "--out", str(out)], processes)
            work = {key: round(found[key] - idle[key], 2) for key in ("seconds", "cpu_seconds")}
            rows.append(
                {
                    **found,
                    "work": work,
                    "start": {"seconds": idle["seconds"], "cpu_seconds": idle["cpu_seconds"]},
                }
            )
            say({"what": f"{name}, round {turn}", "units": units, **rows[-1]})
    median = {
        (key, count): float(np.median([row["work"][key] for row in rows if row["processes"] == count]))
        for key in ("seconds", "cpu_seconds")
        for count in (1, 2)
    }
    best = {count: min(row["work"]["seconds"] for row in rows if row["processes"] == count) for count in (1, 2)}
    return [
        say({
            "what": f"{name}_processes", "units": units, "rounds": rows,
            "speedup_median": round(median["seconds", 1] / median["seconds", 2], 3),
            "speedup_best": round(best[1] / best[2], 3),
            "cpu_seconds_of_two_over_one": round(median["cpu_seconds", 2] / median["cpu_seconds", 1], 3),
        })
    ]  # fmt: skip


def linked(folder: Path, sources: list[Path]) -> Path:
    """A folder with some of the shards of another."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sources:
        if not (folder / path.name).exists():
            (folder / path.name).hardlink_to(path)
    return folder


def small_run(folder: Path) -> Path:
    """A run of the grocery store with a small generator."""
    place = folder / "run"
    flags = {"name": "scale", "run_dir": place, "data.path": folder / "store", **SMALL}
    flat = [one for key, value in flags.items() for one in (f"--{key}", str(value))]
    experiment, _ = parse(["--config", "configs/grocery.yaml", *flat])
    stages.train_generator(experiment)
    return place


def bench_recommend(arguments: argparse.Namespace) -> list[Report]:
    """The generator by one process and by two, for some users; a tenth of all users and all by two."""
    from pressmark.catalog.items import read_catalog

    run = small_run(arguments.folder)
    item_id = read_catalog(run / "data" / "items.parquet").item_id
    users, few = arguments.folder / "users", arguments.folder / f"users_{arguments.few_users}"
    for folder, shards, total in ((few, 4, arguments.few_users), (users, 40, arguments.users)):
        for number in range(shards):
            path = folder / f"part-{number:04d}.parquet"
            if not path.exists():
                write_shard(path, histories(number, total // shards, len(item_id)), item_id)
    rows = [alone(run, few, arguments)]
    base = ["recommend", "--run", str(run), "--k", "10", "--model", "generator", "--histories"]
    if arguments.rounds:
        rows += rounds("recommend", [*base, str(few)], arguments.folder / "out", arguments.few_users, arguments)
    tenth = linked(arguments.folder / "users_tenth", sorted(users.iterdir())[:4])
    for units, folder in ((arguments.users // 10, tenth), (arguments.users, users)):
        found = command(
            [*base, str(folder), "--out", str(arguments.folder / "out" / f"all-{time.time_ns()}")], 2
        )
        rows.append(say({"what": "recommend_all", "units": units, **found}))
    return rows


def alone(run: Path, few: Path, arguments: argparse.Namespace) -> Report:
    """The generator's answers on this process, from file to file, when it is loaded."""
    from pressmark.load import load
    from pressmark.recommending import answer_file

    model = load(run, "generator")
    options = argparse.Namespace(k=10, batch_size=1024, keep_history=False, certify=False)
    out = arguments.folder / "out" / "alone.parquet"
    # Once before it counts: what is made at the first question is made once.
    answer_file(model, None, options, min(few.iterdir()), out)
    start = time.process_time()
    users = sum(answer_file(model, None, options, path, out)[0] for path in sorted(few.iterdir()))
    seconds = round(time.process_time() - start, 2)
    return say({"what": "recommend_alone", "units": users, "cpu_seconds": seconds})


def write_vectors(path: Path, num: int, width: int, number: int) -> None:
    """A shard of unit vectors in 1,000 clusters."""
    rng = np.random.default_rng(number)
    centres = np.random.default_rng(0).normal(size=(1000, width)).astype(np.float32)
    rows = centres[rng.integers(0, 1000, num)] + rng.standard_normal((num, width), np.float32)
    flat = pa.array((rows / np.linalg.norm(rows, axis=1, keepdims=True)).ravel())
    ids = pa.array([f"item{number:03d}-{row}" for row in range(num)])
    files.write_parquet(
        path, pa.table({"item_id": ids, "vector": pa.FixedSizeListArray.from_arrays(flat, width)})
    )


def bench_tokenize(arguments: argparse.Namespace) -> list[Report]:
    """One and two processes on a few shards, then all items."""
    run, shard = small_run(arguments.folder), 250_000
    for number in range(arguments.items // shard):
        path = arguments.folder / "items" / f"part-{number:04d}.parquet"
        if not path.exists():
            write_vectors(path, shard, 64, number)
    items = arguments.folder / "items"
    few = linked(arguments.folder / "items_few", sorted(items.iterdir())[:8])
    base = ["tokenize", "--run", str(run), "--items"]
    rows = rounds("tokenize", [*base, str(few)], arguments.folder / "out", 8 * shard, arguments)
    found = command([*base, str(items), "--out", str(arguments.folder / "out" / f"all-{time.time_ns()}")], 2)
    rows.append(say({"what": "tokenize_all", "units": arguments.items, **found}))
    return rows


PARTS = {
    "stream": bench_stream, "train": bench_train, "recommend": bench_recommend, "tokenize": bench_tokenize
}  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--histories", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--few-users", type=int, default=200_000, help="answered by one process and by two")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench/scale"))
    parser.add_argument("--record", type=truth, default=False, help="true: write eval/results/scale-bench.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    asked = [one for one in arguments.only.split(",") if one]
    if unknown := [one for one in asked if one not in PARTS]:
        raise ValueError(f"--only {unknown[0]}: known parts are {', '.join(PARTS)}.")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows: list[Report] = []
    for name in asked:
        # Parts may be measured at different times; the newest of each is recorded, `--only ""` alone too.
        measured_at = {"commit": commit()}
        found = [row | measured_at for row in PARTS[name](arguments)]
        files.write_json(arguments.folder / f"{name}.json", found)
    for name in PARTS:
        path = arguments.folder / f"{name}.json"
        rows += files.read_json(path) if path.is_file() else []
    if arguments.record:
        line = " ".join(["python", "eval/bench_scale.py", *sys.argv[1:]])
        settings = {**vars(arguments), "folder": str(arguments.folder), "small": SMALL}
        record("scale", "bench", rows, line, json.loads(json.dumps(settings)), [0])


if __name__ == "__main__":
    guarded(main)
