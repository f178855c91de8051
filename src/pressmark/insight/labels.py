"""What a SID prefix stands for: its distinctive terms, its categories, and products that show it.

A term is distinctive where its share among the titles of the prefix is above its share among the other titles
that share one code less, counted in standard errors of the logarithm of the odds ratio. So a label says what
sets a shelf apart from its neighbours, and a path of labels reads from coarse to fine.

Source: the odds ratio with half a count added to each cell (Haldane 1956, Anscombe 1956) and its standard error
(Woolf 1955); the contrast with one's neighbours is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from pressmark.catalog.embeddings import unit_rows
from pressmark.catalog.items import Catalog
from pressmark.catalog.paths import CategoryPath
from pressmark.catalog.taxonomy import Taxonomy
from pressmark.insight.prefixes import Prefixes
from pressmark.insight.words import count_grams

LONGEST = 3
"""Words of a term."""
NUM_TERMS, NUM_EXAMPLES = 3, 3
MIN_SCORE = 1.0
"""Standard errors that a term must be more frequent by."""
PHRASE_BONUS = 0.2
"""A phrase says more than each of its words: its score grows by so much a further word."""


@dataclass(frozen=True)
class Labels:
    """Labels of P prefixes; those of one item and the empty prefix have no terms.

    Attributes:
        terms: P tuples of terms, the most distinctive first.
        examples: P tuples of rows: the items nearest to the mean of the prefix.
    """

    terms: tuple[tuple[str, ...], ...]
    examples: tuple[tuple[int, ...], ...]


def label_prefixes(prefixes: Prefixes, catalog: Catalog, vectors: np.ndarray) -> Labels:
    """Labels every prefix.

    Args:
        prefixes: Of N items.
        catalog: The items.
        vectors: (N, D) float32.
    """
    says, names = count_grams(list(catalog.title), LONGEST)
    return Labels(
        _distinctive_terms(prefixes, says, names),
        _nearest_to_mean(prefixes, unit_rows(vectors)),
    )


def category_mix(taxonomy: Taxonomy, items: np.ndarray, most: int) -> list[tuple[CategoryPath, float]]:
    """The commonest categories of some items, by their first paths, and their shares of the items with one.

    Args:
        taxonomy: The tree.
        items: (n,) int64 item_index.
        most: Categories to give.

    Returns:
        (path from the first name that tells items apart, share); [] where no item has a category.
    """
    leaves = taxonomy.item_leaf[items, 0]
    counts = Counter(leaves[leaves >= 0].tolist())
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [(taxonomy.node_path[node], count / total) for node, count in ranked[:most]]


def _distinctive_terms(prefixes: Prefixes, says: csr_matrix, names: list[str]) -> tuple[tuple[str, ...], ...]:
    counts = _counts_of_prefixes(prefixes, says)
    scores = _scores(prefixes, counts, _wider(prefixes))
    num_words = np.array([1 + name.count(" ") for name in names])
    terms: list[tuple[str, ...]] = []
    for prefix in range(len(prefixes)):
        row = slice(counts.indptr[prefix], counts.indptr[prefix + 1])
        own, columns = scores[row], counts.indices[row]
        good = np.flatnonzero(own > MIN_SCORE)
        ranked = np.lexsort([columns[good], -own[good] * (1 + PHRASE_BONUS * (num_words[columns[good]] - 1))])
        taken = set(_words_above(prefixes, terms, prefix))
        terms.append(_without_repeats([names[columns[one]] for one in good[ranked[:40]]], taken))
    return tuple(terms)


def _counts_of_prefixes(prefixes: Prefixes, says: csr_matrix) -> csr_matrix:
    """(P, V) titles of each prefix that say each term; rows of prefixes with one item are empty."""
    several = prefixes.num_items[prefixes.of_item] > 1
    item, level = np.nonzero(several)
    ones = np.ones(len(item), np.float32)
    member = csr_matrix((ones, (prefixes.of_item[item, level], item)), shape=(len(prefixes), says.shape[0]))
    counts = csr_matrix(member @ says)
    counts.sort_indices()
    return counts


def _wider(prefixes: Prefixes) -> np.ndarray:
    """(P,) what a label sets a prefix off from: the longest shorter one with more items; itself without."""
    wider = np.arange(len(prefixes))
    for prefix, parent in enumerate(prefixes.parent):  # parents stand before their children
        if parent >= 0:
            wider[prefix] = parent if prefixes.num_items[parent] > prefixes.num_items[prefix] else wider[parent]
    return wider


def _scores(prefixes: Prefixes, counts: csr_matrix, wider: np.ndarray) -> np.ndarray:
    """Of each stored count, standard errors by which the term is more frequent than around the prefix."""
    width = counts.shape[1]
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    # Every term of a prefix is a term of the wider one: found by its place among sorted (prefix, term) numbers.
    place = np.searchsorted(row * width + counts.indices, wider[row] * width + counts.indices)
    size, own = prefixes.num_items[row], counts.data.astype(np.float64)
    around, others = prefixes.num_items[wider[row]] - size, counts.data[place] - own
    cells = np.stack([own, size - own, others, around - others]) + 0.5
    odds = np.log(cells[0] / cells[1]) - np.log(cells[2] / cells[3])
    score = odds / np.sqrt((1 / cells).sum(axis=0))
    return np.where((around > 0) & (own > 1), score, 0.0)


def _words_above(prefixes: Prefixes, terms: Sequence[tuple[str, ...]], prefix: int) -> list[str]:
    """Words that the labels of shorter prefixes say already."""
    words: list[str] = []
    above = prefixes.parent[prefix]
    while above >= 0:
        words += [word for term in terms[above] for word in term.split(" ")]
        above = prefixes.parent[above]
    return words


def _without_repeats(ranked: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    """The first terms that share no word with each other or with what is taken."""
    kept: list[str] = []
    for term in ranked:
        words = set(term.split(" "))
        # The singular or plural of a word that stands there already says nothing new.
        if not any(one in taken or one.rstrip("s") in taken or f"{one}s" in taken for one in words):
            kept.append(term)
            taken |= words
        if len(kept) == NUM_TERMS:
            break
    return tuple(kept)


def _nearest_to_mean(prefixes: Prefixes, units: np.ndarray) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = [()] * len(prefixes)
    for level in range(1, prefixes.of_item.shape[1]):
        number = prefixes.of_item[:, level]
        own, group = np.unique(number, return_inverse=True)
        ones = np.ones(len(units), np.float32)
        member = csr_matrix((ones, (group, np.arange(len(units)))), shape=(len(own), len(units)))
        closeness = np.einsum("nd,nd->n", units, unit_rows(member @ units)[group])
        ranked = np.lexsort([np.arange(len(units)), -closeness, group])
        starts = np.searchsorted(group[ranked], np.arange(len(own)))
        for one, start, end in zip(own, starts, np.append(starts[1:], len(units)), strict=True):
            found[one] = tuple(ranked[start : min(end, start + NUM_EXAMPLES)].tolist())
    return tuple(found)
