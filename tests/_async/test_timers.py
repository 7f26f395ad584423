"""Timers are set, replaced and removed, and run when they are due."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial

import pytest

from redsync.aio import (
    RedisTimersConflictError,
    RedisTimersError,
    RedisTimersHandlerNotFoundError,
    RedisTimersPayloadError,
    Router,
    Timer,
    TimerRun,
    Timers,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from .timing import NOW, MakeTimers, Record, after, emptied, is_empty

UTC = timezone.utc


async def server_time(client: Redis) -> datetime:
    seconds, micros = await client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


# Setting and running


@pytest.mark.punctual
async def test_a_timer_runs_when_it_is_due(make_timers: MakeTimers, client: Redis) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        before = await server_time(client)
        due = await timers.set_timer("notes", "1", {"a": [1, None]}, after(0.2))
        assert before + after(0.2) <= due <= await server_time(client) + after(0.2)
        await record.written(1)
        assert await server_time(client) >= due
        await emptied(timers)
    assert record.payloads == [{"a": [1, None]}]
    [run] = record.runs
    assert (run.topic, run.timer_id, run.attempt, run.scheduled_for) == ("notes", "1", 1, due)
    assert 0 <= run.lateness < 1
    assert run.lost  # it has ended long ago, and nobody renews its lease


@pytest.mark.parametrize("period", [NOW, timedelta(days=-1)])
async def test_a_period_of_zero_or_less_is_due_at_once(
    make_timers: MakeTimers, client: Redis, period: timedelta
) -> None:
    record = Record()
    timers = make_timers(record.router)
    assert await timers.set_timer("notes", "1", None, period) <= await server_time(client)
    assert await timers.handle_ready_timers() == 1
    assert await is_empty(timers)


async def test_a_timer_may_be_set_for_an_instant(make_timers: MakeTimers, client: Redis) -> None:
    record = Record()
    paris = timezone(timedelta(hours=2))
    instant = (await server_time(client) + after(0.3)).astimezone(paris)
    async with make_timers(record.router) as timers:
        due = await timers.set_timer("notes", "1", 1, activate_at=instant)
        assert (due, due.tzinfo) == (instant, UTC)
        await record.written(1)
    assert record.runs[0].scheduled_for == instant


async def test_an_instant_of_long_ago_is_due_at_once(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", 1, activate_at=datetime(1815, 12, 10, tzinfo=UTC))
    assert await timers.handle_ready_timers() == 1


async def test_the_same_id_replaces(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", "first", after(60))
    await timers.set_timer("notes", "1", "second", NOW)
    assert await timers.handle_ready_timers() == 1
    await timers.set_timer("notes", "1", "third", NOW)
    await timers.set_timer("notes", "1", "fourth", after(60))
    assert await timers.handle_ready_timers() == 0
    assert record.payloads == ["second"]


async def test_timers_that_are_due_at_the_same_time_run_in_the_order_of_arming(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router, concurrency=1)
    instant = await server_time(client)
    for each in ("b", "a", "c", "A", "0"):
        await timers.set_timer("notes", each, None, activate_at=instant)
    assert await timers.handle_ready_timers() == 5
    assert record.ids == ["b", "a", "c", "A", "0"]


@pytest.mark.punctual
async def test_a_timer_that_is_set_while_a_worker_waits_for_a_later_one_is_in_time(
    make_timers: MakeTimers,
) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        await timers.set_timer("notes", "late", None, after(60))
        await timers.set_timer("notes", "early", None, after(0.3))
        await timers.set_timer("notes", "now", None, NOW)
        await record.written(2)
        assert record.ids == ["now", "early"]
        assert max(run.lateness for run in record.runs) < 1
        assert await timers.remove_timer("notes", "late")


async def test_many_are_set_at_once(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router)
    many = [Timer("notes", str(number % 1200), number, NOW) for number in range(1300)]
    dues = await timers.set_timers(many)
    assert len(dues) == 1300 and dues[:100] == dues[1200:]
    assert await timers.handle_ready_timers() == 1200
    assert sorted(record.payloads) == list(range(100, 1300))  # type: ignore[type-var]
    assert await timers.set_timers([]) == []


async def test_if_one_of_many_makes_no_sense_none_is_set(make_timers: MakeTimers) -> None:
    timers = make_timers(Record(schema=int).router)
    good = Timer("notes", "1", 1, NOW)
    for bad in (
        Timer("notes", "2", "two", NOW),
        Timer("nots", "2", 2, NOW),
        Timer("notes", "", 2, NOW),
        Timer("notes", "2", 2),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            await timers.set_timers([good, bad])
    assert await is_empty(timers)


@pytest.mark.punctual
async def test_five_hundred_timers_at_random_instants_run_once_each(
    make_timers: MakeTimers,
) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        many = [Timer("notes", str(n), n, after(0.5 + n * 7919 % 500 / 250)) for n in range(500)]
        dues = await timers.set_timers(many)
        await record.written(500)
        await emptied(timers)
    assert sorted(record.payloads) == list(range(500))  # type: ignore[type-var]
    for run in record.runs:
        assert run.scheduled_for == dues[int(run.timer_id)]
        assert 0 <= run.lateness < 1


# Topics and ids


@pytest.mark.parametrize("text", ["a--b", " ", "ä\n{x}", "{", "}", "x" * 500, "0", "日本"])
async def test_topics_and_ids_may_be_any_text(make_timers: MakeTimers, text: str) -> None:
    record = Record(text)
    async with make_timers(record.router) as timers:
        await timers.set_timer(text, text, text, after(0.05))
        await record.written(1)
        await emptied(timers)
    [run] = record.runs
    assert (run.topic, run.timer_id, record.payloads) == (text, text, [text])


async def test_two_timers_that_would_have_the_same_name_are_told_apart(
    make_timers: MakeTimers,
) -> None:
    one, other = Record("a"), Record("a--b")
    timers = make_timers(one.router, other.router)
    await timers.set_timer("a", "b--c", 1, NOW)
    with pytest.raises(RedisTimersConflictError, match="'a--b--c'"):
        await timers.set_timer("a--b", "c", 2, NOW)
    assert not await timers.remove_timer("a--b", "c")
    assert await timers.handle_ready_timers() == 1
    assert one.payloads == [1]
    await timers.set_timer("a--b", "c", 2, NOW)
    assert await timers.handle_ready_timers() == 1
    assert other.payloads == [2]


async def test_two_timers_of_one_call_that_would_have_the_same_name_are_told_apart(
    make_timers: MakeTimers,
) -> None:
    timers = make_timers(Record("a").router, Record("a--b").router)
    with pytest.raises(RedisTimersConflictError, match="'a--b--c'"):
        await timers.set_timers([Timer("a", "b--c", 1, NOW), Timer("a--b", "c", 2, NOW)])
    assert await timers.fetch_all_timers() == ([], {})


async def test_another_separator_may_be_chosen(make_timers: MakeTimers) -> None:
    record = Record("a--b")
    timers = make_timers(record.router, separator="\x1f")
    await timers.set_timer("a--b", "c--d", 1, NOW)
    assert (await timers.fetch_all_timers())[0] == ["a--b\x1fc--d"]
    assert await timers.handle_ready_timers() == 1


async def test_an_unknown_topic_is_refused(make_timers: MakeTimers) -> None:
    timers = make_timers(Record().router)
    setting = partial(timers.set_timer, "nots", "1", None, NOW)
    for call in (setting, partial(timers.remove_timer, "nots", "1")):
        with pytest.raises(RuntimeError, match=r"Handler is not found, topic='nots'.*'notes'"):
            await call()
        with pytest.raises(RedisTimersHandlerNotFoundError):
            await call()
    assert await is_empty(timers)


async def test_a_payload_that_does_not_fit_is_refused_at_once(make_timers: MakeTimers) -> None:
    timers = make_timers(Record(schema=list[int]).router)
    with pytest.raises(RedisTimersPayloadError, match=r"topic 'notes'.*list"):
        await timers.set_timer("notes", "1", ["one"], NOW)
    assert await is_empty(timers)


async def test_timers_of_a_topic_that_nobody_handles_stay(make_timers: MakeTimers) -> None:
    record = Record()
    await make_timers(Record("other").router).set_timer("other", "1", "kept", NOW)
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", None, NOW)
    assert await timers.handle_ready_timers() == 1
    names, payloads = await timers.fetch_all_timers()
    assert (names, payloads) == (["other--1"], {"other--1": '"kept"'})


# Removing


async def test_a_removed_timer_does_not_run(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", None, NOW)
    assert await timers.remove_timer("notes", "1") is True
    assert await timers.remove_timer("notes", "1") is False
    assert await timers.handle_ready_timers() == 0
    assert await is_empty(timers)


async def test_to_remove_a_timer_that_runs_is_too_late(make_timers: MakeTimers) -> None:
    router = Router()
    answers = []

    @router.handler(topic="suicide", max_attempts=2)
    async def remove(data: object, context: dict[str, Timers], run: TimerRun) -> None:
        answers.append(await context["timers"].remove_timer("suicide", run.timer_id))
        raise ValueError("it would be tried again, if it had not been removed")

    context: dict[str, Timers] = {}
    timers = context["timers"] = make_timers(router, context=context)
    await timers.set_timer("suicide", "1", None, NOW)
    assert await timers.handle_ready_timers() == 1
    assert answers == [False]
    assert await is_empty(timers)
    assert await timers.fetch_dead_timers() == []


async def test_to_remove_a_timer_that_was_cut_off_is_not_to_undo_it(
    make_timers: MakeTimers,
) -> None:
    router = Router()
    begun: list[object] = []
    done: list[object] = []

    @router.handler(topic="long")
    async def take_long(data: object) -> None:
        begun.append(data)
        while not done:
            await sleep(0.01)

    async with make_timers(router) as timers:
        await timers.set_timer("long", "1", None, NOW)
        await eventually(lambda: begun)
        await timers.stop(0)
        done.append("a thread cannot be cut off")
    assert not await make_timers(router).remove_timer("long", "1")


async def test_to_remove_a_timer_that_has_failed_once_is_not_to_undo_it(
    make_timers: MakeTimers,
) -> None:
    router = Router()

    @router.handler(topic="failing")
    async def fail(data: object) -> None:
        raise ValueError

    timers = make_timers(router)
    await timers.set_timer("failing", "1", None, NOW)
    assert await timers.handle_ready_timers() == 1
    assert await timers.remove_timer("failing", "1") is False
    assert await is_empty(timers)


async def test_a_new_arming_during_a_run_starts_when_that_has_ended(
    make_timers: MakeTimers,
) -> None:
    router = Router()
    runs: list[tuple[object, str]] = []

    @router.handler(topic="chain")
    async def again(data: int, context: dict[str, Timers], run: TimerRun) -> None:
        runs.append((data, "begun"))
        if data < 3:
            await context["timers"].set_timer("chain", run.timer_id, data + 1, NOW)
        if data == 2:
            raise ValueError("what becomes of the old arming does not matter any more")
        runs.append((data, "ended"))

    context: dict[str, Timers] = {}
    async with make_timers(router, context=context) as timers:
        context["timers"] = timers
        await timers.set_timer("chain", "1", 1, NOW)
        await eventually(lambda: (3, "ended") in runs)
        await emptied(timers)
    assert runs == [(1, "begun"), (1, "ended"), (2, "begun"), (3, "begun"), (3, "ended")]


async def test_a_new_arming_during_a_run_can_be_removed(make_timers: MakeTimers) -> None:
    router = Router()
    answers = []

    @router.handler(topic="chain")
    async def again(data: object, context: dict[str, Timers], run: TimerRun) -> None:
        await context["timers"].set_timer("chain", run.timer_id, None, NOW)
        answers.append(await context["timers"].remove_timer("chain", run.timer_id))

    context: dict[str, Timers] = {}
    timers = context["timers"] = make_timers(router, context=context)
    await timers.set_timer("chain", "1", None, NOW)
    assert await timers.handle_ready_timers() == 1
    assert answers == [True]
    assert await is_empty(timers)


# Looking


async def test_timers_are_listed_in_the_order_of_their_time(
    make_timers: MakeTimers, client: Redis
) -> None:
    timers = make_timers(Record().router)
    assert await timers.fetch_all_timers() == ([], {})
    for number in (3, 1, 2):
        await timers.set_timer("notes", str(number), number, after(number * 10))
    names, payloads = await timers.fetch_all_timers()
    assert names == ["notes--1", "notes--2", "notes--3"]
    assert payloads == {"notes--1": "1", "notes--2": "2", "notes--3": "3"}
    ready = await timers.fetch_ready_timers(await server_time(client) + after(25))
    assert ready == ["notes--1", "notes--2"]
    assert await timers.fetch_ready_timers(await server_time(client)) == []
    with pytest.raises(ValueError, match="timestamp must be an aware datetime"):
        await timers.fetch_ready_timers(datetime(2030, 1, 1))


async def test_all_of_very_many_are_listed(make_timers: MakeTimers) -> None:
    timers = make_timers(Record().router)
    await timers.set_timers([Timer("notes", str(n), n, after(60 + n)) for n in range(2500)])
    names, payloads = await timers.fetch_all_timers()
    assert names == [f"notes--{n}" for n in range(2500)]
    assert payloads == {f"notes--{n}": str(n) for n in range(2500)}


# The instance


async def test_timers_are_run_in_one_place_of_a_program_only(make_timers: MakeTimers) -> None:
    timers = make_timers(Record().router)
    async with timers:
        with pytest.raises(RedisTimersError, match="being run already"):
            await timers.run_forever()


async def test_without_handlers_there_is_nothing_to_run(make_timers: MakeTimers) -> None:
    timers = make_timers()
    with pytest.raises(RedisTimersError, match="no handlers"):
        await timers.run_forever()
    assert await timers.handle_ready_timers() == 0


async def test_closed_timers_are_of_no_use_any_more(make_timers: MakeTimers) -> None:
    timers = make_timers(Record().router)
    await timers.set_timer("notes", "1", None, NOW)
    await timers.close()
    for call in (
        partial(timers.set_timer, "notes", "1", None, NOW),
        timers.run_forever,
        timers.handle_ready_timers,
    ):
        with pytest.raises(RedisTimersError, match="closed"):
            await call()


async def test_a_router_may_come_while_timers_are_run(make_timers: MakeTimers) -> None:
    first, second = Record(), Record("later")
    timers = make_timers(first.router)
    async with timers:
        await timers.set_timer("notes", "1", None, NOW)
        await first.written(1)
        timers.include_router(second.router)
        await timers.set_timer("later", "1", None, NOW)
        await second.written(1, timeout=2)


async def test_the_last_handler_of_a_topic_counts(make_timers: MakeTimers) -> None:
    first, second = Record(), Record()
    timers = make_timers(first.router, second.router)
    assert timers.handlers_by_topics == {"notes": second.router.handlers[0]}
    await timers.set_timer("notes", "1", None, NOW)
    await timers.handle_ready_timers()
    assert (len(first.payloads), len(second.payloads)) == (0, 1)


async def test_clients_that_decode_will_do(make_timers: MakeTimers, server: Server) -> None:
    record = Record()
    decoding = connect(server, decode_responses=True)
    timers = make_timers(record.router, connected=decoding)
    await timers.set_timer("notes", "ä", "ö", NOW)
    assert await timers.fetch_all_timers() == (["notes--ä"], {"notes--ä": '"ö"'})
    async with timers:
        await record.written(1)
    await disconnect(decoding)
    assert (record.ids, record.payloads) == (["ä"], ["ö"])


async def test_many_callers_share_an_instance(make_timers: MakeTimers) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        armings = [partial(timers.set_timer, "notes", str(n), n, NOW) for n in range(100)]
        await together(*armings)
        await record.written(100)
        await emptied(timers)
    assert sorted(record.ids, key=int) == [str(n) for n in range(100)]


async def test_a_worker_of_each_of_two_instances_shares_the_work(make_timers: MakeTimers) -> None:
    one, other = Record(), Record()
    async with make_timers(one.router, concurrency=1), make_timers(other.router, concurrency=1):
        timers = make_timers(Record().router)
        await timers.set_timers([Timer("notes", str(n), n, after(n / 500)) for n in range(200)])
        await eventually(lambda: len(one.payloads) + len(other.payloads) >= 200)
        await emptied(timers)
    assert sorted(one.payloads + other.payloads) == list(range(200))  # type: ignore[type-var]


async def test_ready_timers_may_be_handled_while_others_are_run(make_timers: MakeTimers) -> None:
    record = Record()
    timers = make_timers(record.router, concurrency=3)
    async with timers:
        for round_ in range(20):
            many = [Timer("notes", f"{round_}-{n}", n, NOW) for n in range(10)]
            arming = spawn(partial(timers.set_timers, many))
            await timers.handle_ready_timers()
            await arming.result()
        await record.written(200)
        await emptied(timers)
    assert len(record.ids) == len(set(record.ids)) == 200


async def test_names_are_listed_by_time_to_the_microsecond(make_timers: MakeTimers) -> None:
    timers = make_timers(Record().router)
    instant = datetime(2100, 1, 1, 0, 0, 1, 5, tzinfo=timezone.utc)
    await timers.set_timer("notes", "b", 1, activate_at=instant)
    await timers.set_timer("notes", "a", 1, activate_at=instant + timedelta(microseconds=1))
    names, _ = await timers.fetch_all_timers()
    assert names == ["notes--b", "notes--a"]
    for later, count in ((-1, 0), (0, 1), (1, 2)):
        at = instant + timedelta(microseconds=later)
        assert len(await timers.fetch_ready_timers(at)) == count
