"""Does the audit find labels that are wrong? Labels are moved on purpose, and looked for.

    python eval/audit.py --run R [--rates [0.02,0.05,0.1]] [--seeds [1,2,3]] [--record NAME]
    python eval/audit.py --run R --store data/grocery --record grocery    the synthetic store's own mistakes

A share of the labelled products moves to another leaf, all alike (`random`), by size (`random_by_size`) or to a
sibling (`sibling`), before anything is embedded, split or fitted: the audit's vectors hold no category, and
all that reads a label is fitted anew. Real labels that were wrong before count as false alarms, so precision on
a real catalog is a lower bound. Baselines: the vote of the 30 nearest products; logistic regression over the
vectors, cross-validated in five parts, through cleanlab's confident learning; the majority of the products that
share a prefix of label-free codes (what a run's own codes would say: eval/audit_vouching.py).
"""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from audit_picture import picture
from pressmark import files
from pressmark.catalog.grocery import read_truth
from pressmark.cli import guarded
from pressmark.evaluation.record import record
from pressmark.insight.categories.assemble import Shop, pool_of, read_shop
from pressmark.insight.categories.folds import make_folds
from pressmark.insight.categories.leaves import Leaves, leaves_of
from pressmark.insight.categories.suspicion import Judgement, judge
from pressmark.load import quiet_libraries
from pressmark.run_config import read_run

RESULTS = Path("eval/results")
KINDS: dict[str, Callable[..., np.ndarray]] = {
    "random": Leaves.moved_anywhere,
    "sibling": Leaves.moved_to_sibling,
    "random_by_size": Leaves.moved_by_size,
}
SEVERITIES = ((0.0, 0.05), (0.05, 0.3), (0.3, 1.01))
Row = dict[str, Any]


def inject(leaves: Leaves, rate: float, kind: str, seed: int) -> tuple[Leaves, np.ndarray]:
    """Moves a share of the labels.

    Returns:
        The leaves with their new labels, and (N,) bool which were moved.
    """
    rng = np.random.default_rng([seed, 11, list(KINDS).index(kind)])
    known = np.flatnonzero(leaves.labelled)
    rows = rng.choice(known, round(rate * len(known)), replace=False)
    label = leaves.label.copy()
    label[rows] = KINDS[kind](leaves, label[rows], rng)
    return dataclasses.replace(leaves, label=label), label != leaves.label


