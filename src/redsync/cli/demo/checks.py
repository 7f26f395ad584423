"""What must be true of a history.  Pure functions: a history in, faults in words out.

A holder's report says when `acquire` had returned, a moment after the permit was granted.  So the
checks rely on no order but the one that is certain, and never raise a false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from .history import History, Hold

__all__ = ["Check", "check", "most_at_once"]

ALLOWANCE = 1.0
"""Seconds after `permit_ttl` by which a killed holder's permit must be somebody else's."""


class Check(NamedTuple):
    """A promise, and where it was broken."""

    key: str
    promise: str
    faults: list[str]


def check(history: History) -> list[Check]:
    """Compare what was seen with what is promised."""
    bound = f"{history.permit_ttl:g} s + {ALLOWANCE:g} s"
    return [
        Check("holders", f"never more than {history.count} permits held", list(crowds(history))),
        Check("fences", "fences rise, per slot and over all", list(falling_fences(history))),
        Check("killed", f"a killed holder's permit is back within {bound}", list(stuck(history))),
        Check("signal", "the signal wakes exactly one", list(signal_faults(history))),
        Check("nothing_lost", f"all {history.count} permits used, and free at the end",
              list(losses(history))),
        Check("workers", "every worker but the killed one ends in order", list(history.troubles)),
    ]  # fmt: skip


def crowds(history: History) -> Iterator[str]:
    """Too many holders at once, in all or of one slot."""
    for hold, others in _meetings(history):
        if len(others) >= history.count:
            yield f"{len(others) + 1} holders at once when {hold} was granted"
        for other in others:
            if other.slot == hold.slot:
                early = other.end - hold.granted
                yield f"{hold} was granted {early:.3f} s before the end of {other}"


def most_at_once(history: History) -> int:
    """The greatest number of permits that were held at the same time."""
    return max((len(others) + 1 for _, others in _meetings(history)), default=0)


def falling_fences(history: History) -> Iterator[str]:
    """A fence that is not higher than one granted before."""
    for fence, times in Counter(hold.fence for hold in history.holds).items():
        if times > 1:
            yield f"fence {fence} was granted {times} times"
    holds = [hold for hold in history.holds if hold.usable]
    for hold in holds:
        earliest = _earliest(hold, holds)
        before = [other for other in holds if other is not hold and other.granted <= earliest]
        highest = max(before, key=lambda other: other.fence, default=None)
        if highest is not None and highest.fence > hold.fence:
            yield f"{hold} was granted after {highest}"


def stuck(history: History) -> Iterator[str]:
    """A killed holder's permit that nobody got in time."""
    cut_off = history.cut_off()
    if not cut_off:
        yield "nobody was killed while holding a permit"
    for hold in cut_off:
        heir = history.next_after(hold)
        if heir is None:
            yield f"{hold} never came back"
        elif heir.granted - history.killed[hold.worker] > history.permit_ttl + ALLOWANCE:
            late = heir.granted - history.killed[hold.worker]
            yield f"{hold} came back only after {late:.3f} s"


def signal_faults(history: History) -> Iterator[str]:
    """A signal that was lost or doubled."""
    if not history.sent:
        yield "no signal was sent"
    elif len(history.woken) != len(history.sent):
        yield f"{len(history.sent)} sent, {len(history.woken)} woken"
    for (worker, woken), (_, sent) in zip(history.woken, history.sent, strict=False):
        if woken < sent:
            yield f"{worker} was woken before the signal was sent"


def losses(history: History) -> Iterator[str]:
    """Permits that were never used, or are not free at the end."""
    unused = set(range(history.count)) - {hold.slot for hold in history.holds}
    if unused:
        yield f"never granted: slots {', '.join(map(str, sorted(unused)))}"
    if history.free is None:
        yield "it could not be found out how many permits are free at the end"
    elif history.free != history.count:
        yield f"{history.free} of {history.count} permits free at the end"


def _meetings(history: History) -> Iterator[tuple[Hold, list[Hold]]]:
    """Each hold with those that had begun and not ended when it was granted."""
    active: list[Hold] = []
    for hold in sorted(history.holds, key=lambda each: each.granted):
        if hold.usable:
            active = [other for other in active if other.end > hold.granted]
            yield hold, list(active)
            active.append(hold)


def _earliest(hold: Hold, holds: list[Hold]) -> float:
    """The earliest instant at which it may have been granted.

    Its holder had asked for it, and whoever had the slot before had ended.  Whatever others had got
    by then has a lower fence.
    """
    ends = [other.end for other in holds if other.slot == hold.slot and other.end <= hold.granted]
    return max(hold.asked, *ends) if ends else hold.asked
