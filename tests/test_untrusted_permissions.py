"""The permissions of docs/guarantees.md are enough for the commands too, and in a cluster.

tests/_async/test_acl.py is about the library with a single server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
import redis
from click.testing import CliRunner, Result
from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster

from redsync import Router, SemaphoreInitStrategy, aio, sync
from redsync.cli.commands import redsync as command
from redsync.cli.server import Server

from ._sync.test_acl import permissions, refused
from .support.cluster import Cluster
from .support.sync import connect, disconnect, eventually
from .test_cluster import cluster as cluster
from .test_cluster import finish, key

IN_CLUSTERS: Final = ["+asking", "+cluster|slots", "+command"] + (
    ["+info"] if redis.VERSION < (5, 0, 8) else []
)
"""Beside the others: what redsync sends there, and what redis-py has to know."""

TRIED: Final = {"client|maint_notifications"}
"""What redis-py tries in a cluster, and does without."""

USER: Final[Any] = {"username": "app", "password": "secret"}


def allow(server: Server, *more: str) -> None:
    """Make the user of the documentation."""
    with Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "reset", *permissions()[0][3:], *more)
        admin.execute_command("ACL", "LOG", "RESET")
        admin.connection_pool.disconnect()


# The command


@pytest.fixture
def url(make_server: Callable[..., Server]) -> Iterator[str]:
    """Where the user may do what the documentation says; nothing else is wanted."""
    server = make_server()
    allow(server)
    yield f"redis://app:secret@127.0.0.1:{server.port}"
    assert refused(server) == set()


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return result


def test_the_commands_for_timers_need_no_more(url: str) -> None:
    router = Router()

    @router.handler(topic="t", max_attempts=1)
    def fail(data: object) -> None:
        raise ValueError(data)

    client = Redis.from_url(url)
    timers = sync.Timers(redis_client=client, routers=[router])
    for number in range(3):
        timers.set_timer("t", f"dead-{number}", None, timedelta(0))
    assert timers.handle_ready_timers() == 3
    timers.set_timer("t", "armed", None, timedelta(hours=1))
    assert "armed" in invoke("timers", "ls", url).output
    invoke("timers", "ls", url, "--topic", "t", "--json")
    assert "dead-0" in invoke("timers", "dead", url).output
    invoke("timers", "revive", url, "t", "dead-0")
    invoke("timers", "discard", url, "t", "dead-1")
    invoke("timers", "discard", url, "t", "--all", "--yes")
    invoke("timers", "rm", url, "t", "armed")
    timers.close()
    disconnect(client)


# Clusters


@pytest.fixture
def nodes(cluster: Cluster) -> Iterator[Cluster]:
    """Three masters with the user, each with nothing refused in the end."""
    masters = cluster.masters()
    for each in masters:
        allow(each, *IN_CLUSTERS)
    yield cluster
    for each in masters:
        assert refused(each) - TRIED == set()
        with connect(each) as admin:
            admin.execute_command("ACL", "DELUSER", "app")
            admin.connection_pool.disconnect()


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_threads_need_few_more_in_a_cluster(
    nodes: Cluster, strategy: SemaphoreInitStrategy
) -> None:
    router, seen = Router(), list[object]()
    router.handler(topic="t")(seen.append)
    name = f"permitted-{strategy.value}"
    with RedisCluster(host="127.0.0.1", port=nodes.port, **USER) as client:
        semaphore = sync.RedisSemaphore(
            client, name, count=1, permit_ttl=2, semaphore_init_strategy=strategy
        )
        with semaphore.permit(5) as permit:
            nodes.move(key(name))  # it is asked for at both ends meanwhile
            assert permit.held and semaphore.status().held
            with pytest.raises(sync.RedisSemaphoreTimeoutError):
                semaphore.acquire(0.1)
        semaphore.resize(2)
        semaphore.close()
        event = sync.RedisEvent(client, name)
        event.set()
        event.wait(5)
        event.close()
        timers = sync.Timers(redis_client=client, routers=[router])
        with timers:
            timers.set_timer("t", "1", 1, timedelta(0))
            eventually(lambda: seen == [1])


def test_so_do_tasks(nodes: Cluster) -> None:
    async def main() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=nodes.port, **USER)
        for strategy in SemaphoreInitStrategy:
            semaphore = aio.RedisSemaphore(
                client, f"tasks-{strategy.value}", count=1, semaphore_init_strategy=strategy
            )
            held = await semaphore.acquire(5)
            waiting = asyncio.ensure_future(semaphore.acquire(5))
            await asyncio.sleep(0)
            await held.release()
            await (await waiting).release()
            await semaphore.close()
        event = aio.RedisEvent(client, "tasks")
        await event.set()
        await event.wait(5)
        await event.close()
        await finish(client)

    asyncio.run(main())
