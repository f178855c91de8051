"""Which product term stood in a title? Judged on titles that nobody has seen, with their term masked out.

    python eval/terms.py --run runs/beauty/cold_items/seed0 [--seeds 0 1 2] [--record beauty]

A run's titles are split by seed into training (70 %), validation (10 %) and test (20 %); equal titles stay on
one side. The vocabulary is mined from training titles. A case is a title and one of its terms, masked out
wherever it stands; the title's other terms are no answers. Every method ranks the whole vocabulary for the rest
of the title alone, without brand or category:

    model             the softmax of `pressmark.insight.terms` over text vectors and words
    model_vectors     the same without words
    model_words       the same without vectors
    bm25              Okapi BM25, a term's document being its masked training titles and its name
    bm25_neighbours   the terms of the 50 nearest masked training titles by BM25, by summed score
    minilm            cosine of the text vectors of title and term, nothing learnt
    frequency         how often training titles say the term
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from pressmark.baselines.bm25 import bm25_weights
from pressmark.catalog.items import Catalog, read_catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.cli import guarded
from pressmark.evaluation.intervals import bootstrap_values
from pressmark.evaluation.record import record
from pressmark.insight.terms import mining, model
from pressmark.insight.terms.encoders import TextEncoder, text_encoder
from pressmark.insight.terms.examples import Examples, mask_titles
from pressmark.insight.words import words_of
from pressmark.sids.table import read_sids

NEIGHBOURS = 50
SIDES = ("train", "valid", "test")
Scores = Callable[[Examples], np.ndarray]


def split_titles(titles: np.ndarray, seed: int) -> np.ndarray:
    """(N,) side of each title: 0 train, 1 valid, 2 test; equal titles, whatever their case, on one side."""
    group = np.unique([title.casefold() for title in titles], return_inverse=True)[1]
    drawn = np.random.default_rng(seed).random(int(group.max()) + 1)[group]
    return np.digitize(drawn, [0.7, 0.8])


def bags(texts: Sequence[str], words: dict[str, int]) -> csr_matrix:
    """(n, V) float32 counts of known words."""
    from sklearn.feature_extraction.text import CountVectorizer

    return csr_matrix(CountVectorizer(vocabulary=words, tokenizer=_split, token_pattern=None).transform(texts))


def _split(text: str) -> list[str]:
    return [word.text for word in words_of(text)]


def methods(terms: list[str], known: Examples, encoder: TextEncoder) -> dict[str, Scores]:
    """Name -> scores (n, T) of masked titles; everything is fitted on `known` alone."""
    names, vectors = encoder.encode(terms), encoder.encode(known.text)
    num_terms = len(terms)
    column = {
        word: number
        for number, word in enumerate(sorted({w for t in [*known.text, *terms] for w in _split(t)}))
    }
    says = csr_matrix(
        (np.ones(len(known), np.float32), (known.term, np.arange(len(known)))), shape=(num_terms, len(known))
    )
    titles, own = bags(known.text, column), bags(terms, column)
    documents = bm25_weights(csr_matrix(says @ titles + own), np.ones(num_terms, bool), model.K1, model.B)
    single = bm25_weights(titles, np.ones(len(known), bool), model.K1, model.B)
    frequency = np.bincount(known.term, minlength=num_terms).astype(np.float32)

    def bm25(asked: Examples) -> np.ndarray:
        return (bags(asked.text, column).sign() @ documents.T).toarray()

    def bm25_neighbours(asked: Examples) -> np.ndarray:
        found = (bags(asked.text, column).sign() @ single.T).toarray()
        least = -np.partition(-found, NEIGHBOURS, axis=1)[:, NEIGHBOURS - 1 : NEIGHBOURS]
        return np.asarray((csr_matrix(np.where(found >= least, found, 0)) @ says.T).todense())

    fitted: dict[str, Scores] = {
        "bm25": bm25,
        "bm25_neighbours": bm25_neighbours,
        "minilm": lambda asked: encoder.encode(asked.text) @ names.T,
        "frequency": lambda asked: np.tile(frequency, (len(asked), 1)),
    }
    for name, config in variants().items():
        one = model.fit(terms, names, known, vectors, config)

        def learnt(asked: Examples, one: model.TermModel = one, config: model.Config = config) -> np.ndarray:
            read = encoder.encode(asked.text)
            return one.predict(asked.text, read if config.use_vectors else np.zeros_like(read))

        fitted[name] = learnt
    return fitted


def variants() -> dict[str, model.Config]:
    """The model, and without one of its halves."""
    return {
        "model": model.Config(),
        "model_vectors": model.Config(use_words=False),
        "model_words": model.Config(use_vectors=False),
    }


def ranks(scores: np.ndarray, asked: Examples) -> np.ndarray:
    """(n,) rank of the masked term, from 1; the title's other terms are no answers, equals count before it."""
    scores = np.where(asked.others.toarray(), -np.inf, scores)
    own = scores[np.arange(len(asked)), asked.term]
    return (scores >= own[:, None]).sum(axis=1)


