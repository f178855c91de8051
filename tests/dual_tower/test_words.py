"""A tower that reads the words of a text beside its vector."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.brands import BRANDS, COLD, EACH, HISTORIES, NUM_ITEMS, of_own_brand, prepared
from tests.dual_tower.test_train import config
from torch.nn import functional as F

from pressmark.catalog.embeddings import item_texts, point_to_vectors
from pressmark.catalog.items import read_catalog, write_catalog
from pressmark.dual_tower.auxiliary import without_some
from pressmark.dual_tower.config import AuxiliaryConfig as Auxiliary
from pressmark.dual_tower.recommend import load_dual_tower
from pressmark.dual_tower.towers import with_words
from pressmark.dual_tower.train import train
from pressmark.files import read_json
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split, write_split
from pressmark.recommender import Requests
from pressmark.training.word_bag import WordBag

torch.set_num_threads(1)


def test_a_bag_by_hand() -> None:
    bag = WordBag(2, 3, dropout=0.0, rate=2.0)
    bag.start_from(np.array([0, 3, 4], np.float32))
    words = torch.tensor([[1, 2, 0], [2, 0, 0], [0, 0, 0]])
    assert not bag(words).any()
    with torch.no_grad():
        bag.vectors.weight[1:] = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    expected = [[1.2, 1.6, 0], [0, 2, 0], [0, 0, 0]]
    np.testing.assert_allclose(bag(words).detach().numpy(), expected, atol=1e-6)


def test_gradients_are_those_of_the_sums() -> None:
    rng = np.random.default_rng(0)
    bag = WordBag(9, 4, dropout=0.0).double()
    bag.start_from(np.append(0, rng.random(9) + 1))
    with torch.no_grad():
        bag.vectors.weight.copy_(torch.from_numpy(rng.standard_normal((10, 4))))
    words = torch.from_numpy(rng.integers(0, 10, (6, 5)))
    words[2] = 0
    outward = torch.from_numpy(rng.standard_normal((6, 4)))
    (bag(words) * outward).sum().backward()
    found = bag.vectors.weight.grad
    weights = bag.vectors.weight.detach().clone().requires_grad_()
    by_hand = F.normalize(bag.rarity[words], dim=1)[..., None] * weights[words]
    (by_hand.sum(1) * outward).sum().backward()
    assert found is not None
    torch.testing.assert_close(bag(words), by_hand.sum(1))
    torch.testing.assert_close(found, weights.grad)
    assert WordBag(3, 2, 0.0)(torch.zeros(0, 5, dtype=torch.int64)).shape == (0, 2)


def test_no_word_gets_no_gradient_and_none_is_nan() -> None:
    bag = WordBag(2, 3, dropout=0.5)
    bag.start_from(np.array([0, 1, 1], np.float32))
    bag(torch.tensor([[0, 0], [1, 0], [1, 2]])).sum().backward()
    gradient = bag.vectors.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert not gradient[0].any()


def test_words_are_passed_over_in_training_alone() -> None:
    torch.manual_seed(0)
    bag = WordBag(1, 1, dropout=0.5)
    bag.start_from(np.array([0, 1], np.float32))
    with torch.no_grad():
        bag.vectors.weight[1] = 1.0
    words = torch.ones(1000, 1, dtype=torch.int64)
    assert (bag(words) == 0).float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert bag(words).mean().item() == pytest.approx(1, abs=0.12)
    assert (bag.eval()(words) == 1).all()


def test_a_view_leaves_words_out_and_changes_none() -> None:
    torch.manual_seed(0)
    content = torch.from_numpy(with_words(np.ones((400, 3), np.float32), np.full((400, 2), 7, np.int32)))
    view = without_some(content, 0.25, words=2)
    assert set(view[:, 3:].unique().tolist()) == {0.0, 7.0}
    assert (view[:, 3:] == 0).float().mean().item() == pytest.approx(0.25, abs=0.06)
    np.testing.assert_allclose(view[:, :3].unique(), [0, 1 / 0.75], rtol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("words"))


def trained(folder: Path, **changes: object) -> None:
    """Trains a tower of these settings afresh."""
    shutil.rmtree(folder / "training", ignore_errors=True)
    train(folder, config(**changes), seed=0)


def share_of_own_brand(folder: Path) -> float:
    """Of the unbought products shown first, the share of the history's brand."""
    model = load_dual_tower(folder)
    model.filters["cold"] = COLD
    return of_own_brand(model.recommend(Requests(HISTORIES, "cold"), 2).item_index)


def test_what_histories_say_of_a_word_holds_for_products_that_nobody_has_bought(run: Path) -> None:
    pytest.importorskip("faiss")
    trained(run, words=4, word_dropout=0.0)
    assert share_of_own_brand(run) > 0.9
    folder = run / "dual_tower"
    assert read_json(folder / "words.json")["words"] == [
        "thing",
        *(f"brand{one}" for one in range(BRANDS)),
    ]

    # A product that comes later is read as any other; its vector has to be given as before.
    model = load_dual_tower(run)
    text = item_texts(read_catalog(run / "data" / "items.parquet"))[EACH - 1]
    vectors = np.zeros((2, 8), np.float32)
    found = model.insert(vectors, texts=[text, "brand3 thing"])
    assert found.tolist() == [NUM_ITEMS, NUM_ITEMS + 1]
    model.filters["new"] = np.arange(model.num_items) >= NUM_ITEMS
    asked = Histories.from_lists([[0, 1], [3 * EACH, 3 * EACH + 1]])
    assert model.recommend(Requests(asked, "new"), 1).item_index[:, 0].tolist() == found.tolist()
    with pytest.raises(ValueError, match="give the texts of the 2 new products"):
        model.insert(vectors)
    with pytest.raises(ValueError, match="width 8"):
        model.insert(vectors[:, :5], texts=["a", "b"])
    with pytest.raises(ValueError, match="reads content vectors, not text"):
        model.embed_texts(["brand3"])
    (folder / "words.json").unlink()
    with pytest.raises(ValueError, match=r"words\.json"):
        load_dual_tower(run)

    trained(run, words=0)
    assert not (folder / "words.json").exists()
    assert share_of_own_brand(run) < 0.6


def test_every_loss_trains_with_words(run: Path) -> None:
    auxiliary = Auxiliary(item_views=0.1, user_views=0.1, prototypes=0.1, graph=0.1, num_prototypes=8)
    training = dataclasses.replace(config().training, num_epochs=1)
    trained(run, words=4, auxiliary=auxiliary, queue=32, hard_negatives=2, training=training)
    assert load_dual_tower(run).model.config.words == 4


def test_texts_without_a_common_word_train(tmp_path: Path, run: Path) -> None:
    catalog = read_catalog(run / "data" / "items.parquet")
    split = read_split(run / "data", catalog)
    blank = dataclasses.replace(
        catalog, title=np.array([f"x{one}" for one in range(NUM_ITEMS)], object), category=((),) * NUM_ITEMS
    )
    write_catalog(tmp_path / "data" / "items.parquet", blank)
    write_split(tmp_path / "data", split, blank)
    (tmp_path / "vectors.safetensors").write_bytes((run / "vectors.safetensors").read_bytes())
    point_to_vectors(tmp_path, tmp_path / "vectors.safetensors")
    trained(tmp_path, words=4, training=dataclasses.replace(config().training, num_epochs=1))
    assert load_dual_tower(tmp_path).model.config.num_words == 0
