"""What must be true of the permits.  Pure: a history in, violations out.

docs/guarantees.md has the promises, and what is not promised.  In a run no data is lost, so the one
thing that can make two processes believe in one slot is the server's clock: set forward, it ends
leases earlier by as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..fences import doubled, fallen, neighbours, overtaken
from .history import History, Jump, Look, Operation
from .terms import CANCELLED, GRACE, OWN_TRY, PERMIT_TTL, SEMAPHORES
from .verdict import ALLOWANCE, Violation, allowance

__all__ = ["MARGIN", "Hold", "check", "holds_of", "protected"]

MARGIN: Final = 0.002 + 0.01 * PERMIT_TTL
"""By how much sooner than Redis a holder believes that its lease is over."""
_SAME: Final = 0.001
"""Seconds within which two ends of a lease are one: each look reckons it anew."""
_SETTLED: Final = 0.4 * PERMIT_TTL
_AT_LEAST: Final = 0.75
_ON_ITS_WAY: Final = GRACE
"""Seconds in which a token that was popped comes to somebody who waits, or goes back."""
_STRAY: Final = 10.0
"""Seconds in which a request arrives whose sender has died or given up."""
_ALL_BACK: Final = PERMIT_TTL + GRACE / 2 + ALLOWANCE
"""Seconds after the last fault by which no lease is left of those who have died of it."""


@dataclass
class Hold:
    """A permit as its holder knows it."""

    acquired: Operation
    released: Operation | None = None
    segments: list[tuple[float, float]] = field(default_factory=list)
    """When nobody else may believe in its slot."""

    @property
    def slot(self) -> int:
        """Which one."""
        return int(self.acquired.facts["slot"])

    @property
    def fence(self) -> int:
        """Its fence."""
        return int(self.acquired.facts["fence"])

    @property
    def asked(self) -> float:
        """When it was asked for."""
        return self.acquired.asked

    @property
    def granted(self) -> float:
        """When it was there."""
        return self.acquired.ended

    @property
    def end(self) -> float:
        """Until when its holder believed in it; one that was killed would have until the last."""
        looks = self.acquired.looks
        if not looks:
            return self.granted
        return looks[-1].until if self.released is None else looks[-1].at

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was done with it."""
        return (self.acquired,) if self.released is None else (self.acquired, self.released)

    def __str__(self) -> str:
        return f"slot {self.slot} with fence {self.fence} of {self.acquired.worker}"


def holds_of(operations: Sequence[Operation], name: str) -> list[Hold]:
    """All permits of a semaphore, in the order in which they were there."""
    holds = {
        (each.worker, each.number): Hold(each)
        for each in operations
        if each.what == "acquire" and each.of == name and each.ok
    }
    for each in operations:
        if each.what == "release" and each.of == name:
            hold = holds.get((each.worker, each.facts["acquired"]))
            if hold is not None:
                hold.released = each
    return sorted(holds.values(), key=lambda hold: hold.granted)


def protected(hold: Hold, jumps: Sequence[Jump]) -> list[tuple[float, float]]:
    """When nobody else may have its slot: for as long as its holder believes in it, but for what
    jumps of the clock have cut off the end of the lease that it knew of.
    """
    segments: list[tuple[float, float]] = []
    until = -math.inf
    for look in hold.acquired.looks:
        if look.until - until < _SAME:
            continue  # the same lease as before
        begin = hold.granted if until == -math.inf else look.at
        until, end = look.until, min(_cut(look, jumps), hold.end)
        if segments and begin <= segments[-1][1]:
            before = segments.pop()
            begin, end = before[0], max(end, before[1])
        if begin < end:
            segments.append((begin, end))
    return segments


def _cut(look: Look, jumps: Sequence[Jump]) -> float:
    """The end of a lease, which is earlier by what the clock was set forward meanwhile."""
    end, sent = look.until, _sent(look)
    for jump in sorted(jumps, key=lambda each: each.began):
        if jump.seconds > 0 and sent <= jump.ended and jump.began < end:
            end = max(jump.began, end - jump.seconds)
    return end


def _sent(look: Look) -> float:
    """When the latest renewal of which the holder knew was sent."""
    return look.until - PERMIT_TTL + MARGIN - 1e-6


def check(history: History) -> Iterator[Violation]:
    """Everything about semaphores."""
    for shared in SEMAPHORES:
        operations = [each for each in history.operations if each.of == shared.name]
        holds = holds_of(operations, shared.name)
        for hold in holds:
            hold.segments = protected(hold, history.jumps)
        yield from _strange_slots(holds, shared.count)
        yield from _doubled(holds)
        yield from _long_doubt(history, holds)
        yield from _fences(holds)
        yield from _timeouts(history, operations)
        if shared.fixed:
            yield from _unused(history, operations, holds, shared.count)
            yield from _not_back(history, operations, holds)
        else:
            yield from _beyond(history, operations, holds)
        yield from _at_the_end(history, shared.name, shared.count)


