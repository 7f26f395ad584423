"""Handlers fail, wish to be called again, take too long, or never come back: others do not mind."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import monotonic, time
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from redsync.aio import Backoff, RedisTimersError, Retry, Router, Timer, TimerRun
from redsync.cli.server import Server

from ..support.aio import Redis, eventually, sleep, spawn
from .timing import NOW, MakeTimers, Record, after, emptied, is_empty

SHORT = Backoff(0.02, maximum=0.1)


class Attempts:
    """A router with a handler that fails until an attempt of a given number."""

    def __init__(self, good: int, error: BaseException, **options: Any) -> None:
        self.runs: list[TimerRun] = []
        self.times: list[float] = []
        self.router = Router()

        @self.router.handler(topic="attempts", **options)
        async def attempt(data: object, context: object, run: TimerRun) -> None:
            self.times.append(monotonic())
            self.runs.append(run)
            if run.attempt < good:
                raise error


# Failing


@pytest.mark.punctual
@pytest.mark.parametrize(
    "error",
    [ValueError("not yet"), SystemExit(3), Retry(), Retry(0), Retry(after(0.01)), BaseException()],
    ids=repr,
)
async def test_what_fails_is_tried_again(make_timers: MakeTimers, error: BaseException) -> None:
    attempts, others = Attempts(3, error, backoff=SHORT), Record()
    async with make_timers(attempts.router, others.router) as timers:
        due = await timers.set_timer("attempts", "1", None, NOW)
        await timers.set_timers([Timer("notes", str(n), n, after(n / 100)) for n in range(20)])
        await others.written(20)
        await emptied(timers)
        assert await timers.fetch_dead_timers() == []
    assert [run.attempt for run in attempts.runs] == [1, 2, 3]
    assert {run.scheduled_for for run in attempts.runs} == {due}
    fences = [run.fence for run in attempts.runs]
    assert fences == sorted(set(fences))
    assert max(run.lateness for run in others.runs) < 1


async def test_each_pause_is_longer_than_the_one_before(make_timers: MakeTimers) -> None:
    attempts = Attempts(4, ValueError(), backoff=Backoff(0.05, factor=3, jitter=0))
    async with make_timers(attempts.router) as timers:
        await timers.set_timer("attempts", "1", None, NOW)
        await eventually(lambda: len(attempts.times) == 4)
    begun = attempts.times
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert pauses[0] >= 0.05 and pauses[1] >= 0.15 and pauses[2] >= 0.45


async def test_a_handler_may_choose_when_to_be_called_again(make_timers: MakeTimers) -> None:
    attempts = Attempts(2, Retry(0.2), backoff=Backoff(60))
    async with make_timers(attempts.router) as timers:
        await timers.set_timer("attempts", "1", None, NOW)
        await eventually(lambda: len(attempts.times) == 2)
    assert 0.2 <= attempts.times[1] - attempts.times[0] < 2


async def test_after_the_last_attempt_a_timer_is_dead(make_timers: MakeTimers) -> None:
    attempts = Attempts(9, ValueError("never"), max_attempts=3, backoff=SHORT)
    async with make_timers(attempts.router) as timers:
        due = await timers.set_timer("attempts", "1", {"b": 2}, NOW)
        await emptied(timers)
        [dead] = await timers.fetch_dead_timers()
    assert len(attempts.runs) == 3
    assert (dead.topic, dead.timer_id, dead.attempts) == ("attempts", "1", 3)
    assert (dead.payload, dead.error) == (b'{"b": 2}', "ValueError: never")
    assert dead.scheduled_for == due < dead.died_at


async def test_a_dead_timer_can_be_revived(make_timers: MakeTimers) -> None:
    attempts = Attempts(2, ValueError(), max_attempts=1)
    timers = make_timers(attempts.router)
    await timers.set_timer("attempts", "1\nä", "payload", NOW)
    await timers.handle_ready_timers()
    assert not await timers.revive_timer("attempts", "other")
    assert not await timers.revive_timer("other", "1\nä")
    assert await timers.revive_timer("attempts", "1\nä")
    assert await timers.fetch_dead_timers() == []
    assert (await timers.fetch_all_timers())[1] == {"attempts--1\nä": '"payload"'}
    assert not await timers.revive_timer("attempts", "1\nä")
    assert await timers.handle_ready_timers() == 1
    assert [run.attempt for run in attempts.runs] == [1, 1]
    [dead] = await timers.fetch_dead_timers()
    assert (dead.timer_id, dead.payload) == ("1\nä", b'"payload"')


async def test_a_dead_timer_is_not_revived_over_a_living_one(make_timers: MakeTimers) -> None:
    attempts = Attempts(2, ValueError(), max_attempts=1)
    timers = make_timers(attempts.router)
    await timers.set_timer("attempts", "1", "old", NOW)
    await timers.handle_ready_timers()
    await timers.set_timer("attempts", "1", "new", after(60))
    with pytest.raises(RedisTimersError, match="cannot be revived"):
        await timers.revive_timer("attempts", "1")
    assert [each.payload for each in await timers.fetch_dead_timers()] == [b'"old"']
    assert (await timers.fetch_all_timers())[1] == {"attempts--1": '"new"'}


async def test_a_dead_timer_can_be_discarded(make_timers: MakeTimers) -> None:
    timers = make_timers(Attempts(2, ValueError(), max_attempts=1).router)
    await timers.set_timer("attempts", "1", None, NOW)
    await timers.handle_ready_timers()
    assert not await timers.discard_timer("attempts", "2")
    assert await timers.discard_timer("attempts", "1")
    assert not await timers.discard_timer("attempts", "1")
    assert await timers.fetch_dead_timers() == []


async def test_dead_timers_are_listed_in_the_order_of_their_death(
    make_timers: MakeTimers,
) -> None:
    timers = make_timers(Attempts(2, ValueError(), max_attempts=1).router, concurrency=1)
    for number in (3, 1, 2):
        await timers.set_timer("attempts", str(number), number, NOW)
        await timers.handle_ready_timers()
    assert [each.timer_id for each in await timers.fetch_dead_timers()] == ["3", "1", "2"]


async def test_a_new_arming_has_all_its_attempts(make_timers: MakeTimers) -> None:
    attempts = Attempts(9, ValueError(), max_attempts=3, backoff=Backoff(0))
    timers = make_timers(attempts.router)
    await timers.set_timer("attempts", "1", None, NOW)
    await timers.handle_ready_timers()
    await timers.set_timer("attempts", "1", None, NOW)
    while not await is_empty(timers):
        await timers.handle_ready_timers()
    assert [run.attempt for run in attempts.runs] == [1, 1, 2, 3]


async def test_a_call_runs_what_is_due_again_at_once_after_all_others_and_not_again(
    make_timers: MakeTimers,
) -> None:
    attempts = Attempts(9, ValueError(), max_attempts=3, backoff=Backoff(0))
    timers = make_timers(attempts.router, concurrency=1)
    for number in range(3):
        await timers.set_timer("attempts", str(number), None, NOW)
    assert await spawn(timers.handle_ready_timers).result(5) == 3
    assert sorted(run.timer_id for run in attempts.runs) == ["0", "1", "2"]
    assert await spawn(timers.handle_ready_timers).result(5) == 3  # it has given them back


async def test_a_call_goes_past_what_redis_timers_has_put_off(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router, concurrency=1)
    await timers.set_timer("notes", "later", 1, NOW)
    await timers.set_timer("notes", "now", 2, NOW)
    await client.zadd(timers._scripts.keys.timeline, {"notes--later": time() + 3600})
    assert await timers.handle_ready_timers() == 1
    assert record.payloads == [2]


# Payloads


async def test_a_payload_that_does_not_fit_any_more_is_kept_with_the_dead(
    make_timers: MakeTimers,
) -> None:
    before, now = Record(schema=str), Record(schema=int)
    await make_timers(before.router).set_timer("notes", "1", "text", NOW)
    timers = make_timers(now.router)
    assert await timers.handle_ready_timers() == 1
    [dead] = await timers.fetch_dead_timers()
    assert (dead.payload, dead.attempts, now.payloads) == (b'"text"', 1, [])
    assert "int" in dead.error and await is_empty(timers)
    assert await make_timers(before.router).revive_timer("notes", "1")


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff\x00", b"nan"])
async def test_what_is_not_json_is_kept_with_the_dead(
    make_timers: MakeTimers, client: Redis, payload: bytes
) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", None, NOW)
    await client.hset(timers._scripts.keys.payloads, "notes--1", payload)
    await timers.handle_ready_timers()
    [dead] = await timers.fetch_dead_timers()
    assert (dead.payload, record.payloads) == (payload, [])
    assert await timers.revive_timer("notes", "1")
    assert await client.hget(timers._scripts.keys.payloads, "notes--1") == payload


async def test_a_payload_that_has_vanished_is_told(make_timers: MakeTimers, client: Redis) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", 1, NOW)
    await client.delete(timers._scripts.keys.payloads)
    await timers.handle_ready_timers()
    [dead] = await timers.fetch_dead_timers()
    assert (dead.payload, dead.error, record.payloads) == (None, "the payload is missing", [])
    assert await timers.revive_timer("notes", "1")  # perhaps somebody has put it back


async def test_large_payloads_come_a_few_at_a_time(make_timers: MakeTimers) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        large = "x" * (1 << 20)
        await timers.set_timers([Timer("notes", str(n), large + str(n), NOW) for n in range(8)])
        await record.written(8)
        await emptied(timers)
    assert sorted(record.payloads) == [large + str(n) for n in range(8)]  # type: ignore[type-var]


class Model(BaseModel):
    number: int = Field(alias="Number")
    names: list[str] = []


@dataclass
class Point:
    x: float
    y: float


class Entry(TypedDict):
    key: str


@pytest.mark.parametrize(
    ("schema", "given", "seen"),
    [
        (Model, Model(Number=1), Model(Number=1)),
        (Model, {"Number": "2", "names": ("a",)}, Model(Number=2, names=["a"])),
        (Point, Point(1, 2), Point(1, 2)),
        (Entry, {"key": "ä"}, {"key": "ä"}),
        (int, 7, 7),
        (list[Point], [Point(0, 1)], [Point(0, 1)]),
        (dict[str, bytes], {"a": b"b"}, {"a": b"b"}),
        (int | None, None, None),
        (None, {"any": [1, "json", None]}, {"any": [1, "json", None]}),
    ],
    ids=lambda value: str(getattr(value, "__name__", ""))[:10],
)
async def test_a_schema_is_whatever_pydantic_validates(
    make_timers: MakeTimers, schema: object, given: object, seen: object
) -> None:
    record = Record(schema=schema)
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", given, NOW)
    await timers.handle_ready_timers()
    assert record.payloads == [seen]


# What is called


async def test_a_handler_gets_as_much_as_it_takes(make_timers: MakeTimers) -> None:
    router = Router()
    seen: dict[str, tuple[object, ...]] = {}

    @router.handler(topic="one")
    async def one(data: object) -> None:
        seen["one"] = (data,)

    @router.handler(topic="two")
    async def two(data: object, context: object) -> None:
        seen["two"] = (data, context)

    @router.handler(topic="two and a default")
    async def more(data: object, context: object, own: object = "own") -> None:
        seen["two and a default"] = (data, context, own)

    @router.handler(topic="all")
    async def whole(*arguments: object) -> None:
        seen["all"] = arguments

    class Service:
        async def handle(self, data: object, context: object, run: TimerRun) -> None:
            seen["method"] = (data, context, run)

        async def __call__(self, data: object, context: object) -> None:
            seen["object"] = (data, context)

    router.handler(topic="method")(Service().handle)
    router.handler(topic="object")(Service())
    router.handler(topic="partial")(partial(Service().__call__, context="bound"))
    context = object()
    timers = make_timers(router, context=context)
    topics = ["one", "two", "two and a default", "all", "method", "object"]
    await timers.set_timers([Timer(topic, "1", topic, NOW) for topic in topics])
    assert await timers.handle_ready_timers() == 6
    assert seen["one"] == ("one",)
    assert seen["two"] == ("two", context)
    assert seen["two and a default"] == ("two and a default", context, "own")
    assert seen["object"] == ("object", context)
    for topic in ("all", "method"):
        data, given, run = seen[topic]
        assert (data, given) == (topic, context)
        assert isinstance(run, TimerRun) and run.topic == topic


async def test_the_context_is_an_empty_dict_unless_given(make_timers: MakeTimers) -> None:
    router = Router()
    seen = []

    @router.handler(topic="t")
    async def handle(data: object, context: object) -> None:
        seen.append(context)

    timers = make_timers(router)
    await timers.set_timer("t", "1", None, NOW)
    await timers.handle_ready_timers()
    assert seen == [{}]
    assert timers.context is seen[0]


@pytest.mark.punctual
async def test_a_plain_function_does_not_hold_up_the_others(make_timers: MakeTimers) -> None:
    record, gate = Record(), threading.Event()

    @record.router.handler(topic="blocking")
    def block(data: object) -> None:
        gate.wait(10)

    async with make_timers(record.router) as timers:
        await timers.set_timer("blocking", "1", None, NOW)
        await timers.set_timers([Timer("notes", str(n), n, after(n / 100)) for n in range(20)])
        await record.written(20)
        assert not await is_empty(timers)
        gate.set()
        await emptied(timers)
    assert max(run.lateness for run in record.runs) < 1


# Time


@pytest.mark.punctual
async def test_a_handler_that_takes_longer_than_its_lease_runs_once(
    make_timers: MakeTimers,
) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="long", lease=0.2)
    async def take_long(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        end = monotonic() + 0.7
        while monotonic() < end:
            assert not run.lost and 0 < run.remaining() <= 0.2
            await sleep(0.02)

    async with make_timers(router), make_timers(router) as timers:
        await timers.set_timer("long", "1", None, NOW)
        await emptied(timers)
    assert [run.attempt for run in runs] == [1]


async def test_a_handler_that_takes_too_long_fails(make_timers: MakeTimers) -> None:
    # A thread cannot be cancelled: it is heard of when it ends.
    router = Router()
    runs: list[int] = []

    @router.handler(topic="slow", timeout=0.05, backoff=SHORT, max_attempts=2)
    async def be_slow(data: object, context: object, run: TimerRun) -> None:
        runs.append(run.attempt)
        await sleep(0.15)

    async with make_timers(router) as timers:
        await timers.set_timer("slow", "1", None, NOW)
        await emptied(timers)
        [dead] = await timers.fetch_dead_timers()
    assert runs == [1, 2]
    assert "TimeoutError" in dead.error


@pytest.mark.punctual
async def test_the_lease_of_a_thread_that_takes_too_long_is_given_up(
    make_timers: MakeTimers,
) -> None:
    router, gate = Router(), threading.Event()
    runs: list[TimerRun] = []

    @router.handler(topic="stuck", lease=0.3, timeout=0.1, backoff=SHORT)
    def stick(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        if run.attempt == 1:
            gate.wait(10)

    async with make_timers(router) as timers:
        await timers.set_timer("stuck", "1", None, NOW)
        await eventually(lambda: len(runs) == 2)
        assert runs[0].lost and runs[1].attempt == 2
        await emptied(timers)
        gate.set()


async def test_what_was_armed_anew_beside_a_run_that_a_stop_has_given_up_is_run_once(
    make_timers: MakeTimers,
) -> None:
    router, gate = Router(), threading.Event()
    runs: list[TimerRun] = []

    @router.handler(topic="stuck", lease=0.3)
    def stick(data: str, context: object, run: TimerRun) -> None:
        runs.append(run)
        if data == "old":
            gate.wait(10)

    timers = make_timers(router)
    running = spawn(timers.run_forever)
    await timers.set_timer("stuck", "1", "old", NOW)
    await eventually(lambda: len(runs) == 1)
    await timers.set_timer("stuck", "1", "new", NOW)
    assert not await timers.stop(0.1)
    await running.result()
    async with timers:
        await emptied(timers)
    gate.set()
    assert [run.attempt for run in runs] == [1, 1]
    assert runs[0].fence < runs[1].fence


async def test_whoever_never_comes_back_from_its_last_attempt_is_dead(
    make_timers: MakeTimers,
) -> None:
    router, gate = Router(), threading.Event()

    @router.handler(topic="stuck", lease=0.2, timeout=0.1, max_attempts=1)
    def stick(data: object) -> None:
        gate.wait(10)

    async with make_timers(router) as timers:
        await timers.set_timer("stuck", "1", "x", NOW)
        await emptied(timers)
        [dead] = await timers.fetch_dead_timers()
        gate.set()
    assert dead.error == "the lease of the last attempt ran out"
    assert (dead.payload, dead.attempts) == (b'"x"', 1)


async def test_a_run_that_was_removed_is_told_that_it_is_lost(make_timers: MakeTimers) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="watchful", lease=0.3)
    async def watch(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        while not run.lost:
            await sleep(0.01)

    async with make_timers(router) as timers:
        await timers.set_timer("watchful", "1", None, NOW)
        await eventually(lambda: runs)
        assert not await timers.remove_timer("watchful", "1")
        await eventually(lambda: runs[0].lost)
        assert await is_empty(timers)


@pytest.mark.skipif(sys.platform != "linux", reason="the server's memory is measured differently")
async def test_without_memory_timers_are_refused_whole_and_those_there_run(
    make_timers: MakeTimers, client: Redis, server: Server
) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timers([Timer("notes", str(n), n, NOW) for n in range(50)])
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(Exception, match="memory"):
            await timers.set_timer("notes", "more", None, NOW)
        assert await timers.handle_ready_timers() == 50
        assert await is_empty(timers)
    finally:
        await client.config_set("maxmemory", 0)


async def test_a_key_of_the_wrong_kind_does_not_end_a_worker(
    make_timers: MakeTimers, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    record = Record()
    async with make_timers(record.router) as timers:
        await timers.set_timer("notes", "1", 1, after(0.3))
        await client.delete(timers._scripts.keys.payloads)
        await client.set(timers._scripts.keys.payloads, "somebody else's")
        await eventually(lambda: "holds something" in caplog.text)
        await client.delete(timers._scripts.keys.payloads)
        await timers.set_timer("notes", "2", 2, NOW)
        await record.written(1)
    assert record.payloads == [2]


async def test_a_validator_that_fails_is_tried_again(make_timers: MakeTimers) -> None:
    router = Router()
    seen: list[object] = []
    state = {"failures": 0}

    def validate(value: int) -> int:
        if 0 < state["failures"]:
            state["failures"] -= 1
            raise KeyError("a table that is not there yet")
        return value

    @router.handler(topic="t", schema=Annotated[int, AfterValidator(validate)], backoff=SHORT)
    async def handle(data: int) -> None:
        seen.append(data)

    timers = make_timers(router)
    await timers.set_timer("t", "1", 5, NOW)
    state["failures"] = 2
    async with timers:
        await emptied(timers)
    assert seen == [5]


async def test_an_error_that_does_not_say_what_it_is_is_no_reason_to_wait(
    make_timers: MakeTimers,
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    attempts = Attempts(9, Mute(), max_attempts=1)
    timers = make_timers(attempts.router)
    await timers.set_timer("attempts", "1", None, NOW)
    await timers.handle_ready_timers()
    [dead] = await timers.fetch_dead_timers()
    assert "Mute" in dead.error
