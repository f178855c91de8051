"""A small shop whose shoppers keep to a brand, of which the vectors say nothing and the texts do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.cases import cases

from pressmark.catalog.embeddings import point_to_vectors
from pressmark.catalog.items import Catalog, write_catalog
from pressmark.files import write_tensors
from pressmark.interactions.cases import Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import write_split

BRANDS, EACH = 6, 8
NUM_ITEMS = BRANDS * EACH
NAMES = np.array([f"p{one:02d}" for one in range(NUM_ITEMS)], object)
COLD = np.arange(NUM_ITEMS) % EACH >= EACH - 2
"""Two products of each brand, bought by nobody."""
HISTORIES = Histories.from_lists([[EACH * brand, EACH * brand + 1] for brand in range(BRANDS)])
"""Two products of each brand."""


def catalog_of() -> Catalog:
    """Titles of a brand, a word of its own and one that all have."""
    titles = np.array([f"brand{one // EACH} thing{one} thing" for one in range(NUM_ITEMS)], object)
    none = np.array([""] * NUM_ITEMS, object)
    return Catalog(NAMES, titles, none, ((),) * NUM_ITEMS)


def prepared(folder: Path) -> Path:
    """The shop as a prepared run."""
    catalog, rng = catalog_of(), np.random.default_rng(0)
    own = [rng.permutation(EACH - 2)[:4] + EACH * rng.integers(BRANDS) for _ in range(300)]
    train = Histories.from_lists([one.tolist() for one in own])
    asked = cases([one[:2].tolist() for one in own[:40]], [int(one[2]) for one in own[:40]])
    users = np.array([f"t{one:03d}" for one in range(300)], object)
    num = len(train.values)
    split = Split(train, users, np.full(num, np.nan), np.arange(num), asked, asked, COLD, ~COLD, {})
    write_catalog(folder / "data" / "items.parquet", catalog)
    write_split(folder / "data", split, catalog)
    vectors = rng.standard_normal((NUM_ITEMS, 8)).astype(np.float32)
    write_tensors(folder / "vectors.safetensors", {"vectors": torch.from_numpy(vectors)})
    point_to_vectors(folder, folder / "vectors.safetensors")
    return folder


def of_own_brand(found: np.ndarray) -> float:
    """Of (BRANDS, n) products shown after HISTORIES, the share of that brand."""
    return float((found // EACH == np.arange(BRANDS)[:, None]).mean())
