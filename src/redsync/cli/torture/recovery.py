"""How long it took until all was well again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Final

from .checks_semaphores import Hold, holds_of
from .history import History
from .terms import PERMIT_TTL, SEMAPHORES

__all__ = ["recoveries"]

_OUTAGES: Final = ("restart", "pause", "blackout")


def recoveries(history: History) -> dict[str, dict[str, Any]]:
    """By what it is about: how often, and seconds."""
    holds = [hold for each in SEMAPHORES for hold in holds_of(history.operations, each.name)]
    return {
        f"death of a holder until its slot is granted again (lease {PERMIT_TTL:g} s)": _figures(
            _after_deaths(history, holds)
        ),
        "end of an outage of the server until the first grant": _figures(
            _after_outages(history, [hold.granted for hold in holds])
        ),
    }


def _figures(spans: Iterable[float]) -> dict[str, Any]:
    ordered = sorted(spans)
    if not ordered:
        return {"times": 0}
    most = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return {
        "times": len(ordered),
        "median": median(ordered),
        "most": most,
        "worst": ordered[-1],
    }


def _after_deaths(history: History, holds: Sequence[Hold]) -> list[float]:
    """From the death of a holder until somebody else has the slot."""
    spans = []
    for hold in holds:
        died = history.deaths.get(hold.acquired.worker)
        if died is None or hold.released is not None or hold.end < died:
            continue
        slot = (hold.acquired.of, hold.slot)
        later = [
            each.granted
            for each in holds
            if (each.acquired.of, each.slot) == slot and each.granted > died
        ]
        if later:
            spans.append(min(later) - died)
    return spans


def _after_outages(history: History, times: Sequence[float]) -> list[float]:
    spans = []
    for window in history.windows:
        if window.kind in _OUTAGES:
            later = [each for each in times if each > window.ended]
            if later:
                spans.append(min(later) - window.ended)
    return spans
