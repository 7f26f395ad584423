"""Loops, threads, forks and cancelled waits come and go, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import pytest
import redis.asyncio
from redis import Redis

import redsync.aio
import redsync.sync
from redsync import SemaphoreInitStrategy
from redsync.cli.server import Server

from ._async import churn as tasks
from .support import aio
from .support.program import run_program
from .support.resources import Resources, instances, lasting_keys, measure
from .support.sync import connect, disconnect, eventually, together

pytestmark = pytest.mark.proof

LOOPS: Final = 15
THREADS: Final = 40
CANCELLED: Final = 1000


@pytest.fixture(autouse=True)
def unlogged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged keeps errors, and with them whatever these have seen."""
    monkeypatch.setattr(logging.getLogger("redsync"), "disabled", True)


@pytest.fixture
def quiet(make_server: Callable[..., Server]) -> Server:
    """A server that nobody else is connected to."""
    return make_server()


@pytest.fixture
def admin(quiet: Server) -> Iterator[Redis]:
    looking = connect(quiet)
    looking.ping()
    yield looking
    disconnect(looking)


def comes_back(admin: Redis, before: Resources) -> None:
    """Wait until files, threads and connections are what they were."""

    def back() -> bool:
        gc.collect()
        return measure(admin) == before

    try:
        eventually(back, timeout=10)
    except AssertionError:
        raise AssertionError(f"{measure(admin)} instead of {before}") from None


# Loops


def test_each_loop_takes_along_what_was_opened_in_it(quiet: Server, admin: Redis) -> None:
    async def use(number: int) -> None:
        await tasks.whole_round(quiet, f"name-{number}", [])

    asyncio.run(use(-1))
    gc.collect()
    before, known = measure(admin), instances()
    for number in range(LOOPS):
        asyncio.run(use(number))
        comes_back(admin, before)
        assert instances() <= known


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_loop_that_ends_before_anything_is_closed_leaves_no_connection(
    quiet: Server, admin: Redis
) -> None:
    """As a module does that has a client and a semaphore, and calls asyncio.run() again and again.

    redis-py leaves the client's own connections to the garbage collector; here it has none.
    """
    client = redis.asyncio.Redis.from_url(quiet.url)
    semaphore = redsync.aio.RedisSemaphore(client, "x", count=2, permit_ttl=2, lease_ttl=4)
    event = redsync.aio.RedisEvent(client, "x")
    loops: list[weakref.ref[Any]] = []

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with semaphore.permit(5):
            await event.set()
            await event.wait(5)
        waits = [asyncio.ensure_future(each) for each in (event.wait(), semaphore.acquire(5))]
        await asyncio.wait(waits, timeout=0.01)

    asyncio.run(use())
    eventually(lambda: len(admin.client_list()) == 1)
    before = measure(admin)
    for _ in range(LOOPS):
        asyncio.run(use())
        comes_back(admin, before)
        # The next one finds that the loop is closed, and lets it go.
        assert sum(each() is not None for each in loops) <= 1


def test_threads_with_loops_of_their_own_come_and_go(quiet: Server, admin: Redis) -> None:
    async def use(number: int) -> None:
        client = aio.connect(quiet)
        await tasks.names_round(client, f"n{number}", [], 2)
        await aio.disconnect(client)

    def run(number: int) -> None:
        asyncio.run(use(number))

    run(-1)
    gc.collect()
    before, known = measure(admin), instances()
    for turn in range(3):
        together(*(partial(run, 8 * turn + each) for each in range(8)))
        comes_back(admin, before)
        run(-2 - turn)  # the next loop finds those that are closed, and lets them go
        assert instances() <= known


# Threads


def are_gone(references: list[weakref.ref[Any]]) -> bool:
    gc.collect()
    return all(each() is None for each in references)


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
def test_threads_that_have_used_something_and_ended_are_forgotten(
    quiet: Server, admin: Redis, strategy: SemaphoreInitStrategy
) -> None:
    client = connect(quiet)
    semaphore = redsync.sync.RedisSemaphore(
        client, "x", count=2, permit_ttl=20, semaphore_init_strategy=strategy
    )
    event = redsync.sync.RedisEvent(client, "x")

    def use() -> None:
        with semaphore.permit(20):
            event.set()
        event.wait(20)
        semaphore.acquire(20)
        semaphore.release()

    use()
    before, known = measure(admin), instances()
    ended: list[weakref.ref[Any]] = []
    for _ in range(3):
        users = [threading.Thread(target=use) for _ in range(THREADS)]
        for each in users:
            each.start()
        for each in users:
            each.join(30)
        ended += map(weakref.ref, users)
        del users, each
        eventually(partial(are_gone, ended))
        # The connections that wait stay open for a while, and one thread for each.
        now = measure(admin)
        assert now.threads <= before.threads + 2
        assert now.connections <= before.connections + 2
        assert now.files <= before.files + 2
    semaphore.close()
    event.close()
    disconnect(client)
    eventually(lambda: len(admin.client_list()) == 1)
    left = instances() - known
    assert not left, left


# Waits


def test_waits_that_are_cancelled_leave_nothing(quiet: Server, admin: Redis) -> None:
    async def main() -> None:
        client = aio.connect(quiet)
        semaphore = redsync.aio.RedisSemaphore(client, "x", count=1, permit_ttl=20)
        event = redsync.aio.RedisEvent(client, "x")
        permit = await semaphore.acquire(0)

        async def cancelled(number: int) -> None:
            waits = [
                asyncio.ensure_future(call())
                for call in (semaphore.acquire, event.wait)
                for _ in range(number)
            ]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

        def still() -> bool:
            gc.collect()
            return instances() <= known and aio.background() <= resting

        await cancelled(10)
        await aio.eventually(lambda: aio.background() <= 4)
        known, resting, before = instances(), aio.background(), measure(admin)
        for _ in range(5):
            await cancelled(CANCELLED // 5)
            await aio.eventually(still)
            assert measure(admin) == before
        # Nobody has taken anything along.
        await event.set()
        await event.wait(5)
        await permit.release()
        await (await semaphore.acquire(5)).release()
        await semaphore.close()
        await event.close()
        await aio.disconnect(client)

    asyncio.run(main())
    assert lasting_keys(admin) == set()


# Forks


def test_forks_come_and_go(quiet: Server, admin: Redis) -> None:
    ended = run_program(
        """
        from tests.support.resources import open_files

        client = redis.Redis.from_url(url)
        admin = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "x", count=2, permit_ttl=20)
        event = redsync.sync.RedisEvent(client, "x")

        def use():
            with semaphore.permit(10):
                event.set()
            event.wait(10)

        def used():
            alive = [each for each in threading.enumerate() if each.is_alive()]
            return open_files(), len(alive), len(admin.client_list())

        use()
        before = used()
        for _ in range(30):
            child = os.fork()
            if child == 0:
                use()
                os._exit(0)
            use()
            assert os.waitpid(child, 0)[1] == 0
            # Where one had to wait for the other, a connection stays open for a while.
            end = time.monotonic() + 5
            while any(now > then + 2 for now, then in zip(used(), before)):
                assert time.monotonic() < end, (used(), before)
                time.sleep(0.001)
        semaphore.close()
        event.close()
        """,
        quiet.url,
        "-W",
        "ignore::DeprecationWarning",  # it has threads
        timeout=50,
    )
    ended.assert_clean()
    eventually(lambda: len(admin.client_list()) == 1)
