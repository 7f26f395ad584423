"""Waiting costs next to nothing, however many wait; and what comes reaches one of them at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from inspect import iscoroutinefunction
from time import monotonic

import pytest

from redsync.aio import RedisSemaphore, RedisSemaphoreTimeoutError, SemaphoreInitStrategy
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from ..support.proxy import FaultProxy
from .helpers import Make, in_line, left_alone, take
from .states import becomes_whole, is_whole, key

CROWD = 1000 if iscoroutinefunction(RedisSemaphore.acquire) else 200
"""Tasks or threads that wait."""


@pytest.fixture(autouse=True)
async def other(server: Server, client: Redis) -> AsyncIterator[Redis]:
    """Another program's client; nobody is connected any more when the test has ended."""
    connected = connect(server)
    yield connected
    await disconnect(connected)
    await left_alone(client)


async def wake_keys(client: Redis, name: str) -> int:
    """How many keys there are to end somebody's wait, none of which lives for ever."""
    keys = await client.keys(key(name, "wake:*"))
    lives = [await client.pttl(each) for each in keys]
    assert -1 not in lives
    return len(keys)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("strategy", [SemaphoreInitStrategy.LUA], indirect=True)  # both at once
async def test_a_waiting_crowd_takes_two_connections_and_hardly_a_command(
    server: Server, other: Redis, make: Make
) -> None:
    async def wait_idly(strategy: SemaphoreInitStrategy) -> float:
        with FaultProxy(server.address) as proxy:
            connected = connect(proxy)
            semaphore = make(connected, strategy, count=2, semaphore_init_strategy=strategy)
            # A renewal without scripts takes six commands: those who hold are elsewhere then.
            lua = strategy is SemaphoreInitStrategy.LUA
            elsewhere = make(other, strategy, count=2, semaphore_init_strategy=strategy)
            permits = await take(semaphore if lua else elsewhere, 2)

            async def wait() -> None:
                async with semaphore.permit(60):
                    pass

            waiting = [spawn(wait)]
            await eventually(lambda: in_line(semaphore) == 1)
            waiting += [spawn(wait) for _ in range(CROWD - 1)]
            await eventually(lambda: in_line(semaphore) == CROWD)
            sent, began = proxy.sent(""), monotonic()
            await sleep(20)  # with at least one renewal of the leases
            rate = (proxy.sent("") - sent) / (monotonic() - began)
            assert proxy.connections <= 2
            assert in_line(semaphore) == CROWD
            for permit in permits:
                await permit.release()
            for each in waiting:
                await each.result(10)
            await becomes_whole(other, strategy, 2)
            await semaphore.close()
            await disconnect(connected)
            return rate

    scripted, optimistic = await together(
        *[partial(wait_idly, strategy) for strategy in SemaphoreInitStrategy], timeout=100
    )
    assert 0 < scripted < 1, "commands per second"
    assert 0 < optimistic < 1, "commands per second"