def judge(catalog: Catalog, places: np.ndarray, encoder: TextEncoder, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each method and side, with the ranks of its cases."""
    side = split_titles(catalog.title, seed)
    terms = mining.mine_terms(catalog, places, side == 0)
    rows = [np.flatnonzero(side == number) for number in range(len(SIDES))]
    masked = [mask_titles(list(catalog.title[one]), terms) for one in rows]
    known = masked[0]
    print(f"seed {seed}: {len(terms):,} terms, {len(known):,} masked training titles", flush=True)
    start = time.perf_counter()
    fitted = methods(terms, known, encoder)
    print(f"fitted in {time.perf_counter() - start:.0f} s", flush=True)
    for number in (1, 2):
        for name, scores in fitted.items():
            yield {
                "seed": seed,
                "side": SIDES[number],
                "method": name,
                "num_terms": len(terms),
                "rank": ranks(scores(masked[number]), masked[number]),
                "title": rows[number][masked[number].title],
            }


def summary(found: list[dict[str, Any]], num_resamples: int = 2000) -> list[dict[str, Any]]:
    """Recall with 95 % intervals over titles, all seeds together, and the model's lead over each baseline."""
    rows = []
    for side in SIDES[1:]:
        mine = [one for one in found if one["side"] == side]
        names = list(dict.fromkeys(one["method"] for one in mine))
        rank = {name: np.concatenate([one["rank"] for one in mine if one["method"] == name]) for name in names}
        titles = np.concatenate([one["title"] for one in mine if one["method"] == names[0]])
        for k in (1, 5):
            hits = np.stack([rank[name] <= k for name in names], axis=1).astype(np.float64)
            lead = hits[:, names.index("model")][:, None] - hits
            estimates = bootstrap_values(np.concatenate([hits, lead], axis=1), num_resamples, 0, titles)
            low, high = estimates.limits()
            for column, name in enumerate(names):
                behind = column + len(names)
                rows.append(
                    {
                        "side": side,
                        "method": name,
                        "k": k,
                        "num_cases": len(titles),
                        "recall": float(estimates.mean[column]),
                        "low": float(low[column]),
                        "high": float(high[column]),
                        "model_leads_by": float(estimates.mean[behind]),
                        "lead_low": float(low[behind]),
                        "lead_high": float(high[behind]),
                        "recall_by_seed": [
                            float((one["rank"] <= k).mean()) for one in mine if one["method"] == name
                        ],
                    }
                )
    return rows


def main() -> None:
    """Judges and prints; records where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a run with a tokenizer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--encoder", default="minilm", help="as of `pressmark terms` (default: minilm)")
    parser.add_argument("--cache", type=Path, help="folder of text vectors (default: RUN/terms/vectors)")
    parser.add_argument("--record", default="", metavar="NAME", help="write eval/results/terms-NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    catalog = read_catalog(options.run / "data" / "items.parquet")
    sids = read_sids(options.run / "tokenizer" / "sids.parquet", catalog.item_id).sids
    places = mining.places_of(build_taxonomy(catalog.category), sids)
    encoder = text_encoder(options.encoder, options.run, options.cache or options.run / "terms" / "vectors")
    found = [row for seed in options.seeds for row in judge(catalog, places, encoder, seed)]
    rows = summary(found)
    for row in rows:
        print(
            f"{row['side']:6} recall@{row['k']} {row['method']:16} {row['recall']:.4f} "
            f"[{row['low']:.4f}, {row['high']:.4f}]  the model leads by {row['model_leads_by']:+.4f} "
            f"[{row['lead_low']:+.4f}, {row['lead_high']:+.4f}]"
        )
    if options.record:
        config = {
            "encoder": encoder.name,
            "mining": asdict(mining.Config()),
            "model": {name: asdict(one) for name, one in variants().items()},
            "num_terms": sorted({one["num_terms"] for one in found}),
            "num_items": len(catalog),
        }
        record("terms", options.record, rows, shlex.join(["python", *sys.argv]), config, options.seeds)
        print(f"recorded: eval/results/terms-{options.record}.json")


if __name__ == "__main__":
    guarded(main)
