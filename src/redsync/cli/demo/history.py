"""What the demo saw.  All times are of CLOCK_MONOTONIC, which the processes of a machine share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "Hold", "Record"]


@dataclass(kw_only=True)
class Record:
    """What the histories of all scenes tell."""

    killed: dict[str, float] = field(default_factory=dict)
    """Just before SIGKILL was sent, by worker."""
    troubles: list[str] = field(default_factory=list)
    """What should not have happened."""


@dataclass
class Hold:
    """One permit in the hands of one contender."""

    worker: str
    """The process."""
    contender: int
    """Which of its tasks or threads."""
    slot: int
    fence: int
    asked: float
    """Just before `acquire` was called."""
    granted: float
    """Just after it returned."""
    until: float
    """Until when it was surely theirs, as far as they had told; for a killed holder that is all."""
    ended: float | None = None
    """Just before `release` was called; or when it was lost, if that was before."""

    @property
    def end(self) -> float:
        """Until when nobody else may have had it."""
        return self.until if self.ended is None else self.ended

    @property
    def usable(self) -> bool:
        """False if it had run out already when its holder came to look at it."""
        return self.end > self.granted

    def __str__(self) -> str:
        return f"slot {self.slot} with fence {self.fence} of {self.worker}.{self.contender}"


@dataclass
class History(Record):
    """All that there is to check of the permits and the signal."""

    count: int
    permit_ttl: float
    holds: list[Hold] = field(default_factory=list)
    """In the order of their reports."""
    lost: int = 0
    """Permits that ended without a release, other than by SIGKILL; slow machines have such."""
    sent: list[tuple[str, float]] = field(default_factory=list)
    """Who sent a signal, and when: just before `set` was called."""
    woken: list[tuple[str, float]] = field(default_factory=list)
    """Whom a signal has woken, and when."""
    free: int | None = None
    """Free permits at the end; None if that could not be found out."""
    _open: dict[tuple[str, int], Hold] = field(default_factory=dict)

    def add(self, worker: str, report: dict[str, Any]) -> Hold | None:
        """Take down a worker's report; returns what was granted, if it tells of that."""
        what, at = report["what"], report["at"]
        if what == "woken":
            self.woken.append((worker, at))
        elif what == "sent":
            self.sent.append((worker, at))
        elif what == "granted":
            names = ("contender", "slot", "fence", "asked", "until")
            hold = Hold(worker, granted=at, **{name: report[name] for name in names})
            self._open[worker, hold.contender] = hold
            self.holds.append(hold)
            return hold
        elif what == "sure":
            self._open[worker, report["contender"]].until = report["until"]
        elif what == "ended":
            self._open.pop((worker, report["contender"])).ended = at
            self.lost += report["lost"]
        return None

    def open(self) -> list[Hold]:
        """What is held, by slot; that of the killed ones too until it is back."""
        return sorted(
            (hold for hold in self._open.values() if self.next_after(hold) is None),
            key=lambda hold: hold.slot,
        )

    def cut_off(self) -> list[Hold]:
        """What the killed ones held."""
        return [hold for hold in self._open.values() if hold.worker in self.killed]

    def next_after(self, hold: Hold) -> Hold | None:
        """Who had the slot next."""
        later = [
            each for each in self.holds if each.slot == hold.slot and each.granted > hold.granted
        ]
        return min(later, key=lambda each: each.granted, default=None)
