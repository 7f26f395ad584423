"""Processes that do nothing: they hold, they wait, they have no timer that is due."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, serve

from redsync.aio import RedisSemaphore, Router, Timers

SETTLED = 1.0
"""Seconds until the connections are open."""


async def _rest(seconds: float) -> Answer:
    clock = Clock()
    await asyncio.sleep(seconds)
    return clock.answer(0)


async def holder(url: str) -> Round:
    """Holds a permit."""
    semaphore = RedisSemaphore(Redis.from_url(url), "one", count=1)
    permit = await semaphore.acquire()

    async def round_(seconds: float) -> Answer:
        answer = await _rest(seconds)
        assert permit.held
        return answer

    return round_


async def both(url: str) -> Round:
    """Holds a permit, while another client, as if it were another process, waits for it."""
    semaphore = RedisSemaphore(Redis.from_url(url), "one", count=1)
    permit = await semaphore.acquire()
    other = RedisSemaphore(Redis.from_url(url), "one", count=1)
    waiting = asyncio.create_task(other.acquire())

    await asyncio.sleep(SETTLED)

    async def round_(seconds: float) -> Answer:
        answer = await _rest(seconds)
        assert permit.held and not waiting.done()
        return answer

    return round_


async def worker(url: str) -> Round:
    """Has a timer for tomorrow."""
    router = Router()

    @router.handler(topic="t")
    async def handle(payload: None) -> None:
        pass

    timers = Timers(redis_client=Redis.from_url(url), routers=[router])
    await timers.set_timer("t", "1", None, timedelta(days=1))
    running = asyncio.create_task(timers.run_forever())

    await asyncio.sleep(SETTLED)

    async def round_(seconds: float) -> Answer:
        answer = await _rest(seconds)
        assert not running.done()
        return answer

    return round_


if __name__ == "__main__":
    serve({"holder": holder, "both": both, "worker": worker})
