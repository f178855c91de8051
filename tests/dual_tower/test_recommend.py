from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.contract.recommender_contract import check_recommender

from pressmark.dual_tower import recommend
from pressmark.dual_tower.index import ItemIndex
from pressmark.dual_tower.recommend import DualTowerRecommender, load_dual_tower
from pressmark.dual_tower.towers import DualTower, DualTowerConfig
from pressmark.dual_tower.train import save
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests

pytest.importorskip("faiss")

NUM_ITEMS = 60


def content(seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((NUM_ITEMS, 8)).astype(np.float32)
    vectors[[5, 33]] = vectors[20]  # the same text three times
    vectors[7] = 0
    return vectors


def new_model(seed: int = 0) -> DualTower:
    torch.manual_seed(seed)
    config = DualTowerConfig(
        vector_dim=8, num_items=NUM_ITEMS, dim=6, hidden_dim=8, user_dim=8, history_length=20
    )
    model = DualTower(config).eval()
    model.item_tower.start_from(content())
    with torch.no_grad():
        for one in model.parameters():
            one.add_(torch.randn_like(one) * 0.2)
    return model


def recommender() -> DualTowerRecommender:
    model = new_model()
    model.hold_items(content())
    return DualTowerRecommender(model, ItemIndex(model.item_embeddings.numpy()))


def test_contract() -> None:
    check_recommender(recommender(), NUM_ITEMS)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recommender()
    requests = Requests(Histories.from_lists([list(range(size)) for size in range(9)]))
    whole = model.recommend(requests, 5)
    monkeypatch.setattr(recommend, "REQUESTS_AT_ONCE", 4)
    chunked = model.recommend(requests, 5)
    np.testing.assert_array_equal(whole.item_index, chunked.item_index)
    np.testing.assert_allclose(whole.scores, chunked.scores, rtol=1e-5)


def test_a_saved_dual_tower_answers_alike_without_any_other_file(tmp_path: Path) -> None:
    before = recommender()
    save(tmp_path / "dual_tower", new_model(), content(), {"best": 0.5})
    names = {path.name for path in (tmp_path / "dual_tower").iterdir()}
    assert names == {"config.json", "model.safetensors", "index.faiss", "metrics.json"}
    after = load_dual_tower(tmp_path)
    requests = Requests(Histories.from_lists([[], [4, 9], list(range(30))]))
    one, other = before.recommend(requests, 10), after.recommend(requests, 10)
    np.testing.assert_array_equal(one.item_index, other.item_index)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_a_missing_index_is_built(tmp_path: Path) -> None:
    save(tmp_path / "dual_tower", new_model(), content(), {})
    (tmp_path / "dual_tower" / "index.faiss").unlink()
    assert load_dual_tower(tmp_path).num_items == NUM_ITEMS


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        save(tmp_path / str(seed) / "dual_tower", new_model(seed), content(), {})
    index = "dual_tower/index.faiss"
    (tmp_path / "0" / index).write_bytes((tmp_path / "1" / index).read_bytes())
    with pytest.raises(ValueError, match="another model"):
        load_dual_tower(tmp_path / "0")


def test_a_run_without_a_dual_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dual_tower"):
        load_dual_tower(tmp_path)


def test_a_model_without_its_items_is_refused(tmp_path: Path) -> None:
    new_model().save_pretrained(tmp_path / "dual_tower")
    with pytest.raises(ValueError, match="holds_items"):
        load_dual_tower(tmp_path)


def test_products_come_and_go_without_a_new_index() -> None:
    shop, fresh = recommender(), content(3)[:4]
    shop.filters["some"] = np.arange(NUM_ITEMS) < 30
    inner = shop.index._index
    found = shop.insert(fresh, {"some": np.array([True, False, True, False])})
    assert shop.index._index is inner
    assert found.tolist() == list(range(NUM_ITEMS, NUM_ITEMS + 4))
    assert shop.num_items == len(shop.index) == len(shop.filters["some"]) == NUM_ITEMS + 4
    assert np.flatnonzero(shop.filters["some"]).tolist() == [*range(30), NUM_ITEMS, NUM_ITEMS + 2]
    check_recommender(shop, NUM_ITEMS + 4)
    # A product's twin in text, without an identity of its own, stands where the tower puts the text.
    twin = shop.insert(content()[[3]])
    text = shop.model.embed_new(content()[[3]]).numpy()
    np.testing.assert_array_equal(shop.index.embeddings[twin], text)
    # It is read in histories too.
    before = shop.users(Histories.from_lists([[2]]))
    assert not np.allclose(before, shop.users(Histories.from_lists([[2, int(twin[0])]])))
    everything = Requests(Histories.from_lists([[]]))
    shop.withdraw(np.array([4, NUM_ITEMS + 1]))
    assert not {4, NUM_ITEMS + 1} & set(shop.recommend(everything, 99).item_index[0].tolist())
    shop.restore(np.array([4]))
    assert 4 in shop.recommend(everything, 99).item_index[0]


@pytest.mark.parametrize("unknown", [[-1], [NUM_ITEMS]])
def test_an_unknown_item_is_not_withdrawn(unknown: list[int]) -> None:
    shop = recommender()
    with pytest.raises(ValueError, match="item_index must lie in"):
        shop.withdraw(unknown)
    with pytest.raises(ValueError, match="item_index must lie in"):
        shop.restore(unknown)


@pytest.mark.parametrize(
    ("passes", "message"),
    [({"sum": np.ones(2, bool)}, "'sum' is not registered"), ({"some": np.ones(1, bool)}, "shape \\(1,\\)")],
)
def test_a_filter_that_does_not_fit_new_products_is_refused(
    passes: dict[str, np.ndarray], message: str
) -> None:
    shop = recommender()
    shop.filters["some"] = np.ones(NUM_ITEMS, bool)
    with pytest.raises(ValueError, match=message):
        shop.insert(content(3)[:2], passes)
    assert len(shop.index) == len(shop.filters["some"]) == NUM_ITEMS


@pytest.mark.parametrize("wrong", [np.zeros((2, 7)), np.full((2, 8), np.nan)])
def test_new_products_of_another_kind_are_refused(wrong: np.ndarray) -> None:
    shop = recommender()
    with pytest.raises(ValueError, match="vector"):
        shop.insert(wrong)
    assert shop.num_items == NUM_ITEMS
