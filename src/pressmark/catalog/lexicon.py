"""The words of a catalog, numbered, so that a model can hold a vector for each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.catalog.embeddings import item_texts
from pressmark.catalog.items import Catalog

FILE = "words.json"
"""Name of a lexicon's file in the folder of the model that reads its words."""

FEWEST = 3
"""Texts that a word stands in, at least: what is known of one product alone is its identity's to learn."""

_WORD = re.compile(r"\w+")


def words_in(text: str) -> list[str]:
    """The distinct words of a text in lower case, in the order in which they stand."""
    return list(dict.fromkeys(_WORD.findall(text.lower())))


@dataclass(frozen=True)
class Lexicon:
    """Words numbered from 1; 0 is none.

    Attributes:
        words: V words.
        rarity: (V + 1,) float32 inverse document frequency, 1 and above; 0 for none.
    """

    words: tuple[str, ...]
    rarity: np.ndarray

    def rows(self, texts: Sequence[str], width: int) -> np.ndarray:
        """(n, width) int32: each text's first known words, filled up with 0."""
        number = {word: place for place, word in enumerate(self.words, 1)}
        found = np.zeros((len(texts), width), np.int32)
        for row, text in enumerate(texts):
            known = [number[word] for word in words_in(text) if word in number][:width]
            found[row, : len(known)] = known
        return found

    def save(self, folder: Path) -> None:
        """Writes words and rarity as JSON, beside the model that reads them."""
        files.write_json(folder / FILE, {"words": list(self.words), "rarity": self.rarity[1:].tolist()})

    @classmethod
    def load(cls, folder: Path, num_words: int) -> Lexicon:
        """Reads what `save` wrote.

        Args:
            folder: Of a model.
            num_words: V, the words that the model reads.

        Raises:
            ValueError: If the file is missing, is no such file, or holds other words than the model's.
        """
        path = folder / FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing: the model beside it reads words; train it again.")
        made = files.read_json(path)
        try:
            words, rarity = tuple(made["words"]), np.asarray(made["rarity"], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: it must hold words and their rarity; {error!r} is wrong.") from error
        if len(words) != len(rarity):
            raise ValueError(f"{path}: it holds {len(words)} words and {len(rarity)} numbers for them.")
        if len(words) != num_words:
            raise ValueError(
                f"{path}: it holds {len(words)} words, the model reads {num_words}. Train it again."
            )
        return cls(words, np.append(np.float32(0), rarity))


def learn_lexicon(texts: Iterable[str]) -> Lexicon:
    """The words that stand in FEWEST texts or more, the commonest first."""
    count: Counter[str] = Counter()
    num = 0
    for text in texts:
        count.update(words_in(text))
        num += 1
    kept = sorted(((-times, word) for word, times in count.items() if times >= FEWEST))
    times = -np.array([one for one, _ in kept], np.float64)
    rarity = np.log((1 + num) / (1 + times)) + 1 if kept else np.zeros(0)
    return Lexicon(tuple(word for _, word in kept), np.append(0, rarity).astype(np.float32))


def read_words(catalog: Catalog, fitted_on: np.ndarray, width: int) -> tuple[Lexicon, np.ndarray]:
    """The words of the texts that may be fitted on, (N,) bool, and (N, width) int32 those of every item."""
    texts = item_texts(catalog)
    lexicon = learn_lexicon(text for text, seen in zip(texts, fitted_on, strict=True) if seen)
    return lexicon, lexicon.rows(texts, width)
