"""What timers promise, with nothing else in mind: no scripts, no leases of connections, no index.

Times are whole microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from .timers_view import LEASE, MOST_ATTEMPTS

__all__ = ["Dead", "Timer", "TimersModel", "What"]

What = Literal["completed", "again", "back", "cut", "dead"]

_MINUTE: Final = 60_000_000


@dataclass(eq=False)
class Timer:
    """One that is not dead."""

    topic: str
    timer_id: str
    payload: bytes | None
    due: int
    every: int | None = None
    missed: str = "once"
    attempts: int = 0
    run: int | None = None
    """The fence of the run that goes on, as far as Redis knows."""
    rearmed: bool = False
    """It was set anew during that run."""
    cut: bool = False
    earliest: int = 0
    latest: int = 0
    """Somebody has to act between these, or later."""
    known: bool = True
    """False: redis-timers has set it, and nobody has come across it yet."""
    moved: int | None = None
    """When it is due, if redis-timers has set it to that."""
    seq: int = 0

    def act(self, earliest: int, latest: int | None = None) -> None:
        """When somebody has to act."""
        self.earliest, self.latest = earliest, earliest if latest is None else latest

    def arm(self, due: int) -> None:
        """A new arming, while it does not run."""
        self.due, self.attempts, self.run = due, 0, None
        self.rearmed = self.cut = False
        self.act(due)


@dataclass(frozen=True)
class Dead:
    """One that has failed for good."""

    topic: str
    timer_id: str
    payload: bytes | None
    due: int
    attempts: int
    error: str


class TimersModel:
    """All timers of a timeline, by what they are called there."""

    def __init__(self) -> None:
        self.timers: dict[str, Timer] = {}
        self.dead: dict[str, Dead] = {}
        self.left: set[str] = set()
        """Of those that redis-timers has removed, something is left."""

    def set(self, member: str, new: Timer) -> None:
        """Set a timer, or set it anew."""
        old = self.timers.get(member)
        new.act(new.due)
        if old is not None and old.run is not None:
            new.run, new.rearmed = old.run, True
            new.act(max(new.due, old.earliest), max(new.due, old.latest))
        self.timers[member] = new
        self.left.discard(member)

    def remove(self, member: str, topic: str) -> bool:
        """Remove a timer; whether no run of this arming has begun."""
        timer = self.timers.get(member)
        if timer is None or (timer.known and timer.topic != topic):
            return False
        del self.timers[member]
        return timer.rearmed or not (timer.run is not None or timer.attempts or timer.cut)

    def claim(self, member: str, now: int, latest: int) -> Literal["run", "dead", "later"]:
        """Somebody who has a handler comes across a timer for which somebody has to act."""
        timer = self.timers[member]
        if timer.moved is not None and timer.moved != timer.due:
            timer.every = None
            timer.arm(timer.moved)
        timer.moved = None
        if timer.rearmed:
            timer.rearmed, timer.attempts = False, 0
        if timer.due > latest:
            timer.run = None
            return "later"
        if timer.attempts >= MOST_ATTEMPTS:
            self._bury(member, "the lease of the last attempt ran out")
            self._finish(member)
            return "dead"
        if timer.every is not None and timer.attempts == 0 and not _catches_up(timer, now):
            return "later"
        timer.attempts += 1
        return "run"

    def begin(self, member: str, fence: int, earliest: int, latest: int) -> None:
        """A run begins that was claimed between these."""
        timer = self.timers[member]
        timer.run = fence
        timer.act(earliest + LEASE, latest + LEASE)

    def renew(self, member: str, fence: int, earliest: int, latest: int) -> bool:
        """Whether the run has the timer still, and has it for longer then."""
        timer = self.timers.get(member)
        if timer is None or timer.run != fence:
            return False
        due = timer.due if timer.rearmed else 0
        timer.act(max(due, earliest + LEASE), max(due, latest + LEASE))
        return True

    def settle(
        self, member: str, fence: int, what: What, earliest: int, latest: int, error: str = ""
    ) -> None:
        """What a run came to.  `earliest` and `latest`: until when "again" has to wait."""
        timer = self.timers.get(member)
        if timer is None or timer.run != fence:
            return
        if timer.moved is not None and timer.moved != timer.due:
            timer.every = None
            timer.arm(timer.moved)
            timer.moved = None
        elif timer.rearmed:
            timer.run, timer.rearmed = None, False
            timer.act(timer.due)
        elif what == "again":
            timer.run = None
            timer.act(earliest, latest)
        elif what in ("back", "cut"):
            timer.run = None
            timer.attempts -= 1
            timer.cut = timer.cut or what == "cut"
            timer.act(timer.due)
        else:
            if what == "dead":
                self._bury(member, error)
            self._finish(member)

    def pass_time(self, micros: int) -> None:
        """Everything that is not over is so much nearer."""
        for timer in self.timers.values():
            timer.due = max(0, timer.due - micros)
            timer.act(max(0, timer.earliest - micros), max(0, timer.latest - micros))
            if timer.moved is not None:
                timer.moved = max(0, timer.moved - micros)

    def _bury(self, member: str, error: str) -> None:
        timer = self.timers[member]
        self.dead[member] = Dead(
            timer.topic, timer.timer_id, timer.payload, timer.due, timer.attempts, error
        )

    def _finish(self, member: str) -> None:
        timer = self.timers[member]
        if timer.every is None:
            del self.timers[member]
        else:
            timer.arm(timer.due + timer.every)


def _catches_up(timer: Timer, now: int) -> bool:
    """Leave out what was missed; whether something of it is to be made up for now."""
    assert timer.every is not None
    if timer.missed == "all":
        return True
    instant = timer.due + (now - timer.due) // timer.every * timer.every
    if timer.missed == "skip" and now - instant > min(timer.every // 2, _MINUTE):
        instant += timer.every
    if instant > now:
        timer.arm(instant)
        return False
    timer.due = instant
    return True
