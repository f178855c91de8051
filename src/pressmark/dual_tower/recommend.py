"""The dual tower as a recommender: encode the history, search the index."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pressmark.dual_tower.index import ItemIndex
from pressmark.dual_tower.towers import DualTower
from pressmark.recommender import Recommendations, Requests, check_request, filter_by_filter, filter_mask

REQUESTS_AT_ONCE = 1024
"""Requests encoded and searched together, which bounds memory for a batch of any size."""


@dataclass
class DualTowerRecommender:
    """Ranks items by cosine to the shopper's vector.

    Attributes:
        model: In eval mode, with the embeddings of all items.
        index: Over the same embeddings.
        filters: name -> (num_items,) bool.
    """

    model: DualTower
    index: ItemIndex
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_items: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_items = len(self.index)

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """The allowed items nearest to each shopper."""
        check_request(self, requests, k)
        return filter_by_filter(requests, lambda part, name: self._answer(part, name, k))

    def _answer(self, requests: Requests, name: str | None, k: int) -> Recommendations:
        allowed = filter_mask(self.filters, name, self.num_items)
        parts = []
        # An empty batch still makes one part, for its shapes.
        for start in range(0, max(1, len(requests)), REQUESTS_AT_ONCE):
            rows = np.arange(start, min(start + REQUESTS_AT_ONCE, len(requests)))
            histories = requests.histories.take(rows)
            users = self.model.embed_users(histories, self.model.item_embeddings).cpu().numpy()
            parts.append(self.index.search(users, k, histories if requests.mask_history else None, allowed))
        return Recommendations(
            np.concatenate([part.item_index for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.num_valid for part in parts]),
        )


def load_dual_tower(run: Path) -> DualTowerRecommender:
    """Loads a trained dual tower from a run folder; reads nothing but `dual_tower/`.

    Raises:
        ValueError: If it has not been trained, its training was not finished, or the index is another model's.
    """
    folder = run / "dual_tower"
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no dual tower: run src/train_dual_tower.py for this run first.")
    model = DualTower.from_pretrained(folder).eval()
    if not model.config.holds_items:
        raise ValueError(
            f"{folder}: the model holds no item embeddings (holds_items is false); train it again."
        )
    embeddings = model.item_embeddings.numpy()
    # A folder trained where FAISS was missing has no index; a flat one takes no time to build.
    path = folder / "index.faiss"
    index = ItemIndex.load(path, embeddings) if path.is_file() else ItemIndex(embeddings)
    return DualTowerRecommender(model, index)
