"""How the synthetic store's shoppers choose: one model of the next pick, for the draw and for the oracle.

A basket is a row of picks. Each pick is of one kind: a recipe begun or gone on with, something bought
before, another flavour of the line just taken, something more from the same aisle, or what taste says.
The kinds are defined once, in `kind_probabilities`, `choices_of` and `choices_of_ingredient`: `shop` draws from
them and `baselines/oracle.py` adds them up.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from pressmark.catalog.grocery_products import DIETS, NEEDS, NUM_TASTES, Store


@dataclass(frozen=True)
class Habits:
    """The numbers behind the shopping, frozen before any model was run on the store.

    Visits and baskets are those of Ta-Feng (a supermarket's four months, published counts: 817,741 rows,
    119,578 baskets, 32,266 shoppers: 3.7 baskets a shopper, 6.8 products a basket), since Instacart's
    public panel keeps only heavy users (4 to 100 orders each). The baskets' spread is Instacart's:
    standard deviation .75 of the mean in the slice of ../shared/data (mean 10.6, median 9, sd 8.0).
    In that slice 15 % of neighbours in a basket come from one aisle against 3.6 % by chance.
    The remaining numbers are our own choice; nothing published would fix them.
    """

    mean_baskets: float = 3.7
    mean_basket_size: float = 6.8
    basket_size_shape: float = 1.6
    shelf_strength: float = 1.4
    flavour_strength: float = 0.9
    brand_strength: float = 0.7
    organic_strength: float = 0.8
    loyalty: float = 2.0
    loyal_share: float = 0.6
    diet_share: tuple[float, ...] = (0.08, 0.04, 0.06, 0.04)
    diet_penalty: float = 4.0
    need_share: tuple[float, ...] = (0.10, 0.22, 0.18, 0.65)
    need_penalty: float = 4.0
    recipe_start: float = 0.12
    recipe_continue: float = 0.8
    recipe_strength: float = 0.8
    repeat: float = 0.25
    same_line: float = 0.12
    same_aisle: float = 0.10


@dataclass(frozen=True)
class Shoppers:
    """What is true about U shoppers.

    Attributes:
        taste: (U, K) float64 latent taste.
        organic: (U,) float64 liking for organic products, log-weight.
        diet: (U,) int64 number in DIETS, -1 = none.
        needs: (U, len(NEEDS)) bool.
        favourite: (U, departments) int64 brand the shopper is loyal to, -1 = none.
        num_baskets: (U,) int64.
        basket_size: (U,) float64 mean products a basket.
    """

    taste: np.ndarray
    organic: np.ndarray
    diet: np.ndarray
    needs: np.ndarray
    favourite: np.ndarray
    num_baskets: np.ndarray
    basket_size: np.ndarray


@dataclass(frozen=True)
class Groups:
    """The items of the whole store and of each line, aisle and shelf."""

    everything: np.ndarray
    of_line: list[np.ndarray]
    of_aisle: list[np.ndarray]
    of_shelf: list[np.ndarray]


@dataclass(frozen=True)
class Moment:
    """All that the next pick depends on, apart from the recipe at hand.

    Attributes:
        weight: (N,) float64 how much the shopper wants each item this day; 0 where it is not on sale yet or
            lies in the basket, so that nothing is taken twice.
        past: (n,) int64 distinct items of earlier baskets.
        past_weight: (n,) float64 weight of buying each again.
        basket: Items in the basket so far, in order of adding.
    """

    weight: np.ndarray
    past: np.ndarray
    past_weight: np.ndarray
    basket: list[int] = field(default_factory=list)

    def add(self, item: int) -> None:
        """Puts an item in the basket."""
        self.basket.append(item)
        self.weight[item] = 0.0


Choices = tuple[np.ndarray, np.ndarray]
"""(n,) items and (n,) weights that a pick draws from in proportion; all weights 0 = nothing to draw."""


def group_items(store: Store) -> Groups:
    """Lists a store's items by line, aisle and shelf."""

    def rows_of(key: np.ndarray, count: int) -> list[np.ndarray]:
        order = np.argsort(key, kind="stable")
        return np.split(order, np.searchsorted(key[order], np.arange(1, count)))

    return Groups(
        everything=np.arange(len(store.shelf)),
        of_line=rows_of(store.line, int(store.line.max()) + 1),
        of_aisle=rows_of(store.aisle, int(store.aisle.max()) + 1),
        of_shelf=rows_of(store.shelf, len(store.shelf_taste)),
    )


