"""What speaks for a leaf: six witnesses, none of whom has seen the label of the product in question.

A source answers rows of products with (n, C) float32 log shares of the leaves. Two learn from the labels of the
other folds (content, words); three count the labels of other products (neighbours, products bought together,
products with the same codes); one reads the leaves' names alone. The codes are residual k-means over content
without the category: codes that were trained on labels would vouch for them. Of a product without content
(its vector is zero) content and codes know how common the leaves are and names nothing, and it teaches neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import sparse
from scipy.special import log_softmax

from pressmark.insight.categories.folds import Folds
from pressmark.insight.categories.neighbours import Neighbours

FLOOR = -25.0
"""Least log share: nobody is ever quite sure."""
PULL, SHRINK = 1.0, 0.3
SMOOTHING = 0.01
SHARPNESS = 20.0
"""Of a softmax over cosines; the pool corrects it."""
NEARNESS = 0.07
"""Cosine by which a vote becomes e times lighter."""
Model = tuple[np.ndarray | sparse.csr_matrix, np.ndarray]
"""(F, C) float32 weights and (C,) float32 bias."""


class Source(Protocol):
    """A witness.

    Attributes:
        name: Of the source.
        reads_names: It has something to say of a leaf without products, whose name is all there is of it.
    """

    name: str
    reads_names: bool

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64 item_index -> (n, C) float32 log shares."""
        ...


def _shares(count: np.ndarray) -> np.ndarray:
    """How common the leaves are, (C,) or (n, C), half a product added to each."""
    return (count + 0.5) / (count + 0.5).sum(axis=-1, keepdims=True)


def _counts(label: np.ndarray, num_leaves: int) -> np.ndarray:
    """(N,) labels, -1 for none -> (C,) int64 products of each leaf."""
    return np.bincount(label[label >= 0], minlength=num_leaves)