def figures(score: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Precision at two recalls, and average precision, of a (n,) score for (n,) bool."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(wrong, score)
    at = {f"precision_at_recall_{one}": float(precision[recall >= one].max()) for one in (0.5, 0.7)}
    return {**at, "average_precision": float(average_precision_score(wrong, score))}


def regression(shop: Shop, leaves: Leaves, rows: np.ndarray, seed: int) -> np.ndarray:
    """(n, C) shares of a logistic regression over the vectors, each part from the four others."""
    from sklearn.linear_model import LogisticRegression

    vectors, label = shop.content.vectors[rows], leaves.label[rows]
    part = make_folds(label, seed, 5).fold
    shares = np.full((len(rows), len(leaves)), 1e-12)
    for held in range(5):
        model = LogisticRegression(C=10, max_iter=300).fit(vectors[part != held], label[part != held])
        shares[np.ix_(part == held, model.classes_)] = model.predict_proba(vectors[part == held])
    return shares / shares.sum(axis=1, keepdims=True)


def cleanlab_scores(shares: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """(n,) suspicion by confident learning's scores."""
    from cleanlab.rank import get_label_quality_scores

    return {
        f"cleanlab_{name}": -get_label_quality_scores(label, shares, method=name)
        for name in ("self_confidence", "normalized_margin")
    }


def prefix_scores(codes: np.ndarray, label: np.ndarray, least: int = 5) -> np.ndarray:
    """(N,) share of the other products of the longest prefix with `least` others that stand elsewhere."""
    found = np.ones(len(codes))
    known = label >= 0
    for length in range(1, codes.shape[1] + 1):
        prefix = np.unique(codes[:, :length], axis=0, return_inverse=True)[1].ravel()
        size = np.bincount(prefix[known], minlength=prefix.max() + 1)[prefix] - known
        pair = np.unique(np.stack([prefix, label]), axis=1, return_inverse=True)[1].ravel()
        same = np.bincount(pair)[pair] - 1
        use = size >= least
        found[use] = 1 - (same / np.maximum(size, 1))[use]
    return found


def audited(shop: Shop, leaves: Leaves, seed: int) -> tuple[Judgement, Row]:
    """The audit itself, and what it took."""
    started = time.perf_counter()
    folds = make_folds(leaves.label, seed)
    pool = pool_of(shop, leaves, folds, seed)
    found = judge(leaves, pool, folds.fold, seed, shop.content.told)
    rates = {f"estimated_{kind}": float(rate) for kind, rate in zip(("far", "near"), found.rates, strict=True)}
    return found, {
        "seconds": round(time.perf_counter() - started, 1),
        **rates,
        "weights": dict(pool.as_record()),
    }


def kept(place: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """A slow baseline's shares, from the file of a study that was cut short where it is there."""
    if not place.is_file():
        files.write_tensors(place, {"shares": compute().astype(np.float32)})
    return files.read_tensors(place)["shares"].numpy()


def methods(
    shop: Shop, leaves: Leaves, seed: int, place: Path, compared: bool = True
) -> tuple[dict[str, np.ndarray], Judgement, Row]:
    """Method -> (n,) suspicion of every labelled product."""
    found, costs = audited(shop, leaves, seed)
    rows = found.rows
    label = leaves.label[rows]
    index = shop.near.item_index[rows]
    voted = np.where(index >= 0, leaves.label[index], -1)
    weight = np.exp(shop.near.weight[rows] / 0.07) * (voted >= 0)
    vote = (weight * (voted == label[:, None])).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)
    scores = {
        "pressmark": found.harm,
        "pressmark_confidence": np.logaddexp(*(found.log_odds + np.log(found.rates)).T),
        "pool_alone": -np.log(found.own_share + 1e-12),
        "neighbours_vote": 1 - vote,
        "codes_prefix": prefix_scores(shop.plain_codes, leaves.label)[rows],
    }
    if compared:
        scores |= cleanlab_scores(kept(place, lambda: regression(shop, leaves, rows, seed)), label)
    return scores, found, costs


def by_severity(found: Judgement, leaves: Leaves, right: np.ndarray, wrong: np.ndarray) -> list[Row]:
    """Of findings of confidence .5: precision by the suggestion's severity, recall by the move's."""
    label = leaves.label[found.rows]
    shown = found.confidence >= 0.5
    suggested = leaves.severity(label, np.where(found.suggested[:, 0] >= 0, found.suggested[:, 0], label))
    moved = leaves.severity(label, right)
    rows = []
    for low, high in SEVERITIES:
        hit, there = shown & (suggested >= low) & (suggested < high), wrong & (moved >= low) & (moved < high)
        rows.append(
            {
                "severity": f"{low:g}-{min(high, 1):g}",
                "findings": int(hit.sum()),
                "precision": float(wrong[hit].mean()) if hit.any() else None,
                "moved": int(there.sum()),
                "recall": float(shown[there].mean()) if there.any() else None,
            }
        )
    return rows


def calibration(confidence: np.ndarray, wrong: np.ndarray) -> list[Row]:
    """Mean confidence against the share that was moved, in ten bins."""
    which = np.minimum((confidence * 10).astype(int), 9)
    return [
        {"low": one / 10, "num": int(own.sum()), "confidence": float(confidence[own].mean()),
         "share_wrong": float(wrong[own].mean())}
        for one in range(10) if (own := which == one).any()
    ]  # fmt: skip


def study(shop: Shop, base: Leaves, options: argparse.Namespace) -> dict[str, Any]:
    """All rates, kinds and seeds."""
    rows, severity, calibrated = [], [], []
    curves: dict[tuple[float, str], Any] = {}
    kinds = [one for one in KINDS if one in options.kinds]
    cases = [(rate, kind, seed) for rate in options.rates for seed in options.seeds for kind in kinds]
    for rate, kind, seed in cases:
        if kind == "random_by_size" and rate != 0.05:
            continue
        place = options.scratch / f"{kind}-{rate:g}-{seed}.json"
        if not place.is_file():
            leaves, moved = inject(base, rate, kind, seed)
            scores, found, costs = methods(
                shop, leaves, seed, place.with_suffix(".safetensors"), seed in options.regressed
            )
            wrong, right = moved[found.rows], base.label[found.rows]
            here = {"noise": rate, "kind": kind, "seed": seed}
            right_at_once = found.suggested[wrong, 0] == right[wrong]
            costs = {**costs, "suggestion_right": float(right_at_once.mean()),
                     "suggestion_confidence": float(found.suggested_confidence[wrong, 0].mean())}  # fmt: skip
            made = {
                "rows": [{**here, "method": name, **figures(score, wrong), **(costs if name == "pressmark" else {})}  # noqa: E501
                         for name, score in scores.items()],
                "severity": [{**here, **one} for one in by_severity(found, leaves, right, wrong)],
                "calibration": [{**here, **one} for one in calibration(found.confidence, wrong)],
                "curves": {name: curve(score, wrong) for name, score in scores.items()},
            }  # fmt: skip
            files.write_json(place, made)
        made = files.read_json(place)
        rows += made["rows"]
        severity += made["severity"]
        calibrated += made["calibration"]
        curves.setdefault((rate, kind), made["curves"])
        for one in made["rows"]:
            print(line(one), flush=True)
    return {"rows": rows, "severity": severity, "calibration": calibrated, "curves": curves}


def curve(score: np.ndarray, wrong: np.ndarray) -> list[list[float]]:
    """The best precision at 101 recalls or more: steps, since equal scores come all at once or not at all."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(wrong, score)
    # Recall falls along the curve; its last point, precision 1 at recall 0, is nobody's.
    best, recall = np.maximum.accumulate(precision[:-1])[::-1], recall[:-1][::-1]
    at = np.linspace(0, 1, 101)
    return [at.tolist(), best[np.searchsorted(recall, at - 1e-9)].round(4).tolist()]


def line(row: Row) -> str:
    """One row for the terminal."""
    values = "  ".join(
        f"{name.replace('precision_at_recall_', 'P@')} {row[name]:.3f}" for name in row if "precision" in name
    )
    return f"{row['noise']!s:8}{row['kind']:16}{row['seed']!s:4}{row['method']:28}{values}"


def planted(shop: Shop, base: Leaves, options: argparse.Namespace) -> dict[str, Any]:
    """The synthetic store's own mistakes, all of which are known; seeds are of the audit alone."""
    truth = read_truth(options.store)
    right_paths = dict(zip(truth.item_id, truth.true_category, strict=True))
    leaf_of = {base.name(leaf): leaf for leaf in range(len(base))}
    right = np.array(
        [leaf_of.get(" > ".join(right_paths[item][0]), -2) for item in shop.catalog.item_id], np.int64
    )
    found: dict[str, Any] = {"rows": [], "severity": [], "calibration": [], "curves": {}}
    for seed in options.seeds:
        scores, judged, costs = methods(shop, base, seed, options.scratch / f"planted-{seed}.safetensors")
        own = base.label[judged.rows]
        paths = [{" > ".join(path) for path in right_paths[item]} for item in shop.catalog.item_id[judged.rows]]
        wrong = np.array([base.name(leaf) not in known for leaf, known in zip(own, paths, strict=True)])
        here = {"noise": float(wrong.mean()), "kind": "planted", "seed": seed}
        rows = [{**here, "method": name, **figures(score, wrong), **(costs if name == "pressmark" else {})}
                for name, score in scores.items()]  # fmt: skip
        for one in rows:
            print(line(one), flush=True)
        true = np.where(right[judged.rows] < 0, own, right[judged.rows])
        found["rows"] += rows
        found["severity"] += [{**here, **one} for one in by_severity(judged, base, true, wrong)]
        found["calibration"] += [{**here, **one} for one in calibration(judged.confidence, wrong)]
        drawn = {name: curve(score, wrong) for name, score in scores.items()}
        found["curves"].setdefault((here["noise"], "planted"), drawn)
    return found


def main() -> None:
    """Runs the study and prints its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a prepared run")
    parser.add_argument("--rates", type=json.loads, default=[0.02, 0.05, 0.1], help="shares of labels to move")
    parser.add_argument("--kinds", type=json.loads, default=list(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument(
        "--seeds", type=json.loads, default=[1, 2, 3], help="seeds of the noise; 0 was for choosing"
    )
    parser.add_argument(
        "--regressed", type=json.loads, default=[1], help="seeds that the slow regression is fitted for"
    )
    parser.add_argument("--store", type=Path, help="the synthetic store: judge its own mistakes")
    parser.add_argument("--record", default="", help="data set: writes eval/results/audit-<data set>.json")
    options = parser.parse_args()
    quiet_libraries()
    _, config = read_run(options.run)
    options.scratch = options.run / "audit_study"
    shop = read_shop(options.run, config)
    base = leaves_of(shop.catalog)
    settings = {"vectors": dataclasses.asdict(config), "statement": shop.content.statement}
    found = planted(shop, base, options) if options.store else study(shop, base, options)
    curves = found.pop("curves")
    if options.record:
        picture(curves, found["calibration"], RESULTS / f"audit-{options.record}.png")
        record("audit", options.record, found, shlex.join(["python", *sys.argv]), settings, options.seeds)
        print(f"recorded: eval/results/audit-{options.record}.json")


if __name__ == "__main__":
    guarded(main)
