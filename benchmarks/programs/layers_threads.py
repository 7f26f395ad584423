"""Acquire and release through fewer and fewer layers, down to what the same bytes cost alone."""

from __future__ import annotations

from time import monotonic
from typing import Any

from redis import Redis
from rounds import Round, repeated, serve

from redsync._protocol.owner import default_identifier, new_owner
from redsync._protocol.resp import pack
from redsync._protocol.semaphore import Terms, Token
from redsync.sync import RedisSemaphore

TERMS = Terms(ttl=30_000, keep=86_400_000)
PATIENCE = 5.0
"""Seconds."""

_kept: list[RedisSemaphore] = []
"""What nobody keeps is closed."""


def _pool(url: str) -> tuple[RedisSemaphore, Any]:
    semaphore = RedisSemaphore(Redis.from_url(url), "s", count=10)
    with semaphore:
        pass
    _kept.append(semaphore)
    return semaphore, semaphore._homes.get().membership.station


def wire(url: str) -> Round:
    """Two PINGs over our connection."""
    _, pool = _pool(url)
    connection, ping = pool._link._wire, pack("PING")

    def once() -> None:
        connection.call(ping, PATIENCE)
        connection.call(ping, PATIENCE)

    return repeated(once)


def scripts(url: str) -> Round:
    """The two scripts over our connection."""
    _, pool = _pool(url)
    connection, calls = pool._link._wire, pool._backend._scripts

    def once() -> None:
        owner = new_owner()
        request = calls.acquire(owner, TERMS, 0, default_identifier())
        token = Token.parse(connection.call(request.packed(), PATIENCE))
        connection.call(calls.release(token, owner, 0).packed(), PATIENCE)

    return repeated(once)


def link(url: str) -> Round:
    """The two scripts with whatever it takes to have one effect each."""
    _, pool = _pool(url)
    backend = pool._backend

    def once() -> None:
        owner, deadline = new_owner(), monotonic() + PATIENCE
        token = backend.acquire(owner, TERMS, 0, default_identifier(), deadline)
        backend.release(token, owner, 0, deadline)

    return repeated(once)


def pool(url: str) -> Round:
    """Grants that are renewed until they are given back."""
    semaphore, station = _pool(url)

    def once() -> None:
        now = monotonic()
        grant = station.acquire(new_owner(), semaphore, None, now, now + PATIENCE)
        station.release(grant)

    return repeated(once)


def semaphore(url: str) -> Round:
    """All of it: what users call."""
    whole, _ = _pool(url)

    def once() -> None:
        (whole.acquire()).release()

    return repeated(once)


if __name__ == "__main__":
    serve({
        "wire": wire,
        "scripts": scripts,
        "link": link,
        "pool": pool,
        "semaphore": semaphore,
    })  # fmt: skip
