"""Acquire and release through fewer and fewer layers, down to what the same bytes cost alone."""

from __future__ import annotations

from time import monotonic
from typing import Any

from rounds.aio import Round, connect, repeated, serve

from redsync._protocol.owner import default_identifier, new_owner
from redsync._protocol.resp import pack
from redsync._protocol.semaphore import Terms, Token
from redsync.aio import RedisSemaphore

TERMS = Terms(ttl=30_000, keep=86_400_000)
PATIENCE = 5.0
"""Seconds."""

_kept: list[RedisSemaphore] = []
"""What nobody keeps is closed."""


async def _pool(url: str) -> tuple[RedisSemaphore, Any]:
    semaphore = RedisSemaphore(connect(url), "s", count=10)
    async with semaphore:
        pass
    _kept.append(semaphore)
    return semaphore, semaphore._homes.get().membership.station


async def wire(url: str) -> Round:
    """Two PINGs over our connection."""
    _, pool = await _pool(url)
    connection, ping = pool._link._wire, pack("PING")

    async def once() -> None:
        await connection.call(ping, PATIENCE)
        await connection.call(ping, PATIENCE)

    return repeated(once)


async def scripts(url: str) -> Round:
    """The two scripts over our connection."""
    _, pool = await _pool(url)
    connection, calls = pool._link._wire, pool._backend._scripts

    async def once() -> None:
        owner = new_owner()
        request = calls.acquire(owner, TERMS, 0, default_identifier())
        token = Token.parse(await connection.call(request.packed(), PATIENCE))
        await connection.call(calls.release(token, owner, 0).packed(), PATIENCE)

    return repeated(once)


async def link(url: str) -> Round:
    """The two scripts with whatever it takes to have one effect each."""
    _, pool = await _pool(url)
    backend = pool._backend

    async def once() -> None:
        owner, deadline = new_owner(), monotonic() + PATIENCE
        token = await backend.acquire(owner, TERMS, 0, default_identifier(), deadline)
        await backend.release(token, owner, 0, deadline)

    return repeated(once)


async def pool(url: str) -> Round:
    """Grants that are renewed until they are given back."""
    semaphore, station = await _pool(url)

    async def once() -> None:
        now = monotonic()
        grant = await station.acquire(new_owner(), semaphore, None, now, now + PATIENCE)
        await station.release(grant)

    return repeated(once)


async def semaphore(url: str) -> Round:
    """All of it: what users call."""
    whole, _ = await _pool(url)

    async def once() -> None:
        await (await whole.acquire()).release()

    return repeated(once)


if __name__ == "__main__":
    serve({
        "wire": wire,
        "scripts": scripts,
        "link": link,
        "pool": pool,
        "semaphore": semaphore,
    })  # fmt: skip
