"""When timers are due, in whole microseconds, as callers say it and as Redis counts it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final

from ._protocol.timers import LAST_INSTANT
from ._types import MissedRuns, Timer

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
_LONGEST: Final = timedelta(days=200 * 365)
_SHORTEST_EVERY: Final = timedelta(milliseconds=1)


def micros_of(instant: datetime) -> int:
    """An aware datetime as Redis counts it; the time before 1970 is as good as 1970."""
    return max(0, (instant - _EPOCH) // _MICROSECOND)


def datetime_of(micros: int) -> datetime:
    """What Redis counts, as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def checked_when(timer: Timer) -> tuple[int | None, int]:
    """The time from now until a timer is due, or None and the instant.

    Raises:
        TypeError, ValueError: The arguments make no sense.
    """
    period, instant = timer.activation_period, timer.activate_at
    if period is None and instant is None:
        period = timer.every  # a recurring timer is due for the first time after one period
    if (period is None) == (instant is None):
        raise ValueError(
            "a timer needs either activation_period or activate_at,"
            f" not {timer.activation_period!r} and {instant!r}"
        )
    if instant is not None:
        return None, micros_of(checked_instant("activate_at", instant))
    if not isinstance(period, timedelta):
        raise TypeError(f"activation_period must be a timedelta, not {period!r}")
    if period > _LONGEST:
        raise ValueError(f"activation_period must be at most {_LONGEST}, not {period!r}")
    return max(0, period // _MICROSECOND), 0


def checked_every(every: timedelta | None, missed: MissedRuns) -> str:
    """How a record says that a timer is recurring; empty if it is not."""
    try:
        policy = MissedRuns(missed)
    except ValueError:
        known = ", ".join(repr(each.value) for each in MissedRuns)
        raise ValueError(f"missed must be one of {known}, not {missed!r}") from None
    if every is None:
        return ""
    if not isinstance(every, timedelta):
        raise TypeError(f"every must be a timedelta, not {every!r}")
    if not _SHORTEST_EVERY <= every <= _LONGEST:
        raise ValueError(f"every must be {_SHORTEST_EVERY} to {_LONGEST}, not {every!r}")
    return f"{every // _MICROSECOND} {policy.value}"


def checked_instant(argument: str, instant: datetime) -> datetime:
    """An aware datetime that Redis can count."""
    if not isinstance(instant, datetime):
        raise TypeError(f"{argument} must be a datetime, not {instant!r}")
    if instant.utcoffset() is None:
        raise ValueError(
            f"{argument} must be an aware datetime, not {instant!r}; say which time zone it is in,"
            " for example tzinfo=datetime.timezone.utc"
        )
    if micros_of(instant) > LAST_INSTANT:
        raise ValueError(f"{argument} must be before {datetime_of(LAST_INSTANT)}, not {instant!r}")
    return instant
