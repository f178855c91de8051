from __future__ import annotations

import pytest

from pressmark.training.curves import curves


@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_a_training_is_drawn_whatever_it_measured(steps: int) -> None:
    losses = [1 / (1 + step) for step in range(steps)]
    some = [
        {"step": 1, "seconds": 60.0 * (1 + n), "ndcg_at_10": 0.1 * n, "recall_at_10": 0.2} for n in range(3)
    ]
    drawn = [
        curves("a $tage", {"losses": losses, "validations": validations})
        for validations in ([], some, [{"step": 1, "seconds": 1.0, "reconstruction_r2": 0.5}])
    ]
    assert all(one.startswith(b"\x89PNG") for one in drawn)
    assert len(set(drawn)) == 3
