"""The shelves of the synthetic store, filled: titles, brands, descriptions, and what draws shoppers to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pressmark.catalog import grocery_words as words
from pressmark.catalog.grocery_words import Shelf

Path = tuple[str, ...]
DIETS = ("vegetarian", "vegan", "gluten-free", "dairy-free")
NEEDS = {"b": "baby", "o": "dog", "c": "cat", "w": "alcohol"}
NUM_TASTES = 8


@dataclass(frozen=True)
class Store:
    """What a shopper feels about N products on S shelves, all numeric; row = product, sorted by item_id.

    Attributes:
        shelf, aisle, department: (N,) int64.
        line: (N,) int64; products of one brand on one shelf share a line.
        brand, flavour: (N,) int64; flavour -1 = none.
        organic: (N,) bool.
        unfit: (N, len(DIETS)) bool: the diet forbids it.
        need: (N,) int64 number in NEEDS of the household that wants it, -1 = everybody.
        appeal: (N,) float64 log of its share of purchases before tastes.
        repeat_rate: (N,) float64 weight when an earlier purchase is bought again.
        launch_day: (N,) int64 first day on sale, days from the store's start.
        shelf_taste, brand_taste, flavour_taste: (S, K), (B, K), (F, K) float64 latent attributes.
        season_peak, season_height: (S,) float64 day of the best month; log-weight there (minus it at worst).
        recipe: (R, W) int64 shelves of a recipe, padded with -1.
        recipe_peak, recipe_height: (R,) float64, as for shelves.
    """

    shelf: np.ndarray
    aisle: np.ndarray
    department: np.ndarray
    line: np.ndarray
    brand: np.ndarray
    flavour: np.ndarray
    organic: np.ndarray
    unfit: np.ndarray
    need: np.ndarray
    appeal: np.ndarray
    repeat_rate: np.ndarray
    launch_day: np.ndarray
    shelf_taste: np.ndarray
    brand_taste: np.ndarray
    flavour_taste: np.ndarray
    season_peak: np.ndarray
    season_height: np.ndarray
    recipe: np.ndarray
    recipe_peak: np.ndarray
    recipe_height: np.ndarray


@dataclass(frozen=True)
class Products:
    """The catalog as written to `items`, rows sorted by item_id; `true_category` goes to the truth alone.

    `columns` holds item_id, title, brand, description, size, flavour and tags as (N,) object arrays of
    str, None where a real feed has a gap.
    """

    columns: dict[str, np.ndarray]
    category: tuple[tuple[Path, ...], ...]
    true_category: tuple[tuple[Path, ...], ...]
    store: Store


@dataclass(frozen=True)
class _Product:
    """One product before its texts are written."""

    shelf: int
    brand: str
    noun: str
    flavour: str
    size: str
    organic: bool
    diet: str


def fill_shelves(num_products: int, num_days: int, seed: int) -> Products:
    """Draws the products. The same arguments give the same store.

    Args:
        num_products: Products in all; below about 2,200 the store keeps fewer shelves, recipes' first.
        num_days: Length of the year in days, for launches.
        seed: Seed.
    """
    rng = np.random.default_rng([seed, 1])
    shelves = _shelves_kept(num_products, rng)
    drawn: list[_Product] = []
    for number, count in enumerate(_products_per_shelf(shelves, num_products, rng)):
        drawn += _products_of_shelf(number, shelves[number], int(count), rng)
    # Random ids, so that an item's number says nothing of its shelf, popularity or launch.
    item_id = np.sort(rng.choice(9_000_000, len(drawn), replace=False) + 1_000_000)
    drawn = [drawn[row] for row in rng.permutation(len(drawn))]
    columns = _texts(shelves, drawn, rng)
    columns["item_id"] = np.array([f"P{number}" for number in item_id], object)
    true_category = _true_paths(shelves, drawn, rng)
    category = _with_mistakes(shelves, drawn, true_category, rng)
    return Products(columns, category, true_category, _store(shelves, drawn, num_days, rng))


def _shelves_kept(num_products: int, rng: np.random.Generator) -> list[Shelf]:
    """All shelves; in a tiny store about one for eight products, those of whole recipes first."""
    shelves = words.read_shelves()
    recipes = [recipe.split(",") for _, _, recipe in words.RECIPES]
    names = [name for row in rng.permutation(len(recipes)) for name in recipes[row]]
    wanted = list(dict.fromkeys(names + [str(name) for name in rng.permutation([s.path[-1] for s in shelves])]))
    kept = set(wanted[: max(8, num_products // 8)])
    return [shelf for shelf in shelves if shelf.path[-1] in kept]


def _products_per_shelf(shelves: list[Shelf], num_products: int, rng: np.random.Generator) -> np.ndarray:
    """(S,) int64 summing to num_products: uneven, and `*` shelves huge, as shelves are."""
    weight = np.exp(rng.normal(0, 0.5, len(shelves)))
    weight *= np.array([10.0 if "*" in shelf.marks else 1.0 for shelf in shelves])
    share = weight / weight.sum() * (num_products - len(shelves))
    count = 1 + np.floor(share).astype(np.int64)
    count[np.argsort(-(share % 1))[: num_products - count.sum()]] += 1
    return count


def _products_of_shelf(number: int, shelf: Shelf, count: int, rng: np.random.Generator) -> list[_Product]:
    """Draws brand lines, each in several flavours, until the shelf is full; no product twice."""
    department = words.BRANDS[shelf.path[0]].split(",")
    # A few brands stand on each shelf, the first of them on most of its width.
    num_brands = min(len(department), int(rng.integers(4, 8)) + count // 20)
    brands = [*rng.permutation(department)[:num_brands], str(rng.choice(words.OWN_LABELS.split(",")))]
    brand_share = 1 / np.arange(1, len(brands) + 1)
    edible = shelf.path[0] not in ("Household", "Pets") and not shelf.path[0].startswith("Health")
    drawn: dict[tuple[str, ...], _Product] = {}
    while len(drawn) < count:
        brand = str(rng.choice(brands, p=brand_share / brand_share.sum()))
        noun = str(rng.choice(shelf.nouns))
        organic = bool(edible and rng.random() < 0.15)
        diet = _diet_claim(shelf, edible, rng)
        flavours = rng.permutation(shelf.flavours)[: rng.geometric(0.3)] if shelf.flavours else [""]
        for flavour in flavours[: count - len(drawn)]:
            size = str(rng.choice(shelf.sizes))
            product = _Product(number, brand, noun, str(flavour), size, organic, diet)
            drawn[(brand, noun, str(flavour), size, str(organic), diet)] = product
    return list(drawn.values())


def _diet_claim(shelf: Shelf, edible: bool, rng: np.random.Generator) -> str:
    """A product may be the free-from version of its shelf, and then says so in its title."""
    draw = rng.random()
    if edible and "g" in shelf.marks and draw < 0.1:
        return "gluten-free"
    if edible and shelf.marks & {"d", "e"} and not shelf.marks & {"m", "f"} and draw > 0.92:
        return "vegan"
    return ""


# ---- texts ---------------------------------------------------------------------------------------------------


def _texts(shelves: list[Shelf], drawn: list[_Product], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Titles and descriptions of uneven quality, as feeds of many suppliers are: some bare, some empty."""
    rows = []
    for product in drawn:
        bare = rng.random() < 0.07
        rows.append(
            {
                "title": product.noun if bare else _title(product, sized=rng.random() < 0.7),
                "brand": None if rng.random() < 0.04 else product.brand,
                "description": _description(shelves[product.shelf], product, rng),
                "size": product.size,
                "flavour": product.flavour or None,
                "tags": ", ".join(_tags(shelves[product.shelf], product)) or None,
            }
        )
    return {name: np.array([row[name] for row in rows], object) for name in rows[0]}


