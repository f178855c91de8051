from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from tests.contract.recommender_contract import check_recommender
from tests.generator.models import TINY, facts_of, random_model, random_table

from pressmark.baselines import bm25
from pressmark.dual_tower.index import ItemIndex
from pressmark.dual_tower.recommend import DualTowerRecommender
from pressmark.dual_tower.towers import DualTower, DualTowerConfig
from pressmark.files import write_tensors
from pressmark.generator.recommend import GeneratorRecommender
from pressmark.hybrid.experts import Experts, nearest_that_sell
from pressmark.hybrid.fusion import Fusion, hidden_items
from pressmark.hybrid.recommend import HybridRecommender, parts_of
from pressmark.hybrid.transitions import count_transitions
from pressmark.interactions.histories import Histories
from pressmark.load import LOADERS
from pressmark.recommender import Requests

pytest.importorskip("faiss")

TABLE = random_table(13, 40, (4, 5, 3))
NUM_ITEMS = len(TABLE)
UNBOUGHT = np.arange(NUM_ITEMS) % 5 == 0
FUSION = Fusion((1.0, 0.1, 0.5, 0.3, 0.6, 0.2, -0.4), (0.2, 0.6, 0.3, 0.4, 0.5, 0.3, 0.2), (-2.0, 0.3, -0.3))


def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(NUM_ITEMS, 6)).astype(np.float32)


SOLD = np.flatnonzero(~UNBOUGHT)
TRAIN = Histories.from_lists([*np.random.default_rng(4).choice(SOLD, (60, 5)), SOLD])
TRENDS = np.random.default_rng(3).normal(size=(2, NUM_ITEMS)).astype(np.float32)


def experts() -> Experts:
    config = dataclasses.replace(TINY, history_input="causal", normalizer="trie")
    model = random_model(13, TABLE, config, vectors=vectors())
    generator = GeneratorRecommender(model, TABLE, facts=facts_of(model, vectors()))
    torch.manual_seed(0)
    tower = DualTower(
        DualTowerConfig(vector_dim=6, num_items=NUM_ITEMS, dim=5, hidden_dim=8, user_dim=8)
    ).eval()
    tower.item_tower.start_from(vectors())
    tower.hold_items(vectors())
    rng = np.random.default_rng(2)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 20, 5)) for _ in range(NUM_ITEMS)]
    words = bm25.fit(texts, ~UNBOUGHT, np.ones(NUM_ITEMS, np.float32), 0.5, bm25.Config())
    recommender = DualTowerRecommender(tower, ItemIndex(tower.item_embeddings.numpy()))
    near = nearest_that_sell(vectors(), UNBOUGHT)
    following = count_transitions(TRAIN, NUM_ITEMS, near)
    return Experts(generator, recommender, words, UNBOUGHT, near, following, TRENDS)


def test_contract() -> None:
    check_recommender(HybridRecommender(experts(), FUSION), NUM_ITEMS)


