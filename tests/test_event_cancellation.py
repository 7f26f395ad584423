"""Tasks that are cancelled while they wait for a signal lose none, and double none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import anyio
import pytest
from redis.asyncio import Redis

from redsync.aio import RedisEvent, RedisEventTimeoutError
from redsync.cli.server import Server

from ._async.helpers import left_alone
from .support.aio import connect, disconnect, eventually
from .support.cancelling import Cancelled, each_moment, each_way

pytestmark = pytest.mark.faults


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    connected = connect(server)
    yield connected
    await disconnect(connected)


@pytest.fixture
async def event(client: Redis) -> AsyncIterator[RedisEvent]:
    event = RedisEvent(client, "e")
    yield event
    await event.close()
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in tasks if name.startswith("redsync")]
    await left_alone(client)


async def drain(event: RedisEvent) -> int:
    """How many signals there are to take, now or soon."""
    found = 0
    while True:
        try:
            await event.wait(0.2)
        except RedisEventTimeoutError:
            return found
        found += 1


def in_line(event: RedisEvent) -> int:
    signals = event._homes.get().station
    return len(signals._queue) if signals is not None else 0


async def told(event: RedisEvent) -> bool:
    """A value for waits that return, as None stands for those that do not."""
    await event.wait(5)
    return True


@each_way
@each_moment
async def test_taking_a_signal_may_be_cancelled_at_every_await(
    event: RedisEvent, cancelled: Cancelled, woken: bool
) -> None:
    number, going = 0, True
    while going:
        number += 1
        await event.set()
        came, going = await cancelled(told(event), number, woken)
        assert await drain(event) == (0 if came else 1)
    assert number > 2


@each_way
@each_moment
async def test_a_wait_may_be_cancelled_at_every_await_even_when_a_signal_has_just_come(
    event: RedisEvent, cancelled: Cancelled, woken: bool
) -> None:
    number, going = 0, True
    while going:
        number += 1
        waiting = asyncio.ensure_future(cancelled(told(event), number, woken))
        await eventually(lambda: waiting.done() or in_line(event))  # noqa: B023
        await event.set()
        came, going = await waiting
        assert await drain(event) == (0 if came else 1)
    assert number > 3


@pytest.mark.parametrize("seed", range(4))
async def test_of_thousands_of_waits_that_give_up_at_random_none_takes_a_signal_with_it(
    event: RedisEvent, seed: int
) -> None:
    chance = random.Random(seed)
    woken = 0

    async def attempt() -> None:
        nonlocal woken
        patience = 0.05 * chance.random()
        kind = chance.randrange(3)
        try:
            if kind == 0:
                await asyncio.wait_for(event.wait(), patience)
                woken += 1
            elif kind == 1:
                with anyio.move_on_after(patience):
                    await event.wait()
                    woken += 1
            else:
                await event.wait(patience)
                woken += 1
        except (asyncio.TimeoutError, RedisEventTimeoutError):
            pass

    sets = 0
    for _ in range(10):
        attempts = [asyncio.ensure_future(attempt()) for _ in range(250)]
        for _ in range(100):
            await asyncio.sleep(0.0003 * chance.random())
            await event.set()
            sets += 1
        await asyncio.gather(*attempts)
    assert 0 < woken < sets
    assert woken + await drain(event) == sets
