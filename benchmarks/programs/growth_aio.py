"""Acquire and release with more and more of something."""

from __future__ import annotations

import asyncio
from itertools import cycle
from time import perf_counter

from redis.asyncio import Redis, RedisCluster
from rounds import Answer, Clock
from rounds.aio import Round, repeated, serve

from redsync.aio import RedisSemaphore

COUNT = 10


async def permits(url: str, count: str) -> Round:
    """One task, and a semaphore with so many permits."""
    semaphore = RedisSemaphore(Redis.from_url(url), f"{count} permits", count=int(count))

    async def once() -> None:
        await (await semaphore.acquire()).release()

    return repeated(once)


async def names(url: str, number: str) -> Round:
    """One task that goes round so many semaphores."""
    client = Redis.from_url(url)
    semaphores = [
        RedisSemaphore(client, f"{n} of {number}", count=COUNT) for n in range(int(number))
    ]
    for each in semaphores:
        await each.get_count()
    turn = cycle(semaphores)

    async def once() -> None:
        await (await next(turn).acquire()).release()

    return repeated(once)


async def spread(url: str, number: str, where: str) -> Round:
    """As many semaphores, on a node or all over a cluster, each used by one task."""
    client = (RedisCluster if where == "cluster" else Redis).from_url(url)
    semaphores = [RedisSemaphore(client, f"{n}", count=COUNT) for n in range(int(number))]

    async def once(semaphore: RedisSemaphore) -> None:
        await (await semaphore.acquire()).release()

    async def round_(seconds: float) -> Answer:
        operations = 0
        clock = Clock()
        while perf_counter() < clock.began + seconds:
            await asyncio.gather(*(once(each) for each in semaphores))
            operations += len(semaphores)
        return clock.answer(operations)

    return round_


if __name__ == "__main__":
    serve({"permits": permits, "names": names, "spread": spread})
