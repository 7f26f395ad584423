"""One task that acquires and releases again and again, and nobody else."""

from __future__ import annotations

import asyncio
from collections import deque
from importlib import import_module
from typing import Any

from redis.asyncio import Redis
from rounds.aio import Round, repeated, serve

COUNT = 10


async def pings(url: str) -> Round:
    """Two PINGs by the client that all others stand on."""
    client = Redis.from_url(url)

    async def once() -> None:
        await client.ping()
        await client.ping()

    return repeated(once)


async def lists(url: str) -> Round:
    """BLPOP and RPUSH by the client: what a semaphore without leases would send."""
    client = Redis.from_url(url)
    await client.rpush("tokens", *range(COUNT))

    async def once() -> None:
        await client.blpop(["tokens"], timeout=1)
        await client.rpush("tokens", 1)

    return repeated(once)


class _Raw(asyncio.Protocol):
    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()

    def data_received(self, data: bytes) -> None:
        self.waiting.popleft().set_result(None)


async def raw(url: str) -> Round:
    """Two PINGs over a bare connection: what no client can do without."""
    loop = asyncio.get_running_loop()
    host, _, port = url.removeprefix("redis://").removeprefix("unix://").partition(":")
    transport: Any
    if url.startswith("unix://"):
        transport, protocol = await loop.create_unix_connection(_Raw, host)
    else:
        transport, protocol = await loop.create_connection(_Raw, host, int(port))

    async def ping() -> None:
        future = loop.create_future()
        protocol.waiting.append(future)
        transport.write(b"*1\r\n$4\r\nPING\r\n")
        await future

    async def once() -> None:
        await ping()
        await ping()

    return repeated(once)


async def redsync(url: str) -> Round:
    """This library."""
    semaphore = import_module("redsync.aio").RedisSemaphore(Redis.from_url(url), "s", count=COUNT)

    async def once() -> None:
        permit = await semaphore.acquire()
        await permit.release()

    return repeated(once)


async def redsync2(url: str) -> Round:
    """redsync 2.0.0."""
    client = Redis.from_url(url)
    semaphore = await import_module("redsync").RedisSemaphore.create(client, "old", count=COUNT)

    async def once() -> None:
        await semaphore.acquire()
        await semaphore.release()

    return repeated(once)


async def redis_lock(url: str) -> Round:
    """The Lock of redis-py, which has one permit."""
    client = Redis.from_url(url)

    async def once() -> None:
        lock = client.lock("lock", timeout=30)
        await lock.acquire()
        await lock.release()

    return repeated(once)


async def redis_semaphore(url: str) -> Round:
    """py-redis-semaphore."""
    package = import_module("redis_semaphore")
    semaphore = package.Semaphore(
        Redis.from_url(url), package.SemaphoreConfig(name="theirs", limit=COUNT)
    )

    async def once() -> None:
        await semaphore.aacquire()
        await semaphore.arelease()

    return repeated(once)


async def self_limiters(url: str) -> Round:
    """self-limiters, whose client is written in Rust."""
    package = import_module("self_limiters")

    async def once() -> None:
        async with package.Semaphore(name="limit", capacity=COUNT, max_sleep=60, redis_url=url):
            pass

    return repeated(once)


if __name__ == "__main__":
    serve({
        "pings": pings,
        "lists": lists,
        "raw": raw,
        "redsync": redsync,
        "redsync2": redsync2,
        "redis-lock": redis_lock,
        "redis-semaphore": redis_semaphore,
        "self-limiters": self_limiters,
    })  # fmt: skip
