"""The witnesses: shares by hand, and none of them sees the label in question."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.feature_extraction.text import TfidfVectorizer

from pressmark.insight.categories import sources
from pressmark.insight.categories.assemble import plain_codes
from pressmark.insight.categories.folds import Folds, make_folds
from pressmark.insight.categories.neighbours import Neighbours, bought_together, nearest
from pressmark.insight.categories.pool import fit_pool

NUM, LEAVES = 120, 3


@pytest.fixture
def shop() -> dict[str, np.ndarray]:
    """Three leaves of forty products around three axes."""
    rng = np.random.default_rng(0)
    label = np.arange(NUM) % LEAVES
    vectors = np.eye(8, dtype=np.float32)[label] + rng.normal(0, 0.2, (NUM, 8)).astype(np.float32)
    return {"label": label, "vectors": vectors / np.linalg.norm(vectors, axis=1, keepdims=True)}


def build(name: str, vectors: np.ndarray, folds: Folds) -> sources.Source:
    near = nearest(vectors, 10)
    kinds: dict[str, Callable[[], sources.Source]] = {
        "content": lambda: sources.Content(vectors, folds, LEAVES),
        "words": lambda: sources.Words(
            [f"kind{vector.argmax()} thing" for vector in vectors], ["kind0", "kind1", "kind2"], folds
        ),
        "neighbours": lambda: sources.Votes(
            "neighbours", near, sources.nearness_votes(near.weight), folds.label, LEAVES
        ),
        "codes": lambda: sources.Codes(
            vectors.argmax(axis=1)[:, None], folds.label, LEAVES, vectors.any(axis=1)
        ),
        "names": lambda: sources.Names(vectors, np.eye(LEAVES, 8, dtype=np.float32)),
    }
    return kinds[name]()


@pytest.mark.parametrize("name", ["content", "words", "neighbours", "codes", "names"])
def test_a_source_finds_the_leaf_and_never_sees_the_own_label(name: str, shop: dict[str, np.ndarray]) -> None:
    folds = make_folds(shop["label"], 0)
    shares = build(name, shop["vectors"], folds)(np.arange(NUM))
    assert shares.shape == (NUM, LEAVES)
    assert shares.dtype == np.float32
    assert (shares.argmax(axis=1) == shop["label"]).mean() > 0.9
    # Another label for one product changes nothing of what is said about it.
    label = shop["label"].copy()
    label[7] = (label[7] + 1) % LEAVES
    changed = build(name, shop["vectors"], Folds(label, folds.fold, folds.num_folds))(np.array([7]))
    assert np.array_equal(shares[7], changed[0])


def test_words_are_naive_bayes() -> None:
    texts, names = ["red gel", "red gel pen", "blue tea", "tea red", "gel tea", "pen"], ["gel", "tea"]
    folds = Folds(np.array([0, 0, 1, 1, -1, -1]), np.array([0, 0, 0, 0, 1, 1]), 1)
    found = sources.Words(texts, names, folds)(np.array([4, 5]))
    # The same with a dense table of what every leaf's texts hold, the name among them.
    reader = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    terms = reader.fit_transform([*texts, *names]).toarray()
    terms = terms[:, (terms > 0).sum(axis=0) > 1]
    mass = np.stack([terms[[0, 1, 6]].sum(axis=0), terms[[2, 3, 7]].sum(axis=0)])
    mass += sources.SMOOTHING * terms.shape[1] * mass.sum(axis=0) / mass.sum()
    scores = terms[4:6] @ np.log(mass / mass.sum(axis=1, keepdims=True)).T
    assert found == pytest.approx(log_softmax(scores, axis=1), abs=1e-4)


def test_votes_by_hand() -> None:
    near = Neighbours(np.array([[1, 2], [0, -1], [-1, -1]]), np.zeros((3, 2), np.float32))
    votes = sources.Votes(
        "near", near, np.array([[1.0, 0.5], [1.0, 0.0], [0.0, 0.0]], np.float32), np.array([0, 1, -1]), 2
    )
    share = np.array([0.5, 1.5]) / 2  # without the own label
    # The unlabelled neighbour does not vote; half a vote goes to the shares of the leaves.
    assert np.exp(votes(np.array([0]))[0]) == pytest.approx(
        (np.array([0.0, 1.0]) + 0.5 * share) / 1.5, rel=1e-5
    )
    assert np.exp(votes(np.array([2]))[0]) == pytest.approx(np.array([1.5, 1.5]) / 3, rel=1e-5)


def test_codes_by_hand() -> None:
    codes = np.array([[0], [0], [0], [1]])
    found = np.exp(sources.Codes(codes, np.array([0, 0, 1, 1]), 2, np.ones(4, bool))(np.array([0, 3])))
    # How common the leaves are among the others, not among all.
    assert found[0] == pytest.approx((np.array([1.0, 1.0]) + np.array([1.5, 2.5]) / 4) / 3, rel=1e-5)
    assert found[1] == pytest.approx(np.array([2.5, 1.5]) / 4, rel=1e-5)  # alone with its code


def test_a_product_without_content_hears_how_common_the_leaves_are_and_teaches_nothing(
    shop: dict[str, np.ndarray],
) -> None:
    vectors, label = shop["vectors"].copy(), shop["label"].copy()
    mute = np.arange(0, NUM, 6)  # all of leaf 0
    vectors[mute] = 0
    told = vectors.any(axis=1)
    folds = make_folds(label, 0)
    found = sources.Content(vectors, folds, LEAVES)(np.arange(NUM))
    for item in mute:
        count = np.bincount(label[folds.teachers(folds.fold[item])], minlength=LEAVES) + 0.5
        assert np.exp(found[item]) == pytest.approx(count / count.sum(), rel=1e-5)
    # But for how common the leaves are, the others hear what they would hear without them.
    without = Folds(np.where(told, label, -1), folds.fold, folds.num_folds)
    alone = sources.Content(vectors, without, LEAVES)(np.arange(NUM))
    for item in np.flatnonzero(told)[:20]:
        fair = []
        for shares, own in ((found, folds), (alone, without)):
            count = np.bincount(own.label[own.teachers(folds.fold[item])], minlength=LEAVES) + 0.5
            fair.append(log_softmax(shares[item] - np.log(count)))
        kept = np.minimum(found[item], alone[item]) > sources.FLOOR
        assert fair[0][kept] == pytest.approx(fair[1][kept], abs=1e-3)

    codes = np.where(told, vectors.argmax(axis=1), 7)[:, None]
    found = np.exp(sources.Codes(codes, label, LEAVES, told)(np.arange(NUM)))
    others = np.bincount(label) - np.eye(LEAVES)[0] + 0.5  # all mute products are of leaf 0
    assert found[mute] == pytest.approx(np.tile(others / others.sum(), (len(mute), 1)), abs=1e-6)
    assert found[told].argmax(axis=1).tolist() == label[told].tolist()
    assert plain_codes(np.eye(1, 3, dtype=np.float32), 0).tolist() == [[0, 0, 0]]


def test_products_without_content_alone_have_labels(shop: dict[str, np.ndarray]) -> None:
    vectors = np.zeros_like(shop["vectors"])
    found = sources.Content(vectors, make_folds(shop["label"], 0), LEAVES)(np.arange(NUM))
    assert np.exp(found).sum(axis=1) == pytest.approx(np.ones(NUM), rel=1e-5)


def test_nearest_is_the_whole_matrix_by_blocks(
    shop: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pressmark.insight.categories import neighbours

    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 7)
    vectors = shop["vectors"].copy()
    vectors[5] = 0
    found = nearest(vectors, 4)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -9)
    cosine[:, 5] = -9
    for row in (0, 4, 6, 119):
        assert found.item_index[row].tolist() == np.argsort(-cosine[row], kind="stable")[:4].tolist()
    assert (found.item_index[5] == -1).all()
    assert not (found.item_index == 5).any()


def test_bought_together_by_hand() -> None:
    # 0 and 1 stand together twice, 0 and 2 once, two steps apart; 3 is in another history.
    found = bought_together(np.array([0, 1, 2, 0, 1, 3]), np.array([0, 0, 0, 1, 1, 2]), 4, 2)
    assert found.item_index.tolist() == [[1, 2], [0, 2], [0, 1], [-1, -1]]
    assert found.weight[0] == pytest.approx([2 / np.sqrt(7 * 7), 1 / np.sqrt(7 * 6)])


def test_the_pool_trusts_who_is_right(shop: dict[str, np.ndarray]) -> None:
    folds = make_folds(shop["label"], 0)

    class Noise:
        name = "noise"

        def __call__(self, rows: np.ndarray) -> np.ndarray:
            return np.log(np.random.default_rng(0).dirichlet(np.ones(LEAVES), len(rows))).astype(np.float32)

    pool = fit_pool([build("content", shop["vectors"], folds), Noise()], shop["label"], 0)
    weights = pool.as_record()
    assert weights["content"] > 5 * weights["noise"]
    shares = pool(np.arange(NUM))
    assert shares.sum(axis=1) == pytest.approx(np.ones(NUM), abs=1e-5)
    assert (shares.argmax(axis=1) == shop["label"]).mean() > 0.95
