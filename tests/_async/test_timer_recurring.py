"""Recurring timers keep to their instants, whatever happens in between."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from redsync.aio import Backoff, MissedRuns, Router, TimerRun, Timers

from ..support.aio import Redis, eventually, sleep
from .timing import NOW, MakeTimers, Record, after, emptied, is_empty

EVERY = timedelta(milliseconds=50)


def instants(record: Record) -> list[datetime]:
    return [run.scheduled_for for run in record.runs]


async def ago(client: Redis, seconds: float) -> datetime:
    """A time of the past, by the server's clock."""
    now, micros = await client.time()
    return (
        datetime.fromtimestamp(now, timezone.utc) + timedelta(microseconds=micros) - after(seconds)
    )


async def test_a_recurring_timer_runs_at_fixed_instants(make_timers: MakeTimers) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        first = await timers.set_timer(
            "notes", "1", "again", after(0.1), every=EVERY, missed=MissedRuns.ALL
        )
        await record.written(6)
        assert not await is_empty(timers)
        await timers.remove_timer("notes", "1")
        await emptied(timers)
    assert instants(record)[:6] == [first + number * EVERY for number in range(6)]
    assert set(record.payloads) == {"again"}
    assert {run.attempt for run in record.runs} == {1}


async def test_the_first_time_is_after_one_period_unless_given(
    make_timers: MakeTimers, client: Redis
) -> None:
    timers = make_timers(Record().router)
    due = await timers.set_timer("notes", "1", None, every=timedelta(hours=1))
    assert due - await ago(client, 0) > timedelta(minutes=59)


async def test_a_removed_recurring_timer_is_gone(make_timers: MakeTimers) -> None:
    router = Router()
    runs = []

    @router.handler(topic="series")
    async def end(data: object, context: dict[str, Timers], run: TimerRun) -> None:
        runs.append(run)
        assert not await context["timers"].remove_timer("series", "1")

    context: dict[str, Timers] = {}
    async with make_timers(router, context=context) as timers:
        context["timers"] = timers
        await timers.set_timer("series", "1", None, NOW, every=EVERY)
        await emptied(timers)
        await sleep(0.2)
    assert len(runs) == 1


async def test_a_recurring_timer_that_is_set_anew_begins_a_new_series(
    make_timers: MakeTimers,
) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        await timers.set_timer("notes", "1", "old", NOW, every=EVERY)
        await record.written(2)
        first = await timers.set_timer(
            "notes", "1", "new", after(0.2), every=2 * EVERY, missed=MissedRuns.ALL
        )
        await eventually(lambda: record.payloads.count("new") >= 3)
        await timers.set_timer("notes", "1", "last", NOW)
        await emptied(timers)
    new = [run for run, each in zip(record.runs, record.payloads, strict=True) if each == "new"]
    assert [run.scheduled_for for run in new[:3]] == [first + n * 2 * EVERY for n in range(3)]
    assert record.payloads[-1] == "last"


async def test_of_missed_instants_the_latest_is_made_up_for(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router)
    begin = await ago(client, 1000.5)
    hour = timedelta(seconds=100)
    await timers.set_timer("notes", "1", None, activate_at=begin, every=hour)
    assert await timers.handle_ready_timers() == 1
    assert await timers.handle_ready_timers() == 0
    assert instants(record) == [begin + 10 * hour]
    assert (await timers.fetch_all_timers())[0] == ["notes--1"]
    assert await timers.fetch_ready_timers(begin + 11 * hour) == ["notes--1"]
    assert await timers.fetch_ready_timers(begin + 11 * hour - after(0.001)) == []


