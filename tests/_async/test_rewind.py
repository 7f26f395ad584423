"""What happens when Redis forgets its last writes, as after a failover to a late replica."""

from __future__ import annotations

from redsync.aio import Permit, RedisSemaphore, RedisSemaphoreTimeoutError

from ..support.aio import Redis, eventually, spawn
from .helpers import Make, in_line, take
from .states import key, state

TTL = 3.0
"""The lease in these tests, in seconds: renewed after one of them."""


async def forget_grant(client: Redis, permit: Permit, fence: int) -> None:
    """Have the token with this fence in the list again, as if nobody had ever popped it."""
    name = permit.name
    async with client.pipeline(transaction=True) as pipe:
        pipe.zrem(key(name, "held"), permit.slot)
        pipe.hset(key(name, "meta"), f"s{permit.slot}", fence)
        pipe.rpush(key(name, "free"), f"{permit.slot}:{fence}")
        pipe.pexpire(key(name, "free"), 60_000)
        await pipe.execute()


async def overtake(second: RedisSemaphore, client: Redis, loser: Permit, fence: int) -> Permit:
    """Have somebody else take what is forgotten before its holder renews it."""
    while True:
        await forget_grant(client, loser, fence)
        try:
            return await second.acquire(0)
        except RedisSemaphoreTimeoutError:  # on a machine that stood still for a third of a lease
            assert await seated(client, loser)


async def the_later_one_is_in_the_right(client: Redis, loser: Permit, winner: Permit) -> None:
    """Of two grants for one slot the later one has the higher fence, and the other one is told."""
    assert winner.slot == loser.slot
    assert winner.fence > loser.fence
    await loser.wait_lost(TTL)
    assert loser.lost
    assert winner.held
    assert (await state(client, winner.name)).seated(winner.slot, winner.fence)


async def test_the_next_one_has_a_higher_fence_than_the_grant_that_was_forgotten(
    make: Make, client: Redis, other: Redis
) -> None:
    first, second = make(count=1, permit_ttl=TTL), make(other, count=1, permit_ttl=TTL)
    await first.status()
    before = await state(client, first.name)
    loser = await first.acquire(0)
    winner = await overtake(second, client, loser, before.free[loser.slot])
    await the_later_one_is_in_the_right(client, loser, winner)


async def test_so_has_somebody_who_waits_for_a_permit_that_was_waited_for(
    make: Make, client: Redis, other: Redis
) -> None:
    first, second = make(count=1, permit_ttl=TTL), make(other, count=1, permit_ttl=TTL)
    [held] = await take(make(count=1, permit_ttl=TTL), 1)
    waiting = spawn(lambda: first.acquire(10))
    await eventually(lambda: in_line(first) == 1)
    await held.release()
    loser = await waiting.result()
    waiting = spawn(lambda: second.acquire(10))
    await eventually(lambda: in_line(second) == 1)
    # Its fence is that of the token which was popped, and which the next one pops again.
    await eventually(lambda: seated(client, loser))
    await forget_grant(client, loser, loser.fence)
    winner = await waiting.result()
    await the_later_one_is_in_the_right(client, loser, winner)


async def seated(client: Redis, permit: Permit) -> bool:
    return (await state(client, permit.name)).seated(permit.slot, permit.fence)


async def test_whoever_was_forgotten_keeps_the_permit_if_nobody_else_has_it(
    make: Make, client: Redis
) -> None:
    semaphore = make(count=1, permit_ttl=TTL)
    await semaphore.status()
    before = await state(client, semaphore.name)
    permit = await semaphore.acquire(0)
    await forget_grant(client, permit, before.free[permit.slot])
    await eventually(lambda: seated(client, permit))
    assert permit.held
    assert not (await state(client, semaphore.name)).free
