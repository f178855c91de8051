"""The generator's vocabulary: every (level, code) is one sid_token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

PAD = 0
"""Padding, and the token that a decoder starts from."""
EOS = 1
"""Ends a history; a history without items is this token alone."""
NUM_SPECIAL = 2


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers of all codes of all levels, level after level behind the special tokens.

    >>> vocabulary = Vocabulary((4, 3))
    >>> vocabulary.size, vocabulary.token(0, 0), vocabulary.token(1, 2)
    (9, 2, 8)
    """

    level_sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """All tokens, the special ones too."""
        return NUM_SPECIAL + sum(self.level_sizes)

    @property
    def offsets(self) -> np.ndarray:
        """(L,) int64: the token of each level's code 0."""
        return np.array([self.offset(level) for level in range(len(self.level_sizes))], np.int64)

    def offset(self, level: int) -> int:
        """The token of code 0 of `level`."""
        return list(accumulate(self.level_sizes, initial=NUM_SPECIAL))[level]

    def token(self, level: int, code: int) -> int:
        """The token of one code.

        Raises:
            ValueError: If the level or the code does not exist.
        """
        if not 0 <= level < len(self.level_sizes):
            raise ValueError(f"level is {level}; levels run from 0 to {len(self.level_sizes) - 1}.")
        if not 0 <= code < self.level_sizes[level]:
            raise ValueError(f"code is {code}; level {level} has codes 0 to {self.level_sizes[level] - 1}.")
        return self.offset(level) + code

    def sid_tokens(self, sids: np.ndarray) -> np.ndarray:
        """Tokens of whole SIDs.

        Args:
            sids: (..., L) int64 codes.

        Returns:
            (..., L) int64 tokens.

        >>> Vocabulary((4, 3)).sid_tokens(np.array([[0, 0], [3, 2]])).tolist()
        [[2, 6], [5, 8]]
        """
        return sids + self.offsets
