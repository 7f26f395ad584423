"""How long it took until all was well again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any, Final

from .checks_semaphores import Hold, holds_of
from .checks_timers import armings_of, lateness
from .history import History
from .terms import PERMIT_TTL, SEMAPHORES, TIMER_LEASE

__all__ = ["recoveries"]

_OUTAGES: Final = ("restart", "pause", "blackout", "sleep", "client-pause")


def recoveries(history: History) -> dict[str, dict[str, Any]]:
    """By what it is about: how often, and seconds."""
    holds = [hold for each in SEMAPHORES for hold in holds_of(history.operations, each.name)]
    deaths = list(_after_deaths(holds, history))
    runs = list(_taken_over(history))
    late = [each for each in (lateness(history, one) for one in armings_of(history)) if each]
    return {
        f"death of a holder to the next grant of its slot (lease {PERMIT_TTL:g} s)": _figures(
            span for span, alone in deaths if alone
        ),
        "the same, counted from the end of an outage in between": _figures(
            span for span, alone in deaths if not alone
        ),
        "end of an outage of the server to the first grant": _figures(
            _after_outages(history, [hold.granted for hold in holds])
        ),
        f"death of a worker to the next run of its timer (lease {TIMER_LEASE:g} s)": _figures(
            span for span, alone in runs if alone
        ),
        "lateness of timers, with no fault": _figures(
            max(0.0, span) for span, after in late if math.isclose(span, after, abs_tol=1e-5)
        ),
        "lateness of timers, from the end of the last fault on": _figures(
            max(0.0, after) for span, after in late if not math.isclose(span, after, abs_tol=1e-5)
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


def _after_deaths(holds: Sequence[Hold], history: History) -> Iterator[tuple[float, bool]]:
    """From the death of a holder, or the end of the last outage after it, until somebody else has
    the slot; and whether there was no outage.
    """
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
            outages = [each.ended for each in history.faults_of("", died, min(later))]
            yield max(0.0, min(later) - max([died, *outages])), not outages


def _taken_over(history: History) -> Iterator[tuple[float, bool]]:
    """From the death of a worker until another one begins with what it ran."""
    for arming in armings_of(history):
        for number, run in enumerate(arming.runs[:-1]):
            died = history.deaths.get(run.worker)
            if died is not None and run.ended == math.inf:
                began = arming.runs[number + 1].asked
                yield began - died, _reachable(history, died, began)


def _reachable(history: History, begin: float, end: float) -> bool:
    return not any(history.faults_of("", begin, end))


def _after_outages(history: History, times: Sequence[float]) -> Iterator[float]:
    for window in history.windows:
        if window.kind in _OUTAGES:
            after = window.ended + 1e-6
            later = min((each for each in times if each > after), default=None)
            if later is not None and _reachable(history, after, later):
                yield later - window.ended
