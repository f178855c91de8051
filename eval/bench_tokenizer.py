"""Speed and memory of the tokenizer on synthetic vectors: encoding, shards, sampling, collisions, training.

    python eval/bench_tokenizer.py [--items 1000000] [--shards 10] [--train-minutes 15] [--record true]

Encoding is compared with its GEMM limit: the matrix products of the same chunks alone, measured in turn.
Memory is what the process holds beyond memory-mapped files, sampled every 20 ms (Linux). Training is off by
default; `--reference true` trains four times as long as well. Both go on from their checkpoint when cut short.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pressmark import files
from pressmark.catalog.taxonomy import Taxonomy, build_taxonomy
from pressmark.cli import guarded, truth
from pressmark.evaluation.memory import held_gib
from pressmark.evaluation.record import record
from pressmark.tokenizer import collisions, quality, sampler, train
from pressmark.tokenizer.config import Config
from pressmark.tokenizer.pairs import LeafGroups
from pressmark.tokenizer.quantizer import CHUNK
from pressmark.tokenizer.rqvae import RQVAE, RQVAEConfig
from pressmark.tokenizer.shards import encode_shards
from pressmark.training.precision import use_all_cores

TOPS, MIDDLES, LEAVES = 20, 25, 40
"""Categories of each level below one of the level above: 20,000 leaves."""
Report = dict[str, Any]


def world(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the leaves (20,000, dim), each near its parent's, and (dim, dim) axes of what is left over."""
    rng = np.random.default_rng(0)
    top, middle, leaf = (
        rng.normal(size=(number, dim)) * size
        for number, size in ((TOPS, 1.0), (TOPS * MIDDLES, 0.7), (TOPS * MIDDLES * LEAVES, 0.5))
    )
    centres = top.repeat(MIDDLES * LEAVES, axis=0) + middle.repeat(LEAVES, axis=0) + leaf
    # A spectrum that falls: text vectors differ in a few directions more than in the others.
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0] * np.arange(1, dim + 1)[:, None] ** -0.5 * 3.0
    return centres.astype(np.float32), axes.astype(np.float32)


def leaves(num_items: int) -> np.ndarray:
    """(N,) leaf of each item; sizes follow a power law."""
    rng = np.random.default_rng(1)
    weight = rng.permutation(np.arange(1, TOPS * MIDDLES * LEAVES + 1) ** -0.8)
    return rng.choice(len(weight), num_items, p=weight / weight.sum())


