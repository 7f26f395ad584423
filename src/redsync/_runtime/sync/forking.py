"""Forks and connections that are being opened keep out of each other's way."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Final

_PATIENCE: Final = 1.0
"""Seconds for which a fork waits at most; opening a connection to a dead host takes longer."""


class unforked:
    """Keeps forks of other threads away from the body, for as long as they have patience.

    Whoever opens a connection may import something, or be told by the C library where a host is.
    Both take locks, which a child would inherit locked, with nobody there to release them: it
    would hang as soon as it opens a connection of its own. (Of glibc's, `resolv_conf` has one that
    is not looked after in a fork; of Python's, each module has one while it is imported.)
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def __enter__(self) -> None:
        try:
            with _forking:
                _bodies.add(self._gate)
        except BaseException:  # an interrupt: nobody else would end it
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        _bodies.discard(self._gate)
        self._gate.release()


_forking = threading.Lock()
_bodies: set[threading.Lock] = set()
"""A lock for each body, held until its end."""


def _before() -> None:
    end = time.monotonic() + _PATIENCE
    _forking.acquire(timeout=_PATIENCE)
    for gate in list(_bodies):
        if gate.acquire(timeout=max(0.0, end - time.monotonic())):
            gate.release()


def _after_in_parent() -> None:
    with contextlib.suppress(RuntimeError):  # it was not ours
        _forking.release()


def _after_in_child() -> None:
    global _forking
    _forking = threading.Lock()
    _bodies.clear()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
