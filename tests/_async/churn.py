"""Rounds in which everything is made, used and given up; what is left of them is for others to see.

tests/_async/test_resources.py makes some, and tools/soak.py very many.
"""

from __future__ import annotations

import weakref
from datetime import timedelta
from typing import Any

from redsync.aio import (
    RedisEvent,
    RedisEventTimeoutError,
    RedisSemaphore,
    RedisSemaphoreTimeoutError,
    Router,
    SemaphoreInitStrategy,
    Timers,
)

from ..support import Reachable
from ..support.aio import Redis, connect, disconnect, eventually, spawn

__all__ = ["Watched", "names_round", "whole_round"]

PERMIT_TTL = 2.0
LEASE_TTL = 4.0

Watched = list["weakref.ref[Any]"]
"""What was made, and should be gone soon."""


async def semaphore_round(
    client: Redis, name: str, strategy: SemaphoreInitStrategy, made: Watched
) -> None:
    """Have a permit handed over, another one time out, and a third given back by a body."""
    semaphore = RedisSemaphore(
        client,
        name,
        count=1,
        permit_ttl=PERMIT_TTL,
        lease_ttl=LEASE_TTL,
        semaphore_init_strategy=strategy,
    )
    permit = await semaphore.acquire(5)
    waiting = spawn(lambda: semaphore.acquire(10))
    try:
        await semaphore.acquire(0.01)
    except RedisSemaphoreTimeoutError:
        pass
    await permit.release()
    handed = await waiting.result()
    await semaphore.release(handed)
    async with semaphore.permit(5, cancel_on_loss=True) as inner:
        made += map(weakref.ref, (semaphore, permit, handed, inner))
    await semaphore.resize(2)
    await semaphore.status()
    await semaphore.close()


async def event_round(client: Redis, name: str, made: Watched) -> None:
    """Have a wait woken, and another one time out."""
    event = RedisEvent(client, name)
    waiting = spawn(lambda: event.wait(10))
    await event.set()
    await waiting.result()
    try:
        await event.wait(0.01)
    except RedisEventTimeoutError:
        pass
    await event.set()
    await event.clear()
    made.append(weakref.ref(event))
    await event.close()


async def timers_round(client: Redis, name: str, made: Watched) -> None:
    """Arm, run, fail, repeat, remove, and bury timers; nothing of it is to stay."""
    router, seen = Router(), set[str]()

    @router.handler(topic="t", max_attempts=1)
    async def handle(data: Any, context: Any, run: Any) -> None:
        seen.add(run.timer_id)
        if data == "bad":
            raise ValueError(data)

    timers = Timers(redis_client=client, timeline_key=name, routers=[router], concurrency=4)
    async with timers:
        for number in range(8):
            await timers.set_timer("t", str(number), number, timedelta(0))
        await timers.set_timer("t", "bad", "bad", timedelta(0))
        await timers.set_timer("t", "often", None, every=timedelta(seconds=0.01))
        await timers.set_timer("t", "never", None, timedelta(hours=1))
        await eventually(lambda: len(seen) == 10, timeout=20)
        await timers.remove_timer("t", "never")
        await timers.remove_timer("t", "often")
        while not await timers.discard_timer("t", "bad"):
            pass
        made += map(weakref.ref, (timers, router, handle))


async def whole_round(
    server: Reachable, name: str, made: Watched, timeline: str | None = None
) -> None:
    """All of it, with a client of its own."""
    client = connect(server)
    for strategy in SemaphoreInitStrategy:
        await semaphore_round(client, f"{name}-{strategy.value}", strategy, made)
    await event_round(client, name, made)
    await timers_round(client, timeline or f"timeline-{name}", made)
    made.append(weakref.ref(client))
    await disconnect(client)


async def names_round(client: Redis, name: str, made: Watched, number: int = 50) -> None:
    """Use names that nobody has used before, and will again, and close each of them."""
    for each in range(number):
        semaphore = RedisSemaphore(
            client, f"{name}-{each}", count=1, permit_ttl=PERMIT_TTL, lease_ttl=LEASE_TTL
        )
        await (await semaphore.acquire(5)).release()
        event = RedisEvent(client, f"{name}-{each}")
        await event.set()
        await event.wait(5)
        made += map(weakref.ref, (semaphore, event))
        await semaphore.close()
        await event.close()
