"""Names for requests: what a grant remembers, so that a request sent twice has one effect."""

from __future__ import annotations

import itertools
import os
import platform

_prefix = os.urandom(8).hex()
_numbers = itertools.count(1)


def _renew() -> None:
    global _prefix
    _prefix = os.urandom(8).hex()


os.register_at_fork(after_in_child=_renew)


def new_owner() -> str:
    """A name that no other request has, in any process."""
    return f"{_prefix}:{next(_numbers)}"


def default_identifier() -> str:
    """Who this process is, for those who look at a semaphore's status."""
    return f"{platform.node() or 'unknown'}:{os.getpid()}"