def _without_own(counts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(C,) or (n, C) counts -> (n, C) float32 of the other products, given the (n,) own labels."""
    others = np.broadcast_to(counts, (len(own), counts.shape[-1])).astype(np.float32)
    known = np.flatnonzero(own >= 0)
    others[known, own[known]] -= 1
    return others


def _by_fold(
    models: Sequence[Model], features: np.ndarray | sparse.csr_matrix, folds: Folds, rows: np.ndarray
) -> np.ndarray:
    """(n, C) float32 log shares, each product by the model of its fold."""
    out = np.empty((len(rows), len(models[0][1])), np.float32)
    for fold, (weight, bias) in enumerate(models):
        own = folds.fold[rows] == fold
        scores = features[rows[own]] @ weight
        out[own] = log_softmax((scores.toarray() if sparse.issparse(scores) else scores) + bias, axis=1)
    return np.maximum(out, FLOOR)


class Content:
    """Linear discriminant analysis of the content vectors, one fit a fold; no training loop.

    Class means are drawn to the mean of all by PULL products, the common covariance to a sphere by SHRINK.
    A leaf's name counts as one more product of it where there are name vectors, so that an empty leaf has a
    place too.

    Args:
        vectors: (N, D) float32, zeros for a product without content.
        folds: Labels and folds.
        num_leaves: C.
        names: (C, D) float32 vectors of the leaves' names, or None.
    """

    name = "content"

    def __init__(
        self,
        vectors: np.ndarray,
        folds: Folds,
        num_leaves: int,
        names: np.ndarray | None = None,
    ) -> None:
        self.vectors, self.folds, self.reads_names = vectors, folds, names is not None
        self._told = np.asarray(vectors.any(axis=1))
        teachers = [folds.teachers(k) for k in folds.each()]
        counts = [np.bincount(folds.label[rows], minlength=num_leaves) for rows in teachers]
        self._priors = np.log([_shares(count) for count in counts])
        self._models = [
            self._fit(rows[self._told[rows]], prior, names)
            for rows, prior in zip(teachers, self._priors, strict=True)
        ]

    def _fit(self, rows: np.ndarray, prior: np.ndarray, names: np.ndarray | None) -> Model:
        num_leaves = len(prior)
        known, label = self.vectors[rows].astype(np.float64), self.folds.label[rows]
        count = np.bincount(label, minlength=num_leaves).astype(np.float64)
        one_hot = sparse.csr_matrix(
            (np.ones(len(rows)), (label, np.arange(len(rows)))), (num_leaves, len(rows))
        )
        centre = known.sum(axis=0) / max(len(rows), 1)
        # Names are worded unlike products: what is common to them is taken off.
        start = np.tile(centre, (num_leaves, 1)) if names is None else centre + (names - names.mean(axis=0))
        means = (one_hot @ known + PULL * start) / (count + PULL)[:, None]
        residual = known - means[label]
        covariance = residual.T @ residual / max(len(rows), 1)
        covariance += (SHRINK * np.trace(covariance) / len(covariance) + 1e-9) * np.eye(len(covariance))
        weight = np.linalg.solve(covariance, means.T)
        return weight.astype(np.float32), (prior - 0.5 * (means * weight.T).sum(axis=1)).astype(np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        told = self._told[rows]
        out = self._priors[self.folds.fold[rows]].astype(np.float32)
        out[told] = _by_fold(self._models, self.vectors, self.folds, rows[told])
        return out


class Words:
    """Naive Bayes over the words and word pairs of the texts; the leaf's name counts as one more text of it.

    Args:
        texts: N texts without the category.
        names: C names of leaves.
        folds: Labels and folds.
    """

    name, reads_names = "words", True

    def __init__(self, texts: Sequence[str], names: Sequence[str], folds: Folds) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.folds = folds
        reader = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), strip_accents="unicode", dtype=np.float32
        )
        try:
            terms = reader.fit_transform([*texts, *names])
        except ValueError as error:  # sklearn's word for it is "empty vocabulary"
            raise ValueError("neither products nor categories have a word in their texts.") from error
        # A word that stands once cannot tell two products apart, and there are many.
        terms = terms[:, np.flatnonzero(np.asarray((terms > 0).sum(axis=0)).ravel() > 1)]
        own, named = terms[: len(texts)], terms[len(texts) :]
        # In a last column all words of a text together, for what a leaf holds in all.
        self.terms = sparse.hstack([own, sparse.csr_matrix(own.sum(axis=1))], "csr", np.float32)
        self._models = [self._fit(folds.teachers(k), named) for k in folds.each()]

    def _fit(self, rows: np.ndarray, named: sparse.csr_matrix) -> Model:
        label, num_leaves = self.folds.label[rows], named.shape[0]
        count = np.bincount(label, minlength=num_leaves)
        one_hot = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (label, np.arange(len(rows)))), (num_leaves, len(rows))
        )
        mass = (one_hot @ self.terms[rows, :-1] + named).tocsr()
        common = np.asarray(mass.sum(axis=0)).ravel() + 1e-9
        # Every leaf has a little of what all have. That part of a word's weight is the same for all leaves, so
        # it is left out: what remains is zero for every word that a leaf has not, and most are.
        given = SMOOTHING * len(common) * common / common.sum()
        whole = np.asarray(mass.sum(axis=1)).ravel() + given.sum()
        mass.data = np.log1p(mass.data / given[mass.indices])
        weight = sparse.vstack([mass.T, sparse.csr_matrix(-np.log(whole)[None])], "csr", np.float32)
        return weight, np.log(_shares(count)).astype(np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        return _by_fold(self._models, self.terms, self.folds, rows)


class Votes:
    """The labels of a product's neighbours, the nearer the heavier.

    Args:
        name: Of the source.
        neighbours: Of N products.
        weight: (N, k) float32 of their votes.
        label: (N,) int64, -1 does not vote.
        num_leaves: C.
    """

    reads_names = False

    def __init__(
        self, name: str, neighbours: Neighbours, weight: np.ndarray, label: np.ndarray, num_leaves: int
    ) -> None:
        self.name, self.label = name, label
        self.index, self.weight = neighbours.item_index, weight
        self.counts = _counts(label, num_leaves)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        share = _shares(_without_own(self.counts, self.label[rows]))
        index = self.index[rows]
        voted = np.where(index >= 0, self.label[index], -1)
        row, place = np.nonzero(voted >= 0)
        votes = sparse.csr_matrix(
            (self.weight[rows][row, place], (row, voted[row, place])), share.shape
        ).toarray()
        # Half a vote goes to the leaves as they are: no neighbour is no news.
        votes = (votes + 0.5 * share) / (votes.sum(axis=1, keepdims=True) + 0.5)
        return np.maximum(np.log(votes), FLOOR).astype(np.float32)


class Codes:
    """The labels of other products with the same first codes, short prefixes filling in for long ones.

    Args:
        codes: (N, L) int64, made without any label.
        label: (N,) int64, -1 counts for nothing.
        num_leaves: C.
        told: (N,) bool, products with content; the codes of the others mean nothing.
    """

    name, reads_names = "codes", False

    def __init__(self, codes: np.ndarray, label: np.ndarray, num_leaves: int, told: np.ndarray) -> None:
        self.label, self.told = label, told
        self.all = _counts(label, num_leaves)
        known = np.flatnonzero((label >= 0) & told)
        self.prefix, self.counts = [], []
        for length in range(1, codes.shape[1] + 1):
            prefix = np.unique(codes[:, :length], axis=0, return_inverse=True)[1].ravel()
            shape = (int(prefix.max()) + 1, num_leaves)
            self.prefix.append(prefix)
            self.counts.append(
                sparse.csr_matrix((np.ones(len(known), np.float32), (prefix[known], label[known])), shape)
            )

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        told = self.told[rows]
        found = _shares(_without_own(self.all, self.label[rows]))
        for prefix, counts in zip(self.prefix, self.counts, strict=True):
            some = rows[told]
            others = _without_own(counts[prefix[some]].toarray(), self.label[some])
            found[told] = (others + found[told]) / (others.sum(axis=1, keepdims=True) + 1)
        return np.maximum(np.log(found), FLOOR).astype(np.float32)


class Names:
    """Cosine of a product to the leaves' names, times SHARPNESS: no label, so it can name an empty leaf.

    Args:
        vectors: (N, D) float32 of length 1.
        names: (C, D) float32 of length 1.
        name: Of the source.
    """

    reads_names = True

    def __init__(self, vectors: np.ndarray, names: np.ndarray, name: str = "names") -> None:
        self.vectors, self.names, self.name = vectors, names, name

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        return np.maximum(log_softmax(SHARPNESS * self.vectors[rows] @ self.names.T, axis=1), FLOOR).astype(
            np.float32
        )


def nearness_votes(weight: np.ndarray) -> np.ndarray:
    """(N, k) cosines, nearest first -> votes: 1 for the nearest, less for what is further away than it."""
    return np.where(weight != 0, np.exp((weight - weight[:, :1]) / NEARNESS), 0.0).astype(np.float32)


def relative_votes(weight: np.ndarray) -> np.ndarray:
    """(N, k) strengths, strongest first -> votes relative to the strongest."""
    return (weight / np.maximum(weight[:, :1], 1e-9)).astype(np.float32)