async def test_a_crowd_that_gives_up_leaves_nobody_blocked(
    client: Redis, other: Redis, make: Make
) -> None:
    semaphore = make(count=1)
    permit = await semaphore.acquire(0)

    async def give_up() -> None:
        with pytest.raises(RedisSemaphoreTimeoutError):
            await semaphore.acquire(0.3)

    await together(*[give_up] * (CROWD // 4))
    assert in_line(semaphore) == 0

    async def nobody_is_blocked() -> bool:
        blocked: int = (await client.info("clients"))["blocked_clients"]
        return blocked == 0

    await eventually(nobody_is_blocked, timeout=4)  # under a slice of 5 s
    # On a slow machine the line is empty several times. What ends a wait that has just ended by
    # itself stays, for a minute.
    await wake_keys(client, semaphore.name)
    await permit.release()
    assert await is_whole(other, semaphore.name, 1)


@pytest.mark.punctual
async def test_a_permit_is_handed_over_at_once(make: Make, other: Redis) -> None:
    near, far = make(count=1), make(other, count=1)
    permit = await near.acquire(0)
    for turn in range(20):
        semaphore = (near, far)[turn % 2]
        waiting = spawn(partial(semaphore.acquire, 10))
        await eventually(partial(lambda each: in_line(each) == 1, semaphore))
        began = monotonic()
        await permit.release()
        permit = await waiting.result(2)
        assert monotonic() - began < 0.5, "a slice is 5 s"


@pytest.mark.punctual
async def test_a_queue_is_served_without_a_pause(make: Make, other: Redis) -> None:
    near, far = make(count=2), make(other, count=2)

    async def use(semaphore: RedisSemaphore) -> None:
        async with semaphore.permit(20):
            pass

    began = monotonic()
    await together(*[partial(use, semaphore) for semaphore in (near, far)] * 100)
    assert monotonic() - began < 4, "200 turns: one lost wake-up would take a slice of 5 s"


async def test_a_wait_is_over_before_what_comes_would_be_too_late(make: Make) -> None:
    semaphore = make(count=1, permit_ttl=2)
    await semaphore.get_count()
    pool = semaphore._homes.get().membership.station
    assert pool is not None and pool.slice() == 0.5  # half of the grace, which is half a lease
    hurried = make(count=1, permit_ttl=0.4)
    await hurried.get_count()
    assert pool.slice() == 0.2


@pytest.mark.punctual
async def test_a_token_that_comes_for_nobody_goes_back(
    make: Make, server: Server, other: Redis
) -> None:
    with FaultProxy(server.address) as proxy:
        connected = connect(proxy)
        far, near = make(connected, count=1), make(other, count=1)
        permit = await near.acquire(0)
        waiting = spawn(lambda: far.acquire(1))
        await eventually(lambda: proxy.sent("BLPOP") >= 1)
        proxy.partition(requests=False, replies=True)
        await permit.release()  # popped for somebody who will have gone when it arrives
        with pytest.raises(RedisSemaphoreTimeoutError):
            await waiting.result(2)
        proxy.heal()
        again = await near.acquire(2)  # well under the grace of 5 s
        assert again.fence > permit.fence
        await again.release()
        assert await is_whole(other, near.name, 1)
        await far.close()
        await disconnect(connected)


@pytest.mark.punctual
async def test_it_goes_to_the_next_in_line_if_there_is_one(
    make: Make, server: Server, other: Redis
) -> None:
    with FaultProxy(server.address) as proxy:
        connected = connect(proxy)
        far, near = make(connected, count=1), make(other, count=1)
        permit = await near.acquire(0)
        impatient = spawn(lambda: far.acquire(1))
        await eventually(lambda: proxy.sent("BLPOP") >= 1)
        patient = spawn(lambda: far.acquire(10))
        await eventually(lambda: in_line(far) == 2)
        proxy.partition(requests=False, replies=True)
        await permit.release()
        with pytest.raises(RedisSemaphoreTimeoutError):
            await impatient.result(2)
        proxy.heal()
        granted = await patient.result(2)
        assert granted.held
        await granted.release()
        assert await is_whole(other, near.name, 1)
        await far.close()
        await disconnect(connected)


async def test_programs_are_served_in_order_too(make: Make, server: Server, other: Redis) -> None:
    clients = [connect(server) for _ in range(5)]
    semaphore = make(other, count=1)
    permit = await semaphore.acquire(0)
    programs = [make(each, count=1) for each in clients]
    waiting = []
    for program in programs:
        waiting.append(spawn(partial(program.acquire, 10)))

        async def blocked(number: int = len(waiting)) -> bool:
            return bool((await other.info("clients"))["blocked_clients"] == number)

        await eventually(blocked)
    for number, each in enumerate(waiting):
        await permit.release()
        permit = await each.result(2)
        assert not any(later.done() for later in waiting[number + 1 :])
    await permit.release()
    for program, connected in zip(programs, clients, strict=True):
        await program.close()
        await disconnect(connected)


async def test_all_permits_get_used_if_enough_contend(make: Make, other: Redis) -> None:
    near, far = make(count=8), make(other, count=8)
    inside: list[int] = []

    async def meet(semaphore: RedisSemaphore) -> None:
        async with semaphore.permit(10) as permit:
            inside.append(permit.slot)
            # Nobody leaves before all are there.
            await eventually(lambda: len(inside) == 8, timeout=10)

    await together(*[partial(meet, semaphore) for semaphore in (near, far)] * 4)
    assert sorted(inside) == list(range(8))


async def test_all_permits_get_used_by_those_who_wait_too(make: Make, other: Redis) -> None:
    near, far = make(count=8), make(other, count=8)
    permits = await take(near, 8)
    waiting = [spawn(partial(each.acquire, 10)) for each in (near, far) for _ in range(4)]
    await eventually(lambda: in_line(near) == in_line(far) == 4)
    await together(*[permit.release for permit in permits])
    granted = [await each.result(2) for each in waiting]
    assert {permit.slot for permit in granted} == set(range(8))


async def test_waiting_again_and_again_needs_no_new_connection(
    server: Server, make: Make, other: Redis
) -> None:
    with FaultProxy(server.address) as proxy:
        connected = connect(proxy)
        far, near = make(connected, count=1), make(other, count=1)
        for _ in range(10):
            permit = await near.acquire(2)
            waiting = spawn(lambda: far.acquire(10))
            await eventually(lambda: in_line(far) == 1)
            await permit.release()
            await (await waiting.result(2)).release()
        assert proxy.accepted == 2
        await far.close()
        await eventually(lambda: proxy.connections == 0)
        await disconnect(connected)
