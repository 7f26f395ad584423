"""Keys find their node in a cluster, in both worlds; failover is for later."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from redis import Redis, RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.exceptions import RedisError, ResponseError

from redsync import Router, SemaphoreInitStrategy, Timer, aio, sync
from redsync._protocol.keys import slot_of
from redsync.cli.server import Server

NODES = 3
SLOTS = 16384


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Server]]:
    """Three masters that share the slots."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(node()) for _ in range(NODES)]
        for number, each in enumerate(nodes):
            first, last = SLOTS * number // NODES, SLOTS * (number + 1) // NODES - 1
            assert each.ask(f"CLUSTER ADDSLOTSRANGE {first} {last}") == "+OK"
            assert each.ask(f"CLUSTER SET-CONFIG-EPOCH {number + 1}") == "+OK"
        for each in nodes[1:]:
            bus = admin(each).config_get("cluster-port")["cluster-port"]
            admin(nodes[0]).execute_command(f"CLUSTER MEET 127.0.0.1 {each.port} {bus}")
        deadline = time.monotonic() + 20
        while not all(formed(each) for each in nodes):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.02)
        yield nodes


def node() -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bus = str(free.getsockname()[1])
    options = ("--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "5000")
    return Server(*options, tcp=True)


def admin(server: Server) -> Any:
    return Redis(port=server.port)


def formed(server: Server) -> bool:
    client = admin(server)
    known = client.execute_command("CLUSTER NODES")
    state = client.execute_command("CLUSTER INFO")["cluster_state"]
    return state == "ok" and len(known) == NODES


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_each_semaphore_lives_on_the_node_of_its_name(
    cluster: list[Server], strategy: SemaphoreInitStrategy
) -> None:
    names = [f"{name}-{strategy.value}" for name in ("a", "b", "c", "d")]
    assert len({place(cluster, name) for name in names}) > 1
    client = RedisCluster(host="127.0.0.1", port=cluster[0].port)
    for name in names:
        semaphore = sync.RedisSemaphore(client, name, count=2, semaphore_init_strategy=strategy)
        with semaphore.permit(5) as permit:
            assert semaphore.status().held[0].fence == permit.fence
            assert admin(place(cluster, name)).exists(f"redsync:semaphore:{{{name}}}:held")
        semaphore.close()
    client.close()


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_tasks_wait_on_the_node_of_the_name(
    cluster: list[Server], strategy: SemaphoreInitStrategy
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
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster[0].port)
        for name in ("x", "y", "z"):
            await hand_over(client, f"{name}-{strategy.value}")
        await finish(client)

    asyncio.run(main())


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_a_client_for_a_single_server_is_told_what_to_use(
    cluster: list[Server], strategy: SemaphoreInitStrategy
) -> None:
    name = f"plain-{strategy.value}"
    elsewhere = next(each for each in cluster if each is not place(cluster, name))
    client = admin(elsewhere)
    semaphore = sync.RedisSemaphore(client, name, count=1, semaphore_init_strategy=strategy)
    with pytest.raises(ResponseError, match="RedisCluster"):
        semaphore.acquire(1)
    semaphore.close()


def test_a_signal_arrives(cluster: list[Server]) -> None:
    async def main() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster[0].port)
        event = aio.RedisEvent(client, "signal")
        await event.set()
        await event.wait(5)
        await event.close()
        await finish(client)

    asyncio.run(main())


def test_timers_of_threads_follow_a_slot_that_moves(cluster: list[Server]) -> None:
    router, seen = Router(), list[object]()
    router.handler(topic="t")(seen.append)
    with RedisCluster(host="127.0.0.1", port=cluster[0].port) as client:
        timers = sync.Timers(redis_client=client, timeline_key="of-threads", routers=[router])
        with timers:
            timers.set_timers([Timer("t", str(n), n, timedelta(0)) for n in range(30)])
            assert became(lambda: len(seen) == 30)
            move(cluster, "of-threads")
            timers.set_timer("t", "later", "later", timedelta(seconds=0.1))
            assert became(lambda: "later" in seen)
        assert seen.count("later") == 1 and sorted(seen[:30], key=str) == sorted(range(30), key=str)


def test_timers_of_tasks_run_on_the_node_of_their_keys(cluster: list[Server]) -> None:
    async def main() -> None:
        router, seen = Router(), list[object]()
        router.handler(topic="t")(seen.append)
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster[0].port)
        for name in ("x", "y", "z"):
            timers = aio.Timers(redis_client=client, timeline_key=name, routers=[router])
            async with timers:
                await timers.set_timer("t", "1", name, timedelta(0))
                assert await asyncio.to_thread(became, partial(seen.__contains__, name))
                assert (await timers.fetch_all_timers())[0] in ([], ["t--1"])
            assert not admin(place(cluster, name)).exists(name)
        await finish(client)

    asyncio.run(main())


