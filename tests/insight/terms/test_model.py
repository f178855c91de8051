from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.scripts import load_script

from pressmark.insight.terms.examples import mask_titles
from pressmark.insight.terms.model import Config, fit, load_model

TERMS = ["shampoo", "nail polish", "kibble", "leash"]
TITLES = [
    f"{brand} {word} {term}"
    for brand in ("Acme", "Bree", "Crow", "Dee", "Eve", "Finn")
    for term, word in (("shampoo", "oat"), ("shampoo", "dry"), ("nail polish", "red"), ("kibble", "puppy"))
]
CONFIG = Config(num_steps=60, num_epochs=1, batch_size=8)
VECTORS = {"shampoo": 0, "nail polish": 1, "kibble": 2, "leash": 3, "puppy": 2, "walk": 3}


def encode(texts: list[str]) -> np.ndarray:
    """A vector for each meaning, which a word that the model has never read can have."""
    found = np.zeros((len(texts), 4), np.float32)
    for row, text in enumerate(texts):
        for word, meaning in VECTORS.items():
            if word in text.lower():
                found[row, meaning] = 1
    return found


def fitted(config: Config = CONFIG):  # type: ignore[no-untyped-def]
    examples = mask_titles(TITLES, TERMS)
    return fit(TERMS, encode(TERMS), examples, encode(examples.text), config)


def best(model, title: str) -> str:  # type: ignore[no-untyped-def]
    return TERMS[int(model.predict([title], encode([title])).argmax())]


def test_finds_the_term_that_is_missing() -> None:
    model = fitted()
    assert [best(model, one) for one in ("Acme oat", "Gil red", "Gil puppy")] == [
        "shampoo",
        "nail polish",
        "kibble",
    ]
    chances = model.predict(["Acme oat", "Gil puppy"], encode(["Acme oat", "Gil puppy"]))
    assert chances.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_term_that_no_title_says_is_known_by_its_name() -> None:
    assert best(fitted(), "Gil walk") == "leash"


def test_the_same_again_and_from_disk(tmp_path: Path) -> None:
    one, other = fitted(), fitted()
    titles = ["Acme oat", "unknown words", ""]
    chances = one.predict(titles, encode(titles))
    assert np.array_equal(chances, other.predict(titles, encode(titles)))
    assert load_model(tmp_path, "x") is None
    one.save(tmp_path, "x")
    kept = load_model(tmp_path, "x")
    assert kept is not None
    assert kept.terms == TERMS
    assert np.array_equal(chances, kept.predict(titles, encode(titles)))
    assert load_model(tmp_path, "y") is None


def test_each_half_works_alone() -> None:
    assert (
        best(fitted(Config(num_steps=60, num_epochs=1, batch_size=8, use_words=False)), "Gil puppy") == "kibble"
    )
    examples = mask_titles(TITLES, TERMS)
    nothing = np.zeros((len(examples), 0), np.float32)
    words = fit(TERMS, np.zeros((4, 0), np.float32), examples, nothing, CONFIG)
    assert TERMS[int(words.predict(["Gil red"], np.zeros((1, 0), np.float32)).argmax())] == "nail polish"


def test_the_ranks_of_the_evaluation_by_hand() -> None:
    script = load_script("terms")
    asked = mask_titles(["Red Nail Polish with Shampoo"], TERMS)
    scores = np.array([[9.0, 1.0, 2.0, 1.0], [3.0, 9.0, 2.0, 1.0]])
    # The title's other term is no answer; an equal score counts before the target.
    asked_terms = [TERMS[one] for one in asked.term]
    assert asked_terms == ["shampoo", "nail polish"]
    assert script.ranks(scores[::-1], asked).tolist() == [1, 3]


def test_equal_titles_are_on_one_side_of_the_split() -> None:
    script = load_script("terms")
    titles = np.array([f"Title {one}" for one in range(300)] + [f"TITLE {one}" for one in range(300)], object)
    side = script.split_titles(titles, 1)
    assert np.array_equal(side[:300], side[300:])
    assert set(side) == {0, 1, 2}
    assert not np.array_equal(side, script.split_titles(titles, 2))
