"""Names for requests: what a grant remembers, so that a request sent twice has one effect."""

from __future__ import annotations

import itertools
import os
import platform

_numbers = itertools.count(1)
_prefix = _identifier = ""


def _renew() -> None:
    global _prefix, _identifier
    _prefix = os.urandom(8).hex()
    _identifier = f"{platform.node() or 'unknown'}:{os.getpid()}"


_renew()
os.register_at_fork(after_in_child=_renew)


def new_owner() -> str:
    """A name that no other request has, in any process."""
    return f"{_prefix}:{next(_numbers)}"


def default_identifier() -> str:
    """Who this process is, for those who look at a semaphore's status."""
    return _identifier
