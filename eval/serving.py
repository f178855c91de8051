"""What a trained run serves: users a second, recall, and whose answers are proven to be the best.

    python eval/serving.py --run runs/beauty/leave_one_out/seed0 [--users 2000] [--record true]

The generator at several beams, plain and with `certify`, beside the dual tower on FAISS: test users drawn by
seed, the history masked, encoder included, batches of 1 (a tenth of the users) and 32. Engines take turns
batch by batch; `users_per_second` is the median over batches. `recall_at_10` and the share of proven answers
hardly depend on the batch: they stand where all the users were asked, at the largest.
"""

import argparse
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded, truth
from pressmark.dual_tower.recommend import load_dual_tower
from pressmark.evaluation.record import record
from pressmark.files import read_json
from pressmark.generator.recommend import load_generator
from pressmark.hybrid.recommend import load_hybrid
from pressmark.interactions.split_files import read_split
from pressmark.metrics import ndcg_at_k, rank_of_target, recall_at_k
from pressmark.recommender import Recommender, Requests

K = 10


def engines(run: Path) -> dict[str, tuple[Recommender, bool]]:
    """Name -> model, and whether it is asked to certify."""
    found: dict[str, tuple[Recommender, bool]] = {}
    for beam in (10, 20, 50, 200):
        found[f"generator_beam{beam}"] = load_generator(run, beam, batch_size=64, device="cpu"), False
    for beam in (20, 50):
        found[f"generator_certify{beam}"] = load_generator(run, beam, batch_size=64, device="cpu"), True
    found["dual_tower"] = load_dual_tower(run), False
    if (run / "hybrid" / "config.json").is_file():
        found["hybrid"] = load_hybrid(run), False
    return found


def serve(run: Path, num_users: int, batches: list[int]) -> list[dict[str, Any]]:
    """A row for each engine and batch size."""
    split = read_split(run / "data", read_catalog(run / "data" / "items.parquet"))
    cases = split.test
    rows = []
    models = engines(run)
    for batch in batches:
        # A batch of one is slow: fewer users say as much.
        num = min(len(cases), num_users if batch > 1 else max(1, num_users // 10))
        asked = cases.take(np.random.default_rng(0).choice(len(cases), num, replace=False))
        seconds: dict[str, list[float]] = {name: [] for name in models}
        ranks: dict[str, list[np.ndarray]] = {name: [] for name in models}
        exact: dict[str, list[np.ndarray]] = {name: [] for name in models}
        for model, certify in models.values():
            model.recommend(Requests(asked.take(np.arange(min(batch, num))).histories, certify=certify), K)
        for start in tqdm(range(0, num, batch), desc=f"batches of {batch}", disable=None):
            part = asked.take(np.arange(start, min(start + batch, num)))
            for name, (model, certify) in models.items():
                began = time.perf_counter()
                answer = model.recommend(Requests(part.histories, certify=certify), K)
                seconds[name].append(time.perf_counter() - began)
                ranks[name].append(rank_of_target(answer.item_index, part.target))
                exact[name].append(np.zeros(0, bool) if answer.exact is None else answer.exact)
        for name in models:
            rank, proven = np.concatenate(ranks[name]), np.concatenate(exact[name])
            rows.append(
                {
                    "engine": name,
                    "batch": batch,
                    "users": len(rank),
                    "users_per_second": batch / float(np.median(seconds[name])),
                    "users_per_second_overall": len(rank) / sum(seconds[name]),
                }
            )
            if batch == max(batches):
                rows[-1]["recall_at_10"] = float(recall_at_k(rank, K).mean())
                rows[-1]["ndcg_at_10"] = float(ndcg_at_k(rank, K).mean())
                if len(proven):
                    rows[-1]["share_proven"] = float(proven.mean())
    return rows


def main() -> None:
    """Serves a run and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder with a generator and a dual tower")
    parser.add_argument("--users", type=int, default=2000, help="test users asked (default: 2000)")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 32], help="users at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--record", type=truth, default=False, help="true: write eval/results/serving-<dataset>.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = serve(options.run, options.users, options.batches)
    for row in rows:
        print(
            f"{row['engine']:22} batch {row['batch']:3}  {row['users_per_second']:8.1f} users/s  "
            f"R@10 {row.get('recall_at_10', math.nan):.4f}  proven {row.get('share_proven', math.nan):.3f}"
        )
    if options.record:
        dataset = options.run.parts[-3]
        stages = {
            stage: {key: stamp.get(key) for key in ("fingerprint", "commit", "seconds")}
            for stage in ("prepare", "tokenizer", "generator", "dual_tower", "hybrid")
            if (path := options.run / "stages" / f"{stage}.json").is_file() and (stamp := read_json(path))
        }
        settings = {"k": K, "users": options.users, "threads": options.threads, "stages": stages}
        record("serving", dataset, rows, shlex.join(["python", *sys.argv]), settings, [0])
        print(f"recorded: eval/results/serving-{dataset}.json")


if __name__ == "__main__":
    guarded(main)
