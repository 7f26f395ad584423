"""What the demo saw of the timers.

Times called a clock are of the server, in microseconds; the others are of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .history import Record

__all__ = ["Arming", "Run", "TimerHistory"]


@dataclass
class Arming:
    """A timer was set."""

    timer: str
    payload: object
    asked: int
    """The clock just before."""
    period: int
    """Microseconds from then until it is due, as they were asked for."""
    due: int
    """The clock at which it is due, as the answer says."""
    every: int | None = None
    """Microseconds between the runs of a recurring one."""


@dataclass
class Run:
    """A worker has called a handler."""

    worker: str
    timer: str
    payload: object
    attempt: int
    fence: int
    due: int
    """A clock."""
    clock: int
    """When the handler looked at it, first of all."""
    began: float
    """Just after that."""
    until: float
    """Until when nobody else would surely run it, as far as it had told."""
    how: str | None = None
    """How it ended: completed, failed or lost; None: it has not, or was killed."""

    @property
    def lateness(self) -> float:
        """Seconds since it was due, which all attempts have in common."""
        return (self.clock - self.due) / 1e6

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.timer} by {self.worker}"


@dataclass
class TimerHistory(Record):
    """All that there is to check of the timers."""

    lease: float
    """Seconds, of the runs that somebody is killed in."""
    armings: list[Arming] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    """In the order of their reports."""
    dead: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Dead timers that were found in Redis: after how many attempts, and their error."""
    revived: dict[str, int] = field(default_factory=dict)
    """The clock just before they were, by timer."""
    removed: dict[str, int] = field(default_factory=dict)
    """The clock just after they were, by timer."""
    left: int | None = None
    """Timers that were in Redis at the end, dead or not; None if that could not be found out."""

    def add(self, worker: str, report: dict[str, Any]) -> Run:
        """Take down a worker's report of a run; returns the run."""
        what, fence = report["what"], report["fence"]
        if what == "began":
            names = ("timer", "payload", "attempt", "fence", "due", "clock", "until")
            run = Run(worker, began=report["at"], **{name: report[name] for name in names})
            self.runs.append(run)
            return run
        run = next(each for each in self.runs if (each.worker, each.fence) == (worker, fence))
        if what == "sure":
            run.until = report["until"]
        elif what == "ended":
            run.how = report["how"]
        return run

    def of(self, timer: str) -> list[Run]:
        """The runs of a timer, in order."""
        return sorted((run for run in self.runs if run.timer == timer), key=lambda run: run.fence)

    def completed(self, timer: str) -> int:
        """How many of them have ended well."""
        return sum(run.how == "completed" for run in self.of(timer))

    def cut_off(self) -> list[Run]:
        """What the killed ones were running."""
        return [run for run in self.runs if run.how is None and run.worker in self.killed]

    def before(self, run: Run) -> Run | None:
        """The run of the same timer before this one."""
        return max(
            (each for each in self.of(run.timer) if each.fence < run.fence),
            key=lambda each: each.fence,
            default=None,
        )

    def next_after(self, run: Run) -> Run | None:
        """The next run of the same timer."""
        return next((each for each in self.of(run.timer) if each.fence > run.fence), None)
