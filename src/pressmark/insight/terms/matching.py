"""Terms in titles: found word by word, the longest first, and taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pressmark.insight.words import words_of

Spoken = tuple[tuple[str, str], ...]
"""Words, each behind what parts it from the word before."""


def spoken(text: str) -> Spoken:
    """The words of a text, without regard to case, spaces and hyphens; other signs between words count.

    >>> spoken("M.A.C Nail-Polish")
    (('', 'm'), ('.', 'a'), ('.', 'c'), ('', 'nail'), ('', 'polish'))
    """
    words = words_of(text)
    return tuple(
        (
            "" if before is None or before.phrase == word.phrase else text[before.end : word.start].strip(),
            word.text,
        )
        for before, word in zip([None, *words], words, strict=False)
    )


@dataclass(frozen=True)
class Match:
    """A term in a title.

    Attributes:
        term: Its number in the vocabulary.
        start: Of its first character in the title.
        end: Behind its last character.
    """

    term: int
    start: int
    end: int


class Matcher:
    """Finds the terms of a vocabulary in titles. Of terms that overlap the longest counts, then the first.

    Args:
        terms: The vocabulary, distinct; compared as `spoken`.
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self._terms: dict[Spoken, int] = {}
        for number, term in enumerate(terms):
            self._terms.setdefault(spoken(term), number)
        self._longest = max(map(len, self._terms), default=0)

    def find(self, title: str) -> list[Match]:
        """The terms that a title says, in order.

        >>> Matcher(["polish", "nail polish"]).find("Red Nail-Polish")
        [Match(term=1, start=4, end=15)]
        """
        words, said, found, at = words_of(title), spoken(title), [], 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                first, *others = said[at : at + length]
                term = self._terms.get((("", first[1]), *others))
                if term is not None:
                    found.append(Match(term, words[at].start, words[at + length - 1].end))
                    at += length
                    break
            else:
                at += 1
        return found


def masked(title: str, matches: Sequence[Match], term: int) -> str:
    """The title without a term, wherever it stands.

    >>> masked("Red Nail Polish, 9 ml", [Match(1, 4, 15)], 1)
    'Red , 9 ml'
    """
    for one in sorted(matches, key=lambda match: -match.start):
        if one.term == term:
            title = title[: one.start] + title[one.end :]
    return " ".join(title.split())
