"""Tasks that are cancelled, wherever that happens, take no permit, connection or task with them."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import pytest
from redis.asyncio import Redis

from redsync.aio import (
    Permit,
    RedisSemaphore,
    RedisSemaphorePermitLostError,
    RedisSemaphoreTimeoutError,
    SemaphoreInitStrategy,
)
from redsync.cli.server import Server

from ._async.helpers import renewed
from ._async.states import becomes_whole, is_whole
from .support.aio import connect, disconnect, eventually
from .support.cancelling import Cancelled, each_moment, each_way

pytestmark = pytest.mark.punctual(patient=True)

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds to wait for what has to come."""


@pytest.fixture(params=list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value)
def strategy(request: pytest.FixtureRequest) -> SemaphoreInitStrategy:
    chosen: SemaphoreInitStrategy = request.param
    return chosen


@pytest.fixture
def name() -> str:
    return f"sem-{secrets.token_hex(4)}"


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    """A client; when the test has ended, all tasks and connections but its own have to be gone."""
    before = asyncio.all_tasks()
    connected = connect(server)
    yield connected
    await eventually(lambda: asyncio.all_tasks() <= before | {this_task()})

    async def alone() -> bool:
        return len(await connected.client_list()) == 1

    await eventually(alone)
    await disconnect(connected)


Make = Callable[..., RedisSemaphore]


@pytest.fixture
async def make(client: Redis, name: str, strategy: SemaphoreInitStrategy) -> AsyncIterator[Make]:
    """Construct semaphores whose leases are so long that whatever comes back was given back.

    But without scripts, a cancellation between the pop of a token and its claim costs the permit
    for half of the lease, 5 s at most.
    """
    ttl = 60.0 if strategy is SemaphoreInitStrategy.LUA else 1.0
    made = []

    def construct(count: int, permit_ttl: float = ttl) -> RedisSemaphore:
        made.append(
            RedisSemaphore(
                client, name, count=count, permit_ttl=permit_ttl, semaphore_init_strategy=strategy
            )
        )
        return made[-1]

    yield construct
    for each in made:
        await each.close()


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


# At every await in turn


async def all_can_be_had(semaphore: RedisSemaphore, client: Redis, count: int) -> None:
    """All permits come, each once."""
    permits = [await semaphore.acquire(PATIENCE) for _ in range(count)]
    assert {permit.slot for permit in permits} == set(range(count))
    for permit in permits:
        await permit.release()
    assert await is_whole(client, semaphore.name, count)


@each_way
@each_moment
async def test_acquiring_a_free_permit_may_be_cancelled_at_every_await(
    make: Make, client: Redis, cancelled: Cancelled, woken: bool
) -> None:
    semaphore = make(2)
    await semaphore.get_count()
    number, going = 0, True
    while going:
        number += 1
        permit, going = await cancelled(semaphore.acquire(), number, woken)
        if permit is not None:
            await permit.release()
    await all_can_be_had(semaphore, client, 2)
    assert number > 1


@each_way
@each_moment
async def test_the_first_use_may_be_cancelled_at_every_await(
    make: Make, client: Redis, cancelled: Cancelled, woken: bool
) -> None:
    number, going = 0, True
    while going:
        number += 1
        semaphore = make(2)
        permit, going = await cancelled(semaphore.acquire(), number, woken)
        if permit is not None:
            await permit.release()
        await semaphore.close()
    await all_can_be_had(make(2), client, 2)
    assert number > 2


@each_way
@each_moment
async def test_a_wait_may_be_cancelled_at_every_await_even_when_it_has_just_ended(
    make: Make, client: Redis, cancelled: Cancelled, woken: bool
) -> None:
    semaphore = make(1)
    number, going = 0, True
    while going:
        number += 1
        holder = await semaphore.acquire(PATIENCE)
        waiting = asyncio.ensure_future(cancelled(semaphore.acquire(PATIENCE), number, woken))
        await eventually(lambda: waiting.done() or in_line(semaphore))  # noqa: B023
        await holder.release()
        permit, going = await waiting
        if permit is not None:
            assert permit.held
            await permit.release()
    await all_can_be_had(semaphore, client, 1)
    assert number > 2


@each_way
@each_moment
async def test_the_next_in_line_gets_what_came_for_somebody_cancelled(
    make: Make, client: Redis, cancelled: Cancelled, woken: bool
) -> None:
    semaphore = make(1)
    number, going = 0, True
    while going:
        number += 1
        holder = await semaphore.acquire(PATIENCE)
        first = asyncio.ensure_future(cancelled(semaphore.acquire(PATIENCE), number, woken))
        await eventually(lambda: first.done() or in_line(semaphore) == 1)  # noqa: B023
        second = asyncio.ensure_future(semaphore.acquire(PATIENCE))
        await eventually(lambda: in_line(semaphore) == 2 - first.done())  # noqa: B023
        await holder.release()
        permit, going = await first
        if permit is not None:
            await permit.release()
        await (await second).release()
    await all_can_be_had(semaphore, client, 1)


