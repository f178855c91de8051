from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pressmark.tokenizer import drift
from pressmark.tokenizer.drift import Thresholds, divergence, make_reference, measure, verdict

LIMITS = Thresholds()
SIZES = (8, 8)


def reference(num_held_out: int = 200, num: int = 1000) -> drift.Reference:
    """Errors uniform in 0 to 1, held-out ones in 0 to 1.2; codes even."""
    rng = np.random.default_rng(0)
    fitted_on = np.arange(num + num_held_out) < num
    errors = rng.random(len(fitted_on)) * np.where(fitted_on, 1.0, 1.2)
    return make_reference(errors, rng.integers(8, size=(len(errors), 2)), fitted_on, SIZES)


def judged(figures: dict[str, float], total: dict[str, float] | None = None) -> tuple[str, list[str]]:
    return verdict(reference(), figures, total or figures, LIMITS)


def sample(num: int, stretch: float = 1.2, codes: int = 8, seed: int = 1) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    errors = rng.random(num) * stretch
    return measure(reference(), errors, rng.integers(codes, size=(num, 2)), np.zeros(num, bool))


def test_divergence_by_hand() -> None:
    # (1/2, 1/2) against (1, 0): M = (3/4, 1/4); (log2(2/3) + log2(2)) / 4 + log2(4/3) / 2.
    expected = (np.log2(2 / 3) + 1) / 4 + np.log2(4 / 3) / 2
    assert divergence(np.array([[0.5, 0.5]]), np.array([1.0, 0.0]))[0] == pytest.approx(expected)


def test_the_reference_by_hand(tmp_path: Path) -> None:
    errors = np.arange(160.0)
    codes = np.array([[0, 0]] * 40 + [[1, 0]] * 59 + [[2, 2]] + [[7, 7]] * 60)
    one = make_reference(errors, codes, np.arange(160) < 100, SIZES)
    assert one.fitted[[0, 50, 100]].tolist() == [0, 49.5, 99]
    assert one.held_out[[0, 50, 100]].tolist() == [100, 129.5, 159]
    assert one.usage[0].tolist() == [40, 59, 1, 0, 0, 0, 0, 0]
    assert (one.num_fitted, one.num_held_out, one.share_beyond, one.share_taken) == (100, 60, 1.0, 0.99)
    drift.write_reference(tmp_path / "drift.safetensors", one)
    read = drift.read_reference(tmp_path / "drift.safetensors")
    np.testing.assert_array_equal(read.held_out, one.held_out)
    assert (read.num_held_out, read.share_beyond, read.share_taken) == (60, 1.0, 0.99)
    assert [counts.tolist() for counts in read.usage] == [counts.tolist() for counts in one.usage]


def test_few_held_out_items_are_no_reference_and_the_fit_is_allowed_for() -> None:
    few = reference(num_held_out=49)
    assert len(few.held_out) == 0
    assert few.share_beyond == pytest.approx(0.01)
    assert few.allowance == pytest.approx((1008 / 992) ** 2)
    assert reference().allowance == 1.0
    assert reference(num_held_out=0, num=8).allowance == float("inf")


@pytest.mark.parametrize("num", [1, 5, 20, 100, 2000])
def test_items_like_the_catalog_are_fine(num: int) -> None:
    for seed in range(20):
        assert judged(sample(num, seed=seed))[0] == "fine"


def test_larger_errors_say_retrain() -> None:
    answer, reasons = judged(sample(100, stretch=2.4))
    assert answer == "retrain"
    assert any("median reconstruction error is 2." in one for one in reasons)
    assert any("beyond training's 99 % quantile" in one for one in reasons)


def test_too_few_items_are_not_judged_but_add_up() -> None:
    odd = sample(19, stretch=4)
    answer, reasons = judged(odd)
    assert answer == "fine"
    assert "too few to judge" in reasons[0]
    answer, reasons = judged(odd, sample(38, stretch=4))
    assert answer == "retrain"
    assert all(one.startswith("all appended items") for one in reasons)


def test_relocation_beyond_what_training_lets_expect() -> None:
    taken = reference().share_taken
    assert taken == pytest.approx(1.0)  # 1,000 items on 64 SIDs
    rng = np.random.default_rng(0)
    codes = np.arange(64).repeat(2)
    sparse = make_reference(rng.random(128), np.stack([codes, codes], 1), np.ones(128, bool), (64, 64))
    assert sparse.share_taken == 1.0
    alone = make_reference(rng.random(64), np.stack([np.arange(64)] * 2, 1), np.ones(64, bool), (64, 64))
    assert alone.share_taken == 0.0
    figures = measure(alone, rng.random(60), rng.integers(64, size=(60, 2)), np.arange(60) < 30)
    found = verdict(alone, figures, figures, Thresholds(max_usage_divergence=1))
    assert found == (
        "retrain",
        ["this append: 50% of the items found their nearest SID taken (limit 20%, training 0%)"],
    )


def test_code_use_is_judged_once_the_appended_items_are_a_share_of_the_catalog() -> None:
    one_sided = sample(40, codes=1)
    assert one_sided["usage_1"] > one_sided["usage_most_1"] > one_sided["usage_chance_1"]
    assert judged(one_sided)[0] == "fine"  # 4 % of the 1,000 fitted items
    answer, reasons = judged(sample(60, codes=1))
    assert answer == "retrain"
    assert "the use of level 1's codes" in reasons[0]


def test_a_tight_limit_still_lets_chance_pass() -> None:
    tight = Thresholds(max_usage_divergence=1e-9, min_share_for_usage=1e-9)
    like = [sample(20, seed=seed) for seed in range(20)]
    assert any(one["usage_1"] > one["usage_chance_1"] for one in like)
    assert {verdict(reference(), one, one, tight)[0] for one in like} == {"fine"}


def test_chance_shrinks_with_numbers() -> None:
    few, many = sample(20), sample(2000)
    assert few["usage_chance_1"] > 5 * many["usage_chance_1"]
    assert few["chance_median"] > many["chance_median"] > 1


def test_impossible_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"drift.min_items is 0; it must be above 0"):
        Thresholds(min_items=0)
