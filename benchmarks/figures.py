"""From samples to figures: medians, percentiles, ratios, each with its spread over the rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Figure", "Sheet", "Spread", "percentile", "ratios"]


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the least and the greatest of them."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value for each round."""
        return cls(median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Figure:
    """Something that was measured."""

    row: int
    where: str
    """Under which conditions."""
    subject: str
    """Who."""
    measure: str
    """What, such as "time against two PINGs"."""
    spread: Spread
    unit: str = ""
    most: float | None = None
    """The target, if it is an upper bound."""
    least: float | None = None
    """The target, if it is a lower bound."""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None: there is none."""
        if self.most is not None:
            return self.spread.median <= self.most
        if self.least is not None:
            return self.spread.median >= self.least
        return None


class Sheet:
    """The figures of a row."""

    def __init__(self, row: int) -> None:
        self.figures: list[Figure] = []
        self._row = row

    def add(
        self,
        where: object,
        subject: str,
        measure: str,
        values: Sequence[float],
        unit: str = "x",
        *,
        most: float | None = None,
        least: float | None = None,
    ) -> None:
        """Write down a figure, from a value for each round. Targets are for redsync only."""
        ours = subject.startswith("redsync") and subject != "redsync 2.0.0"
        targets = (most, least) if ours else (None, None)
        spread = Spread.of(values)
        self.figures.append(Figure(self._row, str(where), subject, measure, spread, unit, *targets))


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that is not below this share of all."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Of two that took turns: of each round with the same round of the other."""
    return [one / other for one, other in zip(values, others, strict=True)]
