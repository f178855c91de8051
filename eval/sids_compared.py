"""One generator behind several tokenizers: what the SIDs themselves are worth.

    python eval/sids_compared.py --config C.yaml --split.protocol leave_one_out [--given FILE]
        [--seeds [0,1,2]] [--only "rqkmeans,rqvae"] [--model hybrid] [--record true]

The run's split and vectors, its generator's configuration and budget, and its seed, over SIDs of RQ-KMeans, of
an RQ-VAE without the taxonomy (`rqvae_plain`), with it (`rqvae`, the run's own configuration) and with it
strong (`rqvae_taxonomy`, as in configs/precision.yaml); `--given` adds a published tokenisation, see
`tokenizer.given`. Test cases, item-level hits, full ranking, the beam as configured; the history is masked, and
cases whose target is in it are left out; `cold_only` ranks held-out products alone, `quota_0.1` keeps one place
in ten for them. `difference` is from the first in R@10 over the same cases, with a 95 % interval: 10,000
resamples of cases, for cold ones of target items. Over several seeds values are averaged by case, or pooled
where the seeds' cases differ. `--model hybrid` asks the whole pipeline: the hybrid over that generator, beside
the run's dual tower, which reads no SIDs. One folder a tokenizer and seed: what is finished stays.
"""

import dataclasses
import shlex
import shutil
import sys
from fractions import Fraction
from typing import Any

import numpy as np

from pressmark import metrics, stages
from pressmark.catalog.items import read_catalog
from pressmark.cli import guarded
from pressmark.evaluation.intervals import bootstrap_values
from pressmark.evaluation.lists import ask
from pressmark.evaluation.protocols import merge_quota
from pressmark.evaluation.record import record
from pressmark.experiment import Experiment, as_dict, parse
from pressmark.files import read_json
from pressmark.generator.train import choose_cases
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.split_files import read_split
from pressmark.load import LOADERS
from pressmark.recommender import Recommendations

TOKENIZERS: dict[str, dict[str, Any]] = {
    "rqkmeans": {"kind": "rqkmeans", "given": ""},
    "rqvae_plain": {"kind": "rqvae", "given": "", "contrastive_weight": 0.0},
    "rqvae": {"kind": "rqvae", "given": ""},
    "rqvae_taxonomy": {"kind": "rqvae", "given": "", "contrastive_weight": 1.0, "neighbour_weight": 3.0},
}
"""Name -> keys of tokenizer.* and their values; the first is what the others are compared with."""


TRAIN = {"generator": stages.train_generator, "hybrid": stages.train_hybrid}


def trained(experiment: Experiment, name: str, change: dict[str, Any], model: str) -> Experiment:
    """The experiment over another tokenizer, its generator or hybrid trained."""
    run = experiment.run.with_name(f"{experiment.run.name}-{name}")
    own = dataclasses.replace(
        experiment, run_dir=str(run), tokenizer=dataclasses.replace(experiment.tokenizer, **change)
    )
    without_sids = {"prepare": "data"} | ({"dual_tower": "dual_tower"} if model == "hybrid" else {})
    for stage, folder in without_sids.items():
        if not (run / "stages" / f"{stage}.json").exists():
            shutil.copytree(experiment.run / folder, run / folder, dirs_exist_ok=True)
            (run / "stages").mkdir(exist_ok=True)
            shutil.copy(experiment.run / "stages" / f"{stage}.json", run / "stages" / f"{stage}.json")
    TRAIN[model](own)
    return own


def asked_cases(split: Split, experiment: Experiment) -> Cases:
    """The test cases whose target is not in the history."""
    every = dataclasses.replace(experiment.generator, num_valid_cases=0, mask_history=True)
    return choose_cases(split.test, every, 0)


def ranks(experiment: Experiment, model: str) -> dict[str, np.ndarray]:
    """Protocol -> (C,) rank of each test case's target, 0 where it is not among the ten."""
    catalog = read_catalog(experiment.run / "data" / "items.parquet")
    split = read_split(experiment.run / "data", catalog)
    test = asked_cases(split, experiment)
    asked: Any = LOADERS[model](experiment.run)
    asked.filters.update(cold=split.cold, warm=~split.cold)

    def lists(wanted: str | None) -> Recommendations:
        return ask(asked, test, wanted, True, 256, f"{experiment.run.name}: {wanted or 'all'} items")

    found = {"full": lists(None)}
    if split.cold.any():
        found["cold_only"] = lists("cold")
        found["quota_0.1"] = merge_quota(found["cold_only"], lists("warm"), Fraction(1, 10))
    return {name: metrics.rank_of_target(one.item_index[:, :10], test.target) for name, one in found.items()}


@dataclasses.dataclass
class Answers:
    """What one tokenizer's generator made of the test cases of one seed.

    Attributes:
        rank: Protocol -> (C,) as from `ranks`.
        test: The C cases.
        facts: Of the tokenizer and the training, for the rows.
    """

    rank: dict[str, np.ndarray]
    test: Cases
    facts: dict[str, Any]


def answers_of(experiment: Experiment, name: str, change: dict[str, Any], model: str) -> Answers:
    """Trains what is missing and asks the test cases."""
    stages.prepare(experiment)
    if model == "hybrid":
        stages.train_dual_tower(experiment)
    catalog = read_catalog(experiment.run / "data" / "items.parquet")
    test = asked_cases(read_split(experiment.run / "data", catalog), experiment)
    own = trained(experiment, name, change, model)
    found, quality = ranks(own, model), read_json(own.run / "tokenizer" / "metrics.json")["quality"]
    facts = {
        "items_sharing_a_sid": quality["items_sharing_a_sid"],
        "reconstruction_r2": quality["reconstruction_r2"],
        "commits": stages.stamped(own, "commit"),
        "stage_seconds": stages.stamped(own, "seconds"),
    }
    return Answers(found, test, facts)


