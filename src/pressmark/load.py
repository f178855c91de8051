"""Load a trained recommender from a run folder and ask it in item ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Recommender, Requests

if TYPE_CHECKING:
    from pressmark.catalog.items import Catalog


class Recommended(NamedTuple):
    """One item of an answer."""

    item_id: str
    score: float


class LoadedRecommender:
    """A recommender with its catalog: answers in item ids, or in arrays.

    Attributes:
        catalog: The run's products.
        recommender: The model itself; arrays in, arrays out.
    """

    def __init__(self, recommender: Recommender, catalog: Catalog) -> None:
        self.recommender, self.catalog = recommender, catalog
        self.num_items, self.filters = recommender.num_items, recommender.filters

    @overload
    def recommend(self, histories: Requests, k: int = 10) -> Recommendations: ...

    @overload
    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        filter: str | None = None,
        mask_history: bool = True,
    ) -> list[list[Recommended]]: ...

    def recommend(
        self,
        histories: Requests | Sequence[Sequence[str]],
        k: int = 10,
        *,
        filter: str | None = None,
        mask_history: bool = True,
    ) -> Recommendations | list[list[Recommended]]:
        """The k best next items for each history.

        Args:
            histories: A list of histories, each a list of item ids, oldest first; or `Requests`, for which
                the answer is `Recommendations`.
            k: Items a history; fewer where fewer are left.
            filter: Name of a mask registered in `filters`.
            mask_history: Leave out what the history holds.

        Raises:
            ValueError: For an unknown item id, naming it.
        """
        if isinstance(histories, Requests):
            return self.recommender.recommend(histories, k)
        if isinstance(histories, str) or any(isinstance(one, str) for one in histories):
            raise ValueError("histories must be a list of lists of item ids, such as [['milk-1', 'bread-2']].")
        packed = Histories.from_lists([self.catalog.index_of(list(one)).tolist() for one in histories])
        answer = self.recommender.recommend(Requests(packed, filter, mask_history), k)
        return [
            [
                Recommended(str(self.catalog.item_id[item]), float(score))
                for item, score in zip(items[:valid], scores[:valid], strict=True)
            ]
            for items, scores, valid in zip(answer.item_index, answer.scores, answer.num_valid, strict=True)
        ]


def _generator(run: Path) -> Recommender:
    from pressmark.generator.recommend import load_generator

    return load_generator(run)


def _dual_tower(run: Path) -> Recommender:
    from pressmark.dual_tower.recommend import load_dual_tower

    return load_dual_tower(run)


def _popularity(run: Path) -> Recommender:
    from pressmark.baselines.popularity import load_popularity

    return load_popularity(run)


def _content_neighbours(run: Path) -> Recommender:
    from pressmark.baselines.content_neighbours import load_content_neighbours

    return load_content_neighbours(run)


LOADERS: dict[str, Callable[[Path], Recommender]] = {
    "generator": _generator,
    "dual_tower": _dual_tower,
    "content_neighbours": _content_neighbours,
    "popularity": _popularity,
}


def load(run_folder: str | Path, model: str = "generator") -> LoadedRecommender:
    """Loads a trained model of a run.

    Args:
        run_folder: Such as "runs/grocery/cold_items/seed0".
        model: "generator", "dual_tower", "content_neighbours" or "popularity".

    Raises:
        ValueError: If the folder is no run, the model is unknown or has not been trained there.
    """
    from pressmark.catalog.items import read_catalog

    run = Path(run_folder)
    if model not in LOADERS:
        raise ValueError(f"model is {model!r}; known models: {', '.join(LOADERS)}.")
    if not (run / "data" / "items.parquet").is_file():
        raise ValueError(f"{run}: not a run folder (no data/items.parquet). Run `pressmark run` first.")
    needs = {"generator": "generator/config.json", "dual_tower": "dual_tower/config.json"}.get(model)
    if needs and not (run / needs).is_file():
        raise ValueError(f"{run / needs} is missing: train the {model} in this run first.")
    quiet_libraries()
    return LoadedRecommender(LOADERS[model](run), read_catalog(run / "data" / "items.parquet"))


def quiet_libraries() -> None:
    """Turns off the bars that transformers draws for loading and saving; ours show the long steps."""
    from transformers.utils import logging

    logging.disable_progress_bar()
