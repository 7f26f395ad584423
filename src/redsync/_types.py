"""Public values that are the same for tasks and threads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["HeldPermit", "SemaphoreInitStrategy", "SemaphoreStatus"]


class SemaphoreInitStrategy(str, Enum):
    """How a semaphore is changed in Redis. Processes that share one may differ in this."""

    LUA = "lua"
    """By scripts: one round trip each."""

    OPTIMISTIC_LOCKING = "optimistic_locking"
    """By WATCH, MULTI and EXEC, for servers that forbid scripts: some round trips more, and more
    again when many processes change the same semaphore at once."""


@dataclass(frozen=True)
class HeldPermit:
    """A permit that somebody holds, as Redis knows it."""

    slot: int
    fence: int
    identifier: str
    """Who holds it: what the holder gave as `identifier`, by default its host and process."""
    held_for: float
    """Seconds since it was acquired."""
    expires_in: float
    """Seconds until it is free again, unless its lease is renewed."""


@dataclass(frozen=True)
class SemaphoreStatus:
    """A semaphore at one instant."""

    count: int
    """The number of permits."""
    free: int
    held: tuple[HeldPermit, ...]
    """By slot."""
    missing: int
    """Permits that are neither: on their way to a waiter, or not yet found to be lost by one that
    died, or kept back after Redis lost its data."""


for _each in (HeldPermit, SemaphoreInitStrategy, SemaphoreStatus):
    _each.__module__ = "redsync"
del _each
