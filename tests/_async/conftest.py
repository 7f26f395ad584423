"""Fixtures that talk to the server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from redsync.aio import RedisSemaphore, SemaphoreInitStrategy
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    """A client of the empty server, closed after the test."""
    connected = connect(server)
    yield connected
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
    """Construct semaphores that are closed after the test: ``make(count=2)``, ``make(other)``.

    Without more ado they use the fixtures `client`, `name` and `strategy`, so do all of one test.
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
        await each.close()
