"""Which terms a title is about, though it does not say them: one softmax over the vocabulary.

A term's score for a title is

    s * <v, e> + <v, w> + sum over the title's words of (a * d + u) + b

with v the title's text vector and e the term's own, both frozen; d what BM25 says that a word is worth to the
term, whose document is its masked titles and its name; s and a two numbers; and w, u and b learnt a term. w and
u start at zero and are held near it, so that a term that few titles say leans on its document and on what its
name means, and one that somebody wrote into the vocabulary, which no title says, has its name alone. Learnt
from titles with the term masked out, so that it never learns to read the term off; and of the documents a title
sees those that were written without it and a fifth of the others, or a would trust them too much.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pressmark import files
from pressmark.baselines.bm25 import bm25_weights
from pressmark.insight.terms.examples import Examples
from pressmark.insight.words import ones_at, words_of

K1, B = 1.2, 0.75
"""Of BM25; the usual ones."""


@dataclass(frozen=True)
class Config:
    """How the model is fitted.

    Attributes:
        num_steps: Steps to take.
        num_epochs: Passes over the masked titles at least, where those steps are too few for as many.
        batch_size: Masked titles a step.
        learning_rate: Of Adam, falling to zero.
        decay: Pull of w and u to zero a step, times the learning rate.
        min_word_titles: Titles that must hold a word for the model to know it.
        max_words: The commonest are kept.
        num_folds: Parts of the titles, of which each is left out of one set of documents.
        use_vectors: Reads v.
        use_words: Reads the words.
        seed: Of the order of the titles.
    """

    num_steps: int = 600
    num_epochs: int = 8
    batch_size: int = 256
    learning_rate: float = 0.02
    decay: float = 0.02
    min_word_titles: int = 2
    max_words: int = 20_000
    num_folds: int = 5
    use_vectors: bool = True
    use_words: bool = True
    seed: int = 0


class TermModel(nn.Module):
    """Scores of T terms for titles.

    Args:
        terms: The vocabulary.
        term_vectors: (T, D) float32 text vectors of the terms; D may be 0.
        words: The V words that it knows.
        documents: (V, T) what each word is worth to each term.
    """

    def __init__(
        self, terms: Sequence[str], term_vectors: np.ndarray, words: Sequence[str], documents: csr_matrix
    ) -> None:
        super().__init__()
        num_terms, width = term_vectors.shape
        self.terms, self.words = list(terms), list(words)
        self.names = nn.Buffer(torch.from_numpy(np.ascontiguousarray(term_vectors, np.float32)))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.by_vector = nn.Parameter(torch.zeros(num_terms, width))
        self.trust = nn.Parameter(torch.tensor(0.5))
        self.by_word = nn.Parameter(torch.zeros(len(self.words), num_terms))
        self.documents = documents
        self.bias = nn.Parameter(torch.zeros(num_terms))

    def bags(self, titles: Sequence[str]) -> csr_matrix:
        """(n, V) float32: the known words of each title, each once, together of length 1."""
        bags = bags_of(titles, self.words)
        sizes = np.diff(bags.indptr)
        bags.data /= np.sqrt(np.repeat(sizes, sizes))
        return bags

    def forward(self, vectors: Tensor, bags: csr_matrix, documents: csr_matrix | None = None) -> Tensor:
        """Scores of titles.

        Args:
            vectors: (n, D) float32 text vectors.
            bags: (n, V) as `bags` gives them.
            documents: (V, T) to use in place of its own.

        Returns:
            (n, T) float32.
        """
        scores = vectors @ (self.scale * self.names + self.by_vector).T + self.bias
        if not self.words:
            return scores
        worth = torch.from_numpy((bags @ (self.documents if documents is None else documents)).toarray())
        indices, starts = (torch.from_numpy(one.astype(np.int64)) for one in (bags.indices, bags.indptr[:-1]))
        own = F.embedding_bag(
            indices, self.by_word, starts, mode="sum", per_sample_weights=torch.from_numpy(bags.data)
        )
        return scores + own + self.trust * worth

    @torch.no_grad()
    def predict(self, titles: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Chances that a title is about each term, as masked titles were.

        Args:
            titles: n titles.
            vectors: (n, D) float32 text vectors of them.

        Returns:
            (n, T) float32, rows sum to 1.
        """
        parts = []
        for start in range(0, len(titles), 2048):
            part = slice(start, start + 2048)
            scores = self(torch.from_numpy(vectors[part]), self.bags(titles[part]))
            parts.append(scores.softmax(dim=1).numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self.terms)), np.float32)

    def save(self, folder: Path, fingerprint: str) -> None:
        """Writes model.safetensors, vocabulary, words and fingerprint in its metadata.

        One file, since of two a killed run leaves one that belongs to another vocabulary.
        """
        held = self.documents
        tensors = {
            **self.state_dict(),
            "worth": held.data,
            "worth_term": held.indices,
            "worth_start": held.indptr,
        }
        facts = {"terms": json.dumps(self.terms), "words": json.dumps(self.words), "fingerprint": fingerprint}
        files.write_tensors(folder / "model.safetensors", tensors, facts)


