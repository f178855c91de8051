from __future__ import annotations

import numpy as np
import pytest

from pressmark.sids.vocabulary import EOS, PAD, Vocabulary


def test_every_level_and_code_has_its_own_token() -> None:
    vocabulary = Vocabulary((3, 300, 2))
    tokens = [vocabulary.token(level, code) for level, size in enumerate((3, 300, 2)) for code in range(size)]
    assert tokens == list(range(2, 307))
    assert vocabulary.size == 307
    assert {PAD, EOS} == {0, 1}
    assert [vocabulary.offset(level) for level in range(4)] == [2, 5, 305, 307]


def test_sid_tokens_keep_the_shape() -> None:
    sids = np.array([[[2, 299, 1], [0, 0, 0]]])
    assert Vocabulary((3, 300, 2)).sid_tokens(sids).tolist() == [[[4, 304, 306], [2, 5, 305]]]


@pytest.mark.parametrize(("level", "code"), [(0, 3), (0, -1), (2, 0), (-1, 0)])
def test_tokens_that_do_not_exist(level: int, code: int) -> None:
    with pytest.raises(ValueError, match=r"run from 0|has codes 0"):
        Vocabulary((3, 300)).token(level, code)
