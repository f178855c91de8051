from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.catalog.items import Catalog
from pressmark.catalog.lexicon import Lexicon, learn_lexicon, read_words, words_in

TEXTS = ["Oat milk, 1 l", "oat MILK vanilla", "Oat bar", "Milk bar oat", "rice"]


def test_words_are_distinct_and_in_their_order() -> None:
    assert words_in("Café-Crème 2x café") == ["café", "crème", "2x"]
    assert words_in(" -- ") == []


def test_a_lexicon_by_hand() -> None:
    found = learn_lexicon(TEXTS)
    assert found.words == ("oat", "milk")  # `bar` stands in two texts alone
    np.testing.assert_allclose(found.rarity, [0, np.log(6 / 5) + 1, np.log(6 / 4) + 1], rtol=1e-6)
    rows = found.rows(["Milk? oat milk", "rice bar", ""], 3)
    assert rows.dtype == np.int32
    assert rows.tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.rows(["milk oat"], 1).tolist() == [[2]]


def test_only_what_may_be_fitted_on_is_learnt() -> None:
    names = np.array(["p0", "p1", "p2", "p3"], object)
    catalog = Catalog(names, np.array(["oat x"] * 3 + ["oat x rye"], object), np.full(4, "", object), ((),) * 4)
    lexicon, rows = read_words(catalog, np.array([True, True, True, False]), 3)
    assert lexicon.words == ("oat", "x")
    assert rows.tolist() == [[1, 2, 0]] * 4


def test_equally_common_words_stand_in_one_order() -> None:
    assert learn_lexicon(["b a"] * 3).words == learn_lexicon(["a b"] * 3).words == ("a", "b")


@pytest.mark.parametrize("texts", [[], ["", " "], ["a", "b"]])
def test_no_common_word_is_an_empty_lexicon(texts: list[str]) -> None:
    found = learn_lexicon(texts)
    assert found.words == ()
    assert found.rows(["a"], 2).tolist() == [[0, 0]]


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = learn_lexicon(TEXTS)
    found.save(tmp_path)
    again = Lexicon.load(tmp_path, len(found.words))
    assert again.words == found.words
    np.testing.assert_array_equal(again.rarity, found.rarity)


@pytest.mark.parametrize("broken", ['{"words": ["a"]}', '{"words": ["a"], "rarity": []}', "[1]", "{"])
def test_a_broken_file_is_refused(tmp_path: Path, broken: str) -> None:
    (tmp_path / "words.json").write_text(broken)
    with pytest.raises(ValueError, match=r"words\.json"):
        Lexicon.load(tmp_path, 1)
