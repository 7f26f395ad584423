"""Thousands of tasks of one process that wait for one permit."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from time import perf_counter, process_time

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, serve

from redsync.aio import RedisSemaphore


def resident() -> int:
    """Bytes of memory that the process has."""
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096


async def _connections(client: Redis) -> int:
    return len(await client.client_list())


async def _idle() -> None:
    """Until the process has nothing to do any more."""
    before = -1.0
    while process_time() - before > 0.01:
        before = process_time()
        await asyncio.sleep(0.2)


async def waiters(url: str) -> Round:
    """Rounds in which as many wait, and are cancelled."""
    client, admin = Redis.from_url(url), Redis.from_url(url)
    before = await _connections(admin)
    semaphore = RedisSemaphore(client, "one", count=1)
    await semaphore.acquire()

    async def round_(tasks: int) -> Answer:
        gc.collect()
        empty = resident()
        clock = Clock()
        waiting = [asyncio.create_task(semaphore.acquire()) for _ in range(tasks)]
        await _idle()  # all are in line
        gc.collect()
        full = resident()
        connections = await _connections(admin) - before
        began = perf_counter()
        for task in waiting:
            task.cancel()
        for task in waiting:
            with suppress(asyncio.CancelledError):
                await task
        return clock.answer(
            tasks,
            bytes=(full - empty) / tasks,
            connections=connections,
            cancelled=perf_counter() - began,
        )

    return round_


if __name__ == "__main__":
    serve({"waiters": waiters})
