from __future__ import annotations

import pytest

from pressmark.insight.terms.examples import mask_titles
from pressmark.insight.terms.matching import Match, Matcher, masked

TERMS = ["polish", "nail polish", "nail polish remover", "shampoo"]
SIGNS = ["Salt & Pepper", "M.A.C lipstick", "salt"]


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("Acme Nail Polish Remover", [2]),
        ("Nail-polish and Shampoo", [1, 3]),
        ("POLISH; nail, polish", [0, 0]),  # a comma parts a phrase
        ("shampooing", []),
        ("", []),
    ],
)
def test_the_longest_term_counts(title: str, found: list[int]) -> None:
    assert [one.term for one in Matcher(TERMS).find(title)] == found


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("Salt&Pepper Grinder", [0]),
        ("Acme salt  &  pepper", [0]),
        ("Salt, Pepper", [2]),
        ("New: M.A.C Lipstick, Red", [1]),
        ("MAC Lipstick", []),
    ],
)
def test_signs_within_a_term_stand_in_the_title_too(title: str, found: list[int]) -> None:
    assert [one.term for one in Matcher(SIGNS).find(title)] == found


def test_masking_takes_the_words_themselves() -> None:
    title = "Caf\u00e9 Shampoo & shampoo, 2 oz"
    matches = Matcher(TERMS).find(title)
    assert masked(title, matches, 3) == "Caf\u00e9 & , 2 oz"
    assert masked(title, [Match(1, 0, 4)], 3) == title


def test_every_title_once_for_each_of_its_terms() -> None:
    found = mask_titles(["Red Nail Polish with Shampoo", "Shampoo, 200", "nothing", "Oat Shampoo"], TERMS)
    assert found.text == ["Red with Shampoo", "Red Nail Polish with", "Oat"]  # of the second nothing is left
    assert found.term.tolist() == [1, 3, 3]
    assert found.title.tolist() == [0, 0, 3]
    assert [row.nonzero()[0].tolist() for row in found.others.toarray()] == [[3], [1], []]