def _title(product: _Product, sized: bool) -> str:
    before = [product.diet.title(), "Organic" if product.organic else ""]
    flavour = product.flavour
    # "Tuna Chunks in Olive Oil", but "Strawberry Greek Yogurt".
    inside = [product.noun, flavour] if flavour.startswith("in ") else [flavour, product.noun]
    name = " ".join(part for part in [product.brand, *before, *map(_capitalised, inside)] if part)
    return f"{name}, {product.size}" if sized else name


def _capitalised(text: str) -> str:
    return " ".join(
        word if word in ("and", "in", "with") else word[:1].upper() + word[1:] for word in text.split()
    )


def _description(shelf: Shelf, product: _Product, rng: np.random.Generator) -> str | None:
    quality = rng.random()
    name = f"{product.flavour} {product.noun}".strip()
    if quality < 0.2:
        return None
    if quality < 0.4:
        return f"{name[:1].upper()}{name[1:]}."
    uses = words.USES[shelf.path[0]].split("|")
    sentences = [f"{'organic ' if product.organic else ''}{name} from {product.brand}."]
    sentences += [str(use) for use in rng.permutation(uses)[: rng.integers(1, 3)]]
    if product.diet:
        sentences.append(f"Suitable for a {product.diet} diet.")
    if quality > 0.75:
        sentences.insert(int(rng.integers(0, 2)), str(rng.choice(words.COPY.split("|"))))
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)


