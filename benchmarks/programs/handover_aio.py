"""Two processes that want one permit: each hands it to the other, which waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from time import monotonic
from typing import Any

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, serve

HOLD = 0.002
"""Seconds for which it is held: the other one waits by then."""


def _hand_over(
    acquire: Callable[[], Awaitable[Any]], release: Callable[[Any], Awaitable[Any]]
) -> Round:
    async def round_(times: int) -> Answer:
        spans: list[tuple[float, float]] = []
        clock = Clock()
        for _ in range(times):
            permit = await acquire()
            granted = monotonic()
            await asyncio.sleep(HOLD)
            released = monotonic()
            await release(permit)
            spans.append((granted, released))
        return clock.answer(times, spans=spans)

    return round_


async def lists(url: str) -> Round:
    """RPUSH and BLPOP by redis-py, with nothing around them."""
    client = Redis.from_url(url)
    if await client.set("begun", 1, nx=True):
        await client.rpush("token", 1)
    return _hand_over(
        lambda: client.blpop(["token"], timeout=60), lambda _: client.rpush("token", 1)
    )


async def redsync(url: str) -> Round:
    """This library."""
    semaphore = import_module("redsync.aio").RedisSemaphore(Redis.from_url(url), "one", count=1)
    return _hand_over(semaphore.acquire, lambda permit: permit.release())


async def redsync2(url: str) -> Round:
    """redsync 2.0.0."""
    semaphore = await import_module("redsync").RedisSemaphore.create(
        Redis.from_url(url), "old one", count=1
    )
    return _hand_over(semaphore.acquire, lambda _: semaphore.release())


if __name__ == "__main__":
    serve({"lists": lists, "redsync": redsync, "redsync2": redsync2})