def _strange_slots(holds: Sequence[Hold], count: int) -> Iterator[Violation]:
    for hold in holds:
        if not 0 <= hold.slot < count:
            yield Violation("slots", f"{hold} is none of {count}", hold.operations)


def _beyond(
    history: History, operations: Sequence[Operation], holds: Sequence[Hold]
) -> Iterator[Violation]:
    """A slot that was granted though it was beyond the number of permits: whatever may have been
    that when its token was popped.
    """
    resizes = [each for each in operations if each.what == "resize" and each.how != "fail"]
    for hold in holds:
        before = [each for each in resizes if each.ok and _precedes(each, hold)]
        if not before:
            continue
        last = max(before, key=lambda each: each.asked)
        since = [
            each
            for each in resizes
            if each.asked < hold.granted and _end_of_effect(history, each) >= last.asked
        ]
        if all(hold.slot >= each.facts["count"] for each in since):
            text = f"{hold} after it had been resized to {last.facts['count']}"
            yield Violation("fewer permits", text, (*hold.operations, *since))


def _precedes(resize: Operation, hold: Hold) -> bool:
    """Whether it was over when the token was popped: nobody takes one that is older than this."""
    return resize.ended + _ON_ITS_WAY < hold.asked or resize.ended + PERMIT_TTL < hold.granted


def _end_of_effect(history: History, resize: Operation) -> float:
    """When a resize had surely its effect, if any: it may be sent again, and be held on its way."""
    return resize.ended if resize.ok else history.end_of(resize) + _STRAY


def _doubled(holds: Sequence[Hold]) -> Iterator[Violation]:
    """Two that believe in one slot; so there are never more holders than permits, either."""
    for one, other, begin, end in _meetings(holds):
        yield Violation(
            "no slot twice",
            f"{one} and {other} at once, for {end - begin:.6f} s from {begin:.6f} on",
            one.operations + other.operations,
        )


def _meetings(holds: Sequence[Hold]) -> Iterator[tuple[Hold, Hold, float, float]]:
    """Pairs whose protected times overlap in a slot, and where."""
    spans = sorted(
        ((begin, end, hold) for hold in holds for begin, end in hold.segments),
        key=lambda span: span[:2],
    )
    active: list[tuple[float, Hold]] = []
    for begin, end, hold in spans:
        active = [each for each in active if each[0] > begin]
        for until, other in active:
            if other.slot == hold.slot and other is not hold:
                yield other, hold, begin, min(until, end)
        active.append((end, hold))


def _long_doubt(history: History, holds: Sequence[Hold]) -> Iterator[Violation]:
    """After a jump of the clock two may believe in a slot, but not for long."""
    for one, other in neighbours(holds):
        begin, end = max(one.granted, other.granted), min(one.end, other.end)
        if end <= begin:
            continue
        workers = (one.acquired.worker, other.acquired.worker)
        bound = PERMIT_TTL
        if not any(any(history.faults_of(each, begin - 1, end)) for each in workers):
            bound = _SETTLED
        if end - begin > bound + allowance(history, [*workers, "server"], begin, end):
            text = f"{one} and {other} at once for {end - begin:.3f} s after a jump of the clock"
            yield Violation("told that it is lost", text, one.operations + other.operations)


def _fences(holds: Sequence[Hold]) -> Iterator[Violation]:
    """No fence twice, rising in each slot, and never lower for a request that came later."""
    usable = [hold for hold in holds if hold.segments and hold.segments[0][0] == hold.granted]
    found = [
        *((f"{one} and {other}", one, other) for one, other in doubled(holds)),
        *((f"{other} was granted after {one}", one, other) for one, other in fallen(usable)),
        *(
            (f"{other} was asked for after {one} was there", one, other)
            for one, other in overtaken(holds)
        ),
    ]
    for text, one, other in found:
        yield Violation("fences rise", text, one.operations + other.operations)


