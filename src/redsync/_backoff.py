"""Pauses between attempts."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

__all__ = ["Backoff", "Pauses"]

_LONGEST: Final = 1e9


@dataclass(frozen=True)
class Backoff:
    """How long to wait before another attempt: longer after each failure, up to a limit.

    Raises:
        ValueError: A number makes no sense.
    """

    base: float = 1.0
    """Seconds before the second attempt."""
    factor: float = 2.0
    """By how much each pause is longer than the one before."""
    maximum: float = 300.0
    """Seconds of the longest pause, before chance has its share."""
    jitter: float = 0.1
    """The share of a pause by which chance makes it longer or shorter, so that those who failed
    together do not all come back at one instant. 0 to 1."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("base", 0.0, _LONGEST),
            ("factor", 1.0, _LONGEST),
            ("maximum", 0.0, _LONGEST),
            ("jitter", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} of a Backoff must be a number, not {value!r}")
            if not least <= value <= most:  # refuses NaN too
                raise ValueError(f"{name} of a Backoff must be {least:g} to {most:g}, not {value}")

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        try:
            growth = float(self.factor) ** (failures - 1)
        except OverflowError:
            growth = math.inf
        whole = min(self.maximum, self.base * growth) if self.base else 0.0
        return whole * random.uniform(1 - self.jitter, 1 + self.jitter)


class Pauses:
    """The pauses of one who tries again and again."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0

    def next(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        self._failures += 1
        return self._backoff.pause(self._failures)

    def reset(self) -> None:
        """An attempt has succeeded: begin with the first pause again."""
        self._failures = 0


Backoff.__module__ = "redsync"  # tracebacks show the name that users import
