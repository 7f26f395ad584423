"""Pauses between attempts."""

from __future__ import annotations

import random


class Backoff:
    """Each pause is about twice as long as the one before, up to a limit; a little by chance, so
    that those who were cut off together do not all come back at one instant.

    Args:
        first: Seconds of the first pause.
        longest: Seconds of the longest one.
        spread: Between which multiples of that the pauses are.
    """

    def __init__(
        self, first: float, longest: float, spread: tuple[float, float] = (0.8, 1.2)
    ) -> None:
        self._first = first
        self._longest = longest
        self._spread = spread
        self._pause = first

    def next(self) -> float:
        """How long to wait before the next attempt."""
        pause, self._pause = self._pause, min(self._longest, 2 * self._pause)
        return pause * random.uniform(*self._spread)

    def reset(self) -> None:
        """An attempt has succeeded: begin with the first pause again."""
        self._pause = self._first
