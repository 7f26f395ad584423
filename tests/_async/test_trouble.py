"""A server that refuses: the error says what and why, nothing is lost, and the next call works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from redsync.aio import (
    RedisSemaphore,
    RedisSemaphoreError,
    RedisSemaphoreTimeoutError,
    SemaphoreInitStrategy,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from ..support.nodes import version
from .helpers import Make, free, in_line, left_alone, renewed, settled, take

pytestmark = pytest.mark.faults


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    """A server of the test's own; `client` and `make` use it too."""
    return make_server(*(["--enable-debug-command", "yes"] if version() >= (7, 0) else []))


@pytest.fixture
async def limited(server: Server) -> AsyncIterator[Redis]:
    """A client of a user who may do everything, until `allow` says otherwise."""
    allow(server, "+@all")
    connected = connect(server, username="limited", password="secret")
    yield connected
    await disconnect(connected)


def allow(server: Server, rules: str) -> None:
    channels = "&*" if version() >= (6, 2) else ""
    assert server.ask(f"ACL SETUSER limited on >secret ~* {channels} {rules}") == "+OK"


def configure(server: Server, option: str, value: object) -> None:
    assert server.ask(f"CONFIG SET {option} {value}") == "+OK"


async def recovers(semaphore: RedisSemaphore, timeout: float = 4) -> None:
    """The next call works, and all permits can be had again."""
    async with semaphore.permit(timeout) as permit:
        assert permit.held
    # One that was lost on its way comes back when somebody asks for it.
    count = await semaphore.get_count()
    permits = await together(*[partial(semaphore.acquire, timeout)] * count)
    assert sorted(permit.slot for permit in permits) == list(range(count))
    for permit in permits:
        await permit.release()
    await settled(semaphore)


async def drop_connections(client: Redis) -> None:
    """Have the server close all connections but this one."""
    killer: Any = client
    await killer.client_kill_filter(_type="normal", skipme=True)


# Permissions


@pytest.mark.parametrize("rules", ["-evalsha", "-evalsha -eval", "-@scripting"])
async def test_a_user_who_may_not_run_scripts_is_told(
    server: Server, limited: Redis, make: Make, strategy: SemaphoreInitStrategy, rules: str
) -> None:
    allow(server, rules)
    semaphore = make(limited, count=2)
    if strategy is SemaphoreInitStrategy.LUA:
        for _ in range(2):
            with pytest.raises(NoPermissionError, match=r"(?i)eval.*ACL SETUSER"):
                await semaphore.acquire(1)
        allow(server, "+@all")
    await recovers(semaphore)


