"""What there is to see of the demo: a table that lives, plain lines, or nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

__all__ = ["Lines", "Show", "Silence", "Table", "conclusion"]


_FRAME: Final = 0.05
"""Seconds for which a picture stands at least."""


class Show(AbstractContextManager["Show"]):
    """Tells what happens while it does.  This one tells nothing."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""

    def scene(self, picture: Callable[[], RenderableType]) -> None:
        """Begin a scene, and show this picture of it, which is made anew again and again."""

    def note(self, text: str) -> None:
        """Tell something special."""

    def detail(self, text: str) -> None:
        """Tell something that the picture shows too."""

    def refresh(self) -> None:
        """Bring it up to date; called often."""


Silence = Show


class Lines(Show):
    """Plain lines, for logs and pipes."""

    def note(self, text: str) -> None:
        """Write the line."""
        print(f"{time.monotonic() - self.began:6.2f} s  {text}", flush=True)

    def detail(self, text: str) -> None:
        """Write the line."""
        self.note(text)


class Table(Show):
    """The picture of the scene, and the latest notes below it, on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._picture: Callable[[], RenderableType] | None = None
        self._live: Live | None = None
        self._notes: deque[str] = deque(maxlen=8)
        self._drawn = 0.0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last picture and give the cursor back."""
        if self._live is not None:
            self._live.stop()

    def scene(self, picture: Callable[[], RenderableType]) -> None:
        """Leave the last picture of the scene before, and go on below it."""
        from rich.live import Live

        if self._live is not None:
            self._live.stop()
            self._notes.clear()
        self._picture = picture
        self._live = Live(auto_refresh=False, get_renderable=self._render)
        self._live.start()

    def note(self, text: str) -> None:
        """Add it below the picture."""
        self._notes.append(f"{time.monotonic() - self.began:5.1f} s  {text}")

    def refresh(self) -> None:
        """Draw it, if the last picture is old enough."""
        if self._live is not None and time.monotonic() - self._drawn > _FRAME:
            self._drawn = time.monotonic()
            self._live.refresh()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        assert self._picture is not None
        return Group(self._picture(), *(Text(note) for note in self._notes))


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
    timers = summary["timers"]
    if timers["runs"]:
        latest = max((late for times in timers["lateness"].values() for late in times), default=0)
        print(
            f"Timers were set {timers['set']} times and ran {timers['runs']} times, at most"
            f" {latest * 1e3:.1f} ms after they were due."
        )
    for one in timers["taken_over"]:
        how = "nobody took over" if one["by"] is None else f"{one['by']} took over"
        when = "" if one["after"] is None else f" after {one['after']} s"
        print(f"{one['killed']} was killed in the middle of {one['timer']}: {how}{when}.")
    for each in summary["checks"].values():
        print(f"  {'ok    ' if each['ok'] else 'FAILED'}  {each['promise']}")
        for fault in each["faults"]:
            print(f"            {fault}")
    print("All is as promised." if summary["ok"] else "A promise was broken.")
