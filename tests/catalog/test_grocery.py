from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from pressmark.catalog import grocery_words as words
from pressmark.catalog.grocery import FIRST_DAY, Config, Truth, read_truth, write_grocery
from pressmark.catalog.grocery_products import DIETS, Products, fill_shelves
from pressmark.catalog.items import Columns, load_items

TINY = Config(num_products=240, num_shoppers=60, months=4, seed=3)
FILES = ("items.parquet", "interactions.parquet", "csv/items.csv", "csv/interactions.csv", "truth.parquet")


@pytest.fixture(scope="module")
def products() -> Products:
    return fill_shelves(4000, 365, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole range of products, a twentieth of the shoppers."""
    folder = tmp_path_factory.mktemp("grocery")
    write_grocery(folder, Config(num_shoppers=300))
    return folder


@pytest.fixture(scope="module")
def truth(folder: Path) -> Truth:
    return read_truth(folder)


def _basket(truth: Truth) -> np.ndarray:
    return truth.purchases.shopper * 1000 + truth.purchases.day


# ---- words ---------------------------------------------------------------------------------------------------


def test_recipes_and_second_paths_name_shelves_once() -> None:
    names = Counter(shelf.path[-1] for shelf in words.read_shelves())
    for recipe, month, shelves in words.RECIPES:
        assert 0 <= month <= 12
        listed = shelves.split(",")
        assert len(set(listed)) == len(listed) >= 2, recipe
        assert all(names[name] == 1 for name in listed), recipe
    for name, path in words.SECOND_PATHS:
        assert names[name] == 1
        assert len(path) == 3


def test_most_recipes_cross_departments() -> None:
    department = {shelf.path[-1]: shelf.path[0] for shelf in words.read_shelves()}
    crossing = [len({department[name] for name in row.split(",")}) > 1 for _, _, row in words.RECIPES]
    assert np.mean(crossing) > 0.8
    cheese_board = next(row for name, _, row in words.RECIPES if name == "cheese board").split(",")
    assert {"Olives", "Crackers for Cheese", "Red Wine"} < set(cheese_board)


def test_every_department_has_its_words() -> None:
    departments = {shelf.path[0] for shelf in words.read_shelves()}
    assert departments == set(words.BRANDS) == set(words.USES) == set(words.DEPARTMENT_SHARE)
    assert sum(words.DEPARTMENT_SHARE.values()) == pytest.approx(1)


# ---- products ------------------------------------------------------------------------------------------------


def test_the_tree_is_three_levels_ragged_and_uneven(products: Products) -> None:
    true_paths = [paths[0] for paths in products.true_category]
    leaves = Counter(true_paths)
    assert len(true_paths) == 4000
    assert 11 <= len({path[0] for path in true_paths}) <= 14
    assert 60 <= len({path[:2] for path in true_paths}) <= 100
    assert 200 <= len(leaves) <= 300
    assert Counter(map(len, leaves))[2] >= 5  # aisles that are leaves
    assert set(map(len, leaves)) == {2, 3}
    assert max(leaves.values()) > 8 * np.median(list(leaves.values()))
    children = Counter(path[:2] for path in leaves if len(path) == 3)
    assert sum(count == 1 for count in children.values()) >= 2


def test_some_products_have_two_paths_none_or_a_wrong_one(products: Products) -> None:
    pairs = list(zip(products.category, products.true_category, strict=True))
    assert sum(not given for given, _ in pairs) == 40
    assert sum(bool(given) and given != true for given, true in pairs) == 80  # 2 %
    assert 30 <= sum(len(given) == 2 for given, _ in pairs) <= 150
    assert all(len(true) in (1, 2) for _, true in pairs)
    wrong = [(given[0], true[0]) for given, true in pairs if given and given != true]
    assert 20 <= sum(given[0] == true[0] for given, true in wrong) <= 60  # near and far mistakes


def test_texts_are_of_uneven_quality(products: Products) -> None:
    columns = products.columns
    nouns = {noun for shelf in words.read_shelves() for noun in shelf.nouns}
    assert 0.05 < np.mean([title in nouns for title in columns["title"]]) < 0.09
    assert all(columns["title"])
    assert 0.02 < np.mean([brand is None for brand in columns["brand"]]) < 0.06
    assert 0.17 < np.mean([text is None for text in columns["description"]]) < 0.23
    assert len(set(columns["title"])) > 0.9 * 4000
    assert "organic" in " ".join(filter(None, columns["tags"]))


def test_titles_say_what_shoppers_go_by(products: Products) -> None:
    full = [row for row, title in enumerate(products.columns["title"]) if title[0].isupper()]
    flavour, title = products.columns["flavour"], products.columns["title"]
    assert all(flavour[row] is None or flavour[row].lower() in title[row].lower() for row in full)
    organic = [row for row in full if products.store.organic[row]]
    assert organic
    assert all(" Organic " in title[row] for row in organic)


def test_item_ids_say_nothing(products: Products) -> None:
    item_id = products.columns["item_id"].tolist()
    assert item_id == sorted(set(item_id))
    rank = np.arange(4000)
    store = products.store
    for value in (store.appeal, store.launch_day, store.shelf):
        assert abs(np.corrcoef(rank, value)[0, 1]) < 0.05


@pytest.mark.parametrize("num_products", [40, 241, 1000])
def test_small_stores_have_the_products_asked_for_and_recipes(num_products: int) -> None:
    small = fill_shelves(num_products, 100, 1)
    assert len(small.category) == num_products
    assert len(small.store.recipe) >= 1
    assert (small.store.recipe >= 0).sum(axis=1).min() >= 2
    assert small.store.shelf.max() + 1 == len(small.store.shelf_taste)


# ---- shopping ------------------------------------------------------------------------------------------------


def test_the_default_has_100_to_200_thousand_interactions(truth: Truth) -> None:
    per_shopper = len(truth.purchases.item) / len(truth.user_id)
    assert 100_000 < per_shopper * Config().num_shoppers < 200_000


def test_baskets_are_as_cited(truth: Truth) -> None:
    size = np.unique(_basket(truth), return_counts=True)[1]
    assert size.mean() == pytest.approx(truth.habits.mean_basket_size, rel=0.1)
    assert 0.65 < size.std() / size.mean() < 1.0  # Instacart slice .75
    assert len(size) / len(truth.user_id) == pytest.approx(truth.habits.mean_baskets, rel=0.15)


def test_popularity_is_long_tailed(truth: Truth) -> None:
    count = np.sort(np.bincount(truth.purchases.item, minlength=4000))[::-1]
    assert 0.55 < count[:800].sum() / count.sum() < 0.80  # .64 in the slice's 4,000 best sellers
    assert 0.02 < count[:10].sum() / count.sum() < 0.10


def test_a_moderate_share_is_bought_again(truth: Truth) -> None:
    pairs = truth.purchases.shopper * 4000 + truth.purchases.item
    assert 0.12 < 1 - len(np.unique(pairs)) / len(pairs) < 0.30


def test_neighbours_in_a_basket_share_aisles_more_often_than_by_chance(truth: Truth) -> None:
    same_basket = np.diff(_basket(truth)) == 0
    aisle = truth.store.aisle[truth.purchases.item]
    together = (np.diff(aisle) == 0)[same_basket].mean()
    chance = ((np.bincount(aisle) / len(aisle)) ** 2).sum()
    assert 0.12 < together < 0.24  # .15 in the slice
    assert together > 3 * chance


def test_order_within_baskets_leaks_nothing(truth: Truth) -> None:
    same_basket = np.diff(_basket(truth)) == 0
    for value in (truth.purchases.item, truth.store.launch_day[truth.purchases.item]):
        step = np.diff(value)[same_basket]
        assert abs((step > 0).mean() - (step < 0).mean()) < 0.03


def test_nothing_is_bought_twice_in_a_basket_or_before_its_launch(truth: Truth) -> None:
    bought = truth.purchases
    keys = _basket(truth) * 4000 + bought.item
    assert len(np.unique(keys)) == len(keys)
    assert (bought.day >= truth.store.launch_day[bought.item]).all()
    late = truth.store.launch_day > 0
    assert 0.15 < late.mean() < 0.25
    assert late[bought.item].sum() > 100


def test_diets_households_and_loyalty_show(truth: Truth) -> None:
    store, shoppers, bought = truth.store, truth.shoppers, truth.purchases
    vegan = DIETS.index("vegan")
    strict = shoppers.diet[bought.shopper] == vegan
    unfit = store.unfit[bought.item, vegan]
    assert unfit[strict].mean() < 0.5 * unfit[~strict].mean()
    for number in range(shoppers.needs.shape[1]):
        needed = store.need[bought.item] == number
        has = shoppers.needs[bought.shopper, number]
        assert needed[has].mean() > 2.5 * needed[~has].mean()
    favourite = shoppers.favourite[bought.shopper, store.department[bought.item]]
    loyal = favourite >= 0
    rotated = np.roll(favourite, 1000)  # somebody else's favourite, as chance
    assert (favourite == store.brand[bought.item])[loyal].mean() > 2 * (rotated == store.brand[bought.item])[
        rotated >= 0
    ].mean()


def test_seasons_show(truth: Truth) -> None:
    store, bought = truth.store, truth.purchases
    summer_shelf = (store.season_height > 0) & (abs(store.season_peak - 6.5 * 365 / 12) < 1)
    is_summer_item = summer_shelf[store.shelf[bought.item]]
    warm_half = (bought.day > 100) & (bought.day < 290)
    assert is_summer_item[warm_half].mean() > 1.3 * is_summer_item[~warm_half].mean()


# ---- files ---------------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    write_grocery(tmp_path / "a", TINY)
    write_grocery(tmp_path / "b", TINY)
    write_grocery(tmp_path / "c", dataclasses.replace(TINY, seed=4))
    names = (*FILES, "truth.safetensors", "truth.json", "grocery.json")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes(), name


def test_a_second_call_writes_only_what_changed(tmp_path: Path) -> None:
    write_grocery(tmp_path, TINY)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in FILES}
    write_grocery(tmp_path, TINY)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in FILES} == before
    (tmp_path / "truth.parquet").unlink()
    write_grocery(tmp_path, TINY)
    assert (tmp_path / "truth.parquet").exists()
    write_grocery(tmp_path, dataclasses.replace(TINY, num_products=250))
    assert pq.read_metadata(tmp_path / "items.parquet").num_rows == 250


def test_a_killed_rewrite_is_not_taken_for_a_whole_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_grocery(tmp_path, TINY)
    with monkeypatch.context() as patch:
        patch.setattr("pressmark.catalog.grocery._write_truth", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_grocery(tmp_path, dataclasses.replace(TINY, num_products=250))
    write_grocery(tmp_path, TINY)
    assert pq.read_metadata(tmp_path / "items.parquet").num_rows == 240


def test_only_the_truth_file_knows_true_categories(folder: Path) -> None:
    names = set(pq.read_schema(folder / "items.parquet").names)
    assert names == {"item_id", "title", "brand", "category", "description", "size", "flavour", "tags"}
    assert pq.read_schema(folder / "truth.parquet").names == ["item_id", "true_category"]
    assert set(pq.read_schema(folder / "interactions.parquet").names) == {
        "user_id",
        "item_id",
        "timestamp",
        "position",
    }


def test_the_tables_are_valid_data(folder: Path, truth: Truth) -> None:
    columns = Columns(text=("description", "size", "flavour", "tags"))
    catalog, counts = load_items(folder, columns)
    assert len(catalog) == 4000
    assert catalog.item_id.tolist() == truth.item_id.tolist()
    assert counts["items_without_title"] == counts["items_duplicate_id"] == counts["items_empty_segment"] == 0
    log = pq.read_table(folder / "interactions.parquet").sort_by(
        [("user_id", "ascending"), ("position", "ascending")]
    )
    time, position = log["timestamp"].to_numpy(), log["position"].to_numpy()
    first = np.flatnonzero(position == 0)
    assert len(first) == len(set(log["user_id"].to_pylist())) == 300
    starts_user = np.zeros(len(time), bool)
    starts_user[first] = True
    assert (np.diff(position)[~starts_user[1:]] == 1).all()
    assert (np.diff(time)[~starts_user[1:]] >= 0).all()
    assert FIRST_DAY <= time.min() < time.max() < FIRST_DAY + 365 * 86_400


def test_the_csv_twin_says_the_same(folder: Path) -> None:
    columns = Columns(text=("description", "size", "flavour", "tags"))
    assert load_items(folder, columns)[0].fingerprint == load_items(folder / "csv", columns)[0].fingerprint
    as_written = pacsv.ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})
    log = pacsv.read_csv(folder / "csv/interactions.csv", convert_options=as_written)
    assert log.equals(pq.read_table(folder / "interactions.parquet"))


def test_truth_reads_back(truth: Truth, products: Products) -> None:
    for field in dataclasses.fields(products.store):
        np.testing.assert_array_equal(getattr(truth.store, field.name), getattr(products.store, field.name))
    assert truth.true_category == products.true_category
    assert truth.habits.diet_share == (0.08, 0.04, 0.06, 0.04)


def test_a_folder_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"truth\.json"):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("num_products", 39), ("num_products", 10_001), ("num_shoppers", 0), ("months", 0)]
)
def test_config_limits(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"grocery\.{name} is {value}"):
        Config(**{name: value})