async def test_all_missed_instants_may_be_made_up_for(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    begin = await ago(client, 30.5)
    every = timedelta(seconds=10)
    async with make_timers(record.router) as timers:
        await timers.set_timer(
            "notes", "1", 1, activate_at=begin, every=every, missed=MissedRuns.ALL
        )
        await record.written(4)
        assert await timers.fetch_ready_timers(begin + 4 * every) == ["notes--1"]
    assert instants(record) == [begin + n * every for n in range(4)]


@pytest.mark.parametrize(("late", "made_up"), [(0.5, True), (6.0, False)])
async def test_missed_instants_may_be_skipped(
    make_timers: MakeTimers, client: Redis, late: float, made_up: bool
) -> None:
    record = Record()
    timers = make_timers(record.router)
    begin = await ago(client, 100 + late)
    every = timedelta(seconds=10)
    await timers.set_timer("notes", "1", 1, activate_at=begin, every=every, missed=MissedRuns.SKIP)
    assert await timers.handle_ready_timers() == made_up
    assert instants(record) == [begin + 10 * every] * made_up
    assert await timers.fetch_ready_timers(begin + 11 * every) == ["notes--1"]
    assert await timers.fetch_ready_timers(begin + 11 * every - after(0.001)) == []


async def test_an_instant_that_fails_does_not_end_the_series(make_timers: MakeTimers) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="series", max_attempts=2, backoff=Backoff(0.001, maximum=0.001))
    async def fail_at_first(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        if run.scheduled_for == first:
            raise ValueError("at the first instant")

    async with make_timers(router) as timers:
        first = await timers.set_timer(
            "series", "1", "x", after(0.2), every=EVERY, missed=MissedRuns.ALL
        )
        await eventually(lambda: len(runs) >= 5)
        [dead] = await timers.fetch_dead_timers()
    assert [run.attempt for run in runs[:5]] == [1, 2, 1, 1, 1]
    assert [run.scheduled_for for run in runs[1:5]] == [first + n * EVERY for n in range(4)]
    assert (dead.timer_id, dead.payload, dead.scheduled_for) == ("1", b'"x"', first)


async def test_runs_of_one_timer_do_not_overlap(make_timers: MakeTimers) -> None:
    router = Router()
    running: list[int] = []
    most: list[int] = []

    @router.handler(topic="series")
    async def be_slow(data: object) -> None:
        running.append(1)
        most.append(len(running))
        await sleep(0.05)
        running.pop()

    async with make_timers(router) as timers, make_timers(router):
        await timers.set_timer("series", "1", None, NOW, every=timedelta(milliseconds=10))
        await eventually(lambda: len(most) >= 5)
    assert set(most) == {1}


@pytest.mark.parametrize(
    ("every", "missed", "message"),
    [
        (NOW, "once", "every must be 0:00:00.001000 to"),
        (timedelta(seconds=-1), "once", "every must be"),
        (timedelta(days=10**6), "once", "every must be"),
        (5, "once", "every must be a timedelta, not 5"),
        (EVERY, "never", "missed must be one of 'once', 'all', 'skip', not 'never'"),
    ],
)
async def test_periods_that_make_no_sense_are_refused(
    make_timers: MakeTimers, every: timedelta, missed: MissedRuns, message: str
) -> None:
    timers = make_timers(Record().router)
    with pytest.raises((ValueError, TypeError), match=message):
        await timers.set_timer("notes", "1", None, NOW, every=every, missed=missed)
    assert await is_empty(timers)


async def test_a_series_of_the_last_century_that_can_be_told_keeps_its_period(
    make_timers: MakeTimers, client: Any
) -> None:
    timers = make_timers(Record().router)
    last = datetime(2242, 3, 16, 12, tzinfo=timezone.utc)
    for number in range(20):
        instant = last - timedelta(seconds=number, microseconds=number * 7919)
        await timers.set_timer("notes", str(number), 1, activate_at=instant, every=after(1))
    records = await client.hgetall(timers._scripts.keys.state)
    async with timers:  # which looks at all of them
        await eventually(partial(client.exists, timers._scripts.keys.topics))
    assert await client.hgetall(timers._scripts.keys.state) == records
    with pytest.raises(ValueError, match="before 2242"):
        await timers.set_timer("notes", "x", 1, activate_at=last + timedelta(days=1))


async def test_missed_instants_are_in_nobodys_way_however_few_run_at_once(
    make_timers: MakeTimers,
) -> None:
    record = Record()
    timers = make_timers(record.router, concurrency=1)
    began = datetime.now(timezone.utc) - timedelta(minutes=10)
    minute = timedelta(minutes=1)
    await timers.set_timer(
        "notes", "often", "often", activate_at=began, every=minute, missed=MissedRuns.ALL
    )
    await timers.set_timer("notes", "once", "once", NOW)
    assert await timers.handle_ready_timers() == 2
    assert record.payloads == ["often", "once"]
