"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .history import History, Operation

__all__ = ["ALLOWANCE", "Violation", "allowance"]

ALLOWANCE: Final = 1.0
"""Seconds beyond a bound for connections that are made anew and a machine that is busy."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken."""

    promise: str
    """Which one, in a few words."""
    text: str
    """What happened."""
    operations: tuple[Operation, ...] = ()
    """What was done to the object in question, as far as it may matter."""
    needed: tuple[Operation, ...] = ()
    """Those of them that tell something by their number, and must not be left out."""


def allowance(history: History, workers: Iterable[str], begin: float, end: float) -> float:
    """Seconds that may be added to a bound: no process promises anything while it is held up."""
    held_up = sum(history.held_up(worker, begin, end) for worker in {*workers})
    return ALLOWANCE + 2 * held_up
