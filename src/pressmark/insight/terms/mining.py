"""A vocabulary of product terms from a catalog: the words that stand where titles name the product.

A term is a word or a few that (1) several titles say, (2) mostly stand last in their stretch of words, as the
head of an English phrase does ("Olivar Duck *Terrine*, 100 g"), (3) mostly lie in one place of the catalog, a
category or, without categories, a first code, and (4) are said of more than one brand. What it finds is a
proposal, to be read and edited as a text file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pressmark.catalog.items import Catalog
from pressmark.catalog.taxonomy import Taxonomy
from pressmark.insight.words import grams_in, runs_of, words_of


@dataclass(frozen=True)
class Config:
    """What a term must be.

    Attributes:
        longest: Words of the longest term.
        min_titles: Titles that say it.
        min_head_share: Share of its titles in which it ends a stretch of words.
        min_place_share: Share of its titles in their commonest place.
        max_brand_share: Most that one brand may have of its titles with a brand.
        max_inside_share: A term is left out if more of its titles than this say it within one longer term.
        max_terms: The commonest are kept.
    """

    longest: int = 4
    min_titles: int = 8
    min_head_share: float = 0.35
    min_place_share: float = 0.25
    max_brand_share: float = 0.6
    max_inside_share: float = 0.8
    max_terms: int = 2000


@dataclass(frozen=True)
class Candidate:
    """A phrase and where it stands.

    Attributes:
        text: The phrase.
        items: Rows of the items whose titles say it, ascending.
        head_share: Share of them in which it ends a stretch of words.
    """

    text: str
    items: np.ndarray
    head_share: float


def mine_terms(
    catalog: Catalog, places: np.ndarray, seen: np.ndarray, config: Config | None = None
) -> list[str]:
    """The product terms of a catalog, the commonest first.

    Args:
        catalog: N items.
        places: (N,) int64 place of each item, -1 where unknown; as `places_of` gives them.
        seen: (N,) bool, items that may be looked at.
        config: What a term must be.

    Raises:
        ValueError: If no term is found.
    """
    config = config or Config()
    found = [
        one
        for one in _candidates(catalog.title, np.flatnonzero(seen), config)
        if one.head_share >= config.min_head_share
        and _commonest_share(places[one.items]) >= config.min_place_share
        and _brand_share(catalog, one) <= config.max_brand_share
    ]
    kept = _without_parts(found, config.max_inside_share)
    kept.sort(key=lambda one: (-len(one.items), one.text))
    if not kept:
        raise ValueError(
            f"no product term in the titles of {int(seen.sum()):,} items: none is said by at least "
            f"{config.min_titles} titles of one category and several brands. Lower --min-titles, or write the "
            "terms yourself, one a line, and give the file as --vocabulary."
        )
    return [one.text for one in kept[: config.max_terms]]


def places_of(taxonomy: Taxonomy, sids: np.ndarray) -> np.ndarray:
    """(N,) int64: the last node of an item's first path; its first code where no item has a category.

    Args:
        taxonomy: The tree of N items.
        sids: (N, L) int64.
    """
    leaves = taxonomy.item_leaf[:, 0]
    return leaves if (leaves >= 0).any() else sids[:, 0]


def _candidates(titles: np.ndarray, rows: np.ndarray, config: Config) -> list[Candidate]:
    """Every phrase that enough titles say."""
    items: dict[str, list[int]] = {}
    heads: Counter[str] = Counter()
    for row in rows.tolist():
        said: set[str] = set()
        ending: set[str] = set()
        for run in runs_of(titles[row]):
            for text, ends in grams_in(run, config.longest):
                said.add(text)
                if ends:
                    ending.add(text)
        for text in said:
            items.setdefault(text, []).append(row)
        heads.update(ending)
    return [
        Candidate(text, np.array(own), heads[text] / len(own))
        for text, own in items.items()
        if len(own) >= config.min_titles
    ]


def _commonest_share(places: np.ndarray) -> float:
    known = places[places >= 0]
    return float(np.bincount(known).max() / len(known)) if len(known) else 0.0


def _brand_share(catalog: Catalog, one: Candidate) -> float:
    """Share of the commonest brand; 1 for a phrase of a brand's own name."""
    brands = Counter(brand for brand in catalog.brand[one.items] if brand)
    if not brands:
        return 0.0
    count = brands.most_common(1)[0][1]
    total = sum(brands.values())
    own = sum(number for brand, number in brands.items() if f" {one.text} " in _spaced(brand))
    return max(count, own) / total


def _spaced(text: str) -> str:
    return f" {' '.join(word.text for word in words_of(text))} "


def _without_parts(found: Sequence[Candidate], most: float) -> list[Candidate]:
    """Without those that are hardly ever said alone: "parfum" where "eau de parfum" is a term."""
    by_text = {one.text: one for one in found}
    inside = _largest_wholes(by_text)
    return [one for one in found if inside.get(one.text, 0) <= most * len(one.items)]


def _largest_wholes(by_text: Mapping[str, Candidate]) -> dict[str, int]:
    """Part -> titles of the commonest longer term that holds it."""
    most: dict[str, int] = {}
    for text, one in by_text.items():
        words = text.split(" ")
        for length in range(1, len(words)):
            for start in range(len(words) - length + 1):
                part = " ".join(words[start : start + length])
                most[part] = max(most.get(part, 0), len(one.items))
    return most
