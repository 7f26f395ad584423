"""User names and passwords are told to the server, and to nobody else, whatever goes wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from redis.backoff import NoBackoff

from redsync.aio import RedisEvent, RedisSemaphore, Router, Timers
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually
from ..support.secrets import PASSWORD, USER, Ear, listening, secrets_in, told_by, url_with

SENTINEL: Final = import_module(Redis.__module__.replace("client", "sentinel"))
Retry: Final = import_module(Redis.__module__.replace("client", "retry")).Retry

NOBODY: Final = "127.0.0.1:1"
PATIENCE: Final = 0.1


@pytest.fixture
def server_with_users(make_server: Callable[..., Server]) -> Server:
    """A server that knows somebody else, and nobody without a name."""
    server = make_server("--requirepass", "other")
    return server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon: nothing of this gets better."""
    package = RedisSemaphore.__module__.rpartition(".")[0]
    link = import_module(f"{package}.link")
    monkeypatch.setattr(link, "PATIENCE", PATIENCE)
    monkeypatch.setattr(link, "ALLOWANCE", PATIENCE)
    monkeypatch.setattr(import_module(f"{package}.station"), "_TEND_PATIENCE", PATIENCE)


async def use(client: Any, ear: Ear) -> None:
    """Use a client for everything, and note all that is told."""
    router = Router()
    router.handler(topic="t")(lambda payload: None)
    semaphore = RedisSemaphore(client, "x", count=1)
    event = RedisEvent(client, "x")
    timers = Timers(redis_client=client, timeline_key="{x}", routers=[router])
    calls: list[Callable[[], Any]] = [
        lambda: semaphore.acquire(0),
        semaphore.status,
        event.set,
        lambda: event.wait(0),
        lambda: timers.set_timer("t", "1", None, timedelta(0)),
        timers.fetch_all_timers,
    ]
    failed = 0
    for call in calls:
        try:
            await call()
        except Exception as error:
            ear.take(error)
            failed += 1
    assert failed == len(calls), "nothing went wrong, so there was nothing to tell"
    ear.take(semaphore, event, timers, router, *router.handlers, vars(semaphore).keys())
    for each in (semaphore, event, timers):
        await each.close()


async def check(client: Any) -> None:
    """Nothing is told, and the client is closed."""
    with listening() as ear:
        await use(client, ear)
    assert ear.secrets() == []
    await disconnect(client)


@pytest.mark.parametrize("place", [f"redis {NOBODY}", f"rediss {NOBODY}", "redis nowhere.invalid"])
@pytest.mark.usefixtures("impatient")
async def test_a_server_that_is_not_there_makes_nobody_tell_the_password(place: str) -> None:
    client = Redis.from_url(url_with(*place.split()), socket_connect_timeout=1)
    await check(client)


@pytest.mark.usefixtures("impatient")
async def test_nor_a_socket_that_is_not_there(tmp_path: Path) -> None:
    query = f"username={quote(USER, safe='')}&password={quote(PASSWORD, safe='')}"
    client = Redis.from_url(f"unix://{tmp_path}/s?{query}")
    assert client.connection_pool.connection_kwargs["password"] == PASSWORD
    await check(client)


async def test_a_refused_password_is_not_repeated(server_with_users: Server) -> None:
    for url in (
        url_with("redis", f"127.0.0.1:{server_with_users.port}"),
        f"redis://127.0.0.1:{server_with_users.port}?password={quote(PASSWORD, safe='')}",
    ):
        client = Redis.from_url(url)
        await check(client)


@pytest.mark.usefixtures("impatient")
async def test_nor_by_a_server_that_speaks_no_tls(server: Server) -> None:
    client = Redis.from_url(url_with("rediss", f"127.0.0.1:{server.port}"))
    await check(client)


async def test_what_comes_to_light_later_is_logged_without_secrets(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    admin: Any = connect(server)
    permitted = ("on", f">{PASSWORD}", "~*", "+@all")
    await admin.execute_command("ACL", "SETUSER", USER, *permitted)
    client = Redis.from_url(url_with("redis", f"127.0.0.1:{server.port}"))
    router = Router()
    router.handler(topic="t")(lambda payload: None)
    with listening() as ear:
        semaphore = RedisSemaphore(client, "x", count=1, permit_ttl=10)
        event, timers = RedisEvent(client, "x"), Timers(redis_client=client, routers=[router])
        permit = await semaphore.acquire(5)
        async with timers:
            await admin.execute_command("ACL", "SETUSER", USER, "resetpass", ">other")
            await admin.client_kill_filter(_type="normal", skipme=True)
            await eventually(lambda: any("trying again" in each for each in ear.heard))
            for call in (permit.release, event.set, semaphore.status):
                with pytest.raises(Exception, match="password") as caught:
                    await call()
                ear.take(caught.value)
            ear.take(permit, semaphore, timers, event, copy.copy(permit))
            await admin.execute_command("ACL", "SETUSER", USER, "resetpass", f">{PASSWORD}")
        await semaphore.close()
        await event.close()
    assert ear.secrets() == []
    await disconnect(client)
    await disconnect(admin)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("there", [False, True])
async def test_sentinels_that_are_not_there_or_refuse_do_not_make_redsync_tell_their_password(
    server_with_users: Server, there: bool
) -> None:
    port = server_with_users.port if there else 1
    known = {"username": USER, "password": PASSWORD}
    options = {**known, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 0)}
    sentinel = SENTINEL.Sentinel([("127.0.0.1", port)], sentinel_kwargs=options, **known)
    await check(sentinel.master_for("main"))
    for each in sentinel.sentinels:
        await disconnect(each)


async def test_the_search_finds_what_it_is_for() -> None:
    error = ValueError(f"to {quote(PASSWORD, safe='')} or not")
    assert any(map(secrets_in, told_by(error)))
    with listening() as ear:
        ear.take(error)
    assert ear.secrets()
