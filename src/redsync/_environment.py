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


def keys(
    timeline_key: str | None, payloads_key: str | None, *, clustered: bool
) -> tuple[str, str | None]:
    """The names of the keys of timeline and payloads; None: one that goes with the timeline.

    That is so on a cluster, where both have to be on one node, and for a timeline that was given as
    an argument, which redis-timers did not know: two of them must not share their payloads.
    """
    own = timeline_key is not None or clustered
    timeline = _setting("timeline_key", timeline_key, "TIMERS_TIMELINE_KEY")
    payloads = _setting("payloads_key", payloads_key, "TIMERS_PAYLOADS_KEY")
    return timeline or "timers_timeline", payloads or (None if own else "timers_payloads")


def separator(argument: str | None) -> str:
    """What is between topic and id in the name of a timer."""
    return _setting("separator", argument, "TIMERS_SEPARATOR") or "--"


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


def _setting(name: str, argument: str | None, variable: str) -> str | None:
    if argument is not None:
        return checked_text(name, argument)
    given = os.environ.get(variable)
    return None if given is None else checked_text(variable, given)