def _tags(shelf: Shelf, product: _Product) -> list[str]:
    tags = ["organic"] if product.organic else []
    tags += [diet for diet in DIETS if not _unfit(shelf, product, diet) and _is_food(shelf)]
    return tags + [name for mark, name in NEEDS.items() if mark in shelf.marks]


def _is_food(shelf: Shelf) -> bool:
    return shelf.path[0] not in ("Household", "Pets", "Health, Beauty & Baby")


def _unfit(shelf: Shelf, product: _Product, diet: str) -> bool:
    forbidden = {"vegetarian": "mf", "vegan": "mfde", "gluten-free": "g", "dairy-free": "d"}[diet]
    freed = {"": "", "vegan": "de", "gluten-free": "g"}[product.diet]
    return bool((shelf.marks & set(forbidden)) - set(freed))


# ---- categories ----------------------------------------------------------------------------------------------


def _true_paths(
    shelves: list[Shelf], drawn: list[_Product], rng: np.random.Generator
) -> tuple[tuple[Path, ...], ...]:
    """Every product's path; where a real shop lists a shelf twice, a third of its products has two."""
    second = dict(words.SECOND_PATHS)
    paths = []
    for product in drawn:
        path = shelves[product.shelf].path
        twice = path[-1] in second and rng.random() < 0.33
        paths.append((path, second[path[-1]]) if twice else (path,))
    return tuple(paths)


def _with_mistakes(
    shelves: list[Shelf],
    drawn: list[_Product],
    true_category: tuple[tuple[Path, ...], ...],
    rng: np.random.Generator,
) -> tuple[tuple[Path, ...], ...]:
    """The catalog's own column: 2 % of products on a wrong shelf, 1 % on none.

    Half the mistakes stay in the department (a neighbour's shelf), half land anywhere.
    """
    category = list(true_category)
    order = rng.permutation([row for row, paths in enumerate(category) if len(paths) == 1])
    num_wrong, num_missing = round(0.02 * len(drawn)), round(0.01 * len(drawn))
    for row in order[:num_wrong]:
        own = shelves[drawn[row].shelf].path
        others = [shelf.path for shelf in shelves if shelf.path != own]
        near = [path for path in others if path[0] == own[0]]
        pool = near if near and rng.random() < 0.5 else others
        category[row] = (pool[rng.integers(len(pool))],)
    for row in order[num_wrong : num_wrong + num_missing]:
        category[row] = ()
    return tuple(category)


# ---- what shoppers feel --------------------------------------------------------------------------------------


