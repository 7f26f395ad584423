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
    steady = [each.name for each in SEMAPHORES if each.fixed]
    holds = [hold for name in steady for hold in holds_of(history.operations, name)]
    deaths = list(_after_deaths(history, holds))
    runs = list(_taken_over(history))
    late = [each for each in (lateness(history, one) for one in armings_of(history)) if each]
    calm = [max(0.0, span) for span, after in late if math.isclose(span, after, abs_tol=1e-5)]
    after = [max(0.0, span) for _, span in late]
    return {
        f"death of a holder to the next grant of its slot (lease {PERMIT_TTL:g} s), somebody with"
        " no fault of its own waiting": _figures(span for span, how in deaths if how == "calm"),
        "the same, all who wait having faults of their own": _figures(
            span for span, how in deaths if how == "storm"
        ),
        "the same, counted from the end of an outage of the server in between": _figures(
            span for span, how in deaths if how == "outage"
        ),
        "end of an outage of the server to the first grant": _figures(
            _after_outages(history, [hold.granted for hold in holds])
        ),
        f"death of a worker to the next run of its timer (lease {TIMER_LEASE:g} s)": _figures(
            span for span, alone in runs if alone
        ),
        "lateness of timers, no fault in the 4 s before": _figures(calm),
        "lateness of timers, counted from the end of the last fault": _figures(after),
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


def _after_deaths(history: History, holds: Sequence[Hold]) -> Iterator[tuple[float, str]]:
    """From the death of a holder, or the end of the last outage after it, until somebody else has
    the slot; and whether there was an outage, or at least one of those who waited was well.
    """
    waits = [each for each in history.operations if each.what == "acquire"]
    for hold in holds:
        died = history.deaths.get(hold.acquired.worker)
        if died is None or hold.released is not None or hold.end < died:
            continue
        slot = (hold.acquired.of, hold.slot)
        granted = min(
            (each.granted for each in holds
             if (each.acquired.of, each.slot) == slot and each.granted > died),
            default=math.inf,
        )  # fmt: skip
        if granted == math.inf:
            continue
        outages = [each.ended for each in history.faults_of("", died, granted)]
        if outages:
            yield max(0.0, granted - max(died, *outages)), "outage"
            continue
        well = any(
            each.of == slot[0]
            and each.asked < died + PERMIT_TTL
            and history.end_of(each) >= granted
            and not any(history.faults_of(each.worker, died - PERMIT_TTL, granted))
            for each in waits
        )
        yield granted - died, "calm" if well else "storm"


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
