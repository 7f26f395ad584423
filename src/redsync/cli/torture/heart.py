"""Notes when a process or the server did not get to run: it was stopped, or others were busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from ..server import Server
from .history import Journal

__all__ = ["Heart", "pulse_of"]

_BEAT: Final = 0.02
_GAP: Final = 0.1
_PATIENCE: Final = 30.0


class Heart:
    """A thread that beats, and notes when a beat comes late.

    Args:
        journal: Where to write it.
        pulse: What to do for each beat; one that raises an OSError does not count.
    """

    def __init__(self, journal: Journal, pulse: Callable[[], object] = lambda: None) -> None:
        self._journal = journal
        self._pulse = pulse
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join(_GAP)

    def _beat(self) -> None:
        last = monotonic()
        while not self._ended.wait(_BEAT):
            try:
                self._pulse()
            except (OSError, RuntimeError):
                continue
            now = monotonic()
            if now - last > _GAP:
                self._journal.write(gap=[last, now])
            last = now


def pulse_of(server: Server) -> Callable[[], object]:
    """Ask the server, directly."""
    return lambda: server.ask("PING", timeout=_PATIENCE)
