"""What must be true of the timers.  Pure: a history in, violations out.

Times called a clock are the server's, in microseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from .history import History, Operation
from .terms import BEAT, MAX_ATTEMPTS, SLICE, TIMER_LEASE
from .verdict import ALLOWANCE, Violation, allowance

__all__ = ["Arming", "Clocks", "armings_of", "check", "lateness"]

_SLEW: Final = 5_000
"""Microseconds that two clocks may go apart while a timer is there."""
_REPORT: Final = 1.0
"""Seconds in which a worker that is well has told that a run has ended."""


@dataclass
class Arming:
    """What one `set_timer` made, or one instant of a series."""

    of: str
    key: str
    set: Operation | None
    """None: it was not found who has set it."""
    due: int | None
    """A clock; None: whoever set it did not hear."""
    runs: list[Operation] = field(default_factory=list)
    """By fence."""
    alone: bool = True
    """Whether no other arming has its name, for whose end it might have had to wait."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was done with it."""
        return (*([self.set] if self.set else ()), *self.runs)

    @property
    def done(self) -> bool:
        """Whether a run has come to a good end."""
        return any(run.ok for run in self.runs)

    def __str__(self) -> str:
        return f"{self.of} ({self.key})"


class Clocks:
    """What the server's clock showed."""

    def __init__(self, history: History) -> None:
        self._spans: list[tuple[float, float, float]] = []
        begin, offset = -math.inf, 0.0
        for jump in sorted(history.jumps, key=lambda each: each.began):
            self._spans.append((begin, jump.ended, offset))
            begin, offset = jump.began, offset + jump.seconds
        self._spans.append((begin, math.inf, offset))

    def extremes(self, begin: float, end: float, wall: int) -> tuple[float, float]:
        """The earliest and the latest that it may have shown between two times, the second of
        which was this time of day.
        """
        shown: list[float] = []
        for since, until, offset in self._spans:
            one, other = max(since, begin), min(until, end)
            if one <= other:
                slew = 0 if other == end else _SLEW
                shown.append(wall - (end - one) * 1e6 + offset * 1e6 - _SLEW)
                shown.append(wall - (end - other) * 1e6 + offset * 1e6 + slew)
        return min(shown), max(shown)


def armings_of(history: History) -> list[Arming]:
    """All armings, with their runs."""
    armings: dict[str, Arming] = {}
    series: dict[str, Operation] = {}
    for each in history.of("arm"):
        key = f"{each.worker}:{each.number}"
        if each.facts["every"] is not None:
            series[key] = each
        else:
            armings[key] = Arming(each.of, key, each, each.facts.get("due"))
    for run in sorted(history.of("run"), key=lambda each: int(each.facts["fence"])):
        key = run.facts["arming"]
        if key in series:
            key = f"{key}@{run.facts['due']}"
            armings.setdefault(key, Arming(run.of, key, None, run.facts["due"]))
        armings.setdefault(key, Arming(run.of, key, None, None)).runs.append(run)
    names = Counter(arming.of for arming in armings.values())
    for arming in armings.values():
        arming.alone = names[arming.of] == 1
    return list(armings.values())


def check(history: History) -> Iterator[Violation]:
    """Everything about timers."""
    armings = armings_of(history)
    clocks = Clocks(history)
    changes: dict[str, list[Operation]] = {}
    for each in history.operations:
        if each.what in ("arm", "remove"):
            changes.setdefault(each.of, []).append(each)
    for arming in armings:
        yield from _early(arming, clocks)
        yield from _attempts(history, arming)
        yield from _again(history, arming)
        yield from _removed(arming, changes.get(arming.of, []))
        yield from _undone(history, arming, changes.get(arming.of, []))
        yield from _abandoned(history, arming, changes.get(arming.of, []))
    yield from _overlaps(history, changes)
    yield from _late(history, armings)
    yield from _series(history, armings)
    yield from _left(history)


def _early(arming: Arming, clocks: Clocks) -> Iterator[Violation]:
    """Before it is due by the server's clock, or at a time that nobody has asked for."""
    set_ = arming.set
    if set_ is not None and set_.ok:
        facts = set_.facts
        earliest, latest = clocks.extremes(set_.asked, set_.ended, facts["told"])
        if not earliest <= facts["due"] - facts["period"] * 1e6 <= latest + 1:
            text = f"{arming} is due at another time than it was set for"
            yield Violation("never early", text, (set_,))
    for run in arming.runs:
        if arming.due is not None and run.facts["due"] != arming.due:
            text = f"{arming} ran as due at {run.facts['due']}"
            yield Violation("never early", text, arming.operations)
        since = set_.asked if set_ is not None else run.asked - TIMER_LEASE
        _, latest = clocks.extremes(since, run.asked, run.facts["wall"])
        if latest + 10 < run.facts["due"]:
            early = (run.facts["due"] - latest) / 1e6
            yield Violation("never early", f"{arming} ran {early:.6f} s early", arming.operations)


