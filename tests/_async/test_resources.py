"""Whatever is made and given up leaves nothing behind: after each round all is as it was before."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from redis import Redis as Admin

from redsync.aio import (
    RedisEvent,
    RedisEventTimeoutError,
    RedisSemaphore,
    RedisSemaphoreTimeoutError,
)
from redsync.cli.server import Server

from ..support.aio import Redis, background, connect, disconnect, eventually
from ..support.resources import instances, lasting_keys, measure, workers
from .churn import LEASE_TTL, Watched, names_round, whole_round

pytestmark = pytest.mark.proof

ROUNDS: Final = 3

BOUND: Final = 64 * 1024
"""Bytes of growth in a thousand uses: 64 for each, less than the smallest object of ours."""


BUFFER: Final = 65536


@pytest.fixture(autouse=True)
def unlogged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged keeps errors, and with them whatever these have seen."""
    monkeypatch.setattr(logging.getLogger("redsync"), "disabled", True)


@pytest.fixture
def quiet(make_server: Callable[..., Server]) -> Server:
    """A server that nobody else is connected to."""
    return make_server()


@pytest.fixture
def admin(quiet: Server) -> Iterator[Any]:
    """Who looks; a client that blocks, in both worlds."""
    looking = Admin.from_url(quiet.url)
    looking.ping()
    yield looking
    looking.close()
    looking.connection_pool.disconnect()


async def comes_to_rest(admin: Any, before: object, tasks: int, made: Watched) -> None:
    """Wait until files, threads, connections and tasks are what they were, and the rest is gone.

    What wakes nobody up goes with the garbage, and threads end in their own time.
    """

    def at_rest() -> bool:
        gc.collect()
        alive = [each() for each in made if each() is not None]
        return (measure(admin), background(), alive) == (before, tasks, [])

    try:
        await eventually(at_rest, timeout=25)  # whoever waits no more lingers for 10 s
    except AssertionError:
        alive = [each() for each in made if each() is not None]
        now = measure(admin), background(), alive
        raise AssertionError(f"{now} instead of {(before, tasks)}") from None


async def test_rounds_of_everything_leave_nothing_behind(quiet: Server, admin: Any) -> None:
    await whole_round(quiet, "warm-up", [])  # what is imported or made once
    await eventually(lambda: not background() and not workers(), timeout=25)
    await eventually(lambda: measure(admin).connections == 1)
    made: Watched = []
    before, tasks, known = measure(admin), background(), instances()
    for number in range(ROUNDS):
        await whole_round(quiet, str(number), made)
        await comes_to_rest(admin, before, tasks, made)
        assert instances() <= known
        made.clear()
    lasting = {key for key in lasting_keys(admin) if not key.endswith((b":state", b":topics"))}
    assert lasting == set()


async def test_names_come_and_go(quiet: Server, admin: Any) -> None:
    client = connect(quiet)
    await names_round(client, "warm-up", [], 5)
    await eventually(lambda: not background() and not workers(), timeout=25)
    made: Watched = []
    before, tasks, known = measure(admin), background(), instances()
    for number in range(ROUNDS):
        await names_round(client, str(number), made)
        await comes_to_rest(admin, before, tasks, made)
        assert instances() <= known
        made.clear()
    assert lasting_keys(admin) == set()
    await disconnect(client)


async def test_keys_of_semaphores_that_nobody_uses_go(quiet: Server, admin: Any) -> None:
    client = connect(quiet)
    await names_round(client, "n", [], 20)
    lives = [admin.pttl(key) for key in admin.keys("redsync:semaphore:*")]
    assert lives and max(lives) <= LEASE_TTL * 1000 and min(lives) > 0
    lives = [admin.pttl(key) for key in admin.keys("redsync:event:*")]
    assert lives and max(lives) <= 120_000 and min(lives) > 0
    await disconnect(client)


def traced() -> int:
    """Bytes in use, without the buffers into which threads are reading at this moment.

    redis-py looks for its own version with each connection, for which CPython 3.10 keeps caches.
    """
    gc.collect()
    others = [tracemalloc.Filter(False, f"*/{part}") for part in ("importlib/*", "pathlib.py")]
    traces = tracemalloc.take_snapshot().filter_traces(others).traces
    return sum(each.size for each in traces if each.size < BUFFER)


async def grows(use: Callable[[], Any], times: int) -> float:
    """Bytes by which memory grows in a thousand uses, after twice as many to warm up.

    A leak grows each time; a table that doubles, or what comes to an end late, only once.
    """
    for _ in range(times):
        await use()
    tracemalloc.start()
    try:
        growths = []
        before = traced()
        for _ in range(5):
            for _ in range(times):
                await use()
            growths.append((traced() - before) * 1000 / times)
            before += int(growths[-1] * times / 1000)
        return min(growths)
    finally:
        tracemalloc.stop()


async def test_memory_does_not_grow_with_use(client: Redis, name: str) -> None:
    semaphore, event = RedisSemaphore(client, name, count=1), RedisEvent(client, name)

    async def acquire_and_release() -> None:
        async with semaphore.permit(5):
            pass

    async def set_and_wait() -> None:
        await event.set()
        await event.wait(5)

    for use in (acquire_and_release, set_and_wait):
        growth = await grows(use, 500)
        assert growth < BOUND, f"{use.__name__}: {growth:.0f} bytes in 1,000"
    await semaphore.close()
    await event.close()


async def test_memory_does_not_grow_with_waits_that_time_out(client: Redis, name: str) -> None:
    semaphore, event = RedisSemaphore(client, name, count=1), RedisEvent(client, name)
    permit = await semaphore.acquire(0)

    async def wait_for_a_permit() -> None:
        with pytest.raises(RedisSemaphoreTimeoutError):
            await semaphore.acquire(0.0005)

    async def wait_for_a_signal() -> None:
        with pytest.raises(RedisEventTimeoutError):
            await event.wait(0.0005)

    for use in (wait_for_a_permit, wait_for_a_signal):
        growth = await grows(use, 300)
        assert growth < BOUND, f"{use.__name__}: {growth:.0f} bytes in 1,000"
    await permit.release()
    await semaphore.close()
    await event.close()


@pytest.mark.timeout(150)
async def test_memory_does_not_grow_with_names(client: Redis, name: str) -> None:
    numbers = iter(range(10_000))

    async def use_a_name() -> None:
        await names_round(client, f"{name}-{next(numbers)}", [], 1)

    for _ in range(500):
        await use_a_name()  # until what redis-py and CPython 3.10 keep does not grow any more
    growth = await grows(use_a_name, 100)
    assert growth < BOUND, f"{growth:.0f} bytes in 1,000"
