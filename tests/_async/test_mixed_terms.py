"""Processes that share a semaphore and want different leases do each other no harm."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from redsync.aio import RedisSemaphoreTimeoutError

from ..support.aio import Redis, eventually, spawn
from .helpers import Make, in_line, renewed

LONG = 30
HASTY = 1
SHORT = 3


async def grace_of(client: Any, name: str) -> int:
    found = await client.hget(f"redsync:semaphore:{{{name}}}:meta", "grace")
    return int(found)


async def test_a_recovery_lasts_as_long_as_the_longest_lease(
    make: Make, client: Redis, other: Redis
) -> None:
    patient = make(count=1, permit_ttl=LONG)
    hasty = make(other, count=1, permit_ttl=HASTY)
    permit = await patient.acquire()
    assert (await hasty.status()).free == 0
    await client.flushall()
    # It is the first to notice, and the holder has no reason to look for a while.
    with pytest.raises(RedisSemaphoreTimeoutError):
        await hasty.acquire(timeout=1.5 * HASTY)
    assert permit.held
    await permit.release()


async def test_the_grace_stays_the_same_after_a_loss_of_data(
    make: Make, client: Redis, name: str
) -> None:
    first = make(count=1, permit_ttl=LONG)
    assert await first.get_count() == 1
    before = await grace_of(client, name)
    await client.flushall()
    # The process knows the semaphore, this instance does not.
    assert await make(count=1, permit_ttl=SHORT).get_count() == 1
    assert await grace_of(client, name) == before


async def test_a_permit_that_was_waited_for_is_sure_for_its_own_lease_only(
    make: Make, other: Redis
) -> None:
    patient = make(count=1, permit_ttl=LONG)  # its grace is 5 s
    hasty = make(other, count=1, permit_ttl=SHORT)
    held = await patient.acquire()
    waiting = spawn(partial(hasty.acquire, 5))
    await eventually(lambda: in_line(hasty) == 1)
    await held.release()
    permit = await waiting.result(2)
    assert 0 < permit.remaining() < SHORT
    await renewed(permit)
    await permit.release()


async def test_whoever_waits_behind_somebody_with_a_longer_lease_is_renewed_in_time(
    make: Make, other: Redis
) -> None:
    holder = make(count=2, permit_ttl=LONG)
    held = [await holder.acquire() for _ in range(2)]
    patient = make(other, count=2, permit_ttl=LONG)
    first = spawn(partial(patient.acquire, 5))
    await eventually(lambda: in_line(patient) == 1)
    hasty = make(other, count=2, permit_ttl=SHORT)
    second = spawn(partial(hasty.acquire, 5))
    await eventually(lambda: in_line(patient) == 2)
    for each in held:
        await each.release()
    permit = await second.result(2)
    await renewed(permit)
    for each in (permit, await first.result(2)):
        await each.release()