def test_the_experts_say_what_their_models_say() -> None:
    one, histories = experts(), Histories.from_lists([[3, 8], [], [0, 7, 7]])
    scores = one.scores(one.shoppers(histories))
    assert scores.shape == (7, 3, NUM_ITEMS)
    tower = one.dual_tower.recommend(Requests(histories, mask_history=False), NUM_ITEMS)
    np.testing.assert_allclose(
        np.take_along_axis(scores[2].numpy(), tower.item_index, 1), 10 * tower.scores, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(scores[3][[0, 2]].numpy(), one.bm25.scores(histories)[[0, 2]] / 10, rtol=1e-5)
    assert not scores[3][1].any()
    np.testing.assert_array_equal(scores[4].numpy(), one.transitions.scores(histories))
    through = scores[0].numpy() @ one.neighbours.T.toarray()
    np.testing.assert_allclose(scores[1].numpy(), through, rtol=1e-4, atol=1e-4)


def test_one_kind_of_items_is_scored_as_among_all() -> None:
    one = experts()
    shoppers = one.shoppers(Histories.from_lists([[3, 8], [], [0, 7, 7], [4]]))
    whole = one.scores(shoppers)
    new, sold = (one.scores(shoppers, kind) for kind in (True, False))
    torch.testing.assert_close(new, whole[:, :, torch.from_numpy(UNBOUGHT)])
    torch.testing.assert_close(sold, whole[:, :, torch.from_numpy(~UNBOUGHT)])
    for row in range(4):
        np.testing.assert_array_equal(sold[5:, row].numpy(), TRENDS[:, ~UNBOUGHT])
    some = one.scores(shoppers.take(np.array([3, 0])))
    torch.testing.assert_close(some, whole[:, [3, 0]])


def test_a_mixture_says_what_its_experts_say() -> None:
    one, histories = experts(), Histories.from_lists([[3, 8], [], [0, 7, 7], [4]])
    shoppers = one.shoppers(histories)
    expected = FUSION.mixed(one.scores(shoppers), torch.from_numpy(UNBOUGHT))
    found = one.mixture(FUSION.sold, FUSION.unbought).scores(shoppers)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    hidden = hidden_items(histories, NUM_ITEMS)
    joined = FUSION.join(one.scores(shoppers), torch.from_numpy(UNBOUGHT), hidden)
    answers = HybridRecommender(one, FUSION).scores(histories)
    np.testing.assert_allclose(answers, joined.numpy(), rtol=1e-5, atol=1e-5)


def test_the_nearest_of_a_history_speaks_for_what_nobody_bought() -> None:
    one, rows = experts(), [[3, 8], [], [7], [4, *[3] * 19, 8]]
    found = one.scores(one.shoppers(Histories.from_lists(rows)))[5:].numpy()
    found = found[:, :, UNBOUGHT]
    assert not found[:, 1].any()
    tower, weights = one.dual_tower.index.embeddings, one.bm25.weights.toarray()
    likeness = np.stack([10 * tower @ tower.T, one.bm25.words.toarray() @ weights.T / 10])
    for row in (0, 2):
        expected = likeness[:, rows[row]].max(axis=1)[:, UNBOUGHT]
        np.testing.assert_allclose(found[:, row], expected, rtol=1e-4, atol=1e-5)
    # Of a long history the newest twenty: what is older is not seen.
    np.testing.assert_allclose(found[:, 3], found[:, 0], rtol=1e-5)


def test_neighbours_are_the_nearest_that_sell() -> None:
    found = nearest_that_sell(vectors(), UNBOUGHT).toarray()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert not found[:, UNBOUGHT].any()
    assert not found.diagonal().any()
    unit = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    cosines = np.where(UNBOUGHT, -np.inf, unit @ unit.T)
    np.fill_diagonal(cosines, -np.inf)
    assert (found.argmax(1) == cosines.argmax(1)).all()
    assert ((found > 0).sum(1) == 10).all()
    assert nearest_that_sell(vectors(), np.ones(NUM_ITEMS, bool)).nnz == 0


def test_products_without_text_or_with_one_text_cost_no_more() -> None:
    plain = vectors()
    plain[3] = 0
    plain[8:25] = plain[8]
    found = nearest_that_sell(plain, UNBOUGHT).toarray()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert ((found > 0).sum(1) == 10).all()


def test_what_is_absent_takes_no_probability() -> None:
    absent = np.zeros(NUM_ITEMS, bool)
    absent[[5, 6]] = True
    one = HybridRecommender(experts(), FUSION, absent)
    chance = np.exp(one.scores(Histories.from_lists([[1], []])))
    chance[0, 1] = 0
    np.testing.assert_allclose(chance[:, ~absent].sum(1), 1, rtol=1e-4)


def test_models_of_other_catalogs_are_refused() -> None:
    one = experts()
    with pytest.raises(ValueError, match="it needs one catalog"):
        dataclasses.replace(one, unbought=UNBOUGHT[:-1])
    larger = count_transitions(TRAIN, NUM_ITEMS + 1, csr_matrix((NUM_ITEMS + 1,) * 2, dtype=np.float32))
    with pytest.raises(ValueError, match="it needs one catalog"):
        dataclasses.replace(one, transitions=larger)


def test_a_generator_without_an_item_head_is_refused() -> None:
    plain = random_model(13, TABLE, dataclasses.replace(TINY, history_input="tokens"))
    with pytest.raises(ValueError, match="no item head"):
        dataclasses.replace(experts(), generator=GeneratorRecommender(plain, TABLE))


def test_parts_that_are_missing_or_cut_off_are_named(tmp_path: Path) -> None:
    write_tensors(tmp_path / "generator" / "model.safetensors", {"x": np.zeros(9)})
    with pytest.raises(ValueError, match=r"dual_tower.model\.safetensors is missing: train the dual_tower"):
        parts_of(tmp_path)
    write_tensors(tmp_path / "dual_tower" / "model.safetensors", {"x": np.zeros(9)})
    assert list(parts_of(tmp_path)) == ["generator", "dual_tower"]
    for name in ("dual_tower", "generator"):
        path = tmp_path / name / "model.safetensors"
        path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(ValueError, match=f"{name}.model.safetensors: .*cut off"):
            LOADERS[name](tmp_path)
        with pytest.raises(ValueError, match=f"{name}.model.safetensors: .*cut off"):
            parts_of(tmp_path)
