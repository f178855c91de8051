"""Load a trained recommender from a run folder and ask it in item ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from pressmark.files import check_weights
from pressmark.interactions.histories import Histories
from pressmark.recommender import Recommendations, Recommender, Requests

if TYPE_CHECKING:
    from pressmark.catalog.items import Catalog
    from pressmark.dual_tower.recommend import DualTowerRecommender


class Recommended(NamedTuple):
    """One item of an answer."""

    item_id: str
    score: float


class LoadedRecommender:
    """A recommender with its catalog: answers in item ids, or in arrays.

    Removed products are never recommended, whatever the filter; histories may name them. Several threads may
    ask at once.

    Attributes:
        catalog: The run's products (item_index as in the run) and behind them, where the model can score them,
            those that were appended, in order of arrival.
        recommender: The model itself; arrays in, arrays out.
        appended: (num_items,) bool: the products that were appended.
    """

    def __init__(
        self,
        recommender: Recommender,
        catalog: Catalog,
        listed: np.ndarray | None = None,
        num_own: int | None = None,
        unread: frozenset[str] = frozenset(),
    ) -> None:
        """Puts both together.

        Args:
            recommender: Of N items.
            catalog: The same N items.
            listed: (N,) bool: False for removed products; None where nothing was removed.
            num_own: Items of the run itself, the first ones; None for all.
            unread: Ids of products that the model cannot read: left out of histories.
        """
        self.recommender, self.catalog = recommender, catalog
        self.num_items, self.filters = recommender.num_items, recommender.filters
        self.appended = np.arange(len(catalog)) >= (len(catalog) if num_own is None else num_own)
        self._listed = None if listed is None or listed.all() else listed
        self._unread = unread
        self._asking, self._asking_lock = 0, threading.Lock()

    @overload
    def recommend(self, histories: Requests, k: int = 10) -> Recommendations: ...

    @overload
    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        filter: str | Sequence[str | None] | None = None,
        mask_history: bool = True,
        certify: bool = False,
        context: Sequence[str] | None = None,
        cart: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Recommended]]: ...

    def recommend(
        self,
        histories: Requests | Sequence[Sequence[str]],
        k: int = 10,
        *,
        filter: str | Sequence[str | None] | None = None,
        mask_history: bool = True,
        certify: bool = False,
        context: Sequence[str] | None = None,
        cart: Sequence[Sequence[str]] | None = None,
    ) -> Recommendations | list[list[Recommended]]:
        """The k best next items for each history.

        Args:
            histories: A list of histories, each a list of item ids, oldest first; or `Requests`, for which
                the answer is `Recommendations`.
            k: Items a history; fewer where fewer are left.
            filter: Name of a mask registered in `filters` (see `mask`), or several: "in_stock & !alcohol".
                One for all, or a list with one a history.
            mask_history: Leave out what the history holds.
            certify: Search on where an answer is not yet proven, see `Requests`; ask with those to be told for
                whom that did not help (`Recommendations.exact`).
            context: Where each asks, such as a store, "" for nowhere; for a model that reads one.
            cart: What each has chosen and not bought yet, item ids; to a model that reads no carts it is the
                newest of the history. It is masked as the history is.

        Raises:
            ValueError: For an unknown item id, filter or context, naming it; for a context that is not read.
        """
        if isinstance(histories, Requests):
            return self._answer(histories, k)
        if isinstance(histories, str) or any(isinstance(one, str) for one in histories):
            raise ValueError("histories must be a list of lists of item ids, such as [['milk-1', 'bread-2']].")
        asked = Requests(
            self._packed(histories),
            filter,
            mask_history,
            certify=certify,
            context=None if context is None else np.array(context, object),
            cart=None if cart is None else self._packed(cart),
        )
        # What is behind the last item is padding, which a list of items has not.
        answer = self._answer(asked, min(k, self.num_items))
        return [
            [
                Recommended(str(self.catalog.item_id[item]), float(score))
                for item, score in zip(items[:valid], scores[:valid], strict=True)
            ]
            for items, scores, valid in zip(answer.item_index, answer.scores, answer.num_valid, strict=True)
        ]

    def _packed(self, lists: Sequence[Sequence[str]]) -> Histories:
        """Lists of item ids as histories, without what the model cannot read."""
        readable = [[item for item in one if item not in self._unread] for one in lists]
        return Histories.from_lists([self.catalog.index_of(one).tolist() for one in readable])

    def mask(self, item_id: Sequence[str]) -> np.ndarray:
        """(num_items,) bool of these products, to be registered: `shop.filters["in_stock"] = shop.mask(ids)`.

        Raises:
            ValueError: For an unknown item id, naming it.
        """
        found = np.zeros(self.num_items, bool)
        found[self.catalog.index_of(item_id)] = True
        return found

    def _answer(self, requests: Requests, k: int) -> Recommendations:
        """Asks the model, under a filter that removed products do not pass."""
        reads = getattr(self.recommender, "reads", ())
        if requests.context is not None and "context" not in reads and any(requests.context):
            given = next(one for one in requests.context if one)
            raise ValueError(
                f"context {given!r}: this model reads no context; a generator does that has a backbone and was "
                "trained on contexts. Leave it out, or name that one as the model."
            )
        if requests.cart is not None and "cart" not in reads:
            if len(requests.cart) != len(requests):
                raise ValueError(f"{len(requests.cart)} carts for {len(requests)} requests; give one for each.")
            requests = requests.with_cart_as_history()
        if self._listed is None:
            return self.recommender.recommend(requests, k)
        # Registered while somebody asks, and no longer: `filters` shows what the user put there. One name for
        # all threads: a generator keeps what it found out about a filter by its name.
        with self._asking_lock:
            self._asking += 1
            self.filters[_LISTED] = self._listed
        try:
            return self.recommender.recommend(requests.also(_LISTED), k)
        finally:
            with self._asking_lock:
                self._asking -= 1
                if not self._asking:
                    self.filters.pop(_LISTED, None)


_LISTED = "listed items"


def _hybrid(run: Path) -> Recommender:
    from pressmark.hybrid.recommend import load_hybrid

    return load_hybrid(run)


def _generator(run: Path) -> Recommender:
    from pressmark.generator.recommend import load_generator

    return load_generator(run)


def _dual_tower(run: Path) -> DualTowerRecommender:
    from pressmark.dual_tower.recommend import load_dual_tower

    check_weights(run / "dual_tower", "model.safetensors")
    return load_dual_tower(run)


def _popularity(run: Path) -> Recommender:
    from pressmark.baselines.popularity import load_popularity

    return load_popularity(run)


def _content_neighbours(run: Path) -> Recommender:
    from pressmark.baselines.content_neighbours import load_content_neighbours

    return load_content_neighbours(run)


def _bm25(run: Path) -> Recommender:
    from pressmark.baselines.bm25 import load_bm25

    return load_bm25(run)


def _cooccurrence(run: Path) -> Recommender:
    from pressmark.baselines.cooccurrence import load_cooccurrence

    return load_cooccurrence(run)


def _sasrec(run: Path) -> Recommender:
    from pressmark.baselines.sasrec import load_sasrec

    check_weights(run / "sasrec", "model.safetensors")
    return load_sasrec(run)


def _hybrid_without(part: str, run: Path) -> Recommender:
    from pressmark.hybrid.recommend import load_hybrid

    return load_hybrid(run, without=part)


def _sasrec_with_neighbours(run: Path) -> Recommender:
    from pressmark.baselines.sasrec import load_with_neighbours

    check_weights(run / "sasrec", "model.safetensors")
    return load_with_neighbours(run)


WITHOUT = {"hybrid_without_generator": "generator", "hybrid_without_trend": "trend"}
"""The hybrid with the weights that were fitted without a part of it."""

LOADERS: dict[str, Callable[[Path], Recommender]] = {
    "hybrid": _hybrid,
    "generator": _generator,
    "dual_tower": _dual_tower,
    "sasrec": _sasrec,
    "content_neighbours": _content_neighbours,
    "bm25": _bm25,
    "cooccurrence": _cooccurrence,
    "popularity": _popularity,
    **{name: partial(_hybrid_without, part) for name, part in WITHOUT.items()},
    "sasrec_with_neighbours": _sasrec_with_neighbours,
}

TRAINED = ("hybrid", "generator", "dual_tower", "sasrec")
"""Models with a stage and a folder of their own; the others are made from data/ when they are loaded."""

TRAINED_AS = {**dict.fromkeys(WITHOUT, "hybrid"), "sasrec_with_neighbours": "sasrec"}
"""Models that are another one's weights asked otherwise. They say what a part is worth, and are judged where
they are asked for."""


def chosen(run: Path, model: str) -> str:
    """The model that is meant: where none is named, the hybrid if the run has one, else the generator."""
    return model or ("hybrid" if (run / "hybrid" / "config.json").is_file() else "generator")


def load(run_folder: str | Path, model: str = "") -> LoadedRecommender:
    """Loads a trained model of a run.

    Args:
        run_folder: Such as "runs/grocery/cold_items/seed0".
        model: "hybrid", "generator", "dual_tower", "sasrec", "content_neighbours", "bm25", "cooccurrence" or
            "popularity", or one of `TRAINED_AS`; "" is the hybrid where the run has one, else the generator.

    Raises:
        ValueError: If the folder is no run, the model is unknown, has not been trained there, or its weights
            are cut off.
    """
    run = Path(run_folder)
    model = chosen(run, model)
    if model not in LOADERS:
        raise ValueError(f"model is {model!r}; known models: {', '.join(LOADERS)}.")
    if not (run / "data" / "items.parquet").is_file():
        raise ValueError(f"{run}: not a run folder (no data/items.parquet). Run `pressmark run` first.")
    trained = TRAINED_AS.get(model, model)
    made = run / trained / "config.json"
    if trained in TRAINED and not made.is_file():
        raise ValueError(f"{made} is missing: train the {trained} in this run first.")
    quiet_libraries()
    return _with_appended(run, model)


def _with_appended(run: Path, model: str) -> LoadedRecommender:
    """A model over the run's catalog as it stands today.

    The generator spells the SIDs of appended products, dual tower and content neighbours read their text, the
    hybrid does both, and takes what sells now from `pressmark trend`; the other models know the run's own
    products alone. `LOADERS` give every model over the latter: an evaluation is about data/, whatever was
    appended, removed or counted since.
    """
    from pressmark.generator.recommend import load_generator
    from pressmark.tokenizer.state import read_living

    living = read_living(run)
    shop, num_own = living.catalog, living.num_own
    if TRAINED_AS.get(model, model) == "hybrid":
        from pressmark.hybrid.recommend import load_hybrid
        from pressmark.hybrid.trend import read_sales

        later = living.appended_vectors if len(shop) > num_own else None
        part, sales = WITHOUT.get(model, ""), read_sales(run, shop)
        hybrid = load_hybrid(run, shop, later, ~living.listed, part, sales)
        return LoadedRecommender(hybrid, shop, living.listed, num_own)
    if len(shop) == num_own:
        return LoadedRecommender(LOADERS[model](run), shop, living.listed)
    from pressmark.catalog.embeddings import item_texts

    if model == "generator":
        generator = load_generator(
            run,
            item_id=shop.item_id,
            appended_vectors=living.appended_vectors,
            appended_texts=item_texts(shop)[num_own:],
        )
        return LoadedRecommender(generator, shop, living.listed, num_own)
    if model == "content_neighbours":
        from pressmark.baselines.content_neighbours import load_content_neighbours, with_items

        neighbours = with_items(load_content_neighbours(run), living.appended_vectors)
        return LoadedRecommender(neighbours, shop, living.listed, num_own)
    if model == "dual_tower":
        tower = _dual_tower(run)
        tower.insert(living.appended_vectors, texts=item_texts(shop)[num_own:])
        return LoadedRecommender(tower, shop, living.listed, num_own)
    unread = frozenset(shop.item_id[num_own:])
    return LoadedRecommender(LOADERS[model](run), living.own, living.listed[:num_own], unread=unread)


def quiet_libraries() -> None:
    """Turns off the bars that transformers draws for loading and saving; ours show the long steps."""
    from transformers.utils import logging

    logging.disable_progress_bar()
