"""Concurrency and clients for the asyncio tests; `sync` offers the same names over threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TextIO, TypeVar

from redis.asyncio import Redis as Redis
from redis.asyncio import RedisCluster as RedisCluster
from redis.asyncio.sentinel import Sentinel

from . import CLIENT, HOST, Reachable, Site, describe

T = TypeVar("T")

sleep = asyncio.sleep


class Handle(Generic[T]):
    """A call that runs in the background; made by `spawn`."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._name = describe(call)
        self._task = asyncio.ensure_future(_run(call))

    def done(self) -> bool:
        """Tell whether the call has returned or raised."""
        return self._task.done()

    async def result(self, timeout: float = 20) -> T:
        """Return what the call returns, or raise what it raises.

        The call goes on if it is still running after the timeout, an AssertionError.
        """
        await asyncio.wait([self._task], timeout=timeout)
        assert self._task.done(), f"still running after {timeout} s: {self._name}"
        return self._task.result()


async def _run(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


def spawn(call: Callable[[], Awaitable[T]]) -> Handle[T]:
    """Run the call in the background."""
    return Handle(call)


async def together(*calls: Callable[[], Awaitable[T]], timeout: float = 30) -> list[T]:
    """Run the calls at once and return their results; raise the first error once all have ended.

    Takes functions, not coroutines: `together(f(), g())` would, once made blocking, run `f` to its
    end before `g` begins.
    """
    handles = [spawn(call) for call in calls]
    if handles:
        await asyncio.wait([handle._task for handle in handles], timeout=timeout)
    return [await handle.result(0) for handle in handles]


async def eventually(
    condition: Callable[[], Awaitable[object] | object], timeout: float = 20
) -> None:
    """Wait until the condition, a plain or a coroutine function, holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert loop.time() < deadline, f"not within {timeout} s: {describe(condition)}"
        await sleep(0.002)


def connect(server: Reachable, **options: Any) -> Redis:
    """Return a client for the server; give it back to `disconnect`, or use `async with`."""
    return Redis.from_url(server.url, **options)


async def disconnect(client: Redis) -> None:
    """Close the client and its connections, with every version of redis-py."""
    # 5.0.0 knows neither aclose() nor that from_url() made the pool for this client alone.
    await (client.aclose if hasattr(client, "aclose") else client.close)()
    await client.connection_pool.disconnect()


def join(site: Site) -> Redis | RedisCluster:
    """Return a client for the servers; give it back to `part`."""
    if site.service is None:
        return RedisCluster(host=HOST, port=site.port)
    sentinel: Any = Sentinel(site.sentinels)  # type: ignore[no-untyped-call,unused-ignore]
    master: Redis = sentinel.master_for(site.service, **CLIENT)
    return master


async def part(client: Redis | RedisCluster) -> None:
    """Close the client, with every version of redis-py."""
    if isinstance(client, RedisCluster):
        await (client.aclose if hasattr(client, "aclose") else client.close)()
    else:
        pool: Any = client.connection_pool
        for each in (*pool.sentinel_manager.sentinels, client):
            await disconnect(each)


async def lines(stream: TextIO) -> AsyncIterator[bytes]:
    """Read a pipe line by line, to its end."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    while line := await reader.readline():
        yield line


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run the main function of a program."""
    asyncio.run(_run(main))


def background() -> int:
    """How many tasks there are beside the one that asks."""
    return len(asyncio.all_tasks()) - 1
