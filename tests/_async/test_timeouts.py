"""A wait ends in time, whatever the client's settings and however dead the server.

The calls that take seconds run all at once, so that all of them take no longer than one.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import RedisError

from redsync.aio import RedisSemaphore, RedisSemaphoreTimeoutError, SemaphoreInitStrategy
from redsync.cli.server import Server

from ..support.aio import Handle, Redis, connect, disconnect, eventually, spawn, together
from ..support.proxy import FaultProxy
from .helpers import Make, in_line, left_alone, settled

pytestmark = pytest.mark.punctual

# redis or redis.asyncio
PACKAGE: Any = import_module(Redis.__module__.rpartition(".")[0])

TIMEOUTS = (0, 0.05, 3)

SLACK = 1.0
"""Seconds that a call may take beyond its timeout."""


async def times_out(semaphore: RedisSemaphore, timeout: float, what: object) -> None:
    """Nothing is free: the call ends by our error, in time."""
    began = monotonic()
    with pytest.raises(RedisSemaphoreTimeoutError):
        await semaphore.acquire(timeout)
    took = monotonic() - began
    assert timeout <= took < timeout + SLACK, f"{what}: {timeout} s took {took:.3f} s"


async def ends_in_time(semaphore: RedisSemaphore, timeout: float, what: object) -> None:
    """The server is dead: the call ends as soon, by our error or one of redis-py."""
    began = monotonic()
    with pytest.raises((RedisSemaphoreTimeoutError, RedisError)) as caught:
        await semaphore.acquire(timeout)
    took = monotonic() - began
    assert took < timeout + SLACK, f"{what}: {timeout} s took {took:.3f} s"
    if isinstance(caught.value, RedisSemaphoreTimeoutError):
        assert timeout <= took, f"{what}: {timeout} s took {took:.3f} s"


# With a server that answers


def settings(server: Server, guarded: Server) -> dict[str, Redis]:
    """Return a client for each setting that may matter."""
    pools = PACKAGE.BlockingConnectionPool
    return {
        "redis-py's defaults": Redis(host="127.0.0.1", port=server.port),
        "from_url": connect(server),
        "a short socket timeout": connect(server, socket_timeout=0.02),
        "no socket timeout": connect(server, socket_timeout=None, socket_connect_timeout=None),
        "health checks": connect(server, health_check_interval=1),
        "a blocking pool of 2": Redis(
            connection_pool=pools.from_url(server.url, max_connections=2, timeout=0.2)
        ),
        "a single connection": Redis(
            host="127.0.0.1", port=server.port, single_connection_client=True
        ),
        "decode_responses": connect(server, decode_responses=True),
        "a unix socket": Redis(unix_socket_path=server.unix_socket),
        "a password and a database": connect(guarded, password="secret", db=3),
        "RESP2": connect(server, protocol=2),
        "RESP3": connect(server, protocol=3),
        "RESP3, decode_responses": connect(server, protocol=3, decode_responses=True),
    }


@pytest.fixture
def guarded(make_server: Callable[..., Server]) -> Server:
    """A server that wants a password."""
    return make_server("--requirepass", "secret")


async def test_a_wait_ends_in_time_with_every_setting(
    server: Server, guarded: Server, make: Make, strategy: SemaphoreInitStrategy
) -> None:
    clients = settings(server, guarded)
    holder = make(count=1)
    far_holder = make(clients["a password and a database"], count=1)
    held = {holder: await holder.acquire(0), far_holder: await far_holder.acquire(0)}
    patient: list[Any] = []
    instances: dict[str, RedisSemaphore] = {}
    for what, client in clients.items():
        hasty: list[Any] = []
        for timeout in TIMEOUTS:
            # Half of them have to connect first, half have done so.
            fresh = make(client, count=1)
            used = instances[what] = make(client, count=1)
            assert await used.get_count() == 1
            calls = [partial(times_out, each, timeout, what) for each in (fresh, used)]
            (patient if timeout > 1 else hasty).extend(calls)
        # Not all at once, or it is each other that they have no time for.
        await together(*hasty)
    await together(*patient)
    for each, permit in held.items():
        await settled(each, permit.fence)
        await permit.release()
    for what, semaphore in instances.items():
        async with semaphore.permit(1) as permit:
            assert permit.held, what
    for semaphore in (holder, far_holder):
        await settled(semaphore)
    far = make(clients["a password and a database"])
    assert await far.get_count() == 1
    await together(*[each.close for each in (*instances.values(), far_holder, far)])
    await together(*[partial(disconnect, client) for client in clients.values()])


async def test_the_database_of_the_client_is_used(guarded: Server, make: Make) -> None:
    first, third = (connect(guarded, password="secret", db=db) for db in (0, 3))
    semaphore = make(third, count=1)
    await semaphore.acquire(0)
    assert await first.dbsize() == 0
    assert await third.dbsize() > 0
    await semaphore.release()
    await semaphore.close()
    await together(partial(disconnect, first), partial(disconnect, third))


# The user's pool

BUSY: dict[str, Callable[[Server], Redis]] = {
    "pool": lambda server: Redis(
        connection_pool=PACKAGE.ConnectionPool.from_url(
            server.url, max_connections=1, socket_timeout=None
        )
    ),
    "blocking pool": lambda server: Redis(
        connection_pool=PACKAGE.BlockingConnectionPool.from_url(
            server.url, max_connections=1, timeout=0.1, socket_timeout=None
        )
    ),
    "single connection": lambda server: Redis(
        unix_socket_path=server.unix_socket, single_connection_client=True, socket_timeout=None
    ),
}


@pytest.mark.parametrize("kind", BUSY)
async def test_a_pool_without_a_connection_to_spare_will_do(
    server: Server, client: Redis, make: Make, kind: str
) -> None:
    busy = BUSY[kind](server)
    mine = await busy.client_id()
    blocked = spawn(partial(busy.blpop, ["busy"], 20))

    async def is_blocked() -> bool:
        return any(each["cmd"] == "blpop" for each in await client.client_list())

    await eventually(is_blocked)
    semaphore = make(busy, count=1)
    permit = await semaphore.acquire(1)
    waiting = spawn(partial(semaphore.acquire, 5))
    await eventually(lambda: in_line(semaphore) == 1)
    with pytest.raises(RedisSemaphoreTimeoutError):
        await semaphore.acquire(0.05)
    await permit.release()
    await (await waiting.result(1)).release()
    await settled(semaphore)
    await semaphore.close()
    assert not blocked.done()
    await client.rpush("busy", "done")
    assert await blocked.result(1) is not None
    assert await busy.client_id() == mine
    await disconnect(busy)
    await left_alone(client)


# With a server that does not answer


@pytest.fixture
def hole() -> Iterator[str]:
    """The URL of an address where connecting neither succeeds nor fails: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex((host, port))
        yield f"redis://{host}:{port}"
        for each in fillers:
            each.close()


