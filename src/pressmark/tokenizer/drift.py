"""Do appended items still fit the tokenizer? Their reconstruction error and code use against training's.

An alarm needs two things: a difference that is large (`Thresholds`), and one that is not chance (further out
than all of 500 draws of as many items from training itself). Twenty odd products raise none.

New items reconstruct worse than those that the quantizer was fitted on, drift or not (on the grocery store the
median error of held-out items is 1.2 times that of fitted ones). So they are compared with the items that the
split hid from fitting, where there are enough; else with the fitted ones, allowing for the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pressmark import files
from pressmark.tokenizer.quality import shared_sids

NUM_DRAWS = 500
_MOST_DRAWN = 10_000
"""Items in one draw; beyond, chance is too small to matter."""
_TAIL = 0.99
_FEW_HELD_OUT = 50


@dataclass(frozen=True)
class Thresholds:
    """When to say "retrain"."""

    max_error_ratio: float = 1.3
    """Median, or 90 % quantile, of the squared reconstruction error over that of items like training's."""
    max_share_beyond: float = 0.1
    """Share of items whose error is beyond the 99 % quantile of the fitted items."""
    max_usage_divergence: float = 0.2
    """Jensen-Shannon divergence in bits (0 alike, 1 disjoint) of a level's code use from training's, beyond
    what as many items drawn from training show on average."""
    min_share_for_usage: float = 0.05
    """Code use is judged once the appended items are this share of the fitted ones: one brand's new range is
    one-sided and no harm."""
    max_relocated_excess: float = 0.2
    """Share of items whose nearest SID was taken, beyond the share that training lets expect."""
    min_items: int = 20
    """Fewer items are not judged, but count in the total of all appends."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"drift.{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class Reference:
    """What training leaves to compare with. Errors are squared distances in the vectors' own units.

    Attributes:
        fitted: (101,) float64 quantiles 0, 0.01, ..., 1 of the fitted items' errors.
        held_out: (101,) float64 the same for items hidden from fitting; (0,) where they are fewer than 50.
        usage: L arrays (K,) int64: fitted items on each code, before relocation.
        num_fitted: Items.
        num_held_out: Items.
        share_beyond: Share of the held-out items beyond the fitted ones' 99 % quantile; 0.01 without any.
        share_taken: Share of the fitted items that share their nearest SID with another: each of them would
            have found it taken, had it come last.
    """

    fitted: np.ndarray
    held_out: np.ndarray
    usage: tuple[np.ndarray, ...]
    num_fitted: int
    num_held_out: int
    share_beyond: float
    share_taken: float

    @property
    def quantiles(self) -> np.ndarray:
        """(101,) of the items to compare with."""
        return self.held_out if len(self.held_out) else self.fitted

    @property
    def num_compared(self) -> int:
        """Items behind `quantiles`."""
        return self.num_held_out if len(self.held_out) else self.num_fitted

    @property
    def allowance(self) -> float:
        """How much larger the error of new items must be expected: 1 beside held-out items.

        Beside fitted ones (N + K) / (N - K) a level, the final prediction error of a model that spends K
        centres on N rows; infinite where a level has as many codes as items, which can say nothing.

        Source: Akaike, "Fitting autoregressive models for prediction" (1969), with K of N for p of n.
        """
        if len(self.held_out):
            return 1.0
        sizes = [len(counts) for counts in self.usage]
        if max(sizes) >= self.num_fitted:
            return float("inf")
        return float(np.prod([(self.num_fitted + size) / (self.num_fitted - size) for size in sizes]))


def make_reference(
    errors: np.ndarray, codes: np.ndarray, fitted_on: np.ndarray, level_sizes: Sequence[int]
) -> Reference:
    """The reference of a training.

    Args:
        errors: (N,) float squared reconstruction error of each item's nearest codes.
        codes: (N, L) int64 nearest codes.
        fitted_on: (N,) bool.
        level_sizes: Codes a level.
    """
    grid = np.linspace(0, 1, 101)
    hidden = ~fitted_on
    enough = int(hidden.sum()) >= _FEW_HELD_OUT
    fitted = np.quantile(errors[fitted_on].astype(np.float64), grid)
    usage = [np.bincount(codes[fitted_on, one], minlength=size) for one, size in enumerate(level_sizes)]
    return Reference(
        fitted=fitted,
        held_out=np.quantile(errors[hidden].astype(np.float64), grid) if enough else np.empty(0),
        usage=tuple(usage),
        num_fitted=int(fitted_on.sum()),
        num_held_out=int(hidden.sum()),
        share_beyond=float((errors[hidden] > fitted[99]).mean()) if enough else 1 - _TAIL,
        share_taken=shared_sids(codes[fitted_on])["items_sharing_a_sid"],
    )


def write_reference(path: Path, reference: Reference) -> None:
    """Writes a safetensors file."""
    tensors = {f"usage_{level}": counts for level, counts in enumerate(reference.usage)}
    numbers = [reference.num_fitted, reference.num_held_out, reference.share_beyond, reference.share_taken]
    files.write_tensors(
        path,
        {"fitted": reference.fitted, "held_out": reference.held_out, "numbers": np.array(numbers), **tensors},
    )


def read_reference(path: Path) -> Reference:
    """Reads what `write_reference` wrote."""
    found = {name: tensor.numpy() for name, tensor in files.read_tensors(path).items()}
    usage = tuple(found[f"usage_{level}"] for level in range(len(found) - 3))
    num_fitted, num_held_out, share_beyond, share_taken = found["numbers"].tolist()
    return Reference(
        found["fitted"],
        found["held_out"],
        usage,
        int(num_fitted),
        int(num_held_out),
        share_beyond,
        share_taken,
    )


def measure(
    reference: Reference, errors: np.ndarray, codes: np.ndarray, moved: np.ndarray, seed: int = 0
) -> dict[str, float]:
    """Figures of n > 0 appended items, with what chance would make of them.

    Args:
        reference: Of the training.
        errors: (n,) float.
        codes: (n, L) int64 nearest codes.
        moved: (n,) bool.
        seed: Of the draws.

    Returns:
        num_items; error_median, error_q90: ratios to the reference's; chance_median, chance_q90: the largest
        ratio among 500 draws from the reference; share_beyond (the fitted items' 99 % quantile) and
        share_relocated, with expected_beyond and expected_relocated; usage_<level>: Jensen-Shannon divergence
        in bits, usage_chance_<level> its mean and usage_most_<level> its largest value over 500 draws from
        training. Levels count from 1.
    """
    rng = np.random.default_rng(seed)
    figures: dict[str, float] = {"num_items": len(errors)}
    for name, share in (("median", 0.5), ("q90", 0.9)):
        base = max(float(np.quantile(reference.quantiles, share)), 1e-12)
        figures[f"error_{name}"] = float(np.quantile(errors, share)) / base
        figures[f"chance_{name}"] = _largest_ratio(reference, len(errors), share, rng)
    figures["share_beyond"] = float((errors > reference.fitted[99]).mean())
    figures["expected_beyond"] = reference.share_beyond
    figures["share_relocated"] = float(moved.mean())
    figures["expected_relocated"] = reference.share_taken
    for level, counts in enumerate(reference.usage):
        known = counts / counts.sum()
        found = np.bincount(codes[:, level], minlength=len(counts)) / len(codes)
        drawn = rng.multinomial(min(len(codes), _MOST_DRAWN), known, NUM_DRAWS) / min(len(codes), _MOST_DRAWN)
        chance = divergence(drawn, known)
        figures[f"usage_{level + 1}"] = float(divergence(found[None], known)[0])
        figures[f"usage_chance_{level + 1}"] = float(chance.mean())
        figures[f"usage_most_{level + 1}"] = float(chance.max())
    return figures


def divergence(shares: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits: (n, K) shares against (K,), each summing to 1 -> (n,) from 0 to 1.

    >>> divergence(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0])).tolist()
    [0.0, 1.0]
    """
    middle = (shares + known) / 2

    def relative(p: np.ndarray) -> np.ndarray:
        terms = np.zeros_like(middle)
        np.log2(p / np.where(middle > 0, middle, 1), out=terms, where=np.broadcast_to(p > 0, middle.shape))
        return (p * terms).sum(axis=1)

    return (relative(shares) + relative(known)) / 2


def verdict(
    reference: Reference, batch: dict[str, float], total: dict[str, float], limits: Thresholds
) -> tuple[str, list[str]]:
    """ "retrain" or "fine", and why.

    Args:
        reference: Of the training.
        batch: `measure` of one append.
        total: `measure` of all items appended so far.
        limits: When to alarm.
    """
    reasons = []
    for name, figures in (("this append", batch), ("all appended items", total)):
        if figures["num_items"] >= limits.min_items and not (name != "this append" and figures == batch):
            found = _misfit(reference, figures, limits)
            reasons += [f"{name}: {one}" for one in found]
    if total["num_items"] >= max(limits.min_items, limits.min_share_for_usage * reference.num_fitted):
        reasons += [f"all appended items: {one}" for one in _other_use(reference, total, limits)]
    if reasons:
        return "retrain", reasons
    if total["num_items"] < limits.min_items:
        few = f"{total['num_items']} appended items are too few to judge (drift.min_items {limits.min_items})"
        return "fine", [few]
    return "fine", ["appended items fit the codes as items of the training catalog do"]


def _misfit(reference: Reference, figures: dict[str, float], limits: Thresholds) -> list[str]:
    reasons = []
    for name, words in (("median", "median reconstruction error"), ("q90", "90 % quantile of the error")):
        limit = limits.max_error_ratio * reference.allowance
        if figures[f"error_{name}"] > max(limit, figures[f"chance_{name}"]):
            reasons.append(f"{words} is {figures[f'error_{name}']:.2f} times training's (limit {limit:.2f})")
    for name, limit, expected, words in (
        (
            "share_beyond",
            limits.max_share_beyond,
            reference.share_beyond,
            "of the items lie beyond training's 99 % quantile of the error",
        ),
        (
            "share_relocated",
            reference.share_taken + limits.max_relocated_excess,
            reference.share_taken,
            "of the items found their nearest SID taken",
        ),
    ):
        if figures[name] > limit and not _by_chance(figures[name], figures["num_items"], expected):
            reasons.append(f"{figures[name]:.0%} {words} (limit {limit:.0%}, training {expected:.0%})")
    return reasons


def _other_use(reference: Reference, figures: dict[str, float], limits: Thresholds) -> list[str]:
    reasons = []
    for level in range(1, len(reference.usage) + 1):
        excess = figures[f"usage_{level}"] - figures[f"usage_chance_{level}"]
        by_chance = figures[f"usage_{level}"] <= figures[f"usage_most_{level}"]
        if excess > limits.max_usage_divergence and not by_chance:
            reasons.append(
                f"the use of level {level}'s codes is {excess:.2f} bits away from training's beyond chance "
                f"(limit {limits.max_usage_divergence:.2f})"
            )
    return reasons


def _largest_ratio(reference: Reference, num_items: int, share: float, rng: np.random.Generator) -> float:
    """The largest of 500 ratios of a quantile of n items to that of m, both drawn from the reference.

    The k-th smallest of n uniform numbers has the distribution Beta(k, n + 1 - k), so one number is drawn for
    each quantile and looked up among the reference's.
    """
    grid = np.linspace(0, 1, 101)

    def drawn(num: int) -> np.ndarray:
        place = share * (num - 1) + 1
        return np.interp(rng.beta(place, num + 1 - place, NUM_DRAWS), grid, reference.quantiles)

    one, other = drawn(num_items), drawn(reference.num_compared)
    return float((one / np.maximum(other, 1e-12)).max())


def _by_chance(found: float, num_items: float, expected: float) -> bool:
    """Whether a share is one that 1 of 1,000 samples reaches or more."""
    from scipy.stats import binom

    return bool(binom.sf(round(found * num_items) - 1, int(num_items), expected) >= 1e-3)