def became(condition: Callable[[], bool], timeout: float = 10) -> bool:
    """Whether it does, in time."""
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_holders_and_waiters_follow_a_slot_that_moves(
    cluster: list[Server], strategy: SemaphoreInitStrategy
) -> None:
    name = f"moving-{strategy.value}"
    client = RedisCluster(host="127.0.0.1", port=cluster[0].port)
    semaphore = sync.RedisSemaphore(
        client, name, count=1, permit_ttl=3, semaphore_init_strategy=strategy
    )
    held = semaphore.acquire(5)
    move(cluster, name)
    assert not held.wait_lost(3)  # renewed where it is now
    held.release()
    with semaphore.permit(5) as permit:
        assert permit.fence > held.fence
    semaphore.close()
    client.close()


@pytest.mark.parametrize("world", ["tasks", "threads"])
def test_a_node_that_does_not_answer_costs_nobody_on_another_node(
    cluster: list[Server], world: str
) -> None:
    here = [name for name in map(str, range(60)) if place(cluster, name) is cluster[0]][:12]
    [elsewhere] = [name for name in map(str, range(60)) if place(cluster, name) is cluster[1]][:1]

    def threads() -> None:
        with RedisCluster(host="127.0.0.1", port=cluster[1].port) as client:
            semaphores = [sync.RedisSemaphore(client, name, count=1, permit_ttl=1) for name in here]
            semaphore = sync.RedisSemaphore(client, elsewhere, count=1, permit_ttl=1)
            permits = [each.acquire(5) for each in [*semaphores, semaphore]]
            with suspended(cluster[0]):
                assert not permits[-1].wait_lost(3)
            assert all(permit.lost for permit in permits[:-1])
            permits[-1].release()
            for each in [*semaphores, semaphore]:
                each.close()

    async def tasks() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster[1].port)
        semaphores = [aio.RedisSemaphore(client, name, count=1, permit_ttl=1) for name in here]
        semaphore = aio.RedisSemaphore(client, elsewhere, count=1, permit_ttl=1)
        permits = [await each.acquire(5) for each in [*semaphores, semaphore]]
        with suspended(cluster[0]):
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


def test_threads_whose_connections_break_hear_of_nothing_else(cluster: list[Server]) -> None:
    with RedisCluster(host="127.0.0.1", port=cluster[0].port) as client:
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
                for each in cluster:
                    admin(each).client_kill_filter(_type="normal", skipme=True)
                time.sleep(0.005)
            for done in working:
                done.result()
        semaphore.close()


def test_tasks_do_not_wait_for_a_cluster_that_does_not_answer(cluster: list[Server]) -> None:
    async def main() -> None:
        client = AsyncRedisCluster(host="127.0.0.1", port=cluster[0].port)
        semaphore = aio.RedisSemaphore(client, "mute", count=1)
        began = time.monotonic()
        with pytest.raises((RedisError, TimeoutError)):
            await semaphore.acquire(1)
        assert time.monotonic() < began + 2
        await semaphore.close()
        await finish(client)

    with ExitStack() as stack:
        for each in cluster:
            stack.enter_context(suspended(each))
        asyncio.run(main())


async def finish(client: AsyncRedisCluster) -> None:
    """Close the client, also with redis-py 5.0.0."""
    await (client.aclose if hasattr(client, "aclose") else client.close)()


@contextmanager
def suspended(server: Server) -> Iterator[None]:
    server.suspend()
    try:
        yield
    finally:
        server.resume()


def place(cluster: list[Server], name: str) -> Server:
    """The node that had the slot of a semaphore in the beginning."""
    slot = slot_of(f"redsync:semaphore:{{{name}}}:meta".encode())
    return cluster[next(n for n in range(NODES) if slot < SLOTS * (n + 1) // NODES)]


def blocked_on(server: Server) -> None:
    client = admin(server)
    deadline = time.monotonic() + 5
    while not client.info("clients")["blocked_clients"]:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def move(cluster: list[Server], name: str) -> None:
    """Move the slot of a semaphore to another node, with all that is in it."""
    source = place(cluster, name)
    target = next(each for each in cluster if each is not source)
    slot = slot_of(f"redsync:semaphore:{{{name}}}:meta".encode())
    giver, taker = admin(source), admin(target)
    former = giver.execute_command("CLUSTER MYID")
    taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", former)
    owner = taker.execute_command("CLUSTER MYID")
    giver.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", owner)
    for key in giver.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
        giver.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
    for each in (target, source, *cluster):
        admin(each).execute_command("CLUSTER SETSLOT", slot, "NODE", owner)
