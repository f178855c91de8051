from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pressmark.baselines.content_neighbours import ContentNeighbours
from pressmark.catalog.embeddings import unit_rows
from pressmark.dual_tower.towers import DualTower, DualTowerConfig
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests

RNG = np.random.default_rng(0)


def vectors(num: int = 50, dim: int = 12, dead: int = 3) -> np.ndarray:
    """Content vectors whose last dimensions are dead, as MiniLM's are."""
    out = RNG.standard_normal((num, dim)).astype(np.float32)
    out[:, dim - dead :] = 0.037
    return out


def new_model(rows: np.ndarray, **changes: float) -> DualTower:
    torch.manual_seed(0)
    shape = {"dim": 12, "hidden_dim": 16, "user_dim": 8, "history_length": 5, **changes}
    model = DualTower(DualTowerConfig(vector_dim=rows.shape[1], num_items=len(rows), **shape)).eval()
    model.item_tower.start_from(rows)
    return model


def test_both_towers_give_unit_vectors_of_finite_numbers() -> None:
    rows = vectors()
    model = new_model(rows)
    items = model.embed_items(rows)
    users = model.embed_users(Histories.from_lists([[], [1], list(range(20)), [7, 7]]), items)
    assert items.shape == (50, 12)
    assert users.shape == (4, 12)
    assert items.dtype == users.dtype == torch.float32
    torch.testing.assert_close(items.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(users.norm(dim=1), torch.ones(4))


def test_untrained_item_tower_keeps_centred_cosines() -> None:
    rows = vectors()
    items = new_model(rows).embed_items(rows).numpy()
    centred = unit_rows(rows - rows.mean(axis=0))
    np.testing.assert_allclose(items @ items.T, centred @ centred.T, atol=1e-5)


def test_fewer_axes_keep_the_widest_spread() -> None:
    rows = RNG.standard_normal((60, 4)).astype(np.float32) * np.array([0.01, 3, 0.01, 5], np.float32)
    weight = new_model(rows, dim=2).item_tower.projection.weight.detach().numpy()
    np.testing.assert_allclose(np.abs(weight), [[0, 0, 0, 1], [0, 1, 0, 0]], atol=0.05)
    assert (weight[np.arange(2), np.abs(weight).argmax(axis=1)] > 0).all()


def test_a_space_wider_than_the_vectors() -> None:
    rows = vectors(dim=4, dead=1)
    assert new_model(rows, dim=9).embed_items(rows).isfinite().all()


def test_equal_vectors_everywhere_are_finite() -> None:
    rows = np.ones((5, 4), np.float32)
    assert new_model(rows, dim=3).embed_items(rows).isfinite().all()


def test_untrained_dual_tower_recommends_like_content_neighbours() -> None:
    rows = vectors()
    model = new_model(rows)
    users = model.embed_users(Histories.from_lists([[4], [9, 9, 4]]), model.embed_items(rows))
    neighbours = ContentNeighbours(unit_rows(rows - rows.mean(axis=0)), np.zeros(50, np.float32), 0.0)
    expected = neighbours.recommend(Requests(Histories.from_lists([[4]]), mask_history=False), 8)
    scores = users @ model.embed_items(rows).T
    assert scores[0].topk(8).indices.tolist() == expected.item_index[0].tolist()
    # The newest item weighs 1, those before it 1/e and 1/e^2.
    items = model.embed_items(rows)
    mean = items[4] + items[9] * (np.exp(-1) + np.exp(-2))
    torch.testing.assert_close(users[1], torch.nn.functional.normalize(mean, dim=0))


def moved(model: DualTower) -> DualTower:
    """The same with every weight moved, so that the transformer has a say."""
    with torch.no_grad():
        for one in model.parameters():
            one.add_(torch.randn_like(one) * 0.3)
    return model


def test_padding_and_company_do_not_matter_but_order_does() -> None:
    rows = vectors()
    model = moved(new_model(rows))
    items = model.embed_items(rows)
    together = model.embed_users(Histories.from_lists([[1, 2], [], [3, 4, 5, 6]]), items)
    alone = model.embed_users(Histories.from_lists([[1, 2]]), items)
    turned = model.embed_users(Histories.from_lists([[2, 1]]), items)
    torch.testing.assert_close(together[:1], alone)
    assert (alone - turned).abs().max() > 1e-3


def test_only_the_newest_items_are_read() -> None:
    rows = vectors()
    model = moved(new_model(rows))
    items = model.embed_items(rows)
    long = model.embed_users(Histories.from_lists([[40, 41, 1, 2, 3, 4, 5]]), items)
    short = model.embed_users(Histories.from_lists([[1, 2, 3, 4, 5]]), items)
    torch.testing.assert_close(long, short)


def test_an_empty_history_has_the_learned_vector_and_trains_it() -> None:
    rows = vectors()
    model = new_model(rows).train()
    history, lengths = torch.tensor([[-1, -1], [2, -1]]), torch.tensor([0, 1])
    out = model(torch.from_numpy(rows[:3]), torch.arange(3), history, lengths, torch.tensor([0, 1]))
    expected = torch.nn.functional.normalize(model.user_tower.empty, dim=0)
    torch.testing.assert_close(out.users[0], expected)
    (out.users * torch.arange(12.0)).sum().backward()
    for name, one in model.named_parameters():
        assert one.grad is not None, name
        assert one.grad.isfinite().all(), name
    assert model.user_tower.empty.grad.abs().sum() > 0


def test_training_and_recommending_encode_alike() -> None:
    rows = vectors()
    model = moved(new_model(rows))
    histories = Histories.from_lists([[3, 8], [11]])
    four = torch.tensor([3, 8, 11, 30])
    out = model(
        torch.from_numpy(rows)[four],
        four,
        torch.tensor([[0, 1], [2, -1]]),
        torch.tensor([2, 1]),
        torch.tensor([3, 3]),
    )
    items = model.embed_items(rows)
    torch.testing.assert_close(out.users, model.embed_users(histories, items))
    torch.testing.assert_close(out.targets, items[[30, 30]])


def test_saved_and_loaded(tmp_path: Path) -> None:
    rows = vectors()
    model = moved(new_model(rows, hidden_dim=0))
    model.hold_items(rows)
    model.save_pretrained(tmp_path)
    loaded = DualTower.from_pretrained(tmp_path)
    assert loaded.config.holds_items
    assert torch.equal(loaded.item_embeddings, model.embed_items(rows))
    for (name, one), (_, other) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_vectors_of_another_width_or_catalog_are_refused() -> None:
    for wrong in (vectors(dim=11), vectors(num=49)):
        with pytest.raises(ValueError, match=r"\(50, 12\)"):
            new_model(vectors()).embed_items(wrong)


def test_the_identity_is_dropped_in_training_and_never_else() -> None:
    rows, item_index = torch.from_numpy(vectors(400)), torch.arange(400)
    tower = new_model(rows.numpy(), hidden_dim=0, identity_dropout=0.5).item_tower
    text = tower(rows, item_index)
    with torch.no_grad():
        tower.identity.weight.fill_(0.5)
    whole = tower(rows, item_index)
    assert ((whole - text).abs().amax(dim=1) > 1e-3).all()
    trained = tower.train()(rows, item_index)
    dropped, kept = ((trained - one).abs().amax(dim=1) < 1e-6 for one in (text, whole))
    assert (dropped ^ kept).all()
    assert 150 < dropped.sum() < 250


def test_without_identities_an_item_is_its_text() -> None:
    rows = vectors()
    rows[8] = rows[30]
    model = moved(new_model(rows, identity_dropout=1))
    items = model.embed_items(rows)
    assert torch.equal(items[8], items[30])
    assert not [name for name, _ in model.named_parameters() if "identity" in name]
