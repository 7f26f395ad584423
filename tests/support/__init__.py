"""What the tests stand on.

`aio` and `sync` offer the same names over tasks and over threads: tests in tests/_async import
from `..support.aio`, which the generator turns into `..support.sync`.  Here is what both share.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final, Protocol

HOST: Final = "127.0.0.1"

CLIENT: Final = {"username": "client", "password": "of-the-tests"}
"""What the clients of a `Site` sign in with."""


class Reachable(Protocol):
    """A server, or a proxy in front of one."""

    @property
    def url(self) -> str: ...


def describe(condition: Callable[..., object]) -> str:
    """Name a condition in a message: a function by its name, a lambda by its source line."""
    name: str = getattr(condition, "__qualname__", repr(condition))
    if not name.endswith("<lambda>"):
        return name
    try:
        return inspect.getsource(condition).strip()
    except OSError:
        return name


class Site(Protocol):
    """Several servers, one of which is the master of a key until another one is."""

    @property
    def port(self) -> int: ...

    @property
    def service(self) -> str | None:
        """What the sentinels call it; None: it is a cluster."""

    @property
    def sentinels(self) -> list[tuple[str, int]]: ...