def _attempts(history: History, arming: Arming) -> Iterator[Violation]:
    """A later run has the higher fence and the higher attempt."""
    for one, other in pairwise(arming.runs):
        if other.facts["attempt"] <= one.facts["attempt"]:
            text = f"attempt {other.facts['attempt']} of {arming} came after that or a later one"
            yield Violation("attempts rise", text, (one, other))
        elif one.facts["fence"] == other.facts["fence"]:
            yield Violation("attempts rise", f"two runs of {arming} have a fence", (one, other))
        elif other.ended < one.asked and one.looks and not _jumped(history, one, one.asked):
            # One that found its lease lost may begin whenever it gets to it.
            text = f"a run of {arming} that was over had a higher fence than one that began later"
            yield Violation("attempts rise", text, (one, other))
    for run in arming.runs:
        if run.facts["attempt"] > MAX_ATTEMPTS:
            text = f"attempt {run.facts['attempt']} of {arming}"
            yield Violation("attempts rise", text, arming.operations)


def _again(history: History, arming: Arming) -> Iterator[Violation]:
    """Another run though the one before had come to a good end, and nothing kept its worker from
    telling that.
    """
    for number, run in enumerate(arming.runs):
        later = arming.runs[number + 1 :]
        if not run.ok or run.facts["lost"] or not later:
            continue
        told = run.ended + _REPORT
        until = run.looks[-1].until if run.looks else run.ended
        if told > until or any(history.faults_of(run.worker, run.asked - 1, told + 1)):
            continue
        if history.held_up(run.worker, run.ended, told):
            continue
        yield Violation("once, while all is well", f"{arming} ran again", (run, later[0]))


def _removed(arming: Arming, changes: Sequence[Operation]) -> Iterator[Violation]:
    """A run after the removal."""
    if arming.set is None or not arming.set.ok:
        return
    others = [each for each in changes if each is not arming.set]
    for removal in others:
        if removal.what != "remove" or not removal.ok or removal.asked < arming.set.ended:
            continue
        # Only if it was surely this arming that was there.
        if any(
            each.ended >= arming.set.asked and each.asked <= removal.ended
            for each in others
            if each is not removal
        ):
            continue
        after = [run for run in arming.runs if run.asked > removal.ended]
        if removal.facts["removed"] and arming.runs:
            text = f"{arming} was removed before it began, and ran"
            yield Violation("removed is removed", text, (*arming.operations, removal))
        elif len(after) > 1:  # one may have been on its way to its handler
            text = f"{arming} was removed, and {len(after)} runs began after that"
            yield Violation("removed is removed", text, (*arming.operations, removal))


def _undone(history: History, arming: Arming, changes: Sequence[Operation]) -> Iterator[Violation]:
    """An arming that was neither run to a good end nor replaced, removed, or is dead."""
    if "timers" not in history.finds or arming.set is None or not arming.set.ok or arming.done:
        return
    if any(each.ended >= arming.set.asked for each in changes if each is not arming.set):
        return
    dead = [each for each in history.finds["timers"]["dead"] if each["arming"] == arming.key]
    if not dead:
        text = f"{arming} was never run to a good end, and is not dead"
        yield Violation("at least once, or dead", text, arming.operations)
    elif dead[0]["attempts"] != MAX_ATTEMPTS:
        text = f"{arming} is dead after {dead[0]['attempts']} attempts"
        yield Violation("at least once, or dead", text, arming.operations)


def _abandoned(
    history: History, arming: Arming, changes: Sequence[Operation]
) -> Iterator[Violation]:
    """A run that was cut off by the death of its worker, and that nobody took over in time."""
    if not arming.alone or len(changes) > 1:
        return
    for run, heir in pairwise([*arming.runs, None]):
        assert run is not None
        died = history.deaths.get(run.worker, math.inf)
        if run.ended < math.inf or died == math.inf or run.facts["attempt"] == MAX_ATTEMPTS:
            continue
        since, until = died + TIMER_LEASE + SLICE, math.inf if heir is None else heir.asked
        if until < since + ALLOWANCE:
            continue
        since += allowance(history, history.gaps, died, since + ALLOWANCE)
        # Others must have been well.
        if until > since and not _any_fault(history, run.worker, died, since):
            text = f"nobody went on with {arming} within {since - died:.3f} s of a death"
            yield Violation("a dead worker is replaced", text, arming.operations)


