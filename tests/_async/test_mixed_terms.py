"""Processes that share a semaphore and want different leases do each other no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from redsync.aio import RedisSemaphore, RedisSemaphoreTimeoutError
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect

Make = Callable[..., RedisSemaphore]

LONG = 30
SHORT = 0.5


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Redis]:
    """A client of somebody else, as another process would be."""
    connected = connect(server)
    yield connected
    await disconnect(connected)


async def grace_of(client: Any, name: str) -> int:
    found = await client.hget(f"redsync:semaphore:{{{name}}}:meta", "grace")
    return int(found)


async def test_a_recovery_lasts_as_long_as_the_longest_lease(
    make: Make, client: Redis, other: Redis
) -> None:
    patient = make(count=1, permit_ttl=LONG)
    hasty = make(other, count=1, permit_ttl=SHORT)
    permit = await patient.acquire()
    assert (await hasty.status()).free == 0
    await client.flushall()
    # It is the first to notice, and the holder has no reason to look for a while.
    with pytest.raises(RedisSemaphoreTimeoutError):
        await hasty.acquire(timeout=3 * SHORT)
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
