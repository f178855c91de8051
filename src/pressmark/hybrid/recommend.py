"""The hybrid as a recommender: every product scored by all experts, new ones in their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pressmark.baselines.dense import recommend_by_scores
from pressmark.catalog.items import Catalog
from pressmark.files import check_weights, file_hash, read_json
from pressmark.hybrid.experts import Experts, nearest_that_sell
from pressmark.hybrid.fusion import Fusion, from_json, hidden_items
from pressmark.hybrid.transitions import count_transitions
from pressmark.hybrid.trend import Sales, count_sales, padded
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Requests

BM25_DECAY = 0.5
"""What an item's words weigh beside the next newer one's; better than the newest alone (eval/LOG.md)."""


@dataclass
class HybridRecommender:
    """Ranks items by how likely each is the shopper's next one, products that nobody has bought among them.

    Every item is scored for every shopper, in time that grows with the catalog.

    Attributes:
        experts: Over the catalog.
        fusion: How they are joined.
        absent: (num_items,) bool, items that nobody can take: they count in no probability. None for none.
        filters: name -> (num_items,) bool.
    """

    experts: Experts
    fusion: Fusion
    absent: np.ndarray | None = None
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = self.experts.num_items
        self._unbought = torch.from_numpy(self.experts.unbought)
        self._mixture = self.experts.mixture(self.fusion.sold, self.fusion.unbought)

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items of each request, the likeliest first; scores are log-probabilities."""
        return recommend_by_scores(self, self.scores, requests, k)

    @torch.inference_mode()
    def scores(self, histories: Histories) -> np.ndarray:
        """(B, num_items) float32 log-probabilities."""
        hidden = hidden_items(histories, self.num_items, self.absent)
        mixed = self._mixture.scores(self.experts.shoppers(histories))
        return self.fusion.placed(mixed, self._unbought, hidden).numpy()


def experts_of(
    run: Path,
    catalog: Catalog | None = None,
    appended_vectors: np.ndarray | None = None,
    sales: Sales | None = None,
) -> Experts:
    """The experts of a run whose generator and dual tower are trained.

    Args:
        run: The run folder.
        catalog: The run's own items, and behind them appended ones; None for its own alone.
        appended_vectors: (n, D) float32 content vectors of the latter.
        sales: Of all these items, what is known of them; None for what is past when the run's test asks.

    Raises:
        ValueError: If something is missing, or the generator has no item head.
    """
    from pressmark.baselines.bm25 import Config, fit
    from pressmark.baselines.popularity import count_items
    from pressmark.catalog.embeddings import item_texts, read_vectors
    from pressmark.catalog.items import read_catalog
    from pressmark.dual_tower.recommend import load_dual_tower
    from pressmark.generator.recommend import load_generator
    from pressmark.interactions.split_files import read_split

    own = read_catalog(run / "data" / "items.parquet")
    catalog = own if catalog is None else catalog
    split, vectors = read_split(run / "data", own), read_vectors(run)
    num_new, texts = len(catalog) - len(own), item_texts(catalog)
    tower = load_dual_tower(run)
    if appended_vectors is not None:
        tower.insert(appended_vectors, texts=texts[len(own) :])
        vectors = np.concatenate([vectors, appended_vectors])
    generator = load_generator(
        run,
        device="cpu",
        item_id=catalog.item_id,
        appended_vectors=appended_vectors,
        appended_texts=texts[len(own) :],
    )
    trained_on = count_items(split.train, len(catalog))
    fitted_on = np.append(split.fitted_on, np.zeros(num_new, bool))
    words = fit(texts, fitted_on, trained_on, BM25_DECAY, Config())
    if sales is None:
        sales = padded(count_sales(*split.purchases("test"), len(own)), len(catalog))
    neighbours = nearest_that_sell(vectors, trained_on == 0)
    unbought = (trained_on == 0) & (sales.purchases == 0)
    following = count_transitions(split.train, len(catalog), neighbours)
    return Experts(generator, tower, words, unbought, neighbours, following, sales.trends)


def load_hybrid(
    run: Path,
    catalog: Catalog | None = None,
    appended_vectors: np.ndarray | None = None,
    absent: np.ndarray | None = None,
    without: str = "",
    sales: Sales | None = None,
) -> HybridRecommender:
    """Loads the hybrid of a run, over appended items too where they are given; see `experts_of`.

    Args:
        run: The run folder.
        catalog: As in `experts_of`.
        appended_vectors: As in `experts_of`.
        absent: (num_items,) bool, removed products; None for none.
        without: "generator" or "trend" takes the weights that were fitted without it; "" those of all.
        sales: As in `experts_of`.

    Raises:
        ValueError: If it is not fitted, or its generator or tower is missing, cut off or trained again since.
    """
    path = run / "hybrid" / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: run src/train_hybrid.py for this run first.")
    made = read_json(path)
    try:
        fusion = from_json(made["without"][without] if without else made)
    except KeyError as error:
        raise ValueError(f"{path}: of an earlier version, without weights for this. {_again(run)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error} {_again(run)}") from error
    if changed := [name for name, one in parts_of(run).items() if made.get("built_on", {}).get(name) != one]:
        raise ValueError(f"{path}: the {changed[0]} of this run was trained again since. {_again(run)}")
    return HybridRecommender(experts_of(run, catalog, appended_vectors, sales), fusion, absent)


def _again(run: Path) -> str:
    return f"Delete {run / 'hybrid'} and {run / 'stages' / 'hybrid.json'}, and run src/train_hybrid.py."


def parts_of(run: Path) -> dict[str, str]:
    """Hashes of the weights that a hybrid is made of.

    Raises:
        ValueError: If some are missing or cut off.
    """
    found = {}
    for name in ("generator", "dual_tower"):
        check_weights(run / name, "model.safetensors")
        found[name] = file_hash(run / name / "model.safetensors")
    return found
