from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pressmark.dual_tower import index as index_module
from pressmark.dual_tower.config import Kind
from pressmark.dual_tower.index import ItemIndex
from pressmark.interactions.histories import Histories
from pressmark.recommender import Requests, allowed_items, top_k

pytest.importorskip("faiss")


def test_equal_to_brute_force() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((500, 16)).astype(np.float32)
    queries = rng.standard_normal((60, 16)).astype(np.float32)
    histories = Histories.from_lists([rng.integers(0, 500, size).tolist() for size in range(60)])
    mask = rng.random(500) < 0.3
    index = ItemIndex(embeddings)
    for name, allowed in ((None, None), ("some", mask)):
        expected = top_k(
            queries @ embeddings.T, allowed_items({"some": mask}, Requests(histories, name), 500), 20
        )
        found = index.search(queries, 20, histories, allowed)
        np.testing.assert_array_equal(found.item_index, expected.item_index)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_go_to_the_lower_item(data: st.DataObject) -> None:
    """Small whole numbers: products are exact, and most of them tie, also with items not fetched at first."""
    num_items = data.draw(st.integers(1, 40))
    values = st.lists(st.integers(-1, 1), min_size=num_items * 2, max_size=num_items * 2)
    embeddings = np.array(data.draw(values), np.float32).reshape(num_items, 2)
    queries = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(-1, 1)] * 2), min_size=1, max_size=4)), np.float32
    )
    item = st.integers(0, num_items - 1)
    histories = Histories.from_lists([data.draw(st.lists(item, max_size=6)) for _ in queries])
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=num_items, max_size=num_items)), bool)
    k = data.draw(st.integers(1, num_items + 3))
    requests = Requests(histories, "some")
    expected = top_k(queries @ embeddings.T, allowed_items({"some": allowed}, requests, num_items), k)
    found = ItemIndex(embeddings).search(queries, k, histories, allowed)
    np.testing.assert_array_equal(found.item_index, expected.item_index)
    np.testing.assert_array_equal(found.num_valid, expected.num_valid)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_approximate_index_finds_nearly_all(kind: Kind, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 16))
    embeddings = (centres[rng.integers(0, 40, 4000)] + 0.4 * rng.standard_normal((4000, 16))).astype(np.float32)
    index = ItemIndex(embeddings, kind)
    assert index.kind == kind
    assert index.recall_at(10, embeddings[:200]) > 0.97
    index.save(tmp_path / "index.faiss")
    loaded = ItemIndex.load(tmp_path / "index.faiss", embeddings)
    assert loaded.kind == kind
    queries = embeddings[:20]
    mask = rng.random(4000) < 0.5
    histories = Histories.from_lists([[row] for row in range(20)])
    one, other = (each.search(queries, 10, histories, mask) for each in (index, loaded))
    np.testing.assert_array_equal(one.item_index, other.item_index)
    assert (one.num_valid == 10).all()
    assert mask[one.item_index].all()
    assert not (one.item_index == np.arange(20)[:, None]).any()
    loaded.add(queries[:1] * 2)
    assert loaded.search(queries[:1], 1).item_index.tolist() == [[4000]]


def test_large_catalogs_get_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "FLAT_ITEMS", 100)
    rng = np.random.default_rng(0)
    assert ItemIndex(rng.standard_normal((100, 4)).astype(np.float32)).kind == "flat"
    assert ItemIndex(rng.standard_normal((101, 4)).astype(np.float32)).kind == "ivf"


def test_saved_and_loaded(tmp_path: Path) -> None:
    embeddings = np.eye(4, dtype=np.float32)
    ItemIndex(embeddings).save(tmp_path / "index.faiss")
    loaded = ItemIndex.load(tmp_path / "index.faiss", embeddings)
    assert loaded.search(embeddings[2:3], 1).item_index.tolist() == [[2]]
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]


@pytest.mark.parametrize(
    "other", [np.eye(4, dtype=np.float32)[::-1], np.eye(5, 4, dtype=np.float32), np.ones((4, 5))]
)
def test_an_index_of_another_model_is_refused(tmp_path: Path, other: np.ndarray) -> None:
    ItemIndex(np.eye(4, dtype=np.float32)).save(tmp_path / "index.faiss")
    with pytest.raises(ValueError, match=r"index\.faiss.*another model"):
        ItemIndex.load(tmp_path / "index.faiss", other.astype(np.float32))


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a FAISS index"):
        ItemIndex.load(tmp_path / "index.faiss", np.eye(2, dtype=np.float32))


def test_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="item_index 1"):
        ItemIndex(np.array([[0.0], [np.nan]], np.float32))


def test_without_faiss_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pressmark\[cpu\]"):
        ItemIndex(np.eye(2, dtype=np.float32))