def draw_shoppers(store: Store, num_shoppers: int, habits: Habits, seed: int) -> Shoppers:
    """Draws the shoppers' tastes, diets, households, loyalties and visits."""
    rng = np.random.default_rng([seed, 2])
    num_departments = int(store.department.max()) + 1
    favourite = np.full((num_shoppers, num_departments), -1, np.int64)
    for department in range(num_departments):
        rows = np.flatnonzero(store.department == department)
        share = np.exp(store.appeal[rows])
        brand = store.brand[rng.choice(rows, num_shoppers, p=share / share.sum())]
        favourite[:, department] = np.where(rng.random(num_shoppers) < habits.loyal_share, brand, -1)
    diet = rng.choice(len(DIETS) + 1, num_shoppers, p=[*habits.diet_share, 1 - sum(habits.diet_share)])
    visits = rng.gamma(1.0, habits.mean_baskets - 1, num_shoppers)
    return Shoppers(
        taste=rng.normal(size=(num_shoppers, NUM_TASTES)),
        organic=rng.normal(-0.3, habits.organic_strength, num_shoppers),
        diet=np.where(diet == len(DIETS), -1, diet),
        needs=rng.random((num_shoppers, len(NEEDS))) < habits.need_share,
        favourite=favourite,
        num_baskets=1 + rng.poisson(visits),
        # Lognormal with mean 1: large and small households.
        basket_size=habits.mean_basket_size * np.exp(rng.normal(0, 0.3, num_shoppers) - 0.045),
    )


def liking(store: Store, shoppers: Shoppers, shopper: int, habits: Habits) -> np.ndarray:
    """(N,) float64 log-weight of every item for one shopper, before season and launch."""
    taste = shoppers.taste[shopper] / np.sqrt(NUM_TASTES)
    by_flavour = np.append(habits.flavour_strength * (store.flavour_taste @ taste), 0.0)  # [-1] = no flavour
    score = store.appeal + habits.shelf_strength * (store.shelf_taste @ taste)[store.shelf]
    score += habits.brand_strength * (store.brand_taste @ taste)[store.brand]
    score += np.where(store.flavour >= 0, by_flavour[store.flavour], 0.0)
    score += habits.loyalty * (shoppers.favourite[shopper][store.department] == store.brand)
    score += shoppers.organic[shopper] * store.organic
    if shoppers.diet[shopper] >= 0:
        score -= habits.diet_penalty * store.unfit[:, shoppers.diet[shopper]]
    lacking = np.append(~shoppers.needs[shopper], False)  # [-1] = an item for everybody
    return score - habits.need_penalty * lacking[store.need]


def season(peak: np.ndarray, height: np.ndarray, day: int) -> np.ndarray:
    """Log-weight of shelves or recipes on a day: a cosine over the year."""
    return height * np.cos(2 * np.pi * (day - peak) / 365)


def weight_on_day(store: Store, wanted: np.ndarray, day: int) -> np.ndarray:
    """(N,) float64 weights from `wanted` = exp(liking), with the season; 0 for what is not launched yet."""
    seasonal = np.exp(season(store.season_peak, store.season_height, day))
    return wanted * seasonal[store.shelf] * (store.launch_day <= day)


def recipe_wish(store: Store, wanted: np.ndarray) -> np.ndarray:
    """(R,) float64 log of how much a shopper wants a recipe's shelves: the mean over them, any day."""
    log_mass = np.log(np.bincount(store.shelf, wanted, len(store.shelf_taste)))
    used = store.recipe >= 0
    return np.where(used, log_mass[store.recipe], 0.0).sum(axis=1) / used.sum(axis=1)


def recipe_share(store: Store, wish: np.ndarray, day: int, habits: Habits) -> np.ndarray:
    """(R,) float64 chance of each recipe when one is begun: the shopper's wish and the season."""
    score = habits.recipe_strength * wish + season(store.recipe_peak, store.recipe_height, day)
    share = np.exp(score - score.max())
    return share / share.sum()


def past_purchases(store: Store, times: np.ndarray) -> Choices:
    """Distinct earlier purchases and the weight of buying each again: times bought x its repeat rate.

    Args:
        store: The store.
        times: (N,) int64 how often each item stood in an earlier basket.
    """
    items = np.flatnonzero(times)
    return items, times[items] * store.repeat_rate[items]


def kind_probabilities(habits: Habits) -> dict[str, float]:
    """The kinds of a pick outside a recipe and their probabilities, which sum to 1."""
    kinds = {"repeat": habits.repeat, "same_line": habits.same_line, "same_aisle": habits.same_aisle}
    return {**kinds, "taste": 1 - sum(kinds.values())}


