"""One client and one instance in several event loops, each in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from redis.asyncio import Redis

from redsync._runtime.aio import PerHome
from redsync.aio import RedisEvent, RedisSemaphore
from redsync.cli.server import Server

LOOPS = 8


def at_once(call: Callable[[], Awaitable[object]]) -> None:
    """Run a coroutine function in several loops, which begin together."""
    barrier = threading.Barrier(LOOPS)

    async def main() -> None:
        barrier.wait(10)
        await call()

    with ThreadPoolExecutor(LOOPS) as threads:
        for each in [threads.submit(asyncio.run, main()) for _ in range(LOOPS)]:
            each.result(20)


def test_each_loop_keeps_what_is_its_own_when_several_begin_at_once(hurried: None) -> None:
    homes: PerHome[object] = PerHome(object)

    async def ask() -> None:
        mine = homes.get()
        await asyncio.sleep(0.001)
        assert homes.get() is mine

    for _ in range(50):
        at_once(ask)


def test_loops_that_begin_at_once_share_a_semaphore(server: Server, hurried: None) -> None:
    client = Redis.from_url(server.url)
    semaphore = RedisSemaphore(client, "n", count=2)
    inside: list[int] = []

    async def use() -> None:
        for _ in range(5):
            async with semaphore.permit(10) as permit:
                assert permit.slot not in inside
                inside.append(permit.slot)
                await asyncio.sleep(0.001)
                inside.remove(permit.slot)
        await semaphore.close()

    at_once(use)


def test_a_signal_of_one_loop_wakes_another(server: Server) -> None:
    client = Redis.from_url(server.url)
    event = RedisEvent(client, "n")

    async def use() -> None:
        waiting = asyncio.create_task(event.wait(10))
        await event.set()
        await waiting
        await event.close()

    at_once(use)