async def test_where_there_are_no_scripts_the_error_names_the_way_without(
    make_server: Callable[..., Server], make: Make, strategy: SemaphoreInitStrategy
) -> None:
    renamed = make_server("--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
    client = connect(renamed)
    semaphore = make(client, count=2)
    if strategy is SemaphoreInitStrategy.LUA:
        with pytest.raises(ResponseError, match=r"(?i)evalsha.*OPTIMISTIC_LOCKING"):
            await semaphore.acquire(1)
    else:
        await recovers(semaphore)
    await semaphore.close()
    await disconnect(client)


async def test_a_permit_that_the_server_forbids_to_renew_is_lost_and_the_log_says_why(
    server: Server, limited: Redis, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    semaphore = make(limited, count=2, permit_ttl=1)
    permit = await semaphore.acquire(0)
    allow(server, "-@all")
    await eventually(lambda: permit.lost)
    # Of EVALSHA; and of EVAL before, if the first one came when the server did not know the script.
    told = [each.getMessage() for each in caplog.records if each.name == "redsync"]
    assert 1 <= len(told) <= 2
    assert all(repr(semaphore.name) in each and "ACL SETUSER" in each for each in told)
    allow(server, "+@all")
    await recovers(semaphore)


@pytest.mark.parametrize("strategy", [SemaphoreInitStrategy.LUA])
async def test_what_could_not_be_released_comes_back(
    server: Server, limited: Redis, make: Make
) -> None:
    semaphore = make(limited, count=2, permit_ttl=3)
    first, second = await take(semaphore, 2)
    allow(server, "-@scripting")
    with pytest.raises(NoPermissionError, match=r"(?i)eval.*ACL SETUSER"):
        await first.release()
    assert not first.held
    assert second.held
    allow(server, "+@all")
    await settled(semaphore, second.fence, timeout=2.5)  # before its lease runs out
    await second.release()
    await recovers(semaphore)


async def test_a_user_who_may_not_wait_is_told(server: Server, limited: Redis, make: Make) -> None:
    semaphore = make(limited, count=1)
    permit = await semaphore.acquire(0)
    allow(server, "-blpop")
    with pytest.raises(NoPermissionError, match=r"(?i)blpop.*ACL SETUSER"):
        await semaphore.acquire(5)
    assert permit.held
    allow(server, "+@all")
    waiting = spawn(partial(semaphore.acquire, 5))
    await eventually(lambda: in_line(semaphore) == 1)
    await permit.release()
    await (await waiting.result(2)).release()
    await recovers(semaphore)


async def test_neither_admin_nor_dangerous_commands_are_needed(
    server: Server, limited: Redis, make: Make
) -> None:
    allow(server, "+@all -@dangerous -@admin")
    semaphore = make(limited, count=1, permit_ttl=3)
    permit = await semaphore.acquire(0)
    await renewed(permit)
    with pytest.raises(RedisSemaphoreTimeoutError):
        await semaphore.acquire(0.05)  # ends a blocked wait
    waiting = spawn(partial(semaphore.acquire, 5))
    await eventually(lambda: in_line(semaphore) == 1)
    await permit.release()
    await (await waiting.result(2)).release()
    await semaphore.resize(2)
    await settled(semaphore)
    assert await free(semaphore) == 2
    await recovers(semaphore)


# Memory


async def test_out_of_memory_permits_are_kept_and_given_back(
    server: Server, make: Make, strategy: SemaphoreInitStrategy
) -> None:
    semaphore = make(count=2, permit_ttl=3)
    first, second = await take(semaphore, 2)
    configure(server, "maxmemory", 1)
    waiting = spawn(partial(semaphore.acquire, 10))
    await eventually(lambda: in_line(semaphore) == 1)
    if strategy is SemaphoreInitStrategy.LUA:
        await first.release()
        granted = await waiting.result()
        await renewed(second, granted)
        await second.release()
    else:
        with pytest.raises(OutOfMemoryError, match="maxmemory"):
            await first.release()
    configure(server, "maxmemory", 0)
    await (await waiting.result()).release()
    await second.release()
    await recovers(semaphore)


async def test_out_of_memory_what_there_are_too_many_of_is_given_back(
    server: Server, make: Make
) -> None:
    semaphore = make(count=2, permit_ttl=3)
    kept, surplus = sorted(await take(semaphore, 2), key=lambda permit: permit.slot)
    await semaphore.resize(1)
    configure(server, "maxmemory", 1)
    await surplus.release()
    configure(server, "maxmemory", 0)
    await kept.release()
    await recovers(semaphore)


async def test_out_of_memory_an_acquisition_works_or_says_why(server: Server, make: Make) -> None:
    semaphore = make(count=2, permit_ttl=2)
    newcomer = make(called="newcomer", count=2, permit_ttl=2)
    await recovers(semaphore)
    configure(server, "maxmemory", 1)
    for each in (semaphore, newcomer):
        try:
            async with each.permit(0) as permit:
                assert permit.held
        except OutOfMemoryError as error:
            assert "raise maxmemory" in str(error)
    configure(server, "maxmemory", 0)
    for each in (semaphore, newcomer):
        await recovers(each)


# A replica, or a server that is being replaced


@pytest.mark.punctual
@pytest.mark.parametrize("stale", ["yes", "no"])
async def test_a_server_that_is_read_only_is_told_and_waited_for(
    server: Server, make: Make, stale: str
) -> None:
    semaphore, newcomer = make(count=2), make(called="newcomer", count=1)
    first, second = await take(semaphore, 2)
    waiting = spawn(partial(semaphore.acquire, 10))
    await eventually(lambda: in_line(semaphore) == 1)
    configure(server, "replica-serve-stale-data", stale)
    assert server.ask("REPLICAOF 127.0.0.1 1").startswith("+OK")
    with pytest.raises(RedisError, match=r"(?i)replica") as caught:
        await newcomer.acquire(0.1)
    assert "master" in str(caught.value).lower()
    releasing = spawn(first.release)
    await sleep(0.2)  # let it be refused once or more
    assert not waiting.done()
    assert second.held
    assert server.ask("REPLICAOF NO ONE").startswith("+OK")
    await releasing.result(2)
    await (await waiting.result(2)).release()
    assert second.held
    await second.release()
    await recovers(semaphore)
    await recovers(newcomer)


@pytest.mark.punctual
async def test_a_server_that_loads_its_data_is_waited_for(server: Server, make: Make) -> None:
    semaphore = make(count=2)
    permit = await semaphore.acquire(0)
    admin: Any = connect(server)
    # It looks for commands after every 2 MiB that it has read.
    configure(server, "rdbcompression", "no")
    await admin.execute_command("DEBUG", "POPULATE", 300, "filler", 100_000)
    configure(server, "key-load-delay", 5000)  # µs for each key
    reloading = spawn(partial(admin.execute_command, "DEBUG", "RELOAD"))
    await eventually(lambda: server.ask("PING").startswith("-LOADING"))
    with pytest.raises(BusyLoadingError, match=r"(?i)reading its data.*try again"):
        await semaphore.acquire(0.1)
    await permit.release()  # as soon as that is possible
    await reloading.result()
    await recovers(semaphore)
    await disconnect(admin)


# Passwords


@pytest.mark.punctual
async def test_a_server_that_asks_for_a_password_is_told(
    server: Server, client: Redis, make: Make
) -> None:
    other = connect(server)
    semaphore = make(other, count=2)
    first, second = await take(semaphore, 2)
    await client.config_set("requirepass", "secret")
    await drop_connections(client)
    with pytest.raises(AuthenticationError, match="password"):
        await semaphore.acquire(1)
    with pytest.raises(AuthenticationError, match="password"):
        await first.release()
    assert second.held
    await client.config_set("requirepass", "")
    await settled(semaphore, second.fence, timeout=3)
    await second.release()
    await recovers(semaphore)
    await semaphore.close()
    await disconnect(other)


async def test_those_who_wait_hear_of_a_password(server: Server, client: Redis, make: Make) -> None:
    other = connect(server)
    semaphore = make(other, count=1)
    permit = await semaphore.acquire(0)
    waiting = spawn(partial(semaphore.acquire, 5))
    await eventually(lambda: in_line(semaphore) == 1)
    await client.config_set("requirepass", "secret")
    await drop_connections(client)
    with pytest.raises(AuthenticationError, match="password"):
        await waiting.result(2)
    await client.config_set("requirepass", "")
    await permit.release()
    await recovers(semaphore)
    await semaphore.close()
    await disconnect(other)


@pytest.mark.punctual
async def test_a_wrong_password_is_told(server: Server, limited: Redis, make: Make) -> None:
    other = connect(server, username="limited", password="wrong")
    semaphore = make(other, count=2)
    with pytest.raises(AuthenticationError, match=r"(?i)check .* password"):
        await semaphore.acquire(1)
    assert server.ask("ACL SETUSER limited >wrong") == "+OK"
    await recovers(semaphore)
    await semaphore.close()
    await disconnect(other)


# Keys of the wrong type


def key_of(semaphore: RedisSemaphore, part: str) -> str:
    return f"redsync:semaphore:{{{semaphore.name}}}:{part}"


async def replace(client: Redis, key: str) -> None:
    """Put something else in the place of a key, in one step."""
    await client.set("something-else", "x")
    await client.rename("something-else", key)


@pytest.mark.parametrize("use", ["acquire", "get_count", "status", "resize"])
async def test_a_name_that_is_something_else_is_told(client: Redis, make: Make, use: str) -> None:
    semaphore = make(count=2)
    key = key_of(semaphore, "meta")
    await client.set(key, "x")
    arguments = {"acquire": [1], "resize": [4]}.get(use, [])
    with pytest.raises(RedisSemaphoreError) as caught:
        await getattr(semaphore, use)(*arguments)
    assert key in str(caught.value)
    assert await client.get(key) == b"x"
    await client.delete(key)
    await recovers(semaphore)


@pytest.mark.punctual
@pytest.mark.parametrize("part", ["free", "held", "meta"])
async def test_a_key_of_the_wrong_type_is_named(client: Redis, make: Make, part: str) -> None:
    semaphore = make(count=2, permit_ttl=1)
    permit = await semaphore.acquire(0)
    key = key_of(semaphore, part)
    await replace(client, key)
    uses: list[Any] = [partial(semaphore.acquire, 1), semaphore.status, permit.release]
    for use in uses:
        with pytest.raises(RedisSemaphoreError) as caught:
            await use()
        assert key in str(caught.value)
    await client.delete(key)
    await recovers(semaphore)


async def test_what_was_refused_keeps_nothing_alive_after_the_close(
    client: Redis, make: Make
) -> None:
    semaphore = make(count=2, permit_ttl=30)
    assert await semaphore.get_count() == 2
    await replace(client, key_of(semaphore, "free"))
    with pytest.raises(RedisSemaphoreError):
        await semaphore.acquire(1)
    await semaphore.close()
    await left_alone(client)


@pytest.mark.punctual
async def test_those_who_wait_hear_of_a_key_of_the_wrong_type(client: Redis, make: Make) -> None:
    semaphore = make(count=1, permit_ttl=1)
    await semaphore.acquire(0)
    waiting = spawn(partial(semaphore.acquire, 20))
    await eventually(lambda: in_line(semaphore) == 1)
    key = key_of(semaphore, "free")
    await replace(client, key)
    with pytest.raises(RedisSemaphoreError) as caught:
        await waiting.result()
    assert key in str(caught.value)
    assert not isinstance(caught.value, RedisSemaphoreTimeoutError)
    await client.delete(key)
    await semaphore.release()
    await recovers(semaphore)


# Scripts and connections that go away


async def test_a_flushed_script_cache_does_not_matter(client: Redis, make: Make) -> None:
    semaphore = make(count=1, permit_ttl=3)
    permit = await semaphore.acquire(0)
    await client.script_flush()
    await renewed(permit)
    waiting = spawn(partial(semaphore.acquire, 10))
    await eventually(lambda: in_line(semaphore) == 1)
    await client.script_flush()
    await permit.release()
    permit = await waiting.result()
    await client.script_flush()
    await renewed(permit)  # the claim was made all the same
    await client.script_flush()
    assert (await semaphore.status()).held[0].fence == permit.fence
    await permit.release()
    await recovers(semaphore)


async def test_a_killed_connection_costs_neither_the_permit_nor_the_turn(
    client: Redis, make: Make
) -> None:
    semaphore = make(count=2, permit_ttl=3)
    first, second = await take(semaphore, 2)
    waiting = [spawn(partial(semaphore.acquire, 10)) for _ in range(2)]
    await eventually(lambda: in_line(semaphore) == 2)
    for _ in range(3):
        await drop_connections(client)
        assert first.held
        assert second.held
        assert await semaphore.get_count() == 2
    await first.release()
    await drop_connections(client)
    await second.release()
    for handle in waiting:
        await (await handle.result(5)).release()
    await recovers(semaphore)


async def test_a_connection_that_is_closed_as_soon_as_it_is_there_costs_no_time(
    server: Server, client: Redis, make: Make
) -> None:
    kind: Any = client.connection_pool.connection_class
    doomed = ["for commands", "for the wait"]

    class Doomed(kind):  # type: ignore[misc]
        async def connect(self) -> None:
            await super().connect()
            if doomed and armed:
                doomed.pop()
                await drop_connections(client)
                await left_alone(client)

    armed = False
    semaphore = make(count=1, permit_ttl=3)
    other = connect(server, connection_class=Doomed)
    theirs = make(other, count=1, permit_ttl=3)
    permit = await semaphore.acquire(0)
    armed = True
    waiting = spawn(partial(theirs.acquire, 2))
    await eventually(lambda: in_line(theirs) == 1 and not doomed)
    await permit.release()
    await (await waiting.result(2)).release()
    await disconnect(other)


@pytest.mark.punctual
async def test_connections_killed_all_the_time_are_not_noticed(client: Redis, make: Make) -> None:
    semaphore = make(count=2, permit_ttl=1)
    inside: list[int] = []
    visits: list[int] = []

    async def work() -> None:
        for _ in range(15):
            async with semaphore.permit(20) as permit:
                assert permit.slot not in inside
                inside.append(permit.slot)
                visits.append(permit.slot)
                await sleep(0.001)
                inside.remove(permit.slot)

    def goes_on(seen: int) -> bool:
        return len(visits) > seen or working.done()

    working = spawn(partial(together, *[work] * 4))
    while not working.done():
        await drop_connections(client)
        await sleep(0.02)
        await eventually(partial(goes_on, len(visits)))  # as slow as the machine may be
    await working.result(0)
    await recovers(semaphore)


async def test_what_is_refused_is_told_at_once(server: Server, limited: Redis, make: Make) -> None:
    allow(server, "-@write -@scripting -@transaction")
    began = monotonic()
    with pytest.raises(NoPermissionError):
        await make(limited, count=1).acquire()
    assert monotonic() - began < 3  # what may pass is tried for five seconds


async def test_the_error_of_a_body_counts_for_more_than_that_of_its_release(
    server: Server, limited: Redis, make: Make
) -> None:
    allow(server, "+@all")
    semaphore = make(limited, count=1)
    with pytest.raises(ZeroDivisionError):
        async with semaphore.permit():
            allow(server, "-@write -@scripting -@transaction")
            raise ZeroDivisionError
    allow(server, "+@all")
    with pytest.raises(NoPermissionError):
        async with semaphore.permit():
            allow(server, "-@write -@scripting -@transaction")
    allow(server, "+@all")
    await recovers(semaphore)
