"""Transactions that share a connection do not take each other's WATCH away.

What is watched is forgotten at the end of any transaction on the same connection: the next one
would then undo what somebody else has done meanwhile, and a slot be given to two.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from redsync.aio import (
    RedisSemaphoreCountMismatchError,
    RedisSemaphoreTimeoutError,
    SemaphoreInitStrategy,
)

from ..support.aio import Handle, Redis, eventually, sleep, spawn
from ..support.proxy import FaultProxy
from .helpers import Make, assert_none_free, in_line, renewed


@pytest.fixture
def strategy() -> SemaphoreInitStrategy:
    return SemaphoreInitStrategy.OPTIMISTIC_LOCKING


async def watching(proxy: FaultProxy, begin: Callable[[], Handle[None]]) -> Handle[None]:
    """Begin a transaction, and return as soon as it has read what it watches, before it knows."""
    before = proxy.sent("WATCH redsync")
    proxy.delay(replies=0.2)  # something may be asked before
    begun = begin()
    await eventually(lambda: proxy.sent("WATCH redsync") > before)
    proxy.partition(requests=False)
    await sleep(0.05)  # for the server to answer it
    return begun


async def expire(client: Redis, name: str) -> None:
    """Let the lease of slot 0 have run out."""
    await client.zadd(f"redsync:semaphore:{{{name}}}:held", {"0": 1})


@pytest.mark.punctual
async def test_status_does_not_end_a_watch(
    make: Make, client: Redis, far: Redis, name: str, proxy: FaultProxy
) -> None:
    near, distant = make(count=1), make(far, count=1)
    for each in (near, distant):
        async with each:
            pass
    await client.lpop(f"redsync:semaphore:{{{name}}}:free")  # somebody who then died
    await expire(client, name)

    async def attempt() -> None:
        with pytest.raises(RedisSemaphoreTimeoutError):
            await distant.acquire(2)

    trying = await watching(proxy, lambda: spawn(attempt))
    looking = spawn(distant.status)
    await sleep(0.05)  # so that it does its harm, if it can
    permit = await near.acquire(0)
    proxy.heal()
    await trying.result()
    assert [each.fence for each in (await looking.result()).held] == [permit.fence]
    await assert_none_free(distant)
    assert permit.held


@pytest.mark.punctual
async def test_whoever_stops_waiting_does_not_end_a_watch(
    make: Make, client: Redis, far: Redis, name: str, proxy: FaultProxy
) -> None:
    near, distant = make(count=1), make(far, count=1)
    async with near:
        pass
    earlier = await distant.acquire(5)
    waiting = spawn(lambda: distant.acquire(1.5))
    await eventually(lambda: in_line(distant) == 1 and proxy.sent("BLPOP") > 0)
    releasing = await watching(proxy, lambda: spawn(earlier.release))
    with pytest.raises(RedisSemaphoreTimeoutError):
        await waiting.result()
    await sleep(0.05)  # so that it does its harm, if it can
    for each in await client.client_list():
        if each["cmd"] == "blpop":  # threads cannot send while one of them reads
            await client.client_unblock(int(each["id"]))
    await expire(client, name)
    permit = await near.acquire(0)
    proxy.heal()
    await releasing.result()
    await assert_none_free(near)
    assert permit.held
    assert permit.fence > earlier.fence


async def test_what_was_watched_in_vain_is_in_the_way_of_no_renewal(
    make: Make, client: Redis, name: str
) -> None:
    semaphore = make(count=2, permit_ttl=3)
    permit = await semaphore.acquire(0)
    renewing = spawn(partial(renewed, permit))
    while not renewing.done():
        with suppress(RedisSemaphoreCountMismatchError):
            await make(count=3).acquire(0)  # it watches, reads, and leaves all as it is
        await client.hset(f"redsync:semaphore:{{{name}}}:meta", "ttl", 3000)
        await sleep(0.01)
    await renewing.result()


async def test_whoever_comes_too_late_with_a_change_has_renewed_all_the_same(
    make: Make, client: Redis, far: Redis, name: str, proxy: FaultProxy
) -> None:
    distant = make(far, count=2, permit_ttl=3)
    permit = await distant.acquire(5)
    proxy.delay(requests=0.02, replies=0.02)
    keys = f"redsync:semaphore:{{{name}}}"
    assert await client.lpop(f"{keys}:free")  # by somebody who dies: a reason for a change
    for _ in range(2):  # the second time after a tend that was in vain
        renewing = spawn(partial(renewed, permit))
        while not renewing.done():
            await client.hset(f"{keys}:meta", "ttl", 3000)  # somebody else is always faster
            await sleep(0.005)
        await renewing.result()
    proxy.heal()
    await permit.release()


async def test_transactions_of_the_process_are_in_the_way_of_no_renewal(make: Make) -> None:
    semaphore = make(count=1, permit_ttl=3)
    permit = await semaphore.acquire(5)
    pool = semaphore._homes.get().membership.station
    assert pool is not None and pool._link._wire is not None
    transactions = pool._link._wire.transactions
    assert await transactions.acquire(1)
    for _ in range(2):
        await renewed(permit)
    transactions.release()
    await permit.release()
