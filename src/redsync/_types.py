"""Public values that are the same for tasks and threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

__all__ = [
    "DeadTimer",
    "HeldPermit",
    "MissedRuns",
    "Retry",
    "SemaphoreInitStrategy",
    "SemaphoreStatus",
    "Timer",
    "TimerRun",
]


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


class MissedRuns(str, Enum):
    """What becomes of the instants of a recurring timer at which nobody could run it."""

    ONCE = "once"
    """The latest one is made up for, the others are left out."""
    ALL = "all"
    """Each one is made up for, in turn."""
    SKIP = "skip"
    """None is made up for, unless it was missed by less than half of the period and a minute."""


@dataclass(frozen=True)
class Timer:
    """A timer to be set; see `Timers.set_timer` for what the fields mean."""

    topic: str
    timer_id: str
    payload: object
    activation_period: timedelta | None = None
    activate_at: datetime | None = None
    every: timedelta | None = None
    missed: MissedRuns = MissedRuns.ONCE


@dataclass(frozen=True)
class TimerRun:
    """One run of a timer, for the handler that has a third parameter."""

    topic: str
    timer_id: str
    attempt: int
    """1, and one more after each failure, and after each worker that died in the middle."""
    scheduled_for: datetime
    """When it was due."""
    lateness: float
    """Seconds by which it was claimed later than that, by the server's clock."""
    fence: int
    """Rises with every run: of two runs that overlap, the one that counts has the greater one."""
    _remaining: Callable[[], float] = field(repr=False, compare=False)

    def remaining(self) -> float:
        """Seconds for which nobody else will surely run it, unless the lease is renewed, which
        happens in the background; 0 once it is lost.
        """
        return self._remaining()

    @property
    def lost(self) -> bool:
        """Whether the lease ran out, somebody else runs it, or it was removed: whatever this
        handler still does may be done twice, and how it ends counts only if nobody else has begun.
        """
        return self._remaining() <= 0


class Retry(Exception):
    """Raised by a handler that wants to run again later. It counts as an attempt that failed.

    Args:
        delay: Seconds from now, or a timedelta; None: what the handler's `backoff` says.
    """

    def __init__(self, delay: float | timedelta | None = None) -> None:
        super().__init__(delay)
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if seconds is not None and not isinstance(seconds, (int, float)):
            raise TypeError(
                f"delay must be None, a number of seconds or a timedelta, not {delay!r}"
            )
        if seconds is not None and not 0 <= seconds <= 1e9:  # refuses NaN too
            raise ValueError(f"delay must be None or 0 to 1e9 seconds, not {delay!r}")
        self.delay = seconds
        """Seconds, or None."""


@dataclass(frozen=True)
class DeadTimer:
    """A timer that has failed for good: no attempt was left, or its payload made no sense."""

    topic: str
    timer_id: str
    payload: bytes | None
    """As it was in Redis; None: it was not there any more."""
    error: str
    """What the last attempt ended with, or what is wrong with the payload."""
    attempts: int
    scheduled_for: datetime
    died_at: datetime


for _each in (
    DeadTimer,
    HeldPermit,
    MissedRuns,
    Retry,
    SemaphoreInitStrategy,
    SemaphoreStatus,
    Timer,
    TimerRun,
):
    _each.__module__ = "redsync"
del _each
