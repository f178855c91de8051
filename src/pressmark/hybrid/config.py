"""How the hybrid can be told to be fitted."""

from __future__ import annotations

from dataclasses import dataclass

from pressmark.settings import at_least, shares


@dataclass(frozen=True)
class Config:
    """How the hybrid is fitted.

    Attributes:
        cold_share: Of the distinct validation targets, hidden as cold items are.
        given_up: How much of the NDCG@10 of targets that sell may be given up, as a share, so that new products
            are seen more; 0 shows as many as shoppers take.
        generator_epochs: Of the generator that is trained for it, as a share of the configured ones; the dual
            tower is trained as configured.
        num_cases: Cases of either kind of target that are looked at, at most, drawn.
    """

    cold_share: float = 0.05
    given_up: float = 0.02
    generator_epochs: float = 0.5
    num_cases: int = 4000

    def __post_init__(self) -> None:
        if not 0 < self.cold_share < 1:
            raise ValueError(f"hybrid.cold_share is {self.cold_share}; it must lie between 0 and 1.")
        shares("hybrid", self, "given_up", below_1=True)
        at_least("hybrid", self, num_cases=1)
        if not 0 < self.generator_epochs <= 1:
            raise ValueError(
                f"hybrid.generator_epochs is {self.generator_epochs}; it must be above 0, and 1 at most."
            )
