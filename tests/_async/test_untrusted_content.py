"""Whatever somebody has written into our keys is passed over or refused in words, and harms nobody.

Nobody hangs, the watchdog goes on for the others, and the server does too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any, Final

import pytest
from redis.exceptions import RedisError

from redsync.aio import (
    RedisEvent,
    RedisEventError,
    RedisSemaphore,
    RedisSemaphoreError,
    Router,
    SemaphoreInitStrategy,
    Timers,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from .states import key

Put = Callable[[Any, str], Any]

FEW: Final = 20
"""Records in a log, for one piece of garbage; a loop that goes astray writes thousands."""

IN_SEMAPHORES: Final[dict[str, Put]] = {
    "a token that is none": lambda c, n: c.lpush(key(n, "free"), "garbage"),
    "a token of bytes": lambda c, n: c.lpush(key(n, "free"), b"\xff\xfe"),
    "a token of a slot below 0": lambda c, n: c.lpush(key(n, "free"), "-1:5"),
    "a token with a huge fence": lambda c, n: c.lpush(key(n, "free"), "0:" + "9" * 30),
    "a token of nothing": lambda c, n: c.lpush(key(n, "free"), "77:5"),
    "an empty token": lambda c, n: c.lpush(key(n, "free"), ""),
    "a lease of nothing": lambda c, n: c.zadd(key(n, "held"), {"garbage": 1}),
    "a long lease of nothing": lambda c, n: c.zadd(key(n, "held"), {"garbage": 1e15}),
    "a lease without an end": lambda c, n: c.zadd(key(n, "held"), {"0": float("inf")}),
    "a lease of bytes": lambda c, n: c.zadd(key(n, "held"), {b"\xff": 1}),
    "a field of somebody's": lambda c, n: c.hset(key(n, "meta"), "stray", "1"),
    "a field of bytes": lambda c, n: c.hset(key(n, "meta"), b"\xff\x00", b"\xff"),
    "an empty record": lambda c, n: c.hset(key(n, "meta"), "s0", ""),
    "a record that is none": lambda c, n: c.hset(key(n, "meta"), "s0", "garbage"),
    "a record with too few fields": lambda c, n: c.hset(key(n, "meta"), "s0", "1 o"),
    "an identifier of bytes": lambda c, n: c.hset(key(n, "meta"), "s0", b"1 o 1 1 \xff\xfe"),
    "a count that is none": lambda c, n: c.hset(key(n, "meta"), "count", "abc"),
    "a count of 0": lambda c, n: c.hset(key(n, "meta"), "count", "0"),
    "a count below 0": lambda c, n: c.hset(key(n, "meta"), "count", "-3"),
    "a fence that is none": lambda c, n: c.hset(key(n, "meta"), "fence", "zz"),
    "a version of bytes": lambda c, n: c.hset(key(n, "meta"), "version", b"\xff"),
    "a term that is none": lambda c, n: c.hset(key(n, "meta"), "ttl", "nan"),
    "no grace": lambda c, n: c.hdel(key(n, "meta"), "grace"),
    "a grace of 0": lambda c, n: c.hset(key(n, "meta"), "grace", "0"),
    "a recovery that is none": lambda c, n: c.hset(key(n, "meta"), "recovery", "x"),
}


async def in_words(call: Callable[[], Any], refusal: type[Exception], name: str) -> None:
    """It succeeds, or says in which key there is something that should not be."""
    outcome = spawn(call)
    try:
        await outcome.result(timeout=8)
    except refusal as error:
        assert name in str(error)


async def try_everything(client: Redis, name: str, what: str, options: dict[str, Any]) -> None:
    """Use a semaphore with garbage in it, before and after."""
    semaphore = RedisSemaphore(client, name, count=2, **options)
    permit = await semaphore.acquire(5)
    await IN_SEMAPHORES[what](client, name)
    for call in (
        lambda: semaphore.acquire(0),
        lambda: semaphore.acquire(0.3),
        semaphore.status,
        semaphore.get_count,
        lambda: semaphore.resize(3),
        lambda: semaphore.acquire(0.3),
        permit.release,
        lambda: permit.wait_lost(2),
        semaphore.close,
    ):
        try:
            await in_words(call, RedisSemaphoreError, name)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


async def test_garbage_in_semaphores_is_passed_over_or_told_and_costs_no_other_one_its_lease(
    client: Redis, name: str, strategy: SemaphoreInitStrategy, caplog: pytest.LogCaptureFixture
) -> None:
    options: Any = {"permit_ttl": 3, "semaphore_init_strategy": strategy}
    sound = RedisSemaphore(client, f"{name}-sound", count=1, **options)
    other = await sound.acquire(5)
    await together(
        *(
            partial(try_everything, client, f"{name}-{number}", what, options)
            for number, what in enumerate(IN_SEMAPHORES)
        )
    )
    # Its lease is renewed once more, whatever the watchdog has met with.
    end = monotonic() + other.remaining()
    await eventually(lambda: monotonic() + other.remaining() > end + 0.3, timeout=3)
    assert not other.lost
    await other.release()
    await sound.close()
    assert len(caplog.records) < FEW * len(IN_SEMAPHORES)


@pytest.mark.parametrize("count", ["1000000", "9" * 25, "1e18", "inf"])
async def test_a_count_that_cannot_be_does_not_occupy_the_server(
    make_server: Callable[..., Server], strategy: SemaphoreInitStrategy, count: str
) -> None:
    server = make_server()  # it would have to be killed
    client, admin = connect(server), connect(server, socket_timeout=2)
    semaphore = RedisSemaphore(client, "x", count=1, permit_ttl=1, semaphore_init_strategy=strategy)
    permit = await semaphore.acquire(5)
    await admin.hset(key("x", "meta"), "count", count)
    for call in (lambda: semaphore.acquire(0.3), permit.release, semaphore.close):
        await in_words(call, RedisSemaphoreError, "x")
        assert await admin.ping()
    await disconnect(client)
    await disconnect(admin)


# Events


async def test_garbage_in_an_event_wakes_nobody_in_vain_and_harms_nobody(
    client: Redis, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    signals = f"redsync:event:{{{name}}}:signals"
    event = RedisEvent(client, name)
    waiting = spawn(lambda: event.wait(10))
    await sleep(0.05)
    for garbage in (b"\xff\xfe", b"", b"garbage", b"-1", b"9" * 400, b"a\r\nb\x00"):
        await client.rpush(signals, garbage)
    await event.set()
    await waiting.result()
    await client.zadd(f"redsync:event:{{{name}}}:open", {b"\xff": 1, b"x": float("inf")})
    await client.zadd(f"redsync:event:{{{name}}}:sets", {b"\xff": 1e300})
    for call in (event.set, event.is_set, lambda: event.wait(0.5), event.clear, event.close):
        await in_words(call, RedisEventError, name)
    assert len(caplog.records) < FEW


# Timers

DUE: Final = "0" * 16
"""Of a number, or an instant: long ago."""

RECORD: Final = DUE + DUE + DUE + "0" + "0000"

Stores = Callable[[Any, str, str], Any]


def indexed(record: str) -> Put:
    """A timer with this record, which is due, first of all."""

    async def put(client: Any, name: str) -> None:
        await client.hset(f"{{{name}}}:state", "t--bad", record)
        await client.zadd(name, {"t--bad": 0})
        await client.zadd(f"{{{name}}}:due:t", {f"{DUE}t--bad": 0})
        await client.hset(f"{name}-payloads", "t--bad", "1")

    return put


IN_TIMERS: Final[dict[str, Put]] = {
    "a member without a name": lambda c, n: c.zadd(n, {"": 1}),
    "members that are none": lambda c, n: c.zadd(n, {"x": 1, "t": 1, "--": 1, b"\xff": 1}),
    "endless times": lambda c, n: c.zadd(n, {"t--m": float("-inf"), "t--p": float("inf")}),
    "a record that is none": indexed(f"{DUE}garbage"),
    "an empty record": indexed(""),
    "a record with too few fields": indexed(DUE + DUE),
    "a period that is none": indexed(f"{RECORD}000100000000zz"),
    "a period of 0": indexed(f"{RECORD}0001000000000 once"),
    "a policy that is none": indexed(f"{RECORD}000100000000" + "5 ???"),
    "a length that is none": indexed(f"{RECORD}zzzz00000000"),
    "a number that is none": lambda c, n: c.hset(f"{{{n}}}:state", "", "zz"),
    "a promise that is none": lambda c, n: c.hset(f"{{{n}}}:meta", "w:t", "zz"),
    "an empty promise": lambda c, n: c.hset(f"{{{n}}}:meta", "w:t", ""),
    "entries that are none": lambda c, n: c.zadd(f"{{{n}}}:due:t", {"x": 1, "": 2, b"\xff": 3}),
    "tokens that are none": lambda c, n: c.rpush(f"{{{n}}}:wake:t", b"\xff\xfe", ""),
    "topics that are none": lambda c, n: c.sadd(f"{{{n}}}:topics", b"\xff", ""),
}


@pytest.mark.parametrize("what", IN_TIMERS)
async def test_garbage_among_timers_keeps_no_other_one_from_running(
    client: Redis,
    make_timers: Callable[..., Timers],
    name: str,
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    router, seen = Router(), set[str]()

    @router.handler(topic="t", max_attempts=1)
    def handle(data: object, context: object, run: Any) -> None:
        seen.add(run.timer_id)

    timers = make_timers(router)
    await timers.set_timer("t", "early", None, timedelta(0))
    await IN_TIMERS[what](client, name)
    # Of redis-timers.
    await client.zadd(name, {"t--theirs": 1})
    await client.hset(f"{name}-payloads", "t--theirs", "1")
    await spawn(timers.handle_ready_timers).result(timeout=8)
    assert {"early", "theirs"} <= seen
    async with timers:
        await timers.set_timer("t", "late", None, timedelta(0))
        await eventually(lambda: "late" in seen)
    assert len(caplog.records) < FEW


IN_LETTERS: Final = {
    "no header": b"garbage",
    "nothing": b"",
    "too few fields": b"0001 1 2\nx",
    "huge numbers": b"0001 " + b"9" * 30 + b" 1 " + b"9" * 30 + b" 1 9999999\nx",
    "numbers below 0": b"-001 -1 -1 -1 -1 -1\nx",
    "a year that is none": b"0001 9000000000000000000 1 9000000000000000000 1 1\nx",
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("what", IN_LETTERS)
async def test_garbage_among_dead_timers_hides_no_other_one(
    client: Redis, make_timers: Callable[..., Timers], name: str, what: str
) -> None:
    router = Router()

    @router.handler(topic="t", max_attempts=1)
    def fail(data: object) -> None:
        raise ValueError("it is broken")

    timers = make_timers(router)
    await timers.set_timer("t", "sound", None, timedelta(0))
    await timers.handle_ready_timers()
    await client.hset(f"{{{name}}}:dead", "t--bad", IN_LETTERS[what])
    assert "sound" in {each.timer_id for each in await timers.fetch_dead_timers()}
    for call in (timers.revive_timer, timers.discard_timer):
        try:
            await call("t", "bad")
        except RedisError as error:
            raise AssertionError(f"{call.__name__}: {error}") from error
    assert await timers.discard_timer("t", "sound")


def test_a_flood_would_be_noticed(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(FEW):
        logging.getLogger("redsync").warning("again")
    assert len(caplog.records) >= FEW
