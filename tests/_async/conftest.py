"""Fixtures that talk to the server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from redsync.aio import (
    RedisSemaphore,
    RedisSemaphoreNotAcquiredError,
    Router,
    SemaphoreInitStrategy,
    Timers,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect
from ..support.proxy import FaultProxy


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    """A client of the empty server, closed after the test."""
    connected = connect(server)
    yield connected
    await disconnect(connected)


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Redis]:
    """A client of somebody else, as another process would be."""
    connected = connect(server)
    yield connected
    await disconnect(connected)


@pytest.fixture
async def far(proxy: FaultProxy) -> AsyncIterator[Redis]:
    """A client whose commands are counted, and can be held back."""
    connected = connect(proxy)
    yield connected
    proxy.heal()
    await disconnect(connected)


@pytest.fixture(params=list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value)
def strategy(request: pytest.FixtureRequest) -> SemaphoreInitStrategy:
    """Both ways to change a semaphore, one after the other."""
    chosen: SemaphoreInitStrategy = request.param
    return chosen


@pytest.fixture
def name() -> str:
    """A name that no other test has, not even one that left something running."""
    return f"sem-{secrets.token_hex(4)}"


@pytest.fixture
async def make(
    client: Redis, name: str, strategy: SemaphoreInitStrategy
) -> AsyncIterator[Callable[..., RedisSemaphore]]:
    """Construct semaphores: ``make(count=2)``, ``make(other_client, count=2)``.

    They share `name` and `strategy`.  After the test their permits are given back, and they are
    closed.
    """
    made: list[RedisSemaphore] = []

    def construct(
        connected: Redis = client, called: str = name, **options: object
    ) -> RedisSemaphore:
        options.setdefault("semaphore_init_strategy", strategy)
        made.append(RedisSemaphore(connected, called, **options))  # type: ignore[arg-type]
        return made[-1]

    yield construct
    for each in made:
        with suppress(RedisSemaphoreNotAcquiredError):
            while True:
                await each.release()
        await each.close()


@pytest.fixture
async def make_timers(client: Redis, name: str) -> AsyncIterator[Callable[..., Timers]]:
    """Construct timers with the handlers of some routers: ``make_timers(router, lease=1)``.

    They share a timeline of the test's own, and are closed after it.
    """
    made: list[Timers] = []

    def construct(*routers: Router, connected: Redis = client, **options: object) -> Timers:
        options.setdefault("timeline_key", name)
        options.setdefault("payloads_key", f"{name}-payloads")
        made.append(
            Timers(redis_client=connected, routers=routers, **options)  # type: ignore[arg-type]
        )
        return made[-1]

    yield construct
    for each in made:
        await each.stop(0)
        await each.close()
