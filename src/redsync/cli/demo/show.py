"""What there is to see of the demo: a table that lives, plain lines, or nothing."""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from .history import History, Hold

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Lines", "Show", "Silence", "Table", "conclusion"]


_FRAME: Final = 0.05
"""Seconds for which a picture stands at least."""


_COLUMNS: Final = {"Slot": 4, "Fence": 16, "Holder": 20, "Held for": 8, "Lease": 6}


class Show(AbstractContextManager["Show"]):
    """Tells a history while it is made.  This one tells nothing."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.began = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""

    def note(self, text: str) -> None:
        """Tell something special."""

    def granted(self, hold: Hold) -> None:
        """Tell that somebody got a permit."""

    def refresh(self) -> None:
        """Bring it up to date; called often."""


Silence = Show


class Lines(Show):
    """Plain lines, for logs and pipes."""

    def note(self, text: str) -> None:
        """Write the line."""
        print(f"{time.monotonic() - self.began:6.2f} s  {text}", flush=True)

    def granted(self, hold: Hold) -> None:
        """Write a line."""
        waited = hold.granted - hold.asked
        self.note(
            f"slot {hold.slot}  fence {hold.fence}  to {hold.worker}.{hold.contender}"
            f" after {waited:.3f} s"
        )


class Table(Show):
    """A table of the slots, and the latest notes below it, on a terminal."""

    def __init__(self, history: History) -> None:
        from rich.live import Live

        super().__init__(history)
        self._notes: deque[str] = deque(maxlen=8)
        self._drawn = 0.0
        self._live = Live(auto_refresh=False, get_renderable=self._render)

    def __enter__(self) -> Table:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last picture and give the cursor back."""
        self._live.__exit__(kind, error, traceback)

    def note(self, text: str) -> None:
        """Add it below the table."""
        self._notes.append(f"{time.monotonic() - self.began:5.1f} s  {text}")

    def refresh(self) -> None:
        """Draw it, if the last picture is old enough."""
        if time.monotonic() - self._drawn > _FRAME:
            self._drawn = time.monotonic()
            self._live.refresh()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table as Grid
        from rich.text import Text

        history, now = self.history, time.monotonic()
        grid = Grid(title=f"{history.count} permits, {len(history.holds)} times granted")
        for name, width in _COLUMNS.items():
            grid.add_column(name, width=width)
        held = {hold.slot: hold for hold in history.open()}
        for slot in range(history.count):
            hold = held.get(slot)
            grid.add_row(str(slot), *(self._row(hold, now) if hold else ("", "free", "", "")))
        return Group(grid, *(Text(note) for note in self._notes))

    def _row(self, hold: Hold, now: float) -> tuple[str, ...]:
        holder = f"{hold.worker}.{hold.contender}"
        if hold.worker in self.history.killed:
            holder = f"[red]{holder} (killed)[/red]"
        left = max(0.0, hold.until - now)
        return str(hold.fence), holder, f"{now - hold.granted:.1f} s", f"{left:.1f} s"


def conclusion(summary: dict[str, Any]) -> None:
    """Print a summary for people."""
    times = sum(summary["grants"].values())
    grants = ", ".join(f"{kind} {number}" for kind, number in summary["grants"].items())
    print(
        f"\nPermits were granted {times} times ({grants}), at most {summary['most_at_once']} at"
        f" once, in {summary['took']:.1f} s."
    )
    for one in summary["killed"]:
        back = "never came back" if one["back_after"] is None else f"back in {one['back_after']} s"
        print(f"{one['worker']} was killed: slot {one['slot']} {back}.")
    for each in summary["checks"].values():
        print(f"  {'ok    ' if each['ok'] else 'FAILED'}  {each['promise']}")
        for fault in each["faults"]:
            print(f"            {fault}")
    print("All is as promised." if summary["ok"] else "A promise was broken.")
