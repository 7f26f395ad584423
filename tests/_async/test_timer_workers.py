"""Workers: how they come in time, what they cost, how they end, and what they live through."""

from __future__ import annotations

import logging
import threading
from functools import partial
from time import monotonic
from typing import Any

import pytest
from redis import exceptions

from redsync._async import runner
from redsync._async.schedule import Schedule
from redsync._runtime.aio import Crew
from redsync.aio import RedisTimersError, Router, Timer, TimerRun, Timers
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn
from ..support.proxy import FaultProxy
from .timing import NOW, MakeTimers, Record, after, emptied, is_empty


class Gate:
    """A topic whose handler, a thread, goes on when it is told to."""

    def __init__(self, **options: object) -> None:
        self.entered = 0
        self.open = threading.Event()
        self.router = Router()

        @self.router.handler(topic="gate", **options)  # type: ignore[arg-type]
        def wait(data: object) -> None:
            self.entered += 1
            self.open.wait(20)


# What they cost


async def test_an_idle_worker_sends_a_command_every_five_seconds_at_most(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    timers = make_timers(Record().router, connected=far)
    async with timers:
        await timers.set_timer("notes", "1", None, after(600))
        await sleep(1)  # for what a worker does once, at its start
        before = proxy.sent("")
        await sleep(12.5)
        assert proxy.sent("") - before <= 2


async def test_a_timer_that_is_set_far_ahead_wakes_nobody(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    timers = make_timers(Record().router)
    async with make_timers(Record().router, connected=far):
        await eventually(lambda: proxy.sent("BLPOP"))
        await sleep(0.3)
        before = proxy.sent("")
        await timers.set_timers([Timer("notes", str(n), n, after(60 + n)) for n in range(100)])
        await sleep(0.3)
        assert proxy.sent("") == before


async def test_no_more_handlers_run_at_once_than_told(make_timers: MakeTimers) -> None:
    router, mutex = Router(), threading.Lock()
    running: set[str] = set()
    counts: list[int] = []

    @router.handler(topic="busy")
    async def work(data: float, context: object, run: TimerRun) -> None:
        with mutex:
            running.add(run.timer_id)
            counts.append(len(running))
        await sleep(data)
        with mutex:
            running.discard(run.timer_id)

    timers = make_timers(router, concurrency=2)
    async with timers:
        await timers.set_timers(
            Timer("busy", f"{number}", 0.2 if number == 0 else 0.01, NOW) for number in range(20)
        )
        await emptied(timers)
    assert len(counts) == 20 and max(counts) == 2


async def test_a_worker_without_room_does_not_ask(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    gate = Gate()
    timers = make_timers(gate.router, connected=far, concurrency=2)
    async with timers:
        await timers.set_timers([Timer("gate", str(n), n, NOW) for n in range(5)])
        await eventually(lambda: gate.entered == 2)
        await sleep(0.3)
        before = proxy.sent("")
        await sleep(1)
        assert proxy.sent("") == before
        gate.open.set()
        await emptied(timers)
    assert gate.entered == 5


async def test_the_room_of_what_has_ended_is_used_though_another_run_began_late(
    make_timers: MakeTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An end is not told while others are about to begin: the last one to begin tells it.
    held: list[Any] = []
    start = Crew.start

    def hold_back(crew: Crew, job: Any) -> None:
        if job.args[1].claimed.topic == "gate":
            held.append((crew, job))
        else:
            start(crew, job)

    record, gate = Record(), Gate()
    timers = make_timers(record.router, gate.router, concurrency=2)
    await timers.set_timers([Timer("notes", "1", 1, NOW), Timer("gate", "2", 2, NOW)])
    monkeypatch.setattr(Crew, "start", hold_back)
    async with timers:
        await record.written(1)
        await eventually(lambda: held)
        await timers.set_timer("notes", "3", 3, NOW)
        start(*held[0])
        await eventually(lambda: gate.entered == 1)
        await record.written(2, timeout=8)  # a worker that is not told looks after 12 s
        gate.open.set()
        await emptied(timers)


async def test_what_has_ended_is_told_and_its_room_used_though_another_run_does_not_begin(
    make_timers: MakeTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when there can be no more threads.
    start = Crew.start

    def start_notes(crew: Crew, job: Any) -> None:
        if job.args[1].claimed.topic == "notes":
            start(crew, job)

    record, gate = Record(), Gate()
    timers = make_timers(record.router, gate.router, concurrency=2)
    await timers.set_timers([Timer("notes", "1", 1, NOW), Timer("gate", "2", 2, NOW)])
    monkeypatch.setattr(Crew, "start", start_notes)
    running = spawn(timers.run_forever)
    await record.written(1)
    await timers.set_timer("notes", "3", 3, NOW)
    await record.written(2, timeout=8)  # a worker that is not told looks after 12 s
    await eventually(lambda: only_left(timers, "gate--2"))
    assert not await timers.stop(0.1)
    await running.result(5)


async def only_left(timers: Timers, name: str) -> bool:
    names, _ = await timers.fetch_all_timers()
    return names == [name]


async def test_a_worker_with_room_that_has_begun_a_run_does_not_ask_again(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    gate = Gate()
    near = make_timers(gate.router)
    async with make_timers(gate.router, connected=far, concurrency=5):
        await eventually(lambda: proxy.sent("BLPOP") >= 1)
        await sleep(0.3)
        before = proxy.sent("EVALSHA")
        await near.set_timer("gate", "1", 1, NOW)
        await eventually(lambda: gate.entered == 1)
        await sleep(0.3)
        assert proxy.sent("EVALSHA") == before + 1
        gate.open.set()
        await emptied(near)
    assert gate.entered == 1


async def test_a_run_that_does_not_begin_does_not_hold_up_the_end_of_the_worker(
    make_timers: MakeTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, held = Record(), list[Any]()
    timers = make_timers(record.router)
    monkeypatch.setattr(Crew, "start", lambda crew, job: held.append(job))
    running = spawn(timers.run_forever)
    await timers.set_timer("notes", "1", 1, NOW)
    await eventually(lambda: held)
    assert not await timers.stop(0.1)
    await running.result(5)
    monkeypatch.undo()
    assert await make_timers(record.router).handle_ready_timers() == 1


@pytest.mark.punctual
async def test_what_two_idle_workers_come_to_is_asked_for_by_few(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    record = Record()
    one, other = (make_timers(record.router, connected=far) for _ in range(2))
    async with one, other:
        await eventually(lambda: proxy.sent("BLPOP") >= 2)
        await sleep(0.3)
        before = proxy.sent("")
        await make_timers(record.router).set_timers(
            [Timer("notes", str(n), n, after(0.3 + n / 10)) for n in range(10)]
        )
        await record.written(10)
        await sleep(0.3)
        # Each timer takes a turn that claims it and one that reports it; the other worker may look
        # too, some time after it.
        assert proxy.sent("EVAL") + proxy.sent("BLPOP") - before <= 60
    assert max(run.lateness for run in record.runs) < 1


# In time


@pytest.mark.punctual
async def test_a_worker_that_has_room_comes_for_one_that_has_none(make_timers: MakeTimers) -> None:
    gate, record = Gate(), Record()
    full = make_timers(gate.router, record.router, concurrency=1)
    async with full:
        await full.set_timer("gate", "1", None, NOW)
        await eventually(lambda: gate.entered == 1)
        async with make_timers(record.router):
            await full.set_timers([Timer("notes", str(n), n, after(n / 20)) for n in range(10)])
            await record.written(10)
            assert max(run.lateness for run in record.runs) < 1
        gate.open.set()
    assert gate.entered == 1


@pytest.mark.punctual
async def test_a_worker_that_becomes_full_hands_over_what_it_had_promised(
    make_timers: MakeTimers,
) -> None:
    gate, record = Gate(), Record()
    timers = make_timers(gate.router, record.router, concurrency=1)
    async with timers:
        await timers.set_timer("notes", "1", None, after(0.7))
        async with make_timers(record.router):
            await timers.set_timer("gate", "1", None, NOW)
            await record.written(1)
            assert gate.entered == 1
        gate.open.set()
    assert record.runs[0].lateness < 1


@pytest.mark.punctual
async def test_who_dies_is_replaced_once_the_lease_is_over_by_one_that_was_idle(
    make_timers: MakeTimers, client: Any, far: Redis, proxy: FaultProxy
) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="long", lease=0.5)
    async def take_long(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        while run.attempt == 1 and not run.lost:
            await sleep(0.01)

    async with make_timers(router, connected=far):
        await eventually(partial(blocked, client, 1))  # so it is the first to be woken
        async with make_timers(router) as idle:
            await eventually(partial(blocked, client, 2))
            await idle.set_timer("long", "1", None, NOW)
            await eventually(lambda: runs)
            proxy.partition()
            await emptied(idle)
        proxy.heal()
    assert [run.attempt for run in runs] == [1, 2]
    assert runs[1].lateness < 2


async def blocked(client: Any, count: int) -> bool:
    """Whether so many workers wait for a token."""
    waiting = [each for each in await client.client_list() if each["cmd"] == "blpop"]
    return len(waiting) == count


@pytest.mark.punctual
async def test_who_stops_hands_over_what_it_had_promised(make_timers: MakeTimers) -> None:
    record = Record()
    leaving, staying = make_timers(record.router), make_timers(record.router)
    async with leaving:
        await leaving.set_timer("notes", "1", None, after(0.7))
        async with staying:
            await leaving.stop()
            await record.written(1)
            await emptied(staying)
    assert record.runs[0].lateness < 1


async def test_topics_have_a_fair_share(make_timers: MakeTimers) -> None:
    many, few = Record("many"), Record("few")
    timers = make_timers(many.router, few.router, concurrency=4)
    await timers.set_timers([Timer("many", str(n), n, NOW) for n in range(400)])
    await timers.set_timers([Timer("few", str(n), n, NOW) for n in range(4)])
    async with timers:
        await few.written(4)
        assert len(many.payloads) < 200
        await many.written(400)


# Their end


async def test_who_stops_waits_for_what_runs_and_takes_nothing_else(
    make_timers: MakeTimers,
) -> None:
    gate = Gate()
    timers = make_timers(gate.router, concurrency=1)
    running = spawn(timers.run_forever)
    await timers.set_timers([Timer("gate", str(n), n, NOW) for n in range(2)])
    await eventually(lambda: gate.entered == 1)
    stopping = spawn(timers.stop)
    await sleep(0.1)
    assert not stopping.done() and not running.done()
    gate.open.set()
    assert await stopping.result()
    await running.result()
    assert gate.entered == 1
    assert len((await timers.fetch_all_timers())[0]) == 1


async def test_what_does_not_end_in_time_is_left_to_others(make_timers: MakeTimers) -> None:
    router = Router()
    runs: list[TimerRun] = []
    ended = threading.Event()

    @router.handler(topic="long", lease=0.5)
    async def take_long(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        if len(runs) == 1:
            try:
                while not run.lost:
                    await sleep(0.01)
            finally:
                ended.set()

    timers = make_timers(router)
    running = spawn(timers.run_forever)
    await timers.set_timer("long", "1", None, NOW)
    await eventually(lambda: runs)
    assert not await timers.stop(0.1)
    await running.result()
    async with make_timers(router) as others:
        await eventually(lambda: len(runs) == 2)
        await emptied(others)
    assert runs[0].lost and ended.wait(5)


async def test_a_worker_may_be_started_again_after_a_stop(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router)
    for round_ in range(3):
        running = spawn(timers.run_forever)
        await timers.set_timer("notes", str(round_), round_, NOW)
        await record.written(round_ + 1)
        await timers.stop()
        await running.result()
    assert record.payloads == [0, 1, 2]


async def test_to_stop_what_does_not_run_is_nothing(make_timers: MakeTimers) -> None:
    timers = make_timers(Record().router)
    assert await timers.stop()
    assert await timers.stop(0)
    with pytest.raises(ValueError, match="timeout"):
        await timers.stop(-1)


async def test_timers_run_until_the_body_ends_also_if_that_fails(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router)
    with pytest.raises(ZeroDivisionError):
        async with timers:
            await timers.set_timer("notes", "1", None, NOW)
            await record.written(1)
            raise ZeroDivisionError
    assert await is_empty(make_timers(record.router))


# Trouble


async def test_a_worker_may_start_before_its_server(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()
    await make_timers(record.router).set_timer("notes", "1", 1, NOW)
    proxy.refuse()
    async with make_timers(record.router, connected=far):
        await eventually(lambda: "trying again" in caplog.text, timeout=15)
        proxy.heal()
        await record.written(1)


async def test_who_may_not_run_scripts_is_told(
    make_timers: MakeTimers, client: Any, server: Server
) -> None:
    await client.execute_command(
        "ACL", "SETUSER", "poor", "on", ">x", "~*", "+@all", "-eval", "-evalsha"
    )
    poor = connect(server, username="poor", password="x")
    try:
        timers = make_timers(Record().router, connected=poor)
        for call in (timers.run_forever, timers.handle_ready_timers):
            with pytest.raises(exceptions.NoPermissionError):
                await call()
        with pytest.raises(exceptions.NoPermissionError):
            async with timers:
                pytest.fail("nothing would be run here")
    finally:
        await disconnect(poor)
        await client.execute_command("ACL", "DELUSER", "poor")


async def test_a_server_that_was_away_at_the_start_and_refuses_then_is_lived_with(
    make_timers: MakeTimers, client: Any, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await client.execute_command("ACL", "SETUSER", "poor", "on", ">x", "~*", "+@all", "-evalsha")
    await client.execute_command("ACL", "SETUSER", "poor", "-eval")
    record = Record()
    proxy.refuse()
    poor = connect(proxy, username="poor", password="x")
    async with make_timers(record.router, connected=poor):
        proxy.heal()
        await eventually(lambda: "NOPERM" in caplog.text, timeout=15)
        await client.execute_command("ACL", "SETUSER", "poor", "+@all")
        await make_timers(record.router).set_timer("notes", "1", 1, NOW)
        await record.written(1, timeout=10)
    await disconnect(poor)
    await client.execute_command("ACL", "DELUSER", "poor")


async def test_a_worker_lives_through_a_server_that_is_away(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    record = Record()
    near = make_timers(record.router)
    async with make_timers(record.router, connected=far):
        await near.set_timer("notes", "1", 1, NOW)
        await record.written(1)
        proxy.refuse()
        proxy.reset_all()
        await near.set_timer("notes", "2", 2, NOW)
        await sleep(0.3)
        proxy.heal()
        await record.written(2)
        await emptied(near)
    assert record.payloads == [1, 2]


async def test_what_ended_while_the_server_was_away_is_reported_later(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    gate = Gate(lease=20)
    near = make_timers(gate.router)
    async with make_timers(gate.router, connected=far):
        await near.set_timer("gate", "1", 1, NOW)
        await eventually(lambda: gate.entered == 1)
        proxy.refuse()
        proxy.reset_all()
        gate.open.set()
        await sleep(0.3)
        proxy.heal()
        await emptied(near)
    assert gate.entered == 1


async def test_a_lease_that_could_not_be_renewed_is_lost(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="long", lease=0.4)
    async def take_long(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        while run.attempt == 1 and not run.lost:
            await sleep(0.01)

    near = make_timers(router)
    async with make_timers(router, connected=far):
        await near.set_timer("long", "1", 1, NOW)
        await eventually(lambda: runs)
        proxy.partition()
        async with near:
            await eventually(lambda: len(runs) == 2)
            assert runs[0].lost and runs[1].fence > runs[0].fence
            proxy.heal()
            await emptied(near)


async def test_a_worker_that_the_server_does_not_wake_looks_from_time_to_time(
    make_timers: MakeTimers,
    client: Any,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "SLICE", 500_000)
    await client.execute_command("ACL", "SETUSER", "deaf", "on", ">x", "~*", "+@all", "-blpop")
    deaf = connect(server, username="deaf", password="x")
    record = Record()
    async with make_timers(record.router, connected=deaf):
        await eventually(lambda: "may be late" in caplog.text)
        await make_timers(record.router).set_timer("notes", "1", 1, NOW)
        await record.written(1)
    await disconnect(deaf)
    await client.execute_command("ACL", "DELUSER", "deaf")


async def test_a_worker_that_was_held_up_does_not_take_from_itself_what_it_runs(
    make_timers: MakeTimers,
) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="rude", lease=0.2)
    async def hold_up(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        end = monotonic() + 0.7
        while monotonic() < end:
            pass
        await sleep(0.3)

    async with make_timers(router) as timers:
        await timers.set_timer("rude", "1", None, NOW)
        await emptied(timers)
    assert [run.attempt for run in runs] == [1]


async def test_what_ended_after_its_lease_while_the_server_was_away_is_not_run_again(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    gate = Gate(lease=0.3)
    near = make_timers(gate.router)
    async with make_timers(gate.router, connected=far, concurrency=2):
        await near.set_timer("gate", "1", 1, NOW)
        await eventually(lambda: gate.entered == 1)
        proxy.partition()
        await sleep(0.5)
        gate.open.set()
        await sleep(0.1)
        proxy.heal()
        await emptied(near)
    assert gate.entered == 1


async def test_what_still_runs_when_the_server_is_back_goes_on_and_is_not_begun_again(
    make_timers: MakeTimers, far: Redis, proxy: FaultProxy
) -> None:
    gate = Gate(lease=0.3)
    near = make_timers(gate.router)
    async with make_timers(gate.router, connected=far, concurrency=2):
        await near.set_timer("gate", "1", 1, NOW)
        await eventually(lambda: gate.entered == 1)
        proxy.partition()
        await sleep(0.5)
        proxy.heal()
        await sleep(0.5)
        gate.open.set()
        await emptied(near)
    assert gate.entered == 1


async def test_a_worker_that_has_not_renewed_in_time_does_not_take_its_own_timer(
    make_timers: MakeTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would begin a second run, and here, as there is one attempt, count it as dead.
    async def forget(self: Schedule, leases: object, deadline: float) -> None: ...

    monkeypatch.setattr(Schedule, "_renew", forget)
    gate = Gate(lease=0.3, max_attempts=1)
    async with make_timers(gate.router) as timers:
        await timers.set_timer("gate", "1", 1, NOW)
        await eventually(lambda: gate.entered == 1)
        await sleep(1)
        gate.open.set()
        await emptied(timers)
        assert await timers.fetch_dead_timers() == []
    assert gate.entered == 1


@pytest.mark.punctual
async def test_who_has_heard_that_a_lease_is_lost_is_run_again(
    make_timers: MakeTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(self: Schedule, leases: object, deadline: float) -> None: ...

    router = Router()
    runs: list[TimerRun] = []
    heard: list[bool] = []

    @router.handler(topic="long", lease=0.3)
    async def listen(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        while len(runs) == 1 and len(heard) < 500:
            heard.append(run.lost)
            await sleep(0.01)

    monkeypatch.setattr(Schedule, "_renew", forget)
    async with make_timers(router, max_attempts=2) as timers:
        await timers.set_timer("long", "1", 1, NOW)
        await emptied(timers)
        assert await timers.fetch_dead_timers() == []
    assert [run.attempt for run in runs] == [1, 2] and heard[-1]


async def test_who_stops_in_a_handler_is_not_waited_for(make_timers: MakeTimers) -> None:
    router = Router()
    told: list[object] = []

    @router.handler(topic="last")
    async def stop(data: object) -> None:
        told.append(await timers.stop(None))
        try:
            await timers.close()
        except RedisTimersError as error:
            told.append(error)

    timers = make_timers(router)
    await timers.set_timer("last", "1", None, NOW)
    await timers.run_forever()
    assert told[0] is False and "wait for its caller" in str(told[1])
    assert await is_empty(timers)


async def test_what_a_handler_fails_with_is_logged_with_its_traceback(
    make_timers: MakeTimers, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()

    @router.handler(topic="wrong", max_attempts=1)
    async def fail(data: object) -> None:
        raise ZeroDivisionError("the reason")

    timers = make_timers(router)
    await timers.set_timer("wrong", "order-17", None, NOW)
    with caplog.at_level(logging.ERROR, "redsync"):
        await timers.handle_ready_timers()
    assert "timer 'order-17' of topic 'wrong': attempt 1 of 1 failed" in caplog.text
    assert "ZeroDivisionError: the reason" in caplog.text


async def test_a_loop_or_thread_that_is_held_up_loses_no_timer(make_timers: MakeTimers) -> None:
    router, record = Router(), Record()

    @router.handler(topic="rude")
    async def hold_up(data: object) -> None:
        end = monotonic() + 1.5
        while monotonic() < end:
            pass

    async with make_timers(router, record.router, lease=1) as timers:
        await timers.set_timers([Timer("notes", str(n), n, after(n / 10)) for n in range(20)])
        await timers.set_timer("rude", "1", None, after(0.5))
        await record.written(20)
        await emptied(timers)
    assert sorted(record.ids, key=int) == [str(n) for n in range(20)]
