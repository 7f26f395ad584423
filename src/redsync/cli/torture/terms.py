"""What there is in a run: who works, on what, with which leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "BEAT",
    "CANCELLATIONS",
    "CANCELLED",
    "EPOCH",
    "GRACE",
    "KINDS",
    "MAX_ATTEMPTS",
    "OWN_TRY",
    "PERMIT_TTL",
    "SEATS",
    "SEMAPHORES",
    "SLICE",
    "TIMELINE",
    "TIMER_LEASE",
    "TOPICS",
    "TRY",
    "Shared",
    "event_name",
    "event_names",
    "kind_of",
    "strategy_for",
]

KINDS: Final = ("asyncio", "threads")

SEATS: Final = 4
"""A seat is a place at the server, with a link of its own; workers take it, one after another."""

PERMIT_TTL: Final = 2.0
GRACE: Final = PERMIT_TTL / 2
OWN_TRY: Final = 5.0
"""Seconds after which a call that cannot ask for a permit, or resize, fails."""

TIMER_LEASE: Final = 2.0
SLICE: Final = TIMER_LEASE
"""Seconds after which each worker of the timers has looked."""
MAX_ATTEMPTS: Final = 5

CANCELLATIONS: Final = 0.15
"""The share of calls that are cancelled, where that can be."""
TRY: Final = (0.0, 1.0)
"""Seconds after which they are."""
CANCELLED: Final = "cancelled"
"""The error of those."""

EPOCH: Final = 20.0
"""Seconds for which an event is used."""

TIMELINE: Final = "torture"
TOPICS: Final = ("quick", "long", "flaky", "beat")
BEAT: Final = 0.5
"""Seconds between the instants of the series."""


@dataclass(frozen=True)
class Shared:
    """A semaphore."""

    name: str
    count: int
    """The number of permits; of one that is resized the most that it is resized to."""
    strategies: tuple[str, ...]
    """Who has an odd seat uses the last one."""
    fewest: int | None = None
    """The least that it is resized to; None: it is not."""

    @property
    def fixed(self) -> int | None:
        """The number of permits that all who use it know, if there is one."""
        return self.count if self.fewest is None else None


SEMAPHORES: Final = (
    Shared("scripts", 3, ("lua",)),
    Shared("transactions", 2, ("optimistic_locking",)),
    Shared("mixed", 2, ("lua", "optimistic_locking")),
    Shared("resized", 4, ("lua", "optimistic_locking"), fewest=1),
)


def kind_of(seat: int) -> str:
    """Whether tasks or threads work there."""
    return KINDS[seat % 2]


def strategy_for(shared: Shared, seat: int) -> str:
    """How this seat changes a semaphore: with four seats there is each kind with each strategy."""
    return shared.strategies[(seat // 2) % len(shared.strategies)]


def event_name(now: float, seat: int) -> str:
    """The event that this seat waits for at a time."""
    return f"event-{int(now // EPOCH)}-{seat}"


def event_names(begin: float, end: float) -> list[str]:
    """All events that there were between two times."""
    epochs = range(int(begin // EPOCH), int(end // EPOCH) + 1)
    return [event_name(epoch * EPOCH, seat) for epoch in epochs for seat in range(SEATS)]