def _timeouts(history: History, operations: Sequence[Operation]) -> Iterator[Violation]:
    """Calls that gave up too early or too late."""
    for each in operations:
        if each.what != "acquire" or each.ok or each.ended == math.inf:
            continue
        if each.facts["error"] == CANCELLED:
            continue
        timeout, took = each.facts["timeout"], each.ended - each.asked
        if each.how == "fail" and timeout is None:
            yield Violation("timeouts", "a call without a timeout timed out", (each,))
        elif each.how == "fail" and took < timeout:
            yield Violation("timeouts", f"after {took:.6f} s of {timeout} s", (each,))
        if each.how == "fail":
            bound = max(timeout or 0.0, _AT_LEAST)
        else:
            bound = min(max(timeout or 0.0, _AT_LEAST), OWN_TRY) if timeout else OWN_TRY
            bound = max(bound, timeout or 0.0)
        if took < bound + ALLOWANCE:
            continue
        if took > bound + allowance(history, [each.worker], each.asked, each.ended):
            text = f"{each.facts['error']} after {took:.3f} s of {timeout} s"
            yield Violation("timeouts", text, (each,))


def _unused(
    history: History, operations: Sequence[Operation], holds: Sequence[Hold], count: int
) -> Iterator[Violation]:
    """A permit that is free for longer than a slice while somebody waits for one."""
    waits = [each for each in operations if each.what == "acquire"]
    for begin, end in _quiet(history):
        meanwhile = [each for each in waits if each.asked < end and history.end_of(each) > begin]
        for since, until in _free(holds, count, begin, end):
            for wait in meanwhile:
                one, other = max(since, wait.asked), min(until, history.end_of(wait))
                if other - one < GRACE / 2 + ALLOWANCE:
                    continue
                if other - one > GRACE / 2 + allowance(history, history.gaps, one, other):
                    text = f"{wait.worker} waited for {wait.of} for {other - one:.3f} s"
                    text += f" from {one:.6f} on while less than {count} were held"
                    yield Violation("all permits get used", text, (wait,))


def _quiet(history: History) -> Iterator[tuple[float, float]]:
    """When there were no faults, and all leases of dead holders were over."""
    end = history.finds.get("rested", 0.0)
    since = history.began
    for window in sorted(history.windows, key=lambda each: each.began):
        if since < window.began:
            yield since, window.began
        since = max(since, window.ended + _ALL_BACK)
    if since < end:
        yield since, end


def _free(
    holds: Sequence[Hold], count: int, begin: float, end: float
) -> Iterator[tuple[float, float]]:
    """When less than all permits were held, however slow the answers were."""
    steps = [(begin, 0), (end, 0)]
    for hold in holds:
        until = math.inf if hold.released is None else hold.released.ended
        died = hold.released is None and hold.end < begin
        if not died and hold.granted < end and until > begin:
            steps += [(max(begin, hold.granted), 1), (min(end, until), -1)]
    held, since = 0, begin
    for at, change in sorted(steps):
        if held < count <= held + change:
            yield since, at
        elif held + change < count <= held:
            since = at
        held += change
    if held < count and since < end:
        yield since, end


def _not_back(
    history: History, operations: Sequence[Operation], holds: Sequence[Hold]
) -> Iterator[Violation]:
    """A dead holder's permit that nobody got in time, though somebody waited and all else was
    well.
    """
    waits = [each for each in operations if each.what == "acquire"]
    for hold in holds:
        died = history.deaths.get(hold.acquired.worker, math.inf)
        if hold.released is not None or hold.end < died or died == math.inf:
            continue
        later = (each.granted for each in holds if each.slot == hold.slot and each.granted > died)
        heir = min(later, default=math.inf)
        for wait in waits:
            since = max(died + PERMIT_TTL, wait.asked)
            until = min(history.end_of(wait), heir)
            if until - since < GRACE / 2 + ALLOWANCE:
                continue
            if until - since < GRACE / 2 + allowance(history, history.gaps, died, until):
                continue
            if any(history.faults_of(wait.worker, died - PERMIT_TTL, since + GRACE + ALLOWANCE)):
                continue
            text = f"{hold} was not back {until - died:.3f} s after the death of its holder"
            yield Violation("a dead holder's permit comes back", text, (*hold.operations, wait))
            break


def _at_the_end(history: History, name: str, count: int) -> Iterator[Violation]:
    """All permits can be had, and all are free afterwards."""
    found = history.finds.get("semaphores", {}).get(name)
    if found is None:
        yield Violation("nothing is lost", f"what became of {name} could not be found out")
        return
    if found["granted"] != count:
        yield Violation("nothing is lost", f"{found['granted']} of {count} permits of {name}")
    if found["held"] != [0, count, 0]:
        yield Violation("nothing is lost", f"{name} with all held: {found['held']}")
    if found["free"] != [count, 0, 0]:
        yield Violation("nothing is lost", f"{name} with all free: {found['free']}")
