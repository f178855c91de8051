"""What the judge can be told."""

from __future__ import annotations

from dataclasses import dataclass

from pressmark.evaluation.protocols import check_protocols
from pressmark.settings import at_least

_PAIRED = (
    "hybrid:generator",
    "hybrid:dual_tower",
    "hybrid:sasrec",
    "hybrid:hybrid_without_generator",
    "hybrid:hybrid_without_trend",
    "hybrid:sasrec_with_neighbours",
    "hybrid:content_neighbours",
    "generator:dual_tower",
    "generator:sasrec",
    "generator:content_neighbours",
    "generator:popularity",
    "dual_tower:sasrec",
    "dual_tower:content_neighbours",
    "dual_tower:popularity",
)


@dataclass(frozen=True)
class Config:
    """How models are judged; the definitions are those of docs/evaluation.md and not configurable."""

    protocols: tuple[str, ...] = ("full", "quota_0.1", "quota_0.3", "cold_only")
    """full, cold_only, and quota_<share> for any share; `full` alone where the split has no cold item."""
    unmasked_twin: bool = True
    """Judge `full` without history masking too, as `full_unmasked`; one more pass a model."""
    num_resamples: int = 10_000
    """Bootstrap resamples."""
    batch_size: int = 256
    """Requests that a model answers at once."""
    max_cases: int = 0
    """0 = every test case; else a seeded subset of this many, and the report says so."""
    paired: tuple[str, ...] = _PAIRED
    """Models to compare as `a:b` (difference a - b); pairs with an absent model are passed over."""
    seed: int = 0
    """Seed of the bootstrap and of the subset."""

    def __post_init__(self) -> None:
        check_protocols(self.protocols)
        if len(set(self.protocols)) < len(self.protocols) or not self.protocols:
            raise ValueError(f"evaluation.protocols is {self.protocols}; name each wanted protocol once.")
        at_least("evaluation", self, num_resamples=1, batch_size=1, max_cases=0)
        self.pairs()

    def pairs(self) -> list[tuple[str, str]]:
        """`paired`, taken apart.

        Raises:
            ValueError: If one is not `a:b`.
        """
        for pair in self.paired:
            if pair.count(":") != 1 or not all(pair.split(":")):
                raise ValueError(f"evaluation.paired holds {pair!r}; write two model names as a:b.")
        return [(pair.split(":")[0], pair.split(":")[1]) for pair in self.paired]