def together(seeds: list[np.ndarray], same_cases: bool) -> np.ndarray:
    """Values by case of several seeds: their mean where the cases are the same, else one after the other."""
    return np.mean(seeds, axis=0) if same_cases else np.concatenate(seeds)


def rows_of(
    experiment: Experiment, seeds: list[int], tokenizers: dict[str, dict[str, Any]], model: str
) -> list[dict[str, Any]]:
    """A row for each tokenizer, protocol and slice, over the seeds."""
    rows: list[dict[str, Any]] = []
    first: list[Answers] = []
    for name, change in tokenizers.items():
        mine = [answers_of(dataclasses.replace(experiment, seed=seed), name, change, model) for seed in seeds]
        first = first or mine
        tests = [one.test for one in mine]
        same = all(np.array_equal(one.case_id, tests[0].case_id) for one in tests)
        same = same and all(np.array_equal(one.cold, tests[0].cold) for one in tests)
        for protocol in mine[0].rank:
            for part in ("cold",) if protocol == "cold_only" else ("warm", "cold"):
                where = [test.cold if part == "cold" else ~test.cold for test in tests]
                if not any(one.any() for one in where):
                    continue
                hits, theirs, gains = (
                    together(
                        [one(each.rank[protocol][rows_]) for each, rows_ in zip(who, where, strict=True)], same
                    )
                    for one, who in (
                        (_hits, mine),
                        (_hits, first),
                        (_gains, mine),
                    )
                )
                clusters = None
                if part == "cold":
                    targets = [test.target[rows_] for test, rows_ in zip(tests, where, strict=True)]
                    clusters = targets[0] if same else np.concatenate(targets)
                estimates = bootstrap_values(np.stack([hits, hits - theirs], 1), 10_000, 0, clusters)
                low, high = estimates.limits()
                row = {
                    "tokenizer": name,
                    "protocol": protocol,
                    "slice": part,
                    "seeds": seeds,
                    "cases": len(hits),
                    "recall_at_10": estimates.mean[0],
                    "recall_at_10_low": low[0],
                    "recall_at_10_high": high[0],
                    "ndcg_at_10": gains.mean(),
                    "difference": estimates.mean[1],
                    "difference_low": low[1],
                    "difference_high": high[1],
                    "items_sharing_a_sid": np.mean([one.facts["items_sharing_a_sid"] for one in mine]),
                    "reconstruction_r2": np.mean([one.facts["reconstruction_r2"] for one in mine]),
                    "commits": [one.facts["commits"] for one in mine],
                    "stage_seconds": [one.facts["stage_seconds"] for one in mine],
                }
                rows.append({key: one.item() if hasattr(one, "item") else one for key, one in row.items()})
                print(
                    f"{name:16} {protocol:10} {part:5} R@10 {rows[-1]['recall_at_10']:.4f}  difference "
                    f"{rows[-1]['difference']:+.4f} [{low[1]:+.4f}, {high[1]:+.4f}]",
                    flush=True,
                )
    return rows


def _hits(rank: np.ndarray) -> np.ndarray:
    return metrics.recall_at_k(rank, 10)


def _gains(rank: np.ndarray) -> np.ndarray:
    return metrics.ndcg_at_k(rank, 10)


EXTRA: dict[str, dict[str, Any]] = {
    "seeds": {"type": list[int], "default": [], "help": "seeds to run and put together (default: seed)"},
    "only": {"type": str, "default": "", "help": "tokenizers to compare, separated by commas (default: all)"},
    "given": {"type": str, "default": "", "help": "parquet file of SIDs to compare too, see tokenizer.given"},
    "model": {"type": str, "default": "generator", "help": "what is asked: generator or hybrid"},
    "record": {"type": bool, "default": False, "help": "write eval/results/sids_compared-<dataset>.json"},
}


def main() -> None:
    """Trains what is missing, asks the test once a tokenizer and prints a line for each."""
    experiment, options = parse(None, extra=EXTRA)
    given = {"given": {"kind": "given", "given": options["given"]}} if options["given"] else {}
    chosen = TOKENIZERS | given
    if wanted := [one.strip() for one in options["only"].split(",") if one.strip()]:
        if unknown := set(wanted) - set(chosen):
            raise ValueError(f"--only: {min(unknown)!r} is none of {', '.join(chosen)}.")
        chosen = {name: chosen[name] for name in wanted}
    if options["model"] not in TRAIN:
        raise ValueError(f"--model is {options['model']!r}; it must be one of {', '.join(TRAIN)}.")
    seeds = options["seeds"] or [experiment.seed]
    rows = rows_of(experiment, seeds, chosen, options["model"])
    if options["record"]:
        several = f"-{len(seeds)}seeds" if len(seeds) > 1 else ""
        whose = "-hybrid" if options["model"] == "hybrid" else ""
        dataset = f"{experiment.name}-{experiment.split.protocol}{whose}{several}"
        command = shlex.join(["python", *sys.argv])
        record("sids_compared", dataset, rows, command, as_dict(experiment), seeds)
        print(f"recorded: eval/results/sids_compared-{dataset}.json")


if __name__ == "__main__":
    guarded(main)
