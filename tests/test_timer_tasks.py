"""Timers and what only tasks can do or have done to them."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from typing import Any

import anyio
import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from redsync import Backoff, Router, TimerRun, sync
from redsync.aio import Timers
from redsync.cli.server import Server

from ._async.timing import NOW, emptied, is_empty
from .support.aio import connect, disconnect, eventually

MakeTimers = Callable[..., Timers]


@pytest.fixture
async def make_timers(server: Server) -> AsyncIterator[MakeTimers]:
    """Construct timers that share a timeline."""
    name, client = f"timers-{secrets.token_hex(4)}", connect(server)
    made: list[Timers] = []

    def construct(*routers: Router, **options: Any) -> Timers:
        timers = Timers(redis_client=client, routers=routers, timeline_key=name, **options)
        made.append(timers)
        return timers

    yield construct
    for each in made:
        await each.stop(0)
        await each.close()
    await disconnect(client)


class Long:
    """A topic whose first run lasts until it is cancelled; the others end at once."""

    def __init__(self, **options: Any) -> None:
        self.runs: list[TimerRun] = []
        self.cancelled = 0
        self.router = Router()
        self.router.handler(topic="long", **options)(self._handle)

    async def _handle(self, data: object, context: object, run: TimerRun) -> None:
        self.runs.append(run)
        if len(self.runs) == 1:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise


def decorated(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(function)
    def wrapper(*arguments: object) -> Awaitable[None]:
        return function(*arguments)

    return wrapper


async def test_a_decorated_coroutine_function_is_awaited(make_timers: MakeTimers) -> None:
    router, seen = Router(), list[object]()

    @router.handler(topic="t")
    @decorated
    async def handle(data: object) -> None:
        await asyncio.sleep(0)
        seen.append(data)

    timers = make_timers(router)
    await timers.set_timer("t", "1", "x", NOW)
    await timers.handle_ready_timers()
    assert seen == ["x"]


async def test_a_decorated_coroutine_function_has_a_timeout(make_timers: MakeTimers) -> None:
    router = Router()

    @router.handler(topic="t", timeout=0.05, max_attempts=1)
    @decorated
    async def handle(data: object) -> None:
        await asyncio.sleep(30)

    timers = make_timers(router)
    await timers.set_timer("t", "1", "x", NOW)
    await timers.handle_ready_timers()
    assert "TimeoutError" in (await timers.fetch_dead_timers())[0].error


def test_threads_do_not_take_a_coroutine_for_a_result(server: Server) -> None:
    router = Router()

    @router.handler(topic="t", max_attempts=1)
    @decorated
    async def handle(data: object) -> None: ...

    with BlockingRedis.from_url(server.url) as client:
        timers = sync.Timers(redis_client=client, routers=[router])
        timers.set_timer("t", "1", "x", NOW)
        timers.handle_ready_timers()
        [dead] = timers.fetch_dead_timers()
        assert "only redsync.aio" in dead.error
        timers.close()


async def test_a_coroutine_that_takes_too_long_is_cancelled(make_timers: MakeTimers) -> None:
    long = Long(timeout=0.1, backoff=Backoff(base=0))
    async with make_timers(long.router) as timers:
        await timers.set_timer("long", "1", None, NOW)
        await emptied(timers)
    assert long.cancelled == 1 and [run.attempt for run in long.runs] == [1, 2]


async def test_a_cancelled_worker_gives_what_runs_to_others_at_once(
    make_timers: MakeTimers,
) -> None:
    long = Long()
    timers = make_timers(long.router)
    working = asyncio.ensure_future(timers.run_forever())
    await timers.set_timer("long", "1", None, NOW)
    await eventually(lambda: long.runs)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert long.cancelled == 1
    async with make_timers(long.router) as others:
        await emptied(others)
    # It was not the timer's fault, so it has not lost an attempt.
    assert [run.attempt for run in long.runs] == [1, 1]
    assert long.runs[0].lost


async def test_a_worker_whose_time_is_up_gives_what_runs_to_others_at_once(
    make_timers: MakeTimers,
) -> None:
    long = Long()
    timers = make_timers(long.router)
    await timers.set_timer("long", "1", None, NOW)
    with anyio.move_on_after(0.3):
        await timers.run_forever()
    assert long.cancelled == 1
    assert await timers.handle_ready_timers() == 1
    assert await is_empty(timers)


async def test_a_stop_that_is_out_of_patience_cancels_and_gives_back(
    make_timers: MakeTimers,
) -> None:
    long = Long()
    timers = make_timers(long.router)
    async with timers:
        await timers.set_timer("long", "1", None, NOW)
        await eventually(lambda: long.runs)
        await timers.stop(0.05)
        assert long.cancelled == 1
        assert await make_timers(long.router).handle_ready_timers() == 1


async def test_a_handler_that_is_cancelled_by_its_own_doing_has_failed(
    make_timers: MakeTimers,
) -> None:
    router = Router()
    runs: list[int] = []

    @router.handler(topic="t", backoff=Backoff(base=0))
    async def handle(data: object, context: object, run: TimerRun) -> None:
        runs.append(run.attempt)
        if run.attempt == 1:
            raise asyncio.CancelledError

    async with make_timers(router) as timers:
        await timers.set_timer("t", "1", None, NOW)
        await emptied(timers)
        await timers.set_timer("t", "2", None, NOW)  # and the worker works on
        await eventually(lambda: len(runs) >= 3)
    assert runs[:2] == [1, 2]


async def test_cancelling_at_any_moment_loses_no_timer(make_timers: MakeTimers) -> None:
    router, seen = Router(), list[object]()

    @router.handler(topic="t", lease=0.5)
    async def handle(data: object) -> None:
        await asyncio.sleep(0.001)
        seen.append(data)

    setting = make_timers(router)
    for step in range(25):
        await setting.set_timer("t", str(step), step, NOW)
        task = asyncio.ensure_future(make_timers(router).run_forever())
        await asyncio.sleep(step / 5000)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    async with setting:
        await emptied(setting)
    assert set(seen) == set(range(25))
    # Of those that were cancelled when they had done their work, the report may be lost.
    assert len(seen) <= 50


async def test_a_call_that_is_cancelled_does_not_hold_up_the_others(
    make_timers: MakeTimers,
) -> None:
    router = Router()
    router.handler(topic="t")(lambda data: None)
    timers = make_timers(router)
    calls = [
        asyncio.ensure_future(timers.set_timer("t", str(n), n, timedelta(hours=1)))
        for n in range(100)
    ]
    await asyncio.sleep(0)
    for each in calls[::2]:
        each.cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert not any(isinstance(each, BaseException) for each in done[1::2])
    assert {f"t--{n}" for n in range(1, 100, 2)} <= set((await timers.fetch_all_timers())[0])


async def test_one_instance_serves_several_loops(server: Server) -> None:
    # asyncio.run() again and again, as scripts and tests do it.
    router, seen = Router(), list[object]()
    router.handler(topic="t")(seen.append)
    client = Redis.from_url(server.url)
    timers = Timers(redis_client=client, routers=[router])

    def in_a_loop_of_its_own(number: int) -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(timers.run_forever)
                await timers.set_timer("t", str(number), number, NOW)
                await eventually(lambda: number in seen)
                await timers.close()

        asyncio.run(main())

    for number in range(3):
        await asyncio.to_thread(in_a_loop_of_its_own, number)
    assert seen == [0, 1, 2]
    await client.connection_pool.disconnect()


@pytest.mark.parametrize("way", ["stop", "cancel"])
async def test_a_thread_that_nobody_waits_for_any_more_keeps_its_lease(
    make_timers: MakeTimers, way: str
) -> None:
    begun, go = threading.Event(), threading.Event()
    router = Router()

    @router.handler(topic="long")
    def wait(data: object) -> None:
        begun.set()
        go.wait(10)

    timers = make_timers(router)
    await timers.set_timer("long", "1", None, NOW)
    working = asyncio.ensure_future(timers.run_forever())
    await eventually(begun.is_set)
    if way == "stop":
        await timers.stop(0)
    else:
        working.cancel()
    await asyncio.wait([working])
    assert await make_timers(router).handle_ready_timers() == 0
    assert not await is_empty(timers)
    go.set()


async def test_what_is_set_anew_while_a_thread_is_left_to_itself_runs_once(
    make_timers: MakeTimers,
) -> None:
    runs: list[tuple[object, TimerRun]] = []
    let_go = threading.Event()
    router = Router()

    @router.handler(topic="stubborn", lease=0.5)
    def handle(data: object, context: object, run: TimerRun) -> None:
        runs.append((data, run))
        if len(runs) == 1:
            let_go.wait(20)

    timers = make_timers(router)
    working = asyncio.ensure_future(timers.run_forever())
    await timers.set_timer("stubborn", "1", "old", NOW)
    await eventually(lambda: runs)
    await timers.set_timer("stubborn", "1", "new", NOW)
    await timers.stop(0)
    await working
    working = asyncio.ensure_future(timers.run_forever())
    await emptied(timers)
    let_go.set()
    await timers.stop()
    await working
    assert [(data, run.attempt) for data, run in runs] == [("old", 1), ("new", 1)]
    assert runs[0][1].fence < runs[1][1].fence
