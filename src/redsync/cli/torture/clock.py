"""The clock of a server, as libfaketime shows it.

The wheel ``libfaketime`` has the library; without it the server's clock is that of the machine, and
is not set.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from time import monotonic, time
from typing import Final

from ..server import Server

__all__ = ["Clock", "find_library"]

_FILE: Final = "clock"
_NEAR: Final = 0.05
_ASK_TIME: Final = (
    "EVAL \"local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)\" 0"
)
"""In milliseconds, as one line."""


def find_library() -> Path | None:
    """The library of the wheel, if that is installed."""
    try:
        files = importlib.metadata.files("libfaketime") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "libfaketime.so.1" and path.exists():
            return path
    return None


class Clock:
    """A clock that can be set.

    Args:
        folder: Where the server finds out how much it is off.
        library: libfaketime; None: it cannot be set.
    """

    def __init__(self, folder: Path, library: Path | None) -> None:
        self._file = folder / _FILE
        self._library = library
        self.offset = 0.0
        """Seconds."""
        self._write()

    @property
    def settable(self) -> bool:
        """Whether it can be set."""
        return self._library is not None

    def environment(self) -> dict[str, str]:
        """What the server's environment must have."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: float) -> None:
        """Set it forward, or back; the server's next look shows it."""
        self.offset = round(self.offset + seconds, 6)
        self._write()

    def await_shown(self, server: Server) -> None:
        """Wait until the server shows it: it may answer with a time that it has kept for a moment.

        Three times in a row, as it keeps more than one; for a second at most.
        """
        deadline, seen = monotonic() + 1.0, 0
        while seen < 3 and monotonic() < deadline:
            off = float(server.ask(_ASK_TIME).lstrip(":")) / 1000 - time()
            seen = seen + 1 if abs(off - self.offset) < _NEAR else 0

    def _write(self) -> None:
        # Not in place: the server may read at any moment.
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.offset:+.6f}\n")
        os.replace(new, self._file)
