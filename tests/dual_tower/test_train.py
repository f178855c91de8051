from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tests.cases import cases

from pressmark import distributed
from pressmark.baselines.content_neighbours import load_content_neighbours
from pressmark.baselines.popularity import load_popularity
from pressmark.catalog.embeddings import point_to_vectors
from pressmark.catalog.items import Catalog, write_catalog
from pressmark.dual_tower.config import Config
from pressmark.dual_tower.index import ItemIndex
from pressmark.dual_tower.learner import Learner
from pressmark.dual_tower.recommend import DualTowerRecommender, load_dual_tower
from pressmark.dual_tower.train import DualTowerTask, new_learner, new_model, ranks, train
from pressmark.files import read_json
from pressmark.interactions.cases import Split
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import write_split
from pressmark.metrics import rank_of_target
from pressmark.recommender import Requests
from pressmark.training.config import TrainingConfig

# Tensors this small only wait for each other on several threads.
torch.set_num_threads(1)

CPU = torch.device("cpu")
NUM_ITEMS = 40
NUM_BOUGHT = 36


def content(num_items: int = NUM_ITEMS) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_items, 8)).astype(np.float32)


def config(**changes: object) -> Config:
    training = TrainingConfig(
        learning_rate=5e-3, batch_size=16, num_epochs=12, patience=0, mixed_precision="no", log_with=""
    )
    small = {
        "dim": 8,
        "hidden_dim": 16,
        "user_dim": 8,
        "history_length": 4,
        "item_dropout": 0.0,
        "dropout": 0.0,
    }
    return Config(**{**small, "training": training, **changes})  # type: ignore[arg-type]


def learner(**changes: object) -> Learner:
    own = config(**changes)
    model = new_model(content(), np.ones(NUM_ITEMS, bool), own, 0)
    return new_learner(model, Histories.from_lists([[1, 2, 3], [2, 3]]), own).eval()  # type: ignore[return-value]


def task(lists: list[list[int]], **changes: object) -> DualTowerTask:
    return DualTowerTask(Histories.from_lists(lists), cases([], []), content(), config(**changes), seed=0)


def batches_of(size: int) -> TrainingConfig:
    return dataclasses.replace(config().training, batch_size=size)


def test_a_batch_by_hand() -> None:
    one = task([[5, 2, 5, 9, 8, 7], [3], [2, 6]])
    # Places in train.values: the second user's only purchase, the first one's last, the third one's last.
    batch = one.collate(np.array([6, 5, 8]), CPU)
    assert batch.target_index.tolist() == [3, 7, 6]
    assert batch.lengths.tolist() == [0, 4, 1]
    assert batch.history_index.tolist() == [[-1] * 4, [2, 5, 9, 8], [2, -1, -1, -1]]
    # Each distinct item once: 2 3 5 6 7 8 9; the last again and again up to a round number.
    assert batch.item_index.tolist() == [2, 3, 5, 6, 7, 8] + [9] * 58
    np.testing.assert_array_equal(batch.vectors.numpy(), content()[batch.item_index])
    assert batch.history.tolist() == [[-1] * 4, [0, 2, 6, 5], [0, -1, -1, -1]]
    assert batch.target.tolist() == [1, 4, 3]
    assert one.weight(batch) == 3


def test_a_batch_of_empty_histories() -> None:
    batch = task([[5, 2], [3, 1]]).collate(np.array([0, 2]), CPU)
    assert batch.history.tolist() == [[-1], [-1]]
    assert batch.lengths.tolist() == [0, 0]


def test_an_epoch_draws_every_prefix_once_and_its_share_of_first_purchases() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, NUM_ITEMS, size).tolist() for size in rng.integers(1, 9, 100)]
    one = task(lists, empty_share=0.1, training=batches_of(1))
    drawn = np.concatenate(one.plan(0))
    assert len(np.unique(drawn)) == len(drawn)
    assert set(one.later) <= set(drawn)
    assert len(drawn) == len(one.later) + round(0.1 * len(one.later))
    assert len(one.later) == sum(len(items) - 1 for items in lists)


def test_batches_are_of_one_size_and_differ_by_epoch_only() -> None:
    lists = [[1, 2, 3, 4]] * 30
    one, same = (task(lists, training=batches_of(16)) for _ in range(2))
    plans = [[batch.tolist() for batch in plan] for plan in (one.plan(0), same.plan(0), one.plan(1))]
    assert plans[0] == plans[1] != plans[2]
    assert {len(batch) for batch in plans[0]} == {16}
    assert len(plans[0]) == 5


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    assert [len(batch) for batch in task([[1, 2, 3]], empty_share=0, training=batches_of(16)).plan(0)] == [2]


def test_shares_are_those_of_the_samples_drawn() -> None:
    # 4 later purchases (1 1 1 2) and, with a share of 0.5, 2 of the 3 first ones (0 0 1).
    one = task([[0, 1, 1], [0, 1], [1, 2]], empty_share=0.5)
    expected = np.array([4 / 3, 3 + 2 / 3, 1]) / 6
    np.testing.assert_allclose(one.log_q[:3].exp().numpy(), expected, rtol=1e-6)


