"""What the courses of all scenes have in common: they watch, wait, and end their workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from .crew import Crew, Worker
from .history import Record
from .show import Show

__all__ = ["FRAME", "Course"]

FRAME: Final = 0.1
"""Seconds after which to look again, at the latest."""

_ENDING: Final = 3.0
_LAST_WAIT: Final = 1.0


class Course:
    """What happens, in order.

    Args:
        record: Where to take down what happened.
        show: Where to tell it.
        crew: The workers of this scene.
        limit: Seconds for the course; clearing up may take some more.
    """

    def __init__(self, record: Record, show: Show, crew: Crew, limit: float) -> None:
        self.record = record
        self.show = show
        self.crew = crew
        self._end = time.monotonic() + limit
        self._ready: set[Worker] = set()
        self._stopped = False
        self._failed = False

    def run(self) -> None:
        """Play the scene, with an orderly end."""
        if self.wait_for(lambda: len(self._ready) == len(self.crew.workers), "all are ready"):
            self.play()
        self._end_all()

    def play(self) -> None:
        """What happens once all workers are ready."""
        raise NotImplementedError

    def take(self, worker: Worker, report: dict[str, Any]) -> None:
        """Take down what a worker reports."""
        raise NotImplementedError

    def tend(self) -> None:
        """Look after whatever needs it; called often."""

    def watch(self, seconds: float) -> None:
        """Take reports for some time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._failed:
            self._step(until)

    def wait_for(self, condition: Callable[[], Any], what: str) -> bool:
        """Watch until something is so; False, and a trouble, if that takes too long.

        False at once if there has been a trouble before: the sooner it ends, the better.
        """
        while not condition():
            if self._failed:
                return False
            if time.monotonic() >= self._end:
                self._trouble(f"it took too long until {what}")
                return False
            self._step(self._end)
        return True

    def kill(self, victim: Worker) -> None:
        """End a worker by SIGKILL, and watch until it is dead."""
        self.record.killed[victim.name] = time.monotonic()
        victim.kill()
        self.wait_for(lambda: victim.ended, f"{victim.name} is dead")

    def _end_all(self) -> None:
        self._stopped, self._failed = True, False
        self._end = time.monotonic() + _ENDING
        self.crew.tell_all("stop")
        self.wait_for(lambda: all(each.ended for each in self.crew.workers), "all workers end")
        for worker in self.crew.workers:
            status = worker.status(_LAST_WAIT) if worker.ended else None
            if worker.name not in self.record.killed and status != 0:
                self._trouble(f"{worker.name} ended with status {status}")

    def _step(self, deadline: float) -> None:
        """Take a report, if there is one soon."""
        report = self.crew.next_report(min(deadline, time.monotonic() + FRAME))
        if report is not None:
            self._take(*report)
        self.tend()
        self.show.refresh()

    def _take(self, worker: Worker, report: dict[str, Any] | None) -> None:
        if report is None:
            worker.ended = True
            if not self._stopped and worker.name not in self.record.killed:
                self._trouble(f"{worker.name} has ended too early")
        elif report["what"] == "ready":
            self._ready.add(worker)
        else:
            self.take(worker, report)

    def _trouble(self, text: str) -> None:
        self._failed = True
        self.record.troubles.append(text)
        self.show.note(text)
