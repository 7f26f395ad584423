"""Finds the library's commands among what goes through a `FaultProxy`."""

from __future__ import annotations

import hashlib

from redsync._protocol.scripts import _SCRIPTS

__all__ = ["evalsha"]


def evalsha(script: str) -> str:
    """How calls of a script begin, ``semaphore/acquire`` say, once the server knows it."""
    return f"EVALSHA {hashlib.sha1(_SCRIPTS[script]).hexdigest()}"