@pytest.fixture
def nowhere() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return f"redis://{host}:{port}"


class Victims:
    """Semaphores of one client, whose server is about to die."""

    def __init__(self, client: Redis, what: str) -> None:
        self.client = client
        self.what = what
        self.all: list[RedisSemaphore] = []
        self.used: list[RedisSemaphore] = []
        self.calls: list[Callable[[], Any]] = []
        self.waiting: list[Handle[None]] = []

    def new(self, strategy: SemaphoreInitStrategy) -> RedisSemaphore:
        semaphore = RedisSemaphore(
            self.client,
            f"victim-{secrets.token_hex(4)}",
            count=1,
            permit_ttl=2,
            semaphore_init_strategy=strategy,
        )
        self.all.append(semaphore)
        return semaphore

    async def prepare(self, *, reachable: bool) -> None:
        """Make semaphores; use some, and wait for some, if their server can be reached yet."""
        for strategy in SemaphoreInitStrategy:
            for timeout in TIMEOUTS:
                fresh = self.new(strategy)
                what = (self.what, strategy.value)
                self.calls.append(partial(ends_in_time, fresh, timeout, (*what, "fresh")))
                if reachable:
                    used = self.new(strategy)
                    self.used.append(used)
                    assert await used.get_count() == 1
                    self.calls.append(partial(ends_in_time, used, timeout, (*what, "used")))
            if reachable:
                held = self.new(strategy)
                self.used.append(held)
                await held.acquire(1)
                call = partial(ends_in_time, held, 3, (self.what, strategy.value, "waiting"))
                self.waiting.append(spawn(call))
                await eventually(partial(lambda each: in_line(each) == 1, held))

    async def assert_nothing_is_lost(self) -> None:
        """The server is back: the next call works, and all permits are there."""
        await together(*[partial(self._recovers, each) for each in self.used])

    async def _recovers(self, semaphore: RedisSemaphore) -> None:
        async with semaphore.permit(5) as permit:
            assert permit.held
        await settled(semaphore, timeout=3)

    async def close(self) -> None:
        await together(*[each.close for each in self.all])
        await disconnect(self.client)


async def test_a_wait_ends_in_time_with_a_server_that_is_dead(
    make_server: Callable[..., Server], proxy: FaultProxy, hole: str, nowhere: str
) -> None:
    stopped, killed = make_server(), make_server()
    reachable = [
        Victims(connect(stopped), "stopped"),
        Victims(connect(killed), "killed"),
        Victims(connect(proxy), "cut off"),
    ]
    unreachable = [
        Victims(Redis.from_url(hole), "black hole"),
        Victims(
            Redis.from_url(hole, socket_connect_timeout=None, socket_timeout=None), "deep hole"
        ),
        Victims(Redis.from_url(nowhere), "closed port"),
    ]
    for victims in reachable:
        await victims.prepare(reachable=True)
    for victims in unreachable:
        await victims.prepare(reachable=False)
    stopped.suspend()
    killed.kill()
    proxy.partition()
    try:
        await together(*[call for each in (*reachable, *unreachable) for call in each.calls])
        for handle in [handle for each in reachable for handle in each.waiting]:
            await handle.result()
    finally:
        stopped.resume()
        killed.start()
        proxy.heal()
    await together(*[each.assert_nothing_is_lost for each in reachable])
    await together(*[each.close for each in (*reachable, *unreachable)])
