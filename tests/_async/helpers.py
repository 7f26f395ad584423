"""What the tests of the semaphore ask it again and again."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from redsync.aio import Permit, RedisSemaphore, RedisSemaphoreTimeoutError

from ..support.aio import Redis, eventually

Make = Callable[..., RedisSemaphore]


def in_line(semaphore: RedisSemaphore) -> int:
    """How many wait in this process; nothing that a user can see tells it."""
    pool = semaphore._homes.get().membership.station
    return len(pool._queue) if pool is not None else 0


async def free(semaphore: RedisSemaphore) -> int:
    return (await semaphore.status()).free


async def settled(semaphore: RedisSemaphore, *fences: int, timeout: float = 3) -> None:
    """Wait until these are held and all others free.

    A permit that came by waiting gets its lease a moment after it was handed out, and one that came
    for somebody who has just left goes back a moment later.
    """

    async def so_it_is() -> bool:
        status = await semaphore.status()
        assert status.free + len(status.held) + status.missing == status.count
        held = sorted(each.fence for each in status.held)
        return held == sorted(fences) and status.missing == 0

    await eventually(so_it_is, timeout=timeout)


def renew(semaphore: RedisSemaphore) -> None:
    """Have its leases renewed now, not when a third of them is over."""
    pool = semaphore._homes.get().membership.station
    assert pool is not None
    pool._hurry()


async def renewed(*permits: Permit) -> None:
    """Wait until the leases of all these have been renewed, with none of them lost before."""
    # The lease of one that came by waiting may be about to be confirmed.
    ends = [monotonic() + permit._grant.ttl + 0.1 for permit in permits]

    def later() -> bool:
        assert all(permit.held for permit in permits)
        now = monotonic()
        return all(
            now + permit.remaining() > end for permit, end in zip(permits, ends, strict=True)
        )

    await eventually(later)


async def left_alone(client: Redis) -> None:
    """Wait until nobody but this client is connected to its server."""

    async def alone() -> bool:
        return len(await client.client_list()) == 1

    await eventually(alone)


async def take(semaphore: RedisSemaphore, number: int) -> list[Permit]:
    return [await semaphore.acquire(5) for _ in range(number)]


async def assert_none_free(semaphore: RedisSemaphore) -> None:
    with pytest.raises(RedisSemaphoreTimeoutError):
        await semaphore.acquire(0)
