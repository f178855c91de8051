"""A generator that reads the words of texts beside their vectors."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.brands import COLD, EACH, HISTORIES, NAMES, NUM_ITEMS, catalog_of, of_own_brand, prepared
from tests.generator.models import TINY, random_table

from pressmark.catalog.embeddings import item_texts
from pressmark.catalog.items import write_catalog
from pressmark.catalog.lexicon import Lexicon
from pressmark.files import read_json, read_tensors
from pressmark.generator.config import Config
from pressmark.generator.recommend import load_generator
from pressmark.generator.train import WORD_VECTORS, train
from pressmark.interactions.histories import Histories
from pressmark.interactions.split_files import read_split, write_split
from pressmark.recommender import Requests
from pressmark.sids.codebooks import codebook_fingerprint, write_codebooks
from pressmark.sids.table import write_sids
from pressmark.training.config import TrainingConfig

torch.set_num_threads(1)

BOOKS = [np.random.default_rng(level).normal(size=(12, 5)).astype(np.float32) for level in range(2)]
TABLE = dataclasses.replace(
    random_table(0, NUM_ITEMS, (12, 12), shared=True), codebook_fingerprint=codebook_fingerprint(BOOKS)
)


def config(**changes: object) -> Config:
    model = dataclasses.replace(
        TINY,
        num_layers=1,
        dropout=0.0,
        history_input="causal",
        normalizer="trie",
        identity_dropout=0.9,
        words=3,
        word_dropout=0.0,
    )
    training = TrainingConfig(
        learning_rate=1e-2, num_epochs=12, batch_size=64, patience=0, mixed_precision="no", log_with=""
    )
    return Config(**{"model": model, "history_length": 4, "beam": 20, "training": training, **changes})


def tokenized(folder: Path) -> Path:
    """The shop with SIDs, which say nothing of brands either."""
    prepared(folder)
    write_sids(folder / "tokenizer" / "sids.parquet", TABLE, NAMES)
    write_codebooks(folder / "tokenizer" / "codebooks.safetensors", BOOKS)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tokenized(tmp_path_factory.mktemp("words"))
    train(folder, config(), seed=0)
    return folder


def share_of_own_brand(folder: Path) -> float:
    """Of the unbought products that the item head puts first, the share of the history's brand."""
    model = load_generator(folder, device="cpu")
    scores = model.shoppers(HISTORIES) @ model.item_vectors.T
    return of_own_brand(scores.masked_fill(torch.from_numpy(~COLD), -torch.inf).topk(2).indices.numpy())


def test_what_histories_say_of_a_word_holds_for_products_that_nobody_has_bought(
    run: Path, tmp_path: Path
) -> None:
    assert share_of_own_brand(run) > 0.8
    without = tokenized(tmp_path)
    train(without, config(model=dataclasses.replace(config().model, words=0)), seed=0)
    assert not (without / "generator" / "words.json").exists()
    assert share_of_own_brand(without) < 0.6


def test_a_product_that_comes_later_is_read_as_any_other(run: Path) -> None:
    own = catalog_of()
    vectors = read_tensors(run / "vectors.safetensors")["vectors"].numpy()
    # The same product once more: it has all that the first has but an identity, which an unbought one has not.
    copied = EACH - 1
    text, sid = item_texts(own)[copied], TABLE.sids[copied : copied + 1]
    model = load_generator(run, device="cpu")
    found = model.insert(sid, vectors=vectors[copied : copied + 1], texts=[text])
    asked = Requests(Histories.from_lists([[0, 1]]))
    answer = model.recommend(asked, NUM_ITEMS)
    row = dict(zip(answer.item_index[0].tolist(), answer.scores[0].tolist(), strict=True))
    assert row[int(found[0])] == pytest.approx(row[copied], abs=1e-5)
    with pytest.raises(ValueError, match="reads words: give the texts of the 1 products"):
        model.insert(sid, vectors=vectors[:1])
    # On loading too.
    names, codes = np.append(NAMES, "q0"), np.concatenate([TABLE.sids, sid])
    write_sids(run / "tokenizer" / "sids.parquet", dataclasses.replace(TABLE, sids=codes), names)
    given = {"item_id": names, "appended_vectors": vectors[copied : copied + 1]}
    loaded = load_generator(run, device="cpu", **given, appended_texts=[text]).recommend(asked, NUM_ITEMS)  # type: ignore[arg-type]
    np.testing.assert_allclose(loaded.scores, answer.scores, atol=1e-5)
    with pytest.raises(ValueError, match="reads words"):
        load_generator(run, device="cpu", **given)  # type: ignore[arg-type]
    write_sids(run / "tokenizer" / "sids.parquet", TABLE, NAMES)


def test_words_go_on_from_where_they_were(run: Path, tmp_path: Path) -> None:
    """Tomorrow's texts have other words, and those that stay stand elsewhere."""
    tomorrow, earlier = tokenized(tmp_path / "tomorrow"), tmp_path / "earlier"
    shutil.copytree(run, earlier)
    changed = catalog_of()
    titles = changed.title.copy()
    titles[:EACH] = [f"new thing{one} new" for one in range(EACH)]  # brand0 is gone
    write_catalog(tomorrow / "data" / "items.parquet", dataclasses.replace(changed, title=titles))
    split = read_split(run / "data", catalog_of())
    write_split(tomorrow / "data", split, dataclasses.replace(changed, title=titles))
    still = dataclasses.replace(config().training, num_epochs=1, max_steps=1, learning_rate=1e-9)
    train(tomorrow, config(training=still, init_from=str(earlier)), seed=1)
    words = [read_json(one / "generator" / "words.json")["words"] for one in (earlier, tomorrow)]
    before, now = (
        read_tensors(one / "generator" / "model.safetensors")[WORD_VECTORS] for one in (earlier, tomorrow)
    )
    row = {word: number for number, word in enumerate(words[0], 1)}
    assert set(words[1]) - set(row) == {"new"}
    assert words[1] != words[0]
    for number, word in enumerate(words[1], 1):
        expected = before[row[word]] if word in row else torch.zeros(before.shape[1])
        torch.testing.assert_close(now[number], expected, atol=1e-6, rtol=0)
    assert before[1:].abs().sum(1).min() > 0
    # Words may come or go between the two.
    for width in (0, 3):
        shutil.rmtree(tomorrow / "training")
        model = dataclasses.replace(config().model, words=width)
        train(tomorrow, config(model=model, training=still, init_from=str(earlier)), seed=1)
        assert (WORD_VECTORS in read_tensors(tomorrow / "generator" / "model.safetensors")) == (width > 0)
        shutil.rmtree(earlier / "generator")
        shutil.copytree(tomorrow / "generator", earlier / "generator")


def test_missing_or_other_words_are_refused(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    path = folder / "generator" / "words.json"
    Lexicon(("one",), np.ones(2, np.float32)).save(path.parent)
    with pytest.raises(ValueError, match=r"it holds 1 words, the model reads \d+"):
        load_generator(folder, device="cpu")
    path.unlink()
    with pytest.raises(ValueError, match=r"words\.json is missing"):
        load_generator(folder, device="cpu")


@pytest.mark.parametrize(
    "changes", [{"words": -1}, {"word_dropout": 1.0}, {"word_dropout": -0.1}, {"word_rate": 0.0}]
)
def test_bad_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"generator\.model\.words"):
        dataclasses.replace(TINY, **changes)
