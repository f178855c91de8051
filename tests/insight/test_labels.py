from __future__ import annotations

import numpy as np
from tests.insight.conftest import titles

from pressmark.catalog.items import Catalog
from pressmark.catalog.taxonomy import build_taxonomy
from pressmark.insight.labels import category_mix, label_prefixes
from pressmark.insight.prefixes import find_prefixes
from pressmark.insight.words import count_grams

TITLES = titles(
    *("Acme Red Nail Polish, 9 ml", "Bree Blue Nail Polish", "Nail Polish by Crow", "Pink Nail Polish"),
    *("Acme Daily Shampoo", "Dry Shampoo, 2 oz", "Bree Shampoo", "Shampoo, Pack of 2"),
)
SIDS = np.array([[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [1, 1], [1, 1], [1, 2]])


def label() -> tuple[object, object]:
    catalog = Catalog(np.arange(8).astype(str).astype(object), TITLES, np.full(8, "", object), ((),) * 8)
    prefixes = find_prefixes(SIDS)
    vectors = np.eye(8, dtype=np.float32)
    vectors[:4, 0], vectors[4:, 7] = 1, 1
    return prefixes, label_prefixes(prefixes, catalog, vectors)


def test_a_label_says_what_sets_a_prefix_apart() -> None:
    prefixes, labels = label()
    assert labels.terms[prefixes.find([0])][0] == "nail polish"
    assert labels.terms[prefixes.find([1])][0] == "shampoo"


def test_a_label_repeats_no_word_of_those_above_it() -> None:
    prefixes, labels = label()
    for code in (0, 1):
        below = labels.terms[prefixes.find([0, code])]
        assert not any({"nail", "polish"} & set(term.split()) for term in below)


def test_one_item_and_no_code_have_no_terms_and_examples_are_nearest_to_the_mean() -> None:
    prefixes, labels = label()
    assert labels.terms[prefixes.find([])] == () == labels.terms[prefixes.find([1, 2])]
    assert labels.examples[prefixes.find([0])][0] == 0
    assert labels.examples[prefixes.find([1])][0] == 7
    assert len(labels.examples[prefixes.find([0])]) == 3


def test_score_by_hand() -> None:
    """Four titles of four say it here, none of four there: ln 81 over the root of 2 (1/4.5 + 1/.5)."""
    from pressmark.insight import labels as module

    prefixes = find_prefixes(SIDS)
    says, names = count_grams(list(TITLES), 3)
    counts = module._counts_of_prefixes(prefixes, says)
    scores = module._scores(prefixes, counts, module._wider(prefixes))
    row = prefixes.find([0])
    own = slice(counts.indptr[row], counts.indptr[row + 1])
    score = dict(zip((names[one] for one in counts.indices[own]), scores[own], strict=True))
    assert abs(score["nail polish"] - np.log(81) / np.sqrt(2 * (1 / 4.5 + 2))) < 1e-9


def test_a_prefix_alone_in_its_parent_is_set_off_from_what_is_further_up() -> None:
    from pressmark.insight import labels as module

    prefixes = find_prefixes(np.array([[0, 0], [0, 0], [1, 3]]))
    wider = module._wider(prefixes)
    assert wider[prefixes.find([0, 0])] == prefixes.find([])


def test_titles_without_a_word_give_no_terms() -> None:
    catalog = Catalog(titles("a", "b"), titles("", "12"), titles("", ""), ((), ()))
    labels = label_prefixes(find_prefixes(np.zeros((2, 2), np.int64)), catalog, np.zeros((2, 3), np.float32))
    assert set(labels.terms) == {()}


def test_category_mix() -> None:
    dairy, pets = ("Shop", "Dairy"), ("Shop", "Pets")
    tree = build_taxonomy([(dairy,), (dairy,), (pets,), ()])
    assert category_mix(tree, np.arange(4), 3) == [(("Dairy",), 2 / 3), (("Pets",), 1 / 3)]
    assert category_mix(tree, np.array([3]), 3) == []
    assert category_mix(build_taxonomy([(), ()]), np.arange(2), 3) == []
