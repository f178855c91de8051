from __future__ import annotations

import numpy as np
import pytest

from pressmark.catalog.items import Catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.insight.terms.mining import Config, mine_terms, places_of

CONFIG = Config(min_titles=3)


def catalog_of(*rows: tuple[str, str, str]) -> Catalog:
    title, brand, leaf = (np.array(column, object) for column in zip(*rows, strict=True))
    category = tuple(((("Shop", one),) if one else ()) for one in leaf)
    return Catalog(np.arange(len(rows)).astype(str).astype(object), title, brand, category)


ROWS = [
    ("Acme Gentle Oat Shampoo, 200 ml", "Acme", "Hair"),
    ("Bree Gentle Dry Shampoo", "Bree", "Hair"),
    ("Crow Gentle Shampoo for Dogs", "Crow", "Hair"),
    ("Acme Red Nail Polish", "Acme", "Nails"),
    ("Bree Gentle Nail Polish, 9 ml", "Bree", "Nails"),
    ("Crow Nail-Polish", "Crow", "Nails"),
    ("Zed Glow Zedwonder", "Zed", "Nails"),
    ("Zed Dark Zedwonder", "Zed", "Nails"),
    ("Zed Light Zedwonder", "Zed", "Nails"),
]


def mined(rows: list[tuple[str, str, str]], config: Config = CONFIG) -> list[str]:
    catalog = catalog_of(*rows)
    places = places_of(build_taxonomy(catalog.category), np.zeros((len(rows), 2), np.int64))
    return mine_terms(catalog, places, np.ones(len(rows), bool), config)


def test_terms_are_heads_of_one_place_and_of_several_brands() -> None:
    # gentle: never a head; zedwonder: one brand; polish and nail: parts of nail polish.
    assert mined(ROWS) == ["nail polish", "shampoo"]


def test_a_part_that_is_said_alone_as_well_stays() -> None:
    rows = [*ROWS, *(("Dee Polish", "Dee", "Nails"), ("Eve Polish", "Eve", "Nails"))]
    assert mined(rows) == ["polish", "nail polish", "shampoo"]


def test_only_what_may_be_looked_at_counts() -> None:
    catalog = catalog_of(*ROWS)
    seen = np.arange(len(ROWS)) < 3
    assert mine_terms(catalog, np.zeros(len(ROWS), np.int64), seen, CONFIG) == ["shampoo"]


def test_without_categories_first_codes_are_the_places() -> None:
    bare = [(title, brand, "") for title, brand, _ in ROWS]
    catalog = catalog_of(*bare)
    sids = np.array([[0, 5]] * 3 + [[1, 5]] * 6)
    places = places_of(build_taxonomy(catalog.category), sids)
    assert places.tolist() == [0] * 3 + [1] * 6
    assert mine_terms(catalog, places, np.ones(9, bool), CONFIG) == ["nail polish", "shampoo"]


def test_no_term_says_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"no product term in the titles of 9 items.*--min-titles.*--vocabulary"
    ):
        mined(ROWS, Config(min_titles=50))
    with pytest.raises(ValueError, match="no product term"):
        mined([("", "", "")] * 4)
