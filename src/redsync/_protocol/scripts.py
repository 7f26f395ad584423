"""The Lua scripts, ready to be sent: only their arguments are still to be packed."""

from __future__ import annotations

import hashlib
import pkgutil
from typing import Final

from .resp import Argument, pack_arguments


class Script:
    """A script bound to the keys of one object."""

    def __init__(self, name: str, *keys: bytes) -> None:
        self.name = name
        text = _SCRIPTS[name]
        tail = pack_arguments((len(keys), *keys))
        self._by_digest = pack_arguments(("EVALSHA", hashlib.sha1(text).hexdigest())) + tail
        self._by_text = pack_arguments(("EVAL", text)) + tail
        self._fixed = 3 + len(keys)

    def request(self, *arguments: Argument) -> Request:
        """The call with these arguments."""
        return Request(self, len(arguments), pack_arguments(arguments))

    def head(self, count: int, *, whole: bool) -> bytes:
        """What comes before `count` arguments: the script itself, or the name that the server
        keeps it by.
        """
        return b"*%d\r\n" % (self._fixed + count) + (self._by_text if whole else self._by_digest)


class Request:
    """A call of a script. Sent twice, it has one effect."""

    __slots__ = ("_arguments", "_count", "script")

    def __init__(self, script: Script, count: int, arguments: bytes) -> None:
        self.script = script
        self._count = count
        self._arguments = arguments

    def packed(self, *, whole: bool = False) -> bytes:
        """The bytes to send; `whole` with the script's text, for a server that has forgotten it."""
        return self.script.head(self._count, whole=whole) + self._arguments


def _read(name: str) -> bytes:
    data = pkgutil.get_data(__package__, f"lua/{name}.lua")
    assert data is not None
    return data


def _load(name: str) -> bytes:
    return _read(name).replace(b"-- include common.lua\n", _COMMON)


_COMMON: Final = _read("common")

_SCRIPTS: Final = {name: _load(name) for name in ("acquire", "create", "release", "resize", "tend")}
