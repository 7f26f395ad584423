"""What the event says to Redis, and what the answers mean. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .keys import EventKeys
from .resp import Reply, pack
from .scripts import Command, Request, Script

GRACE: Final = 2000
"""Milliseconds in which a signal that was popped has to be confirmed, from when it is missed."""


class EventScripts:
    """The calls of the scripts, bound to the keys of one event."""

    def __init__(self, keys: EventKeys) -> None:
        self.keys = keys
        names = ("clear", "confirm", "set", "take", "tend")
        scripts = {
            name: Script(f"event/{name}", keys.signals, keys.open, keys.sets) for name in names
        }
        self._clear = scripts["clear"]
        self._confirm = scripts["confirm"]
        self._set = scripts["set"]
        self._take = scripts["take"]
        self._tend = scripts["tend"]
        self.count = Command(pack("LLEN", keys.signals))
        """How many signals wait to be taken."""

    def set(self, request: str) -> Request:
        """Add a signal."""
        return self._set.request(request)

    def clear(self, request: str) -> Request:
        """Remove all signals."""
        return self._clear.request(request)

    def take(self, owner: str) -> Request:
        """Take a signal, which is named like its owner from then on."""
        return self._take.request(owner, GRACE, "0", again=(owner, GRACE, "1"))

    def confirm(self, signal: str) -> Request:
        """Somebody was woken by it."""
        return self._confirm.request(signal)

    def tend(self, returns: Sequence[str]) -> Request:
        """Put back these, and what nobody was woken by."""
        return self._tend.request(GRACE, *returns)


def parse_done(reply: Reply) -> bool:
    """Whether it was done."""
    return reply == 1


def parse_tended(reply: Reply) -> int | None:
    """Milliseconds until somebody's time to confirm ends."""
    assert isinstance(reply, int)
    return None if reply < 0 else reply
