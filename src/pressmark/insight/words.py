"""Titles as words: what labels of prefixes and product terms are made of.

Nothing here knows a shop. The lists below are the words that carry no product in any English title; a catalog
in another language loses nothing but their help.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from pressmark.interactions.histories import Histories

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
# A hyphen within a word joins ("stir-fry" is "stir fry"); anything but that and spaces ends a phrase.
_JOINT = re.compile(r"\s*|-")


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTION_WORDS = _listed(
    "a all an and are as at be by for from in into is it its no non not of off on or our out per plus s that "
    "the this to up us very vs w with without you your"
)
LINKS = _listed("al da de del der des di du el et la le les und von y")
"""Words that hold a phrase together but neither begin nor end one: "eau de parfum"."""
UNITS = _listed(
    "bag bottle box can case cl cm count ct each fl floz fluid g gal gallon gm gr gram grams inch inches jar "
    "kg l large lb lbs liter litre mg ml mm ounce ounces oz pack packs pair pairs pc pcs piece pieces pk pound "
    "pounds qty set size small x"
)
_EMPTY = FUNCTION_WORDS | UNITS


@dataclass(frozen=True)
class Word:
    """One word of a title.

    Attributes:
        text: In lower case, with straight apostrophes.
        start: Of its first character in the title.
        end: Behind its last character.
        phrase: Number of the phrase that it stands in: words with nothing but spaces or one hyphen between.
        joined: Whether a hyphen joins it to the word before.
    """

    text: str
    start: int
    end: int
    phrase: int
    joined: bool


def words_of(title: str) -> list[Word]:
    """The words of a title, in order.

    >>> [(word.text, word.phrase) for word in words_of("Stir-Fry Sauce, 2 x 90 g")]
    [('stir', 0), ('fry', 0), ('sauce', 0), ('2', 1), ('x', 1), ('90', 1), ('g', 1)]
    """
    found: list[Word] = []
    end, phrase = 0, 0
    for match in _WORD.finditer(title):
        between = title[end : match.start()]
        if found and not _JOINT.fullmatch(between):
            phrase += 1
        end, text = match.end(), match[0].lower().replace("\u2019", "'")
        found.append(Word(text, match.start(), end, phrase, bool(found) and between == "-"))
    return found


def says_something(word: str) -> bool:
    """Whether a word can name or describe a product: no number, no single letter, no unit, no function word.

    >>> [says_something(one) for one in ("shampoo", "500ml", "oz", "with", "x")]
    [True, False, False, False, False]
    """
    return len(word) > 1 and word not in _EMPTY and not any(letter.isdigit() for letter in word)


def runs_of(title: str) -> Iterator[list[str]]:
    """The longest stretches of words of one phrase that all say something, or are tied on by a hyphen.

    >>> list(runs_of("Olivar Duck Terrine with Port, 100 g")), list(runs_of("Leave-In Spray"))
    ([['olivar', 'duck', 'terrine'], ['port']], [['leave', 'in', 'spray']])
    """
    run: list[str] = []
    phrase = 0
    for word in words_of(title):
        tied = bool(run) and word.joined and word.text in FUNCTION_WORDS
        goes_on = says_something(word.text) or tied
        if run and (word.phrase != phrase or not goes_on):
            yield run
            run = []
        if goes_on:
            run.append(word.text)
        phrase = word.phrase
    if run:
        yield run


def grams_in(run: Sequence[str], longest: int) -> Iterator[tuple[str, bool]]:
    """One to `longest` neighbouring words of a stretch that can stand alone, and whether they end it.

    >>> list(grams_in(["leave", "in"], 2)), [text for text, _ in grams_in(["eau", "de", "parfum"], 3)]
    ([('leave', False), ('leave in', True)], ['eau', 'eau de parfum', 'parfum'])
    """
    for start, first in enumerate(run):
        if first in FUNCTION_WORDS or first in LINKS:
            continue
        for end in range(start + 1, min(start + longest, len(run)) + 1):
            if run[end - 1] not in LINKS:
                yield " ".join(run[start:end]), end == len(run)


def grams_of(title: str, longest: int) -> set[str]:
    """All that one to `longest` neighbouring words of a title say, each once.

    >>> sorted(grams_of("Oat Milk, 1 l", 2))
    ['milk', 'oat', 'oat milk']
    """
    return {text for run in runs_of(title) for text, _ in grams_in(run, longest)}


def count_grams(titles: Sequence[str], longest: int) -> tuple[csr_matrix, list[str]]:
    """Which title says what.

    Args:
        titles: N titles.
        longest: Words of the longest phrase.

    Returns:
        (N, V) float32 of 0 and 1, and the V phrases that two titles or more say, in ascending order.
    """
    said = [grams_of(title, longest) for title in titles]
    counts: dict[str, int] = {}
    for one in said:
        for gram in one:
            counts[gram] = counts.get(gram, 0) + 1
    names = sorted(gram for gram, count in counts.items() if count > 1)
    column = {gram: number for number, gram in enumerate(names)}
    return ones_at([sorted(column[gram] for gram in one if gram in column) for one in said], len(names)), names


def ones_at(columns: Sequence[Sequence[int]], width: int) -> csr_matrix:
    """(n, width) float32: 1 in the columns named for each row, each at most once and ascending.

    >>> ones_at([[0, 2], []], 3).toarray().tolist()
    [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    rows = Histories.from_lists(columns)
    data = np.ones(len(rows.values), np.float32)
    return csr_matrix((data, rows.values, rows.offsets), shape=(len(rows), width))
