"""Finds the library's commands among what goes through a `FaultProxy`."""

from __future__ import annotations

import hashlib

import redis

from redsync._protocol.scripts import _SCRIPTS

from . import Reachable

__all__ = ["evalsha", "load_scripts"]


def evalsha(script: str) -> str:
    """How calls of a script begin, ``semaphore/acquire`` say, once the server knows it."""
    return f"EVALSHA {hashlib.sha1(_SCRIPTS[script]).hexdigest()}"


def load_scripts(server: Reachable) -> None:
    """Make the server know them all, so that none is sent as text."""
    with redis.Redis.from_url(server.url) as client:
        for text in _SCRIPTS.values():
            client.script_load(text)
