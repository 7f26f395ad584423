"""The Lua scripts, ready to be sent: only their arguments are still to be packed."""

from __future__ import annotations

import hashlib
import pkgutil
from typing import Final

from .resp import Argument, pack_arguments


class Script:
    """A script bound to the keys of one object, or, without keys here, to those of each call."""

    def __init__(self, name: str, *keys: bytes) -> None:
        self.name = name
        text = _SCRIPTS[name]
        tail = pack_arguments((len(keys), *keys)) if keys else b""
        self._by_digest = pack_arguments(("EVALSHA", hashlib.sha1(text).hexdigest())) + tail
        self._by_text = pack_arguments(("EVAL", text)) + tail
        self._fixed = 3 + len(keys) if keys else 2

    def request(self, *arguments: Argument, again: tuple[Argument, ...] | None = None) -> Request:
        """The call with these arguments, and those for when it may have been executed before."""
        return Request(self, arguments, arguments if again is None else again)

    def request_on(
        self,
        keys: tuple[bytes, ...],
        *arguments: Argument,
        again: tuple[Argument, ...] | None = None,
    ) -> Request:
        """The same, with the keys of this call."""
        repeated = None if again is None else (len(keys), *keys, *again)
        return self.request(len(keys), *keys, *arguments, again=repeated)

    def head(self, count: int, *, whole: bool) -> bytes:
        """What comes before `count` arguments: the script itself, or the name that the server
        keeps it by.
        """
        return b"*%d\r\n" % (self._fixed + count) + (self._by_text if whole else self._by_digest)


class Command:
    """Something to send that has one effect, even if it is sent several times."""

    __slots__ = ("_packed", "before", "introduces")

    def __init__(self, packed: bytes, before: tuple[bytes, ...] = ()) -> None:
        self._packed = packed
        self.before = before
        """What has to come right before it; nobody looks at the replies."""
        self.introduces = False
        """Whether it is sent as one that may have been executed before, to a server that may be
        another one than before.
        """

    def packed(self, *, again: bool = False, whole: bool = False) -> bytes:
        """The bytes to send.

        Args:
            again: It may have been executed before.
            whole: With a script's text, for a server that has forgotten it.
        """
        return self._packed


class Request(Command):
    """A call of a script."""

    __slots__ = ("_again", "_first", "script")

    def __init__(
        self, script: Script, first: tuple[Argument, ...], again: tuple[Argument, ...]
    ) -> None:
        self.before = ()
        self.introduces = False
        self.script = script
        self._first = first
        self._again = again

    def packed(self, *, again: bool = False, whole: bool = False) -> bytes:
        """The bytes to send."""
        arguments = self._again if again else self._first
        return self.script.head(len(arguments), whole=whole) + pack_arguments(arguments)


def _read(name: str) -> bytes:
    data = pkgutil.get_data(__package__, f"lua/{name}.lua")
    assert data is not None
    return data


def _load(name: str) -> bytes:
    text = _read(name)
    for shared in ("semaphore/common", "event/common", "timers/common"):
        text = text.replace(b"-- include %b.lua\n" % shared.encode(), _read(shared))
    return text


_SCRIPTS: Final = {
    f"{folder}/{name}": _load(f"{folder}/{name}")
    for folder, names in {
        "semaphore": ("acquire", "create", "release", "resize", "status", "tend"),
        "event": ("clear", "confirm", "set", "take", "tend"),
        "timers": ("adopt", "arm", "cancel", "discard", "renew", "revive", "scan", "turn"),
    }.items()
    for name in names
}
