"""What happens when Redis loses its data, wholly or in part, with holders and waiters alive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from redsync.aio import Permit, RedisSemaphore, SemaphoreInitStrategy
from redsync.cli.server import Server

from ..support.aio import Handle, Redis, connect, disconnect, eventually, sleep, spawn
from .helpers import Make, assert_none_free, in_line, renewed, take
from .states import becomes_whole, key, state

# leases have to end before anything is granted again
pytestmark = [pytest.mark.faults, pytest.mark.punctual]

TTL = 0.6
"""The lease in these tests, in seconds."""

COUNT = 3

parts = pytest.mark.parametrize("part", ["free", "held", "meta", "all"])


async def lose(client: Redis, name: str, part: str) -> None:
    """Lose one of the keys, or everything."""
    if part == "all":
        await client.flushall()
    else:
        await client.delete(key(name, part))


async def seats(client: Redis, name: str, permits: list[Permit]) -> None:
    """Wait until each of these has its seat, or knows that it is lost; and none is in between."""

    async def decided() -> bool:
        found = await state(client, name)
        return found.count == COUNT and all(
            permit.lost != found.seated(permit.slot, permit.fence) for permit in permits
        )

    await eventually(decided, timeout=2 * TTL)


async def ends_whole(client: Redis, semaphore: RedisSemaphore, above: int) -> None:
    """All permits can be had, each once, and with fences above all earlier ones."""
    permits = [await semaphore.acquire(4 * TTL) for _ in range(COUNT)]
    assert {permit.slot for permit in permits} == set(range(COUNT))
    assert min(permit.fence for permit in permits) > above
    await assert_none_free(semaphore)
    for permit in permits:
        await permit.release()
    await becomes_whole(client, semaphore.name, COUNT, timeout=2 * TTL)


@parts
async def test_holders_keep_their_seats_or_know_better(
    make: Make, client: Redis, part: str
) -> None:
    first, second = make(count=COUNT, permit_ttl=TTL), make(count=COUNT, permit_ttl=TTL)
    permits = [await first.acquire(0), await second.acquire(0)]
    await lose(client, first.name, part)
    await seats(client, first.name, permits)
    assert all(permit.held for permit in permits), "nobody else was about to get these slots"
    above = max(permit.fence for permit in permits)
    for permit in permits:
        await permit.release()
    await ends_whole(client, first, above)


@parts
async def test_those_who_wait_go_on_waiting_and_are_served(
    make: Make, client: Redis, part: str
) -> None:
    semaphore = make(count=COUNT, permit_ttl=TTL)
    permits = await take(semaphore, COUNT)
    waiting = [spawn(lambda: semaphore.acquire(10)) for _ in range(2)]
    await eventually(lambda: in_line(semaphore) == 2)
    await lose(client, semaphore.name, part)
    await seats(client, semaphore.name, permits)
    assert not any(each.done() for each in waiting), "all slots are taken"
    for permit in permits[1:]:
        await permit.release()
    granted = [await each.result(3 * TTL) for each in waiting]
    assert len({permit.slot for permit in (permits[0], *granted)}) == COUNT
    above = max(permit.fence for permit in permits)
    assert min(permit.fence for permit in granted) > above
    for permit in (permits[0], *granted):
        await permit.release()
    await ends_whole(client, semaphore, max(permit.fence for permit in granted))


@parts
async def test_what_is_free_stays_or_comes_back(make: Make, client: Redis, part: str) -> None:
    semaphore = make(count=COUNT, permit_ttl=TTL)
    permit = await semaphore.acquire(0)
    await permit.release()
    await lose(client, semaphore.name, part)
    await ends_whole(client, semaphore, permit.fence)


@parts
async def test_a_release_right_after_the_loss_sets_nothing_free_too_early(
    make: Make, client: Redis, part: str
) -> None:
    semaphore = make(count=COUNT, permit_ttl=TTL)
    permits = await take(semaphore, COUNT)
    await lose(client, semaphore.name, part)
    await permits[0].release()
    above = max(permit.fence for permit in permits)
    later = await semaphore.acquire(4 * TTL)
    assert later.fence > above
    others = [permit for permit in permits[1:] if permit.held]
    assert later.slot not in {permit.slot for permit in others}
    for permit in (later, *others):
        await permit.release()
    await ends_whole(client, semaphore, later.fence)


@parts
async def test_a_dead_holder_keeps_no_slot_beyond_its_lease(
    make: Make, client: Redis, server: Server, part: str
) -> None:
    other = connect(server)
    survivor, victim = make(count=COUNT, permit_ttl=TTL), make(other, count=COUNT, permit_ttl=TTL)
    dead = await victim.acquire(0)
    dead._grant.release()  # its process renews and returns nothing any more
    await lose(client, survivor.name, part)
    await ends_whole(client, survivor, dead.fence)
    await victim.close()
    await disconnect(other)


async def test_a_resize_is_remembered(make: Make, client: Redis) -> None:
    semaphore = make(count=5, permit_ttl=TTL)
    permit = await semaphore.acquire(0)
    await semaphore.resize(COUNT)
    await client.flushall()
    await seats(client, semaphore.name, [permit])
    assert await semaphore.get_count() == COUNT
    await permit.release()
    await ends_whole(client, semaphore, permit.fence)


async def test_it_is_not_made_anew_as_if_nothing_had_been(
    make: Make, client: Redis, name: str, strategy: SemaphoreInitStrategy
) -> None:
    semaphore = make(count=COUNT, permit_ttl=TTL)
    permits = await take(semaphore, COUNT)
    await client.flushall()
    # The same process uses it by another instance: it knew the semaphore.
    again = await RedisSemaphore.create(
        client, name, count=COUNT, permit_ttl=TTL, semaphore_init_strategy=strategy
    )
    assert (await again.status()).free == 0
    await assert_none_free(again)
    await seats(client, name, permits)
    assert all(permit.held for permit in permits)
    await again.close()


# Somebody who never knew it makes it anew


async def test_never_more_believe_than_the_newcomers_and_the_earlier_ones_for_a_lease(
    make: Make, client: Redis, server: Server
) -> None:
    other = connect(server)
    earlier, newcomer = make(count=COUNT, permit_ttl=TTL), make(other, count=COUNT, permit_ttl=TTL)
    permits = await take(earlier, COUNT)
    await renewed(*permits)
    await client.flushall()
    # It makes the semaphore anew before the earlier ones renew again, a third of a lease later.
    granted = [await newcomer.acquire(4 * TTL) for _ in range(COUNT - 1)]

    async def at_most_count_believe() -> bool:
        return sum(permit.held for permit in (*permits, *granted)) <= COUNT

    await eventually(at_most_count_believe, timeout=2 * TTL)
    await seats(client, earlier.name, [*permits, *granted])
    assert all(permit.held for permit in granted)
    above = max(permit.fence for permit in (*permits, *granted))
    assert min(permit.fence for permit in granted) > max(permit.fence for permit in permits)
    for permit in (*permits, *granted):
        await permit.release()
    await ends_whole(client, earlier, above)
    await newcomer.close()
    await disconnect(other)


# A server that comes back empty


async def test_an_empty_restart(
    make_server: Callable[..., Server],
    name: str,
    strategy: SemaphoreInitStrategy,
) -> None:
    server = make_server()
    client, observer = connect(server), connect(server)
    semaphore = RedisSemaphore(
        client, name, count=COUNT, permit_ttl=2, semaphore_init_strategy=strategy
    )
    permits = await take(semaphore, COUNT)
    waiting: list[Handle[Permit]] = [spawn(lambda: semaphore.acquire(20)) for _ in range(2)]
    await eventually(lambda: in_line(semaphore) == 2)
    server.kill()
    await sleep(0.2)
    server.start()

    async def all_are_seated() -> bool:
        found = await state(observer, name)
        return all(found.seated(permit.slot, permit.fence) for permit in permits)

    await eventually(all_are_seated, timeout=1.9)
    assert all(permit.held for permit in permits)
    await permits[0].release()
    first = await waiting[0].result(5)
    assert first.slot == permits[0].slot
    assert first.fence > max(permit.fence for permit in permits)
    await first.release()
    second = await waiting[1].result(1)
    for permit in (*permits, second):
        await permit.release()
    await becomes_whole(observer, name, COUNT)
    await semaphore.close()
    await disconnect(client)
    await disconnect(observer)


# With a clock that is behind


async def put_clock_back(client: Redis, semaphore: RedisSemaphore) -> int:
    """As if the server had been an hour ahead until now; returns the highest fence of then."""
    seconds, micros = await client.time()
    ahead = (seconds + 3600) * 1_000_000 + micros
    async with semaphore.permit(0):
        await client.hset(key(semaphore.name, "meta"), "fence", ahead)
    async with semaphore.permit(0) as permit:
        assert permit.fence > ahead
        return permit.fence


async def test_fences_rise_if_whoever_makes_it_again_has_seen_them(
    make: Make, client: Redis
) -> None:
    semaphore = make(count=1, permit_ttl=TTL)
    highest = await put_clock_back(client, semaphore)
    await client.flushall()
    async with semaphore.permit(4 * TTL) as permit:
        assert permit.fence > highest


async def test_fences_rise_again_with_whoever_has_seen_higher_ones(
    make: Make, client: Redis, server: Server
) -> None:
    semaphore = make(count=1, permit_ttl=TTL)
    highest = await put_clock_back(client, semaphore)
    await client.flushall()
    newcomer = connect(server)
    unknowing = make(newcomer, count=1, permit_ttl=TTL)
    assert await unknowing.get_count() == 1
    async with semaphore.permit(4 * TTL):
        pass  # pushes the next token
    async with unknowing.permit(4 * TTL) as permit:
        assert permit.fence > highest
    await unknowing.close()
    await disconnect(newcomer)


async def test_the_highest_fence_is_remembered_by_the_semaphore_itself(
    make: Make, client: Redis, server: Server
) -> None:
    semaphore = make(count=1, permit_ttl=TTL)
    highest = await put_clock_back(client, semaphore)
    await client.flushall()
    await semaphore.get_count()  # notices, and makes it again
    newcomer = connect(server)
    unknowing = make(newcomer, count=1, permit_ttl=TTL)
    await semaphore.close()
    async with unknowing.permit(4 * TTL) as permit:
        assert permit.fence > highest
    await unknowing.close()
    await disconnect(newcomer)
