"""The scene of the semaphore and the event."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ...sync import RedisSemaphore
from .course import FRAME, Course
from .crew import Crew, Worker
from .history import History, Hold
from .show import Show
from .worker import COUNT, PERMIT_TTL

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Competition", "picture"]

LIMIT: Final = 11.0
"""Seconds for the course; clearing up may take some more, most of all if the server is dead."""

_COLUMNS: Final = {"Slot": 4, "Fence": 16, "Holder": 20, "Held for": 8, "Lease": 6}


class Competition(Course):
    """Competition, a signal, a killed holder.  Once it goes on, `meanwhile` is called."""

    def __init__(
        self, history: History, show: Show, crew: Crew, meanwhile: Callable[[], object]
    ) -> None:
        super().__init__(history, show, crew, LIMIT)
        self._history = history
        self._meanwhile = meanwhile

    def play(self) -> None:
        """Let them compete, and disturb them."""
        self._meanwhile()
        workers = self.crew.workers
        self.watch(1.0)
        self._hand_over_signal(workers[0])
        self._kill_holder(workers[-1])
        self.watch(0.5)

    def take(self, worker: Worker, report: dict[str, Any]) -> None:
        """Take down what a worker reports."""
        hold = self._history.add(worker.name, report)
        if hold is not None:
            waited = hold.granted - hold.asked
            self.show.detail(
                f"slot {hold.slot}  fence {hold.fence}  to {hold.worker}.{hold.contender}"
                f" after {waited:.3f} s"
            )
        elif report["what"] == "woken":
            self.show.note(f"{worker.name} is woken by a signal")

    def wait_for_free(self, semaphore: RedisSemaphore) -> int:
        """The number of free permits, once all are free, or after a killed one should be."""
        deadline = time.monotonic() + PERMIT_TTL + 1
        while True:
            free = semaphore.status().free
            if free == COUNT or time.monotonic() > deadline:
                return free
            self.show.refresh()
            time.sleep(FRAME)

    def _hand_over_signal(self, sender: Worker) -> None:
        self.show.note(f"{sender.name} sends a signal; everyone waits for it")
        sender.tell("signal")
        self.wait_for(lambda: self._history.woken, "the signal has arrived")

    def _kill_holder(self, victim: Worker) -> None:
        self.show.note(f"{victim.name} will keep its next permit")
        victim.tell("keep")
        # Long enough for its lease to have been renewed.
        if not self.wait_for(lambda: self._keeps(victim, PERMIT_TTL / 2), "it keeps a permit"):
            return
        self.show.note(f"{victim.name} is killed by SIGKILL while it holds a permit")
        self.kill(victim)
        for hold in self._history.cut_off():
            self.wait_for(partial(self._history.next_after, hold), f"{hold} is back")
            heir = self._history.next_after(hold)
            if heir is not None:
                after = heir.granted - self._history.killed[victim.name]
                self.show.note(f"slot {hold.slot} is back after {after:.3f} s")

    def _keeps(self, worker: Worker, seconds: float) -> bool:
        return any(
            hold.worker == worker.name and hold.until - hold.granted > PERMIT_TTL + seconds
            for hold in self._history.open()
        )


def picture(history: History) -> Table:
    """The slots as they are now."""
    from rich.table import Table

    now = time.monotonic()
    table = Table(title=f"{history.count} permits, {len(history.holds)} times granted")
    for name, width in _COLUMNS.items():
        table.add_column(name, width=width)
    held = {hold.slot: hold for hold in history.open()}
    for slot in range(history.count):
        hold = held.get(slot)
        row = _row(hold, now, hold.worker in history.killed) if hold else ("", "free", "", "")
        table.add_row(str(slot), *row)
    return table


def _row(hold: Hold, now: float, killed: bool) -> tuple[str, ...]:
    holder = f"{hold.worker}.{hold.contender}"
    if killed:
        holder = f"[red]{holder} (killed)[/red]"
    left = max(0.0, hold.until - now)
    return str(hold.fence), holder, f"{now - hold.granted:.1f} s", f"{left:.1f} s"