def choices_of(kind: str, moment: Moment, store: Store, groups: Groups) -> Choices:
    """What a pick of one kind draws from.

    A kind with nothing to draw (no earlier purchase, an empty basket, a line used up) falls back to taste.
    """
    if kind == "repeat":
        choices = moment.past, moment.past_weight * (moment.weight[moment.past] > 0)
    elif kind == "taste" or not moment.basket:
        return groups.everything, moment.weight
    else:
        last = moment.basket[-1]
        items = groups.of_line[store.line[last]] if kind == "same_line" else groups.of_aisle[store.aisle[last]]
        choices = items, moment.weight[items]
    return choices if choices[1].any() else (groups.everything, moment.weight)


def choices_of_ingredient(shelf: int, moment: Moment, groups: Groups) -> Choices:
    """What a recipe's shelf is served from; by taste over the whole store where the shelf has nothing left."""
    items = groups.of_shelf[shelf]
    choices = items, moment.weight[items]
    return choices if choices[1].any() else (groups.everything, moment.weight)


# ---- a year of shopping --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Purchases:
    """M purchases, by shopper and in order of adding.

    Attributes:
        shopper, item: (M,) int64 rows of Shoppers and Store.
        day: (M,) int64 days from the store's start; one basket a shopper and day.
        second: (M,) int64 second of the day at which the basket is paid for, the same for all its items.
    """

    shopper: np.ndarray
    item: np.ndarray
    day: np.ndarray
    second: np.ndarray


def shop(store: Store, shoppers: Shoppers, num_days: int, habits: Habits, seed: int) -> Purchases:
    """Every shopper's year. Each shopper has an own random stream: no year hangs on another's."""
    groups = group_items(store)
    columns: tuple[list[int], ...] = ([], [], [], [])
    for shopper in range(len(shoppers.taste)):
        rng = np.random.default_rng([seed, 3, shopper])
        wanted = np.exp(liking(store, shoppers, shopper, habits))
        wish = recipe_wish(store, wanted)
        days = rng.choice(num_days, min(int(shoppers.num_baskets[shopper]), num_days), replace=False)
        times = np.zeros(len(wanted), np.int64)
        for day in np.sort(days).tolist():
            moment = Moment(weight_on_day(store, wanted, day), *past_purchases(store, times))
            size = _basket_size(shoppers.basket_size[shopper], len(wanted), habits, rng)
            _fill_basket(moment, size, recipe_share(store, wish, day, habits), store, groups, habits, rng)
            times[moment.basket] += 1
            # Checkout between 8 and 21 h; to the second, so that only one basket's items share a time.
            second = int(rng.integers(8 * 3600, 21 * 3600))
            values = ([shopper] * size, moment.basket, [day] * size, [second] * size)
            for column, value in zip(columns, values, strict=True):
                column += value
    return Purchases(*(np.array(column, np.int64) for column in columns))


def _basket_size(mean: float, num_products: int, habits: Habits, rng: np.random.Generator) -> int:
    """1 + a negative binomial number, at most a quarter of the products."""
    shape = habits.basket_size_shape
    return min(1 + int(rng.poisson(rng.gamma(shape, (mean - 1) / shape))), num_products // 4)


def _fill_basket(
    moment: Moment,
    size: int,
    recipes: np.ndarray,
    store: Store,
    groups: Groups,
    habits: Habits,
    rng: np.random.Generator,
) -> None:
    """Adds `size` items to the moment's basket; `recipes` (R,) is the chance of each when one is begun."""
    kinds, upper_kind = _cumulated_kinds(habits)
    upper_recipe, upper_taste = recipes.cumsum(), moment.weight.cumsum()
    ingredients: list[int] = []  # shelves that the recipe at hand still wants
    for _ in range(size):
        from_recipe = rng.random() < (habits.recipe_continue if ingredients else habits.recipe_start)
        if from_recipe and not ingredients:
            ingredients = [shelf for shelf in store.recipe[_position(upper_recipe, rng)].tolist() if shelf >= 0]
        if from_recipe:
            shelf = ingredients.pop(int(rng.integers(len(ingredients))))
            items, weights = choices_of_ingredient(shelf, moment, groups)
        else:
            items, weights = choices_of(kinds[_position(upper_kind, rng)], moment, store, groups)
        if items is groups.everything:
            # Drawing from the basket's first sum until something new comes up is the same and saves a sum.
            item = _position(upper_taste, rng)
            while moment.weight[item] == 0:
                item = _position(upper_taste, rng)
        else:
            item = int(items[_position(weights.cumsum(), rng)])
        moment.add(item)


@functools.cache
def _cumulated_kinds(habits: Habits) -> tuple[list[str], np.ndarray]:
    kinds = kind_probabilities(habits)
    return list(kinds), np.cumsum(list(kinds.values()))


def _position(upper: np.ndarray, rng: np.random.Generator) -> int:
    """Draws a position in proportion to the steps of a cumulated sum; never one with step 0."""
    return min(int(upper.searchsorted(rng.random() * upper[-1], side="right")), len(upper) - 1)
