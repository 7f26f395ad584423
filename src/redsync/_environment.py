"""Settings that redis-timers took from environment variables."""

from __future__ import annotations

import os
import warnings
from typing import Final

from ._arguments import checked_text, checked_whole

MAX_CONCURRENCY: Final = 100_000

_MEANINGLESS: Final = (
    "TIMERS_HANDLING_SLEEP",
    "TIMERS_HANDLING_JITTER_MIN_VALUE",
    "TIMERS_HANDLING_JITTER_MAX_VALUE",
)


def timeline_key(argument: str | None) -> str:
    """The name of the timeline's key."""
    given = _setting(argument, "TIMERS_TIMELINE_KEY")
    return "timers_timeline" if given is None else checked_text("timeline_key", given)


def payloads_key(argument: str | None) -> str | None:
    """The name of the payloads' key; None: the usual one."""
    given = _setting(argument, "TIMERS_PAYLOADS_KEY")
    return None if given is None else checked_text("payloads_key", given)


def separator(argument: str | None) -> str:
    """What is between topic and id in the name of a timer."""
    given = _setting(argument, "TIMERS_SEPARATOR")
    return "--" if given is None else checked_text("separator", given)


def concurrency(argument: int | None, usual: int) -> int:
    """How many handlers run at once."""
    if argument is not None:
        return checked_whole("concurrency", argument, 1, MAX_CONCURRENCY)
    text = os.environ.get("TIMERS_CONCURRENT_PROCESSING_LIMIT")
    if text is None:
        return usual
    try:
        number = int(text)
    except ValueError:
        raise ValueError(
            f"TIMERS_CONCURRENT_PROCESSING_LIMIT must be a whole number, not {text!r}"
        ) from None
    return checked_whole("TIMERS_CONCURRENT_PROCESSING_LIMIT", number, 1, MAX_CONCURRENCY)


def warn_of_meaningless() -> None:
    """Tell whoever sets a variable that has no effect any more."""
    for name in _MEANINGLESS:
        if name in os.environ:
            warnings.warn(
                f"{name} has no effect: workers do not look from time to time any more, but are"
                " woken when a timer is due; remove it from the environment",
                RuntimeWarning,
                stacklevel=3,
            )


def _setting(argument: str | None, variable: str) -> str | None:
    return os.environ.get(variable) if argument is None else argument