def _store(shelves: list[Shelf], drawn: list[_Product], num_days: int, rng: np.random.Generator) -> Store:
    shelf = np.array([product.shelf for product in drawn])
    department = _numbered([one.path[0] for one in shelves])
    aisle = _numbered([one.path[:2] for one in shelves])
    brand = _numbered([product.brand for product in drawn])
    flavour = _numbered([product.flavour for product in drawn])
    no_flavour = np.array([product.flavour == "" for product in drawn])
    recipe, recipe_month = _recipes(shelves)
    need = [next((number for number, mark in enumerate(NEEDS) if mark in one.marks), -1) for one in shelves]
    return Store(
        shelf=shelf,
        aisle=aisle[shelf],
        department=department[shelf],
        line=_numbered(list(zip(shelf, brand, strict=True))),
        brand=brand,
        flavour=np.where(no_flavour, -1, flavour),
        organic=np.array([product.organic for product in drawn]),
        unfit=np.array([[_unfit(shelves[p.shelf], p, diet) for diet in DIETS] for p in drawn]),
        need=np.array(need)[shelf],
        appeal=_appeal(shelves, shelf, rng),
        # Instacart 2017's public notebooks give the share of purchases that are reorders: dairy .67 and
        # produce .65 down to pantry .35 and personal care .32. Two levels are enough here.
        repeat_rate=np.where(np.array(["p" in one.marks for one in shelves])[shelf], 1.0, 0.4),
        launch_day=_launch_days(len(drawn), num_days, rng),
        shelf_taste=_tree_tastes(department, aisle, rng),
        brand_taste=rng.normal(size=(brand.max() + 1, NUM_TASTES)),
        flavour_taste=rng.normal(size=(flavour.max() + 1, NUM_TASTES)),
        season_peak=_peak_day([one.peak_month for one in shelves]),
        season_height=np.where([one.peak_month > 0 for one in shelves], 0.8, 0.0),
        recipe=recipe,
        recipe_peak=_peak_day(recipe_month),
        recipe_height=np.where(np.array(recipe_month) > 0, 0.8, 0.0),
    )


def _numbered(keys: list) -> np.ndarray:
    """(n,) int64 number of each key, by first appearance."""
    number: dict = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], np.int64)


def _peak_day(month: list[int]) -> np.ndarray:
    return (np.array(month, float) - 0.5) * 365 / 12


def _appeal(shelves: list[Shelf], shelf: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) float64 log share: department x shelf (lognormal) x product (Zipf within the shelf)."""
    # Zipf exponent measured over the Instacart slice: 0.74 on ranks 10 to 1,000, 0.88 on 10 to 5,000.
    weight = np.empty(len(shelf))
    for number, share in enumerate(np.exp(rng.normal(0, 0.6, len(shelves)))):
        rows = rng.permutation(np.flatnonzero(shelf == number))
        zipf = np.arange(1, len(rows) + 1) ** -0.9
        weight[rows] = share * zipf / zipf.sum()
    names = [one.path[0] for one in shelves]
    for name in dict.fromkeys(names):
        rows = np.isin(shelf, [number for number, other in enumerate(names) if other == name])
        weight[rows] *= words.DEPARTMENT_SHARE[name] / weight[rows].sum()
    return np.log(weight)


def _launch_days(num_products: int, num_days: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) int64: a fifth of the range is launched during the year, evenly; the rest is there on day 0."""
    new = rng.random(num_products) < 0.2
    return np.where(new, rng.integers(num_days // 12, max(num_days, 2), num_products), 0)


def _tree_tastes(department: np.ndarray, aisle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, K) float64: near shelves please the same people, so that the tree says something of taste."""
    by_department = rng.normal(size=(department.max() + 1, NUM_TASTES))[department]
    by_aisle = rng.normal(size=(aisle.max() + 1, NUM_TASTES))[aisle]
    own = rng.normal(size=(len(department), NUM_TASTES))
    return np.sqrt(0.25) * by_department + np.sqrt(0.35) * by_aisle + np.sqrt(0.4) * own


def _recipes(shelves: list[Shelf]) -> tuple[np.ndarray, list[int]]:
    """(R, W) shelves of the recipes that at least two kept shelves serve, and their months."""
    number = {shelf.path[-1]: row for row, shelf in enumerate(shelves)}
    rows, months = [], []
    for _, month, names in words.RECIPES:
        found = [number[name] for name in names.split(",") if name in number]
        if len(found) >= 2:
            rows.append(found)
            months.append(month)
    width = max((len(row) for row in rows), default=1)
    return np.array([row + [-1] * (width - len(row)) for row in rows]).reshape(-1, width), months
