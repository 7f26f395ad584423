"""Many tasks that want the same few permits all the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from time import perf_counter
from typing import Any

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, serve

COUNT = 10

Take = Callable[[], Awaitable[Callable[[], Awaitable[object]]]]
"""Acquires a permit, and returns what releases it."""


def _contend(make: Callable[[], Take], warm: Callable[[], Awaitable[object]]) -> Round:
    """Rounds in which each task acquires, holds and releases until the time is up."""
    ready = False

    async def round_(tasks: int, seconds: float, hold: float = 0.0) -> Answer:
        nonlocal ready
        takes = [make() for _ in range(tasks)]
        if not ready:
            await asyncio.gather(*(warm() for _ in range(tasks)))
            ready = True
        counts = [0] * tasks
        waits: list[float] = []
        clock = Clock()
        end = clock.began + seconds

        async def work(number: int) -> None:
            while (asked := perf_counter()) < end:
                release = await takes[number]()
                if hold:
                    waits.append(perf_counter() - asked)
                    await asyncio.sleep(hold)
                await release()
                counts[number] += 1

        await asyncio.gather(*(work(number) for number in range(tasks)))
        return clock.answer(sum(counts), samples=waits, counts=counts)

    return round_


async def redsync(url: str) -> Round:
    """This library: one instance for all."""
    semaphore = import_module("redsync.aio").RedisSemaphore(Redis.from_url(url), "s", count=COUNT)

    async def take() -> Callable[[], Awaitable[object]]:
        release: Callable[[], Awaitable[object]] = (await semaphore.acquire()).release
        return release

    return _contend(lambda: take, semaphore.get_count)


async def redsync2(url: str) -> Round:
    """redsync 2.0.0, an instance for each task: they remember who has acquired."""
    client = Redis.from_url(url, max_connections=10_000)
    package = import_module("redsync")
    await package.RedisSemaphore.create(client, "old", count=COUNT)

    def make() -> Take:
        semaphore: Any = package.RedisSemaphore(client, "old", count=COUNT)

        async def take() -> Callable[[], Awaitable[object]]:
            await semaphore.acquire()
            release: Callable[[], Awaitable[object]] = semaphore.release
            return release

        return take

    # Each of its tasks has a connection of its own, which is open before the clock starts.
    return _contend(make, lambda: client.blpop(["nothing"], timeout=0.5))


if __name__ == "__main__":
    serve({"redsync": redsync, "redsync2": redsync2})
