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
