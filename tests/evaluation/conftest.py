"""A small store, and a recommender that needs no training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pressmark.catalog.items import Catalog
from pressmark.evaluation.config import Config
from pressmark.evaluation.harness import evaluate
from pressmark.interactions.cases import Cases, Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import write_split
from pressmark.recommender import Recommendations, Requests, allowed_items, check_request, top_k

NUM_ITEMS, NUM_CASES, NUM_COLD = 130, 240, 20


@dataclass
class FakeRecommender:
    """Scores an item by a fixed random affinity to the last item of the history."""

    affinity: np.ndarray
    unscored: np.ndarray | None = None
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    num_calls: int = 0
    users: list[str] = field(default_factory=list)

    @property
    def num_items(self) -> int:
        return len(self.affinity)

    def recommend(self, requests: Requests, k: int) -> Recommendations:
        check_request(self, requests, k)
        self.num_calls += 1
        self.users += [] if requests.user_id is None else requests.user_id.tolist()
        newest, lengths = requests.histories.newest(1)
        scores = self.affinity[np.where(lengths > 0, newest[:, 0], 0)]
        allowed = allowed_items(self.filters, requests, self.num_items)
        if self.unscored is not None:
            allowed = allowed & ~self.unscored
        return top_k(scores, allowed, k)


@dataclass(frozen=True)
class Store:
    """Everything that an evaluation takes."""

    catalog: Catalog
    split: Split
    vectors: np.ndarray
    affinity: np.ndarray

    def recommenders(self) -> dict[str, FakeRecommender]:
        """A fresh good one, a bad one, and one that knows few items and ties many."""
        noise = np.random.default_rng(9).normal(size=self.affinity.shape).astype(np.float32)
        few = np.arange(NUM_ITEMS) >= 70
        return {
            "generator": FakeRecommender(self.affinity),
            "popularity": FakeRecommender(noise),
            "dual_tower": FakeRecommender(np.round(self.affinity), unscored=few),
        }


@pytest.fixture(scope="session")
def store() -> Store:
    return make_store(seed=0)


@pytest.fixture(scope="session")
def other_store() -> Store:
    """The same catalog and users with other cold items."""
    return make_store(seed=1)


def make_store(seed: int) -> Store:
    rng = np.random.default_rng(42)
    affinity = rng.normal(size=(NUM_ITEMS, NUM_ITEMS)).astype(np.float32)
    vectors = rng.normal(size=(NUM_ITEMS, 8)).astype(np.float32)
    cold = np.zeros(NUM_ITEMS, bool)
    cold[np.random.default_rng(seed).choice(NUM_ITEMS, NUM_COLD, replace=False)] = True
    lengths = rng.integers(0, 26, NUM_CASES)
    lengths[0], lengths[1] = 0, 3
    lists = [rng.choice(np.flatnonzero(~cold), length) for length in lengths]
    best = np.argsort(-affinity, axis=1)
    target = np.array([best[row[-1] if len(row) else 0, rng.integers(0, 60)] for row in lists])
    # A case whose target is in its history, and a few cold targets whatever the seed.
    target[1] = lists[1][0]
    target[2:20] = rng.choice(np.flatnonzero(cold), 18)
    target[8] = target[7] = target[6]
    users = np.array([f"u{case}" for case in range(NUM_CASES)], object)
    test = Cases(np.arange(NUM_CASES) * 3 + 5, users, Histories.from_lists(lists), target, cold[target])
    train = Histories.from_lists([row for row in lists if len(row)])
    split = Split(
        train=train,
        train_user_id=users[lengths > 0],
        train_timestamp=np.full(len(train.values), np.nan),
        train_position=np.full(len(train.values), -1, np.int64),
        valid=test.take(np.arange(0)),
        test=test,
        cold=cold,
        fitted_on=~cold,
        counts={"split_protocol": "cold_items"},
    )
    return Store(make_catalog(), split, vectors, affinity)


def make_catalog() -> Catalog:
    item_id = np.array([f"i{item:03d}" for item in range(NUM_ITEMS)], object)
    brand = np.array([f"brand {item % 9}" if item % 5 else "" for item in range(NUM_ITEMS)], object)
    paths = [("food", f"aisle {item % 7}", f"shelf {item % 40}") for item in range(NUM_ITEMS)]
    category = tuple((path,) if item % 30 else () for item, path in enumerate(paths))
    return Catalog(item_id, item_id, brand, category)


SMALL = Config(num_resamples=200, batch_size=64)


@dataclass(frozen=True)
class Evaluated:
    """A run folder with its report."""

    run: Path
    report: dict[str, Any]


@pytest.fixture(scope="session")
def evaluated(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    run = tmp_path_factory.mktemp("run")
    write_split(run / "data", store.split, store.catalog)
    report = evaluate(
        run,
        store.recommenders(),
        store.catalog,
        store.split,
        store.vectors,
        SMALL,
        statement={"dataset": "tiny <i>& co</i>"},
        title="Tiny <script>alert(1)</script>",
    )
    return Evaluated(run, report)


@pytest.fixture(scope="session")
def small() -> Config:
    return SMALL


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take seconds; tests of anything else go without."""
    monkeypatch.setattr("pressmark.evaluation.page.render", lambda report: ("", {}))
