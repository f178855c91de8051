"""The ceiling of the synthetic store: a recommender that knows how its shoppers choose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pressmark.catalog.grocery import Truth, read_truth
from pressmark.catalog.grocery_shoppers import (
    Moment,
    choices_of,
    group_items,
    kind_probabilities,
    liking,
    past_purchases,
    recipe_share,
    recipe_wish,
    weight_on_day,
)
from pressmark.recommender import Recommendations, Requests, allowed_items, check_request, top_k

_ANSWERS_KEPT = 8192
"""Answers kept in memory: 131 MB for a store of 4,000 items."""
Belief = dict[tuple[int, ...], float]
"""Probability of each state of the recipe at hand: the shelves it still wants, () = no recipe."""


class Oracle:
    """Scores every item by the log of its true probability to be the next pick.

    It knows: the store (appeal, tastes, seasons, launches, recipes, cold items as well as any), the
    shopper behind `Requests.user_id` (taste, diet, household, loyalties), and from the shopper's true year
    the day of each purchase in the history and the day of the next one, so whether a new basket begins.
    Of a purchase it reads nothing that the history does not show: neither the next item nor hidden ones.

    It marginalises over the kind of each pick (recipe, repeat, line, aisle, taste) and over the recipe that
    the basket follows, by filtering the basket's visible items. That is exact where the history shows the
    shopper's purchases in order; where cold items are hidden or a basket's order is shuffled it
    treats what it sees as the whole truth, which costs it little and makes it a close, not a strict, ceiling.
    A request without a known user_id is answered by the items' share of purchases before tastes.
    """

    def __init__(self, truth: Truth, item_id: Sequence[str] | np.ndarray) -> None:
        """Builds the oracle for a catalog.

        Args:
            truth: What `read_truth` returns.
            item_id: (N,) the catalog's item ids, row = item_index.

        Raises:
            ValueError: If an item is not in the store.
        """
        row_of = {name: row for row, name in enumerate(truth.item_id)}
        unknown = [name for name in item_id if name not in row_of]
        if unknown:
            raise ValueError(
                f"item_id {unknown[0]!r} is not in the synthetic store; the oracle knows no other."
            )
        self.num_items = len(item_id)
        self.filters: dict[str, np.ndarray] = {}
        self._answers: dict[tuple[str | None, bytes], np.ndarray] = {}
        self._truth = truth
        self._row = np.array([row_of[name] for name in item_id], np.int64)
        self._shopper = {name: row for row, name in enumerate(truth.user_id)}
        self._groups = group_items(truth.store)
        self._recipes = [tuple(shelf for shelf in row.tolist() if shelf >= 0) for row in truth.store.recipe]
        self._bounds = np.searchsorted(truth.purchases.shopper, np.arange(len(truth.user_id) + 1))

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        """Answers each request with its k most probable items; see `Recommender.recommend`.

        Raises:
            ValueError: Also if a history shows a purchase that its shopper never made, or user_ids are too few.
        """
        check_request(self, requests, k)
        user_ids = requests.user_id if requests.user_id is not None else [None] * len(requests)
        if len(user_ids) != len(requests):
            raise ValueError(f"{len(user_ids)} user_ids for {len(requests)} histories; give one for each.")
        scores = np.empty((len(requests), self.num_items), np.float32)
        for row, user_id in enumerate(user_ids):
            scores[row] = self._scores(user_id, requests.histories[row])
        return top_k(scores, allowed_items(self.filters, requests, self.num_items), k)

    def _scores(self, user_id: str | None, history: np.ndarray) -> np.ndarray:
        """(N,) float32 log-probabilities; kept, since an evaluation asks the same under several filters."""
        key = (user_id, history.tobytes())
        if key not in self._answers:
            probability = self._next_pick(user_id, self._row[history])[self._row]
            if len(self._answers) >= _ANSWERS_KEPT:
                self._answers.clear()
            # The floor is for what cannot be bought: in the basket already, or launched later.
            self._answers[key] = np.log(np.maximum(probability, 1e-30)).astype(np.float32)
        return self._answers[key]

    def _next_pick(self, user_id: str | None, history: np.ndarray) -> np.ndarray:
        """(rows of the store,) float64 probability of each item, after a history of the store's rows."""
        truth = self._truth
        shopper = self._shopper.get(user_id) if user_id is not None else None
        if shopper is None:
            return np.exp(truth.store.appeal)
        day, basket, times = self._situation(shopper, history)
        wanted = np.exp(liking(truth.store, truth.shoppers, shopper, truth.habits))
        recipes = recipe_share(truth.store, recipe_wish(truth.store, wanted), day, truth.habits)
        moment = Moment(weight_on_day(truth.store, wanted, day), *past_purchases(truth.store, times))
        belief: Belief = {(): 1.0}
        for item in basket:
            belief = self._updated(belief, moment, item, recipes)
            moment.add(item)
        return self._mixture(belief, moment, recipes)

    def _situation(self, shopper: int, history: np.ndarray) -> tuple[int, list[int], np.ndarray]:
        """The day of the next pick, the basket so far, and (N,) how often each item was bought before.

        The n-th time that the history shows an item is the n-th time it was bought; the next pick is the
        first purchase that the history does not show, on the last shown day or after.
        """
        rows = slice(self._bounds[shopper], self._bounds[shopper + 1])
        item, day = self._truth.purchases.item[rows], self._truth.purchases.day[rows]
        places: dict[int, list[int]] = defaultdict(list)
        for place in range(len(item) - 1, -1, -1):
            places[item[place]].append(place)
        shown = np.zeros(len(item), bool)
        days = np.empty(len(history), np.int64)
        for number, one in enumerate(history):
            if not places[one]:
                raise ValueError(
                    f"user_id {self._truth.user_id[shopper]!r}: the history shows item_id "
                    f"{self._truth.item_id[one]!r} more often than it was bought; is it another store's?"
                )
            place = places[one].pop()
            shown[place], days[number] = True, day[place]
        last = days.max() if len(days) else -1
        ahead = np.flatnonzero(~shown & (day >= last))
        today = int(day[ahead[0]]) if len(ahead) else int(day[-1])
        times = np.bincount(history[days < today], minlength=len(self._truth.item_id))
        return today, history[days == today].tolist(), times

    def _updated(self, belief: Belief, moment: Moment, item: int, recipes: np.ndarray) -> Belief:
        """The belief after seeing that the next pick was `item`: Bayes' rule over the recipe's states."""
        habits = self._truth.habits
        ordinary = self._ordinary_of(moment, item)
        from_shelf = self._shelf_probability(moment, item)
        updated: Belief = defaultdict(float)
        for wanted, probability in belief.items():
            stay = 1 - (habits.recipe_continue if wanted else habits.recipe_start)
            updated[wanted] += probability * stay * ordinary
            for shelves, chance in self._recipe_picks(wanted, recipes):
                for place, shelf in enumerate(shelves):
                    if from_shelf[shelf] > 0:
                        rest = tuple(sorted(shelves[:place] + shelves[place + 1 :]))
                        updated[rest] += probability * chance * from_shelf[shelf] / len(shelves)
        total = sum(updated.values())
        return {wanted: probability / total for wanted, probability in updated.items()}

    def _mixture(self, belief: Belief, moment: Moment, recipes: np.ndarray) -> np.ndarray:
        """(N,) probability of each item as the next pick under a belief."""
        habits, store = self._truth.habits, self._truth.store
        chance_of_shelf = [0.0] * len(store.shelf_taste)
        stay = 0.0
        for wanted, probability in belief.items():
            stay += probability * (1 - (habits.recipe_continue if wanted else habits.recipe_start))
            for shelves, chance in self._recipe_picks(wanted, recipes):
                for shelf in shelves:
                    chance_of_shelf[shelf] += probability * chance / len(shelves)
        by_shelf = np.array(chance_of_shelf)
        mass = np.bincount(store.shelf, moment.weight, len(by_shelf))
        served = np.where(mass > 0, by_shelf / np.where(mass > 0, mass, 1.0), 0.0)
        mixture = stay * self._ordinary(moment) + served[store.shelf] * moment.weight
        return mixture + by_shelf[mass == 0].sum() * moment.weight / moment.weight.sum()

    def _recipe_picks(
        self, wanted: tuple[int, ...], recipes: np.ndarray
    ) -> list[tuple[tuple[int, ...], float]]:
        """What the next pick may take for a recipe: [(shelves to choose from evenly, chance)]."""
        habits = self._truth.habits
        if wanted:
            return [(wanted, habits.recipe_continue)]
        starts = habits.recipe_start * recipes
        return list(zip(self._recipes, starts.tolist(), strict=True))

    def _ordinary(self, moment: Moment) -> np.ndarray:
        """(N,) probability of each item as a pick outside a recipe."""
        mixture = np.zeros(len(moment.weight))
        for kind, probability in kind_probabilities(self._truth.habits).items():
            items, weights = choices_of(kind, moment, self._truth.store, self._groups)
            mixture[items] += probability * weights / weights.sum()
        return mixture

    def _ordinary_of(self, moment: Moment, item: int) -> float:
        """One item's entry of `_ordinary`, without the others."""
        total = 0.0
        for kind, probability in kind_probabilities(self._truth.habits).items():
            items, weights = choices_of(kind, moment, self._truth.store, self._groups)
            place = int(items.searchsorted(item))
            if place < len(items) and items[place] == item:
                total += probability * weights[place] / weights.sum()
        return total

    def _shelf_probability(self, moment: Moment, item: int) -> list[float]:
        """S probabilities of `item` when a recipe asks for each shelf; see `choices_of_ingredient`."""
        store = self._truth.store
        mass = np.bincount(store.shelf, moment.weight, len(store.shelf_taste))
        probability = np.where(mass > 0, 0.0, moment.weight[item] / moment.weight.sum())
        if mass[store.shelf[item]] > 0:
            probability[store.shelf[item]] = moment.weight[item] / mass[store.shelf[item]]
        return probability.tolist()


def load_oracle(folder: str | Path, item_id: Sequence[str] | np.ndarray) -> Oracle:
    """The oracle of the store in `folder`, for a catalog's item ids.

    Raises:
        ValueError: If `folder` is no synthetic store, or an item is not from it.
    """
    return Oracle(read_truth(folder), item_id)