def load_model(folder: Path, fingerprint: str) -> TermModel | None:
    """What `save` wrote; None where nothing stands there, or the model of another fingerprint."""
    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    with safe_open(str(path), "pt") as file:
        facts = file.metadata() or {}
        if facts.get("fingerprint") != fingerprint:
            return None
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    terms, words = json.loads(facts["terms"]), json.loads(facts["words"])
    parts = tuple(tensors.pop(name).numpy() for name in ("worth", "worth_term", "worth_start"))
    model = TermModel(terms, tensors["names"].numpy(), words, csr_matrix(parts, shape=(len(words), len(terms))))
    model.load_state_dict(tensors)
    return model.eval()


def fit(
    terms: Sequence[str],
    term_vectors: np.ndarray,
    examples: Examples,
    vectors: np.ndarray,
    config: Config | None = None,
) -> TermModel:
    """Fits a model to masked titles.

    Args:
        terms: T terms.
        term_vectors: (T, D) float32 text vectors of the terms.
        examples: n masked titles.
        vectors: (n, D) float32 text vectors of them.
        config: How it is fitted.
    """
    assert len(examples), "nothing to learn from"
    config = config or Config()
    words = _known_words([*examples.text, *terms], config) if config.use_words else []
    bags = bags_of(examples.text, words)
    model = TermModel(terms, term_vectors, words, _documents(terms, words, bags, examples.term))
    vectors = vectors if config.use_vectors else np.zeros_like(vectors)
    with torch.no_grad():  # how often a term is said, to begin with; what no title says starts lowest
        counts = np.bincount(examples.term, minlength=len(terms)) + 0.5
        model.bias.copy_(torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32)))
    rng = np.random.default_rng(config.seed)
    fold = rng.integers(0, config.num_folds, int(examples.title.max(initial=0)) + 1)[examples.title]
    written = [
        _documents(terms, words, bags[fold != one], examples.term[fold != one])
        for one in range(config.num_folds)
    ]
    bags, steps = model.bags(examples.text), list(_steps(fold, config, rng))
    optimizer, schedule = _optimizer(model, config, len(steps))
    for rows in tqdm(steps, desc="terms", unit="step", disable=None):
        scores = model(torch.from_numpy(vectors[rows]), bags[rows], written[fold[rows[0]]])
        others = torch.from_numpy(examples.others[rows].toarray())
        loss = F.cross_entropy(scores.masked_fill(others, float("-inf")), torch.from_numpy(examples.term[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _steps(fold: np.ndarray, config: Config, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of each step; those of one step are of one fold."""
    num_steps = max(config.num_steps, config.num_epochs * len(fold) // config.batch_size)
    while num_steps > 0:
        order = rng.permutation(len(fold))
        parts = [order[fold[order] == one] for one in range(config.num_folds)]
        batches = [
            rows
            for part in parts
            for rows in np.array_split(part, -(-len(part) // config.batch_size) or 1)
            if len(rows)
        ]
        for number in rng.permutation(len(batches))[:num_steps]:
            yield batches[number]
        num_steps -= len(batches)


def _optimizer(model: TermModel, config: Config, num_steps: int) -> tuple[Any, Any]:
    """Adam, which pulls w and u alone to zero, and a rate that falls to zero."""
    groups = [
        {"params": [model.by_vector, model.by_word], "weight_decay": config.decay},
        {"params": [model.scale, model.trust, model.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, config.learning_rate)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(1, num_steps))
    return optimizer, rate


def _documents(terms: Sequence[str], words: Sequence[str], bags: csr_matrix, term: np.ndarray) -> csr_matrix:
    """(V, T) BM25 weight of each word for each term, whose document is its masked titles and its name."""
    says = csr_matrix((np.ones(len(term), np.float32), (term, np.arange(len(term)))), (len(terms), len(term)))
    counts = csr_matrix(says @ bags + bags_of(terms, words))
    return csr_matrix(bm25_weights(counts, np.ones(len(terms), bool), K1, B).T)


def bags_of(texts: Sequence[str], words: Sequence[str]) -> csr_matrix:
    """(n, V) float32 1 where a text holds a word of an ascending list."""
    column = {word: number for number, word in enumerate(words)}
    rows = [sorted({column[one.text] for one in words_of(text) if one.text in column}) for text in texts]
    return ones_at(rows, len(words))


def _known_words(texts: Sequence[str], config: Config) -> list[str]:
    """The words of enough texts, ascending; the commonest where they are too many."""
    counts = Counter(word for text in texts for word in {one.text for one in words_of(text)})
    kept = sorted(
        (word for word in counts if counts[word] >= config.min_word_titles), key=lambda w: (-counts[w], w)
    )
    return sorted(kept[: config.max_words])
