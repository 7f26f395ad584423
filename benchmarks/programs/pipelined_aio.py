"""A hundred acquisitions and releases in one write each, and the same of list commands."""

from __future__ import annotations

import asyncio
from time import perf_counter

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, serve

from redsync.aio import RedisSemaphore

SIZE = 100
COUNT = 10


async def lists(url: str) -> Round:
    """BLPOP and RPUSH, in a pipeline of redis-py."""
    client = Redis.from_url(url)
    await client.rpush("token", *range(COUNT))

    async def round_(seconds: float) -> Answer:
        operations = 0
        clock = Clock()
        while perf_counter() < clock.began + seconds:
            pipe = client.pipeline(transaction=False)
            for _ in range(SIZE):
                pipe.blpop(["token"], timeout=1)
                pipe.rpush("token", 1)
            await pipe.execute()
            operations += SIZE
        return clock.answer(operations)

    return round_


async def redsync(url: str) -> Round:
    """Acquisitions of as many tasks, and then their releases: each goes out in one write."""
    semaphore = RedisSemaphore(Redis.from_url(url), "s", count=SIZE)

    async def round_(seconds: float) -> Answer:
        operations = 0
        clock = Clock()
        while perf_counter() < clock.began + seconds:
            permits = await asyncio.gather(*(semaphore.acquire() for _ in range(SIZE)))
            await asyncio.gather(*(permit.release() for permit in permits))
            operations += SIZE
        return clock.answer(operations)

    return round_


if __name__ == "__main__":
    serve({"lists": lists, "redsync": redsync})
