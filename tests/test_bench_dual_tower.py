"""The loops that are compared must do the same work."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.scripts import load_script

from pressmark.dual_tower import text

bench = load_script("bench_dual_tower")


def test_both_loops_learn_alike(tmp_path: Path) -> None:
    words = ("red", "green"), ("cup", "bowl", "dish"), ("clay", "glass", "tin")
    texts = [" ".join(one) for one in itertools.product(*words)]
    tokenizer = text.tokenizer_of(bench.ENCODER, texts)
    tokens = torch.from_numpy(text.tokens_of(tokenizer, texts, bench.ENCODER.length))
    # Nothing is a target twice: ours would leave those out of the negatives.
    pairs = np.array([[0, 1], [0, 2], [3, 4], [5, 0], [1, 7], [17, 16]])
    tower = bench.tower_of(bench.ENCODER, tokenizer)
    plain = bench.theirs(tower, tokenizer, tmp_path, texts, pairs)
    mine = bench.ours(tower, tokens, pairs)
    losses = [(mine(), plain()) for _ in range(3)]
    assert losses[2][0] < losses[0][0]
    for one, other in losses:
        assert one == pytest.approx(other, rel=1e-3)
