"""What usually has a product's code prefix, by a plain look."""

from __future__ import annotations

import numpy as np

from pressmark.insight.categories.findings import LEAST_OTHERS, prefix_of
from pressmark.insight.categories.sources import Codes


def test_the_prefix_is_what_a_plain_look_finds() -> None:
    rng = np.random.default_rng(0)
    num, leaves = 400, 5
    codes, label = rng.integers(0, 4, (num, 4)), rng.integers(-1, leaves, num)
    told = rng.random(num) < 0.9
    alike = Codes(codes, label, leaves, told)
    for item in np.flatnonzero((label >= 0) & told):
        prefix, size, usual = prefix_of(codes, alike, int(item))
        others = (label >= 0) & told & (np.arange(num) != item)
        lengths = [others & (codes[:, :length] == codes[item, :length]).all(axis=1) for length in range(1, 5)]
        own = [one for one in lengths if one.sum() >= LEAST_OTHERS][-1]
        assert prefix == tuple(codes[item, : len(prefix)])
        assert size == own.sum() == lengths[len(prefix) - 1].sum()
        assert all(share == (label[own] == leaf).mean() for leaf, share in usual)


def test_a_code_of_its_own_is_no_evidence() -> None:
    codes, label = np.array([[0, 0], [1, 0], [1, 1], [1, 1]]), np.array([0, 1, 1, 0])
    alike = Codes(codes, label, 2, np.array([True, True, True, False]))
    assert prefix_of(codes, alike, 0) == ((), 0, ())
    assert prefix_of(codes, alike, 1) == ((1,), 1, ((1, 1.0),))
    assert prefix_of(codes, alike, 3) == ((), 0, ())  # without content its codes mean nothing
