"""Instances that are dropped without close() leave nothing behind, as soon as they are gone."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis as Admin

from redsync.aio import RedisEvent, RedisSemaphore, Router, Timers
from redsync.cli.server import Server

from ..support.aio import Redis, background, connect, disconnect, eventually
from ..support.resources import measure, workers

FORGOTTEN = 10


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


async def use_semaphore(client: Redis) -> None:
    semaphore = RedisSemaphore(client, "x", count=1)
    async with semaphore.permit(5):
        pass


async def use_event(client: Redis) -> None:
    event = RedisEvent(client, "x")
    await event.set()
    await event.wait(5)


async def use_timers(client: Redis) -> None:
    router = Router()
    router.handler(topic="t")(lambda payload: None)
    timers = Timers(redis_client=client, routers=[router])
    await timers.set_timer("t", "1", None, timedelta(hours=1))
    await timers.remove_timer("t", "1")


@pytest.mark.parametrize("use", [use_semaphore, use_event, use_timers])
async def test_dropped_clients_do_not_pile_up(
    quiet: Server, admin: Any, use: Callable[[Redis], Any]
) -> None:
    """A program that makes a client and an instance for each request, and closes only its own."""
    await eventually(lambda: not workers())  # an earlier test's thread may be about to end
    before, tasks = measure(admin), background()

    def at_rest() -> bool:
        gc.collect()
        return (measure(admin), background()) == (before, tasks)

    for _ in range(FORGOTTEN):
        client = connect(quiet)
        await use(client)
        await disconnect(client)
        del client
    await eventually(at_rest)


async def test_a_permit_that_is_in_use_keeps_what_it_needs(quiet: Server, admin: Any) -> None:
    client = connect(quiet)
    semaphore = RedisSemaphore(client, "x", count=1, permit_ttl=2)
    permit = await semaphore.acquire(5)
    del semaphore
    gc.collect()
    assert not await permit.wait_lost(3)  # its lease is renewed
    await permit.release()
    await disconnect(client)
    await eventually(lambda: len(admin.client_list()) == 1)
