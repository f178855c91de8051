"""Titles with a term masked out: what the model of terms learns from, and what it is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from pressmark.insight.terms.matching import Matcher, masked
from pressmark.insight.words import ones_at


@dataclass(frozen=True)
class Examples:
    """n masked titles, one for every term of every title.

    Attributes:
        text: n titles without the term.
        term: (n,) int64 the term that was taken out.
        title: (n,) int64 row of the title among those given.
        others: (n, T) bool, the title's other terms: neither right nor wrong, since they still stand there.
    """

    text: list[str]
    term: np.ndarray
    title: np.ndarray
    others: csr_matrix

    def __len__(self) -> int:
        return len(self.text)


def mask_titles(titles: Sequence[str], terms: Sequence[str]) -> Examples:
    """Every title once for each of its terms, without that term; passed over where nothing is left.

    Args:
        titles: Titles.
        terms: T terms.
    """
    matcher = Matcher(terms)
    texts, targets, rows, others = [], [], [], []
    for row, title in enumerate(titles):
        matches = matcher.find(title)
        own = sorted({one.term for one in matches})
        for term in own:
            text = masked(title, matches, term)
            if any(letter.isalpha() for letter in text):
                texts.append(text)
                targets.append(term)
                rows.append(row)
                others.append([one for one in own if one != term])
    flags = ones_at(others, len(terms)).astype(bool)
    return Examples(texts, np.array(targets, np.int64), np.array(rows, np.int64), flags)