def write_vectors(path: Path, num_items: int, dim: int, seed: int) -> None:
    """(N, dim) float32 unit vectors as .npy, made and written 65,536 rows at a time."""
    if path.exists() and np.load(path, mmap_mode="r").shape == (num_items, dim):
        return
    centres, axes = world(dim)
    leaf = leaves(num_items)
    with files.replacing(path) as partial:
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(num_items, dim))
        for start in range(0, num_items, 65_536):
            rng = np.random.default_rng((seed, start))
            own = leaf[start : start + 65_536]
            rows = centres[own] + rng.standard_normal((len(own), dim), np.float32) @ axes
            out[start : start + len(own)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        out.flush()


def tree(num_items: int) -> Taxonomy:
    """The taxonomy of the vectors."""
    return build_taxonomy(
        [
            ((f"top{leaf // (MIDDLES * LEAVES)}", f"middle{leaf // LEAVES}", f"leaf{leaf}"),)
            for leaf in leaves(num_items).tolist()
        ]
    )


def products_alone(model: RQVAE, num_rows: int) -> Callable[[], None]:
    """The matrix products of `encode` for as many rows, by as many threads, and nothing else."""
    weights = [one.detach() for one in model.encoder.parameters() if one.ndim == 2]
    weights += [book.detach() for book in model.books]
    num_chunks = -(-num_rows // CHUNK)

    @torch.inference_mode()
    def work(chunks: int) -> None:
        inputs = [torch.ones(CHUNK, weight.shape[1]) for weight in weights]
        outputs = [torch.empty(CHUNK, weight.shape[0]) for weight in weights]
        for _ in range(chunks):
            for rows, weight, out in zip(inputs, weights, outputs, strict=True):
                torch.mm(rows, weight.T, out=out)

    def run() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        shares = [num_chunks // threads + (worker < num_chunks % threads) for worker in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, shares))
        torch.set_num_threads(threads)

    return run


@contextmanager
def measured() -> Iterator[Report]:
    """Fills in `seconds`, `cpu_seconds` and `peak_gib`, by how much anonymous memory grew at most."""
    found: Report = {}
    before, peak, done = held_gib("RssAnon") or 0.0, [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], held_gib("RssAnon") or 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield found
    finally:
        found["seconds"] = round(time.perf_counter() - wall, 2)
        found["cpu_seconds"] = round(time.process_time() - cpu, 2)
        done.set()
        watcher.join()
    found["peak_gib"] = round(max(0.0, peak[0] - before), 3)


def bench_encode(model: RQVAE, vectors: np.ndarray) -> Report:
    """The whole catalog, and its share of the GEMM limit by the median over blocks of 65,536 rows."""
    with measured() as found:
        codes = model.encode(vectors)
    ratios = []
    block = np.ascontiguousarray(vectors[:65_536])
    limit = products_alone(model, len(block))
    for _ in range(15):
        start = time.perf_counter()
        model.encode(block)
        middle = time.perf_counter()
        limit()
        ratios.append((time.perf_counter() - middle) / (middle - start))
    return {
        **found,
        "items_per_second": round(len(vectors) / found["seconds"]),
        "share_of_gemm_limit": round(float(np.median(ratios)), 3),
        "items_sharing_a_sid": quality.shared_sids(codes)["items_sharing_a_sid"],
    }


def bench_shards(model: RQVAE, folder: Path, num_shards: int, num_items: int, dim: int) -> Report:
    """One shard alone, then all: the peak of memory must not grow."""
    for shard in range(num_shards):
        write_vectors(folder / "shards" / f"part-{shard:03d}.npy", num_items, dim, seed=100 + shard)
    one = folder / "one"
    one.mkdir(exist_ok=True)
    (one / "part-000.npy").unlink(missing_ok=True)
    (one / "part-000.npy").hardlink_to(folder / "shards" / "part-000.npy")
    reports = {}
    for name in ("one", "shards"):
        codes = folder / f"codes_{name}"
        for old in codes.glob("*"):
            old.unlink()
        with measured() as found:
            total = encode_shards(model, folder / name, codes)
        reports[name] = {"num_items": total, **found}
    return {**reports["shards"], "peak_gib_of_one_shard": reports["one"]["peak_gib"]}


def bench_sampler(taxonomy: Taxonomy, num_items: int, config: Config) -> Report:
    """An epoch's plan, and the pair counts of its batches."""
    drawn = sampler.HierarchicalSampler(
        taxonomy, np.arange(num_items), config.training.batch_size, config.sampler, 0
    )
    with measured() as found:
        plan = drawn.plan(0)
    groups = LeafGroups(taxonomy)
    start = time.perf_counter()
    for batch in plan[:100]:
        groups.pairs(batch).counts()
    counted = (time.perf_counter() - start) * 1000 / len(plan[:100])
    return {**found, "num_batches": len(plan), "pair_counts_ms": round(counted, 2)}


def bench_collisions(model: RQVAE, vectors: np.ndarray) -> Report:
    """Every item its own SID."""
    latents, codes = model.latents(vectors), model.encode(vectors)
    with measured() as found:
        resolution = collisions.relocate(latents, codes, model.codebooks())
    return {
        **found,
        "share_relocated": round(resolution.share_relocated, 4),
        "num_item_collisions": quality.shared_sids(resolution.sids)["num_item_collisions"],
    }


def bench_training(
    vectors: np.ndarray, taxonomy: Taxonomy, config: Config, minutes: float, folder: Path
) -> Report:
    """Trains for about `minutes` of wall time with the learning rate going to zero; continues a run cut short.

    The number of steps is set once, from the speed of the first 50, so that the schedule fits the time.
    """
    plan = folder / "plan.json"
    items = np.arange(len(vectors))
    if not plan.exists():
        trial = replace(config, training=replace(config.training, max_steps=50))
        start = time.perf_counter()
        _, done = train.fit_quantizer(vectors, taxonomy, items, trial, 0, folder / "trial")
        before = time.perf_counter() - start - done["seconds"]
        files.write_json(plan, {"num_steps": int((60 * minutes - before) / done["seconds"] * 50)})
    num_steps = max(50, files.read_json(plan)["num_steps"])
    longest = replace(config.training, max_steps=num_steps, num_epochs=10**6, validate_every=1)
    with measured() as found:
        model, done = train.fit_quantizer(
            vectors, taxonomy, items, replace(config, training=longest), 0, folder / "training"
        )
    sample = np.array(vectors[:: max(1, len(vectors) // 100_000)])
    decoded = model.decode(model.encode(sample))
    return {
        **found,
        # Of a run cut short too; `seconds` above is then that of the last part.
        "training_seconds": round(done["seconds"], 1),
        "num_steps": num_steps,
        "ms_per_step": round(1000 * done["seconds"] / num_steps, 2),
        "reconstruction_error": round(1 - quality.reconstruction_r2(sample, decoded), 5),
        "curve": [
            {"seconds": one["seconds"], "reconstruction_error": round(1 - one["reconstruction_r2"], 5)}
            for one in done["validations"]
        ],
    }


def bench(arguments: argparse.Namespace) -> list[Report]:
    """Runs what was asked for; one row a measurement."""
    use_all_cores()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"vectors-{arguments.items}x{arguments.dim}.npy"
    write_vectors(path, arguments.items, arguments.dim, seed=0)
    vectors = np.load(path, mmap_mode="c")
    taxonomy = tree(arguments.items)
    config = settings(arguments)
    torch.manual_seed(0)
    model = RQVAE(RQVAEConfig(arguments.dim, config.level_sizes, config.hidden_sizes, config.latent_dim)).eval()
    with measured() as start:
        model.start(vectors, config.scaling, 0, config.kmeans_iterations)
    num_items = arguments.items
    rows = [
        say({"what": "start", "num_items": num_items, **start}),
        say({"what": "encode", "num_items": num_items, **bench_encode(model, vectors)}),
        say({"what": "sampler", "num_items": num_items, **bench_sampler(taxonomy, num_items, config)}),
        say({"what": "collisions", "num_items": num_items, **bench_collisions(model, vectors)}),
    ]
    if arguments.shards:
        found = bench_shards(model, folder, arguments.shards, arguments.shard_items, arguments.dim)
        rows.append(say({"what": "shards", **found}))
    minutes = arguments.train_minutes
    for name, times in [("train", 1), ("train_reference", 4)][: 1 + arguments.reference if minutes else 0]:
        found = bench_training(vectors, taxonomy, config, times * minutes, folder / f"{name}-{minutes:g}")
        rows.append(say({"what": name, "num_items": num_items, "minutes": times * minutes, **found}))
    return rows


def settings(arguments: argparse.Namespace) -> Config:
    """The tokenizer's defaults, with the batch size and the learning rate asked for."""
    config = Config()
    asked = {"batch_size": arguments.batch_size, "learning_rate": arguments.learning_rate}
    return replace(config, training=replace(config.training, **asked, log_with=""))


def say(row: Report) -> Report:
    """Prints a row as soon as it is measured."""
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument(
        "--shards", type=int, default=0, help="shards to encode; 10 of a million are 15 GB of disk"
    )
    parser.add_argument("--shard-items", type=int, default=1_000_000)
    parser.add_argument("--train-minutes", type=float, default=0.0, help="wall time of training; 0 for none")
    parser.add_argument("--batch-size", type=int, default=Config().training.batch_size)
    parser.add_argument("--learning-rate", type=float, default=Config().training.learning_rate)
    parser.add_argument("--reference", type=truth, default=False, help="true: train four times as long too")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench"), help="vectors and checkpoints")
    parser.add_argument(
        "--record", type=truth, default=False, help="true: write eval/results/tokenizer-bench.json"
    )
    arguments = parser.parse_args()
    rows = bench(arguments)
    if arguments.record:
        command = " ".join(["python", "eval/bench_tokenizer.py", *sys.argv[1:]])
        record("tokenizer", "bench", rows, command, asdict(settings(arguments)), [0])


if __name__ == "__main__":
    guarded(main)