def _any_fault(history: History, worker: str, begin: float, end: float) -> bool:
    return any(window.target != worker for window in history.windows_in(begin - TIMER_LEASE, end))


def _overlaps(history: History, changes: dict[str, list[Operation]]) -> Iterator[Violation]:
    """Two runs of a timer at once, both of which believed in their leases."""
    by_name: dict[str, list[Operation]] = {}
    for run in history.of("run"):
        if run.looks:
            by_name.setdefault(run.of, []).append(run)
    for name, runs in by_name.items():
        removals = [each for each in changes.get(name, ()) if each.what == "remove"]
        for one, other in pairwise(sorted(runs, key=lambda run: run.looks[0].at)):
            begin, end = other.looks[0].at, _believed(one)
            if end <= begin or _excused(history, one, begin, end, removals):
                continue
            text = f"two runs of {name} at once, for {end - begin:.6f} s from {begin:.6f} on"
            yield Violation("runs do not overlap", text, (one, other))


def _believed(run: Operation) -> float:
    """Until when its handler was told that nobody else would run it."""
    return run.looks[-1].at if run.ended < math.inf else run.looks[-1].until


def _excused(
    history: History, run: Operation, begin: float, end: float, removals: Sequence[Operation]
) -> bool:
    """Whether its lease may have ended early, or its timer was removed."""
    return _jumped(history, run, end) or any(
        each.ended >= run.asked - TIMER_LEASE and each.asked <= begin for each in removals
    )


def _jumped(history: History, run: Operation, end: float) -> bool:
    """Whether the server's clock was set forward while its lease may have been there."""
    return any(
        jump.seconds > 0 and run.asked - TIMER_LEASE <= jump.ended and jump.began <= end
        for jump in history.jumps
    )


def lateness(history: History, arming: Arming) -> tuple[float, float] | None:
    """How late the first run was, and how late after the end of what may have kept it up.

    None: the clock was set in between, it is not known when it was due, or it might have had to
    wait for another run.
    """
    if not arming.runs or not arming.alone or arming.due is None:
        return None
    run = arming.runs[0]
    if run.facts["attempt"] != 1:
        return None  # the first one is unknown
    offset = sum(each.seconds for each in history.jumps if each.began < run.asked)
    late = (run.facts["wall"] + offset * 1e6 - arming.due) / 1e6
    due = run.asked - late
    windows = list(history.windows_in(due - 2 * SLICE, run.asked))
    if any(each.kind == "clock" for each in windows):
        return None
    after = max([due, *(min(each.ended, run.asked) for each in windows)])
    return late, run.asked - after


def _late(history: History, armings: Sequence[Arming]) -> Iterator[Violation]:
    """Later than the bound, though there was no fault any more."""
    for arming in armings:
        found = lateness(history, arming)
        if found is None or arming.set is None:
            continue
        run = arming.runs[0]
        if found[1] < SLICE + ALLOWANCE:
            continue
        if found[1] > SLICE + allowance(history, history.gaps, run.asked - found[1], run.asked):
            text = f"{arming} ran {found[1]:.3f} s after it was due and the last fault was over"
            yield Violation("in time", text, (arming.set, run))


def _series(history: History, armings: Sequence[Arming]) -> Iterator[Violation]:
    """Each instant of the series is run, one period after the other."""
    instants = sorted((each for each in armings if "@" in each.key), key=lambda each: each.due or 0)
    for one, other in pairwise(instants):
        assert one.due is not None
        assert other.due is not None
        if other.due - one.due != round(BEAT * 1e6):
            text = f"{(other.due - one.due) / 1e6} s between two instants of {one.of}"
            yield Violation("series", text, one.operations + other.operations)
    found = history.finds.get("timers", {}).get("dead", ())
    dead = {f"{each['arming']}@{each['due']}" for each in found}
    for one in instants[:-1]:
        if not one.done and one.key not in dead:
            yield Violation("series", f"{one} was not run to a good end", one.operations)


def _left(history: History) -> Iterator[Violation]:
    """Timers that are there still."""
    for name in history.finds.get("timers", {}).get("left", ()):
        text = f"{name} was left, long after it was due"
        yield Violation("at least once, or dead", text)
