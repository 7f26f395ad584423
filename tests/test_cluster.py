"""Keys find their node in a cluster of three masters and three replicas, in both worlds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.exceptions import RedisError, ResponseError

from redsync import Router, SemaphoreInitStrategy, Timer, aio, sync
from redsync._protocol.keys import SemaphoreKeys
from redsync._runtime.aio import network as aio_network
from redsync._runtime.sync import network as sync_network

from ._sync.helpers import renewed
from .support.cluster import Cluster
from .support.nodes import Node
from .support.sync import eventually


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_each_semaphore_lives_on_the_node_of_its_name(
    cluster: Cluster, strategy: SemaphoreInitStrategy
) -> None:
    names = [f"{name}-{strategy.value}" for name in ("a", "b", "c", "d")]
    assert len({place(cluster, name) for name in names}) > 1
    client = RedisCluster(host="127.0.0.1", port=cluster.port)
    for name in names:
        semaphore = sync.RedisSemaphore(client, name, count=2, semaphore_init_strategy=strategy)
        with semaphore.permit(5) as permit:
            assert semaphore.status().held[0].fence == permit.fence
            assert place(cluster, name).tell("EXISTS", f"redsync:semaphore:{{{name}}}:held")
        semaphore.close()
    client.close()


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_tasks_wait_on_the_node_of_the_name(
    cluster: Cluster, strategy: SemaphoreInitStrategy
) -> None:
    async def hand_over(client: AsyncRedisCluster, name: str) -> None:
        semaphore = aio.RedisSemaphore(client, name, count=1, semaphore_init_strategy=strategy)
        held = await semaphore.acquire(5)
        waiting = asyncio.ensure_future(semaphore.acquire(5))
        await asyncio.to_thread(blocked_on, place(cluster, name))
        await held.release()
        permit = await waiting
        assert permit.held and permit.fence > held.fence
        await permit.release()
        await semaphore.close()

    async def main() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster.port)
        for name in ("x", "y", "z"):
            await hand_over(client, f"{name}-{strategy.value}")
        await finish(client)

    asyncio.run(main())


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_a_client_for_a_single_server_is_told_what_to_use(
    cluster: Cluster, strategy: SemaphoreInitStrategy
) -> None:
    name = f"plain-{strategy.value}"
    elsewhere = next(each for each in cluster.masters() if each is not place(cluster, name))
    client = Redis(port=elsewhere.port)
    semaphore = sync.RedisSemaphore(client, name, count=1, semaphore_init_strategy=strategy)
    with pytest.raises(ResponseError, match="RedisCluster"):
        semaphore.acquire(1)
    semaphore.close()


def test_a_signal_arrives(cluster: Cluster) -> None:
    async def main() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster.port)
        event = aio.RedisEvent(client, "signal")
        await event.set()
        await event.wait(5)
        await event.close()
        await finish(client)

    asyncio.run(main())


def test_timers_of_threads_follow_a_slot_that_moves(cluster: Cluster) -> None:
    router, seen = Router(), list[object]()
    router.handler(topic="t")(seen.append)
    with RedisCluster(host="127.0.0.1", port=cluster.port) as client:
        timers = sync.Timers(redis_client=client, timeline_key="of-threads", routers=[router])
        with timers:
            timers.set_timers([Timer("t", str(n), n, timedelta(0)) for n in range(30)])
            eventually(lambda: len(seen) == 30, 10)
            cluster.move("of-threads")
            timers.set_timer("t", "later", "later", timedelta(seconds=0.1))
            eventually(lambda: "later" in seen, 10)
        assert seen.count("later") == 1 and sorted(seen[:30], key=str) == sorted(range(30), key=str)


def test_timers_of_tasks_run_on_the_node_of_their_keys(cluster: Cluster) -> None:
    async def main() -> None:
        router, seen = Router(), list[object]()
        router.handler(topic="t")(seen.append)
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster.port)
        for name in ("x", "y", "z"):
            timers = aio.Timers(redis_client=client, timeline_key=name, routers=[router])
            async with timers:
                await timers.set_timer("t", "1", name, timedelta(0))
                await asyncio.to_thread(eventually, partial(seen.__contains__, name), 10)
                assert (await timers.fetch_all_timers())[0] in ([], ["t--1"])
            assert not cluster.master(name).tell("EXISTS", name)
        await finish(client)

    asyncio.run(main())


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_holders_and_waiters_follow_a_slot_that_moves(
    cluster: Cluster, strategy: SemaphoreInitStrategy
) -> None:
    name = f"moving-{strategy.value}"
    client = RedisCluster(host="127.0.0.1", port=cluster.port)
    semaphore = sync.RedisSemaphore(
        client, name, count=1, permit_ttl=3, semaphore_init_strategy=strategy
    )
    held = semaphore.acquire(5)
    cluster.move(key(name))
    renewed(held)  # where it is now
    held.release()
    with semaphore.permit(5) as permit:
        assert permit.fence > held.fence
    semaphore.close()
    client.close()


def test_keys_that_have_moved_before_their_slot_are_asked_for_where_they_are(
    cluster: Cluster,
) -> None:
    client = RedisCluster(host="127.0.0.1", port=cluster.port)
    semaphore = sync.RedisSemaphore(client, "ahead", count=2)
    permits = [semaphore.acquire(5)]  # of its keys none is missing: a script could not have that
    cluster.move(key("ahead"), arrived=lambda: permits.append(semaphore.acquire(0)))
    for each in permits:
        each.release()
    semaphore.close()
    client.close()


@pytest.mark.punctual
@pytest.mark.parametrize("world", ["tasks", "threads"])
def test_a_node_that_does_not_answer_costs_nobody_on_another_node(
    cluster: Cluster, world: str
) -> None:
    mute, well, _ = cluster.masters()
    here = cluster.names("mute", 12, key, mute)
    [elsewhere] = cluster.names("well", 1, key, well)

    def threads() -> None:
        with RedisCluster(host="127.0.0.1", port=well.port) as client:
            semaphores = [sync.RedisSemaphore(client, name, count=1, permit_ttl=1) for name in here]
            semaphore = sync.RedisSemaphore(client, elsewhere, count=1, permit_ttl=1)
            permits = [each.acquire(5) for each in [*semaphores, semaphore]]
            with suspended(mute):
                assert not permits[-1].wait_lost(3)
            assert all(permit.lost for permit in permits[:-1])
            permits[-1].release()
            for each in [*semaphores, semaphore]:
                each.close()

    async def tasks() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=well.port)
        semaphores = [aio.RedisSemaphore(client, name, count=1, permit_ttl=1) for name in here]
        semaphore = aio.RedisSemaphore(client, elsewhere, count=1, permit_ttl=1)
        permits = [await each.acquire(5) for each in [*semaphores, semaphore]]
        with suspended(mute):
            assert not await permits[-1].wait_lost(3)
        assert all(permit.lost for permit in permits[:-1])
        await permits[-1].release()
        for each in [*semaphores, semaphore]:
            await each.close()
        await finish(client)

    if world == "threads":
        threads()
    else:
        asyncio.run(tasks())


def test_another_node_is_none_that_may_hang_if_there_is_one(cluster: Cluster) -> None:
    async def of_tasks(suspects: set[tuple[str, int] | None]) -> object:
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster.port)
        await client.initialize()
        found = await aio_network.Network(client).another(here, suspects)
        await finish(client)
        return found and found.address

    def of_threads(suspects: set[tuple[str, int] | None]) -> object:
        with RedisCluster(host="127.0.0.1", port=cluster.port) as client:
            found = sync_network.Network(client).another(here, suspects)
        return found and found.address

    addresses: list[tuple[str, int] | None] = [("127.0.0.1", node.port) for node in cluster.nodes]
    here: Any = SimpleNamespace(address=addresses[0])
    for sound in addresses[1:]:
        suspects = set(addresses) - {sound}
        assert of_threads(suspects) == asyncio.run(of_tasks(suspects)) == sound
    # Rather one that may hang than none.
    assert of_threads(set(addresses)) in addresses[1:]
    assert asyncio.run(of_tasks(set(addresses))) in addresses[1:]


def test_threads_whose_connections_break_hear_of_nothing_else(cluster: Cluster) -> None:
    with RedisCluster(host="127.0.0.1", port=cluster.port) as client:
        semaphore = sync.RedisSemaphore(
            client,
            "breaking",
            count=3,
            semaphore_init_strategy=SemaphoreInitStrategy.OPTIMISTIC_LOCKING,
        )
        end = time.monotonic() + 3

        def work() -> None:
            while time.monotonic() < end:
                with suppress(RedisError, sync.RedisSemaphoreTimeoutError), semaphore.permit(5):
                    pass

        with ThreadPoolExecutor() as threads:
            working = [threads.submit(work) for _ in range(12)]
            while time.monotonic() < end:
                for each in cluster.nodes:
                    each.tell("CLIENT", "KILL", "TYPE", "normal")
                time.sleep(0.005)
            for done in working:
                done.result()
        semaphore.close()


@pytest.mark.punctual
def test_tasks_do_not_wait_for_a_cluster_that_does_not_answer(cluster: Cluster) -> None:
    port = cluster.port

    async def main() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=port)
        semaphore = aio.RedisSemaphore(client, "mute", count=1)
        began = time.monotonic()
        with pytest.raises((RedisError, TimeoutError)):
            await semaphore.acquire(1)
        assert time.monotonic() < began + 2
        await semaphore.close()
        await finish(client)

    with ExitStack() as stack:
        for each in cluster.nodes:
            stack.enter_context(suspended(each))
        asyncio.run(main())


async def finish(client: AsyncRedisCluster) -> None:
    """Close the client, also with redis-py 5.0.0."""
    await (client.aclose if hasattr(client, "aclose") else client.close)()


@contextmanager
def suspended(node: Node) -> Iterator[None]:
    node.suspend()
    try:
        yield
    finally:
        node.resume()


def place(cluster: Cluster, name: str) -> Node:
    """The node that has a semaphore."""
    return cluster.master(key(name))


def key(name: str) -> bytes:
    return SemaphoreKeys.of("redsync:semaphore", name).meta


def blocked_on(node: Node) -> None:
    """Wait until somebody waits there."""
    eventually(lambda: node.info("clients")["blocked_clients"] != "0")