def test_two_shares_of_a_batch_have_the_loss_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two processes sees all candidates; tests/dual_tower/test_loss.py runs two real ones."""
    one = task([[1, 2, 3, 4], [2, 5, 6], [9, 1, 2]], history_negatives=False)
    model = learner()
    samples = np.array([1, 2, 3, 5, 6, 8, 9, 0])
    whole = one.collate(samples, CPU)
    expected, parts = one.loss(model, whole)
    assert parts.keys() == {"info_nce", "alignment"}
    everybody = model.tower.embed_items(content())
    total = 0.0
    for rank in range(2):
        order = np.concatenate([samples[0::2], samples[1::2]])
        gathered = {
            torch.float32: everybody[one.train.values[order]],
            torch.int64: torch.from_numpy(one.train.values[order]),
        }
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "gather_rows", lambda rows, g=gathered: g[rows.dtype])
        total += one.loss(model, one.collate(samples[rank::2], CPU))[0].item()
    assert total == pytest.approx(expected.item(), rel=1e-5)


def test_ranks_are_those_of_the_recommender() -> None:
    pytest.importorskip("faiss")
    vectors = content()
    vectors[[4, 11]] = vectors[30]
    model = new_model(vectors, np.ones(NUM_ITEMS, bool), config(), 0).eval()
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, NUM_ITEMS, size).tolist() for size in range(12)]
    asked = cases(histories, rng.integers(0, NUM_ITEMS, 12).tolist())
    found = ranks(model, vectors, asked)
    model.hold_items(vectors)
    recommender = DualTowerRecommender(model, ItemIndex(model.item_embeddings.numpy()))
    answer = recommender.recommend(Requests(asked.histories), NUM_ITEMS)
    assert found.tolist() == rank_of_target(answer.item_index, asked.target).tolist()
    in_history = [target in history for target, history in zip(asked.target, histories, strict=True)]
    assert (found == 0).tolist() == in_history


def test_ranks_of_a_model_with_nan_are_refused() -> None:
    vectors = content()
    model = new_model(vectors, np.ones(NUM_ITEMS, bool), config(), 0).eval()
    vectors[30] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        ranks(model, vectors, cases([[0], [1]], [2, 3]))


def pairs(num_users: int) -> list[list[int]]:
    """Item 2i is always followed by 2i + 1, whatever their content."""
    first = np.random.default_rng(0).integers(0, NUM_BOUGHT // 2, num_users) * 2
    return [[one, one + 1] for one in first.tolist()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared run with the pairs of items."""
    folder = tmp_path_factory.mktemp("run")
    names = np.array([f"p{one:02d}" for one in range(NUM_ITEMS)], object)
    catalog = Catalog(names, names, names, tuple(((("a", "b"),),) * NUM_ITEMS))
    train_ = Histories.from_lists(pairs(300))
    asked = cases([[one] for one in range(0, NUM_BOUGHT, 2)], list(range(1, NUM_BOUGHT, 2)))
    users = np.array([f"t{one:03d}" for one in range(300)], object)
    num = len(train_.values)
    everything = np.ones(NUM_ITEMS, bool)
    split = Split(
        train_, users, np.full(num, np.nan), np.arange(num), asked, asked, ~everything, everything, {}
    )
    write_catalog(folder / "data" / "items.parquet", catalog)
    write_split(folder / "data", split, catalog)
    save_file({"vectors": content()}, folder / "vectors.safetensors")
    point_to_vectors(folder, folder / "vectors.safetensors")
    return folder


def test_it_learns_what_content_cannot_know(run: Path) -> None:
    pytest.importorskip("faiss")
    train(run, config(), seed=0)
    record = read_json(run / "dual_tower" / "metrics.json")
    assert record["best"] > 0.9
    histories = Histories.from_lists([[one] for one in range(0, NUM_BOUGHT, 2)])
    answer = np.arange(1, NUM_BOUGHT, 2)
    tower = load_dual_tower(run)
    assert (tower.recommend(Requests(histories), 1).item_index[:, 0] == answer).mean() > 0.8
    neighbours = load_content_neighbours(run).recommend(Requests(histories), 1).item_index[:, 0]
    assert (neighbours == answer).mean() < 0.3
    # What was never bought is its text alone.
    identity = tower.model.item_tower.identity
    assert identity is not None
    moved = identity.weight.detach().abs().sum(dim=1) > 0
    assert moved.tolist() == [True] * NUM_BOUGHT + [False] * (NUM_ITEMS - NUM_BOUGHT)


def test_the_same_seed_gives_the_same_model(run: Path) -> None:
    quick = config(dropout=0.2, item_dropout=0.2, training=dataclasses.replace(config().training, num_epochs=1))
    weights = []
    for seed in (0, 0, 1):
        shutil.rmtree(run / "training", ignore_errors=True)
        train(run, quick, seed)
        weights.append((run / "dual_tower" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_baselines_load_from_a_run(run: Path) -> None:
    popularity = load_popularity(run)
    assert popularity.counts.sum() == 600
    assert load_content_neighbours(run).num_items == popularity.num_items == NUM_ITEMS


def test_no_validation_case_trains_to_the_end() -> None:
    assert task([[1, 2, 3]]).validate(learner()) == {}


def test_cold_validation_cases_are_told_apart() -> None:
    asked = dataclasses.replace(cases([[1], [2]], [3, 4]), cold=np.array([True, False]))
    one = DualTowerTask(Histories.from_lists([[1, 2, 3]]), asked, content(), config(), 0)
    found = one.validate(learner())
    assert found["recall_at_10"] == pytest.approx((found["recall_at_10_cold"] + found["recall_at_10_warm"]) / 2)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(ValueError, match="follow another one"):
        task([[1], [2]])


def test_a_batch_that_processes_cannot_share_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "num_processes", lambda: 3)
    with pytest.raises(ValueError, match=r"16.*multiple of the 3 processes"):
        train(run, config(), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"logq": 1.5}, "logq"),
        ({"empty_share": -0.1}, "empty_share"),
        ({"num_heads": 3}, "num_heads"),
        ({"identity_dropout": 2.0}, "identity_dropout"),
        ({"dropout": 1.0}, "dropout"),
        ({"dim": 0}, "dim"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"dual_tower.{message}"):
        config(**changes)
