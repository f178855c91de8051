"""Fit the hybrid of a run: on models trained a second time, without items that are then asked for.

What is to be learnt, how far each expert is to be trusted with products that nobody has bought, cannot be seen
where every product has been. So generator and dual tower are trained once more, on the run's split with a share
of its items hidden as cold ones are (`Split.simulating_cold`), and the weights that explain their validation
cases best are taken over to the run's own models. Nothing of the test is read.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pressmark import distributed
from pressmark.baselines.dense import SCORES_AT_ONCE
from pressmark.baselines.popularity import count_items
from pressmark.catalog.items import read_catalog
from pressmark.dual_tower import train as dual_tower
from pressmark.files import fingerprint, read_json, replacing, write_json
from pressmark.generator import train as generator
from pressmark.hybrid.config import Config
from pressmark.hybrid.experts import PARTS, SOLD
from pressmark.hybrid.fusion import KINDS, Fusion, as_json, fit
from pressmark.hybrid.recommend import HybridRecommender, experts_of, parts_of
from pressmark.hybrid.trend import count_sales
from pressmark.interactions.cases import Cases
from pressmark.interactions.split_files import hold_back, read_split
from pressmark.metrics import ndcg_at_k, rank_of_target, recall_at_k
from pressmark.recommender import Requests
from pressmark.training.config import TrainingConfig, decisive

FEWEST = 20
"""Cases of either kind that weights are fitted on, at least."""

STANDARD = Fusion(
    (0.35, 0.05, 1.05, 0.05, 0.15, 0.05, -0.4), (0.25, 0.15, 0.6, -0.1, 0.15, 0.35, 0.1), (0.75, 0.45, -0.47)
)
"""For a shop with fewer: the mean, rounded, of what Beauty and the synthetic grocery store come to."""


def train(
    run: Path, config: Config, of_generator: generator.Config, of_tower: dual_tower.Config, seed: int
) -> None:
    """Fits the hybrid of a run whose generator and dual tower are trained; writes `<run>/hybrid`.

    A run that was killed goes on: what it trains for this is kept in `<run>/training/hybrid` until it is done.
    Tokenizer and vectors of those models are the run's own, which have seen the text of what is hidden here.

    Where there are too few cases to fit on it says so, and takes standard weights.
    """
    inner = run / "training" / "hybrid"
    built_on = parts_of(run)
    settings = [decisive(one) for one in (of_generator, of_tower)]
    made = fingerprint(config.cold_share, config.generator_epochs, *settings, seed, built_on)
    if distributed.rank() == 0:
        mark = inner / "made.json"
        if not mark.is_file() or read_json(mark)["fingerprint"] != made:
            hold_back(run, inner, config.cold_share, seed)
            write_json(mark, {"fingerprint": made})
        print(
            "dual tower and generator once more, some items hidden from them, to see whom to trust", flush=True
        )
    distributed.barrier()
    if not (inner / "dual_tower" / "config.json").is_file():
        dual_tower.train(inner, of_tower, seed)
    distributed.barrier()
    if not (inner / "generator" / "config.json").is_file():
        training = _shorter(of_generator.training, config.generator_epochs)
        generator.train(inner, dataclasses.replace(of_generator, training=training, init_from=""), seed)
    distributed.barrier()
    if distributed.rank() == 0:
        fusions, numbers = _fitted(run, inner, config, seed)
        with replacing(run / "hybrid") as partial:
            partial.mkdir(parents=True)
            without = {part: as_json(fusions[part]) for part in PARTS}
            weights = {**as_json(fusions[""]), "without": without, "built_on": built_on}
            write_json(partial / "config.json", weights)
            write_json(partial / "metrics.json", numbers)
        # The mark goes first: half a folder must not be taken for a whole one.
        (inner / "made.json").unlink()
        shutil.rmtree(inner)
    distributed.barrier()


def _shorter(training: TrainingConfig, share: float) -> TrainingConfig:
    """The same with a share of its epochs."""
    return dataclasses.replace(training, num_epochs=max(1, round(share * training.num_epochs)))


def _fitted(run: Path, inner: Path, config: Config, seed: int) -> tuple[dict[str, Fusion], dict[str, object]]:
    """The weights, "" of all experts and those without each of `PARTS`, and how it does on cases left out."""
    catalog = read_catalog(run / "data" / "items.parquet")
    split, whole = read_split(inner / "data", catalog), read_split(run / "data", catalog)
    # What sells now is counted in the whole split: no validation case is in it, and nothing learns it by heart.
    # What was hidden, or held back with its only purchase, counts as never bought all the same.
    sales = count_sales(*whole.purchases("valid"), len(catalog))
    sales = dataclasses.replace(sales, purchases=count_items(split.train, len(catalog)))
    experts, absent = experts_of(inner, sales=sales), whole.cold
    cases, weight = _drawn(split.valid, experts.unbought, config.num_cases, seed)
    num_new = int(experts.unbought[cases.target].sum())
    num_sold = len(cases) - num_new
    if min(num_new, num_sold) < FEWEST:
        print(
            f"mind: {num_new} validation cases of a product that nobody has bought and {num_sold} of one that "
            f"sells are too few to fit the hybrid on (at least {FEWEST} each): it takes standard weights."
        )
        return {part: _without(STANDARD, part) for part in ("", *PARTS)}, {"num_cases": 0}
    chunk = max(1, SCORES_AT_ONCE // experts.num_items // len(SOLD))
    shoppers = experts.shoppers(cases.histories)
    of_new = torch.from_numpy(experts.unbought)

    def fitted(rows: np.ndarray, part: str = "") -> Fusion:
        sold, new = (torch.tensor([_asked(name, part) for name in names]) for names in KINDS.values())
        counted = torch.where(of_new, new[:, None], sold[:, None])  # (E, N)

        def score(asked: np.ndarray, kind: bool | None) -> Tensor:
            some = slice(None) if kind is None else of_new == kind
            return experts.scores(shoppers.take(rows[asked]), kind) * counted[:, None, some]

        some = cases.take(rows), experts.unbought, weight[rows]
        return fit(score, *some, chunk, absent, config.given_up)

    every = np.arange(len(cases))
    half = np.random.default_rng([seed, 3]).random(len(cases)) < 0.5
    numbers: dict[str, object] = {"num_cases": len(cases), "weight_of_a_case_that_sells": float(weight.max())}
    for rows, left in ((half, ~half), (~half, half)):
        of_half = HybridRecommender(experts, fitted(every[rows]), absent)
        for kind, figures in _judged(of_half, cases.take(left)).items():
            for name, value in figures.items():
                key = f"{name}_{kind}"
                numbers[key] = float(numbers.get(key, 0.0)) + value / 2  # type: ignore[arg-type]
    return {part: _without(fitted(every, part), part) for part in ("", *PARTS)}, numbers


def _asked(name: str, part: str) -> float:
    """1 for an expert that is asked where a part is left out, 0 for one that is not."""
    return float(name not in PARTS.get(part, ()))


def _without(fusion: Fusion, part: str) -> Fusion:
    """The same with no weight on what a part says; "" leaves all."""
    kinds = {
        kind: tuple(_asked(name, part) * one for name, one in zip(names, getattr(fusion, kind), strict=True))
        for kind, names in KINDS.items()
    }
    return dataclasses.replace(fusion, **kinds)


def _drawn(valid: Cases, unbought: np.ndarray, num_cases: int, seed: int) -> tuple[Cases, np.ndarray]:
    """Some cases of unbought targets and some of the others, and (C,) how many cases each stands for.

    A target that stands in its own history cannot be recommended: such cases are left out.
    """
    valid = valid.take(~valid.target_in_history())
    rng = np.random.default_rng([seed, 4])
    rows, weight = np.zeros(0, np.int64), np.ones(len(valid))
    for kind in (unbought[valid.target], ~unbought[valid.target]):
        every = np.flatnonzero(kind)
        some = rng.choice(every, min(num_cases, len(every)), replace=False)
        rows, weight[some] = np.concatenate([rows, some]), len(every) / max(1, len(some))
    rows = np.sort(rows)
    return valid.take(rows), weight[rows]


def _judged(model: HybridRecommender, cases: Cases) -> dict[str, dict[str, float]]:
    """Recall and NDCG at 10 in full ranking, history masked, of both kinds of targets."""
    assert model.absent is not None
    model.filters["there"] = ~model.absent
    answer = model.recommend(Requests(cases.histories, "there"), 10)
    rank = rank_of_target(answer.item_index, cases.target)
    new = model.experts.unbought[cases.target]
    figures = {"recall_at_10": recall_at_k(rank, 10), "ndcg_at_10": ndcg_at_k(rank, 10)}
    return {
        kind: {name: float(values[rows].mean()) for name, values in figures.items()}
        for kind, rows in (("sold", ~new), ("unbought", new))
    }