@each_way
@each_moment
@pytest.mark.parametrize("contended", [False, True], ids=["alone", "contended"])
async def test_a_release_may_be_cancelled_at_every_await(
    make: Make, client: Redis, cancelled: Cancelled, woken: bool, contended: bool
) -> None:
    semaphore = make(1)
    number, going = 0, True
    while going:
        number += 1
        permit = await semaphore.acquire(PATIENCE)
        waiting = asyncio.ensure_future(semaphore.acquire(PATIENCE)) if contended else None
        await eventually(lambda: waiting is None or in_line(semaphore))  # noqa: B023
        _, going = await cancelled(semaphore.release(permit), number, woken)
        assert not permit.held
        if waiting is not None:
            await (await asyncio.wait_for(waiting, 2)).release()
        else:
            await becomes_whole(client, semaphore.name, 1, timeout=2)
    assert number > 1


def in_line(semaphore: RedisSemaphore) -> int:
    pool = semaphore._homes.get().membership.station
    return len(pool._queue) if pool is not None else 0


# Shared first use


async def test_cancelling_one_first_use_leaves_the_others_alone(make: Make, client: Redis) -> None:
    semaphore = make(2, permit_ttl=3)
    first = asyncio.ensure_future(semaphore.acquire())
    second = asyncio.ensure_future(semaphore.acquire())
    await asyncio.sleep(0)
    first.cancel()
    permit = await asyncio.wait_for(second, 5)
    # It is looked after: its lease is renewed, and it can be waited for.
    await renewed(permit)
    other = await semaphore.acquire(PATIENCE)
    await renewed(permit, other)
    await permit.release()
    await other.release()


# At random instants


class Crowd:
    """Attempts to acquire that end at random, and a look at who believes to hold what."""

    def __init__(self, semaphore: RedisSemaphore, chance: random.Random) -> None:
        self.granted = self.cancelled = self.timed_out = 0
        self._semaphore = semaphore
        self._chance = chance
        self._inside: set[int] = set()

    async def attempt(self) -> None:
        """Try to acquire, and be cancelled or run out of time at some instant."""
        patience = self._chance.choice([0.001, 0.01, 0.1, 1.0]) * self._chance.random()
        kind = self._chance.randrange(4)
        try:
            if kind == 0:
                task = asyncio.ensure_future(self._use(None))
                asyncio.get_running_loop().call_later(patience, task.cancel)
                await task
            elif kind == 1:
                await asyncio.wait_for(self._use(None), patience)
            elif kind == 2:
                with anyio.move_on_after(patience) as scope:
                    await self._use(None)
                self.cancelled += scope.cancelled_caught
            else:
                await self._use(patience)
        except RedisSemaphoreTimeoutError:
            self.timed_out += 1
        except (asyncio.CancelledError, asyncio.TimeoutError):
            self.cancelled += 1

    async def _use(self, timeout: float | None) -> None:
        if self._chance.random() < 0.5:
            async with self._semaphore.permit(timeout) as permit:
                await self._hold(permit)
        else:
            permit = await self._semaphore.acquire(timeout)
            try:
                await self._hold(permit)
            finally:
                await self._semaphore.release(permit)

    async def _hold(self, permit: Permit) -> None:
        self.granted += 1
        assert permit.held
        assert permit.slot not in self._inside, "two hold the same slot"
        self._inside.add(permit.slot)
        try:
            await asyncio.sleep(0.0005 * self._chance.random())
        finally:
            self._inside.remove(permit.slot)


@pytest.mark.parametrize("seed", range(4))
async def test_of_thousands_that_give_up_at_random_none_takes_a_permit_with_it(
    make: Make, client: Redis, seed: int
) -> None:
    semaphore = make(3)
    await semaphore.get_count()
    crowd = Crowd(semaphore, random.Random(seed))
    for _ in range(10):
        await asyncio.gather(*[crowd.attempt() for _ in range(250)])
    assert min(crowd.granted, crowd.cancelled, crowd.timed_out) > 20, vars(crowd)
    await all_can_be_had(semaphore, client, 3)


async def test_a_body_that_is_cancelled_gives_its_permit_back(make: Make, client: Redis) -> None:
    semaphore = make(1)

    async def body() -> None:
        async with semaphore.permit():
            await asyncio.sleep(60)

    for _ in range(20):
        task = asyncio.ensure_future(body())
        await eventually(lambda: len(semaphore._homes.get().ledger.grants()) == 1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await becomes_whole(client, semaphore.name, 1, timeout=2)


async def test_a_body_that_wants_to_know_is_cancelled_when_its_permit_is_lost(
    make: Make, client: Redis
) -> None:
    semaphore, entered = make(1), asyncio.Event()

    async def body() -> None:
        async with semaphore.permit(cancel_on_loss=True):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(body())
    await entered.wait()
    [grant] = semaphore._homes.get().ledger.grants()
    grant.lose()
    with pytest.raises(RedisSemaphorePermitLostError):
        await asyncio.wait_for(task, PATIENCE)
