"""All checks of a history, and the smallest part of it that breaks a promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from . import checks_events, checks_semaphores, checks_timers
from .history import History, Operation
from .shrink import shrink
from .verdict import Violation

__all__ = ["check"]

_MOST: Final = 20
"""Of one promise; the first ones tell enough."""

_CHECKS: Final[tuple[Callable[[History], Iterator[Violation]], ...]] = (
    checks_semaphores.check,
    checks_events.check,
    checks_timers.check,
)


def check(history: History) -> list[tuple[Violation, list[Operation]]]:
    """Everything that was promised and not kept, with the operations that show it."""
    found: list[tuple[Violation, list[Operation]]] = [
        (Violation("workers end when they are told to", each), []) for each in history.troubles
    ]
    for each in _CHECKS:
        counts: dict[str, int] = {}
        for violation in each(history):
            counts[violation.promise] = counts.get(violation.promise, 0) + 1
            if counts[violation.promise] <= _MOST:
                found.append((violation, shrink(history, violation, each)))
    return found
