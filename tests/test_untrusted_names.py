"""A name of any kind leads to keys of its own and to no others, or is refused before it is sent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

import redsync.aio
from redsync import RedisTimersConflictError, RedisTimersPayloadError, SemaphoreInitStrategy, Timer
from redsync._protocol.keys import EventKeys, SemaphoreKeys, TimerKeys, slot_of
from redsync._protocol.timers import member_of
from redsync.cli.server import Server
from redsync.sync import RedisEvent, RedisSemaphore, Router, Timers

from .support import aio as tasks
from .support.sync import connect, disconnect

PIECES: Final = ("{", "}", "{}", "{x}", ":", "*", "\n", "\r\n", "\0", " ", "--", "'", "x", "free")
"""What means something to a cluster, to RESP, to Lua, to us, or to somebody in between."""

names = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.builds("{}{{{}}}{}".format, st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
    st.builds("{}{}".format, st.text(max_size=3), st.characters(categories=["Cs"])),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

LONG: Final = "n" * 65536

HOSTILE: Final = [
    "x\n*1\r\n$8\r\nFLUSHALL\r\n",
    "x'); redis.call('FLUSHALL') --",
    "]] .. redis.call('FLUSHALL') .. [[",
    "\0",
    "a\0b",
    "\x1b[2J",
    "*",
    "?[a-z]\\",
    "{x}",
    "{x}:meta",
    "x}:meta{y",
    "{{x}}",
    "{}x",
    "{",
    "%s%n%(x)s",
    "../../etc",
    "\N{PILE OF POO}",
    "s0",
    " ",
    LONG,
]

some = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
many = settings(some, max_examples=300)


@pytest.fixture
def client(server: Server) -> Iterator[Redis]:
    """A client, which has left nothing behind at the end."""
    connected = connect(server)
    yield connected
    disconnect(connected)


def all_keys(client: Redis) -> set[bytes]:
    found: Any = client.keys()
    return set(found)


def has_tag(key: str) -> bool:
    """Whether a cluster looks at a part of it only, by the specification."""
    return re.match(r"[^{]*\{[^}]+\}", key, re.DOTALL) is not None


def stem(prefix: str, name: str) -> str | None:
    """What the keys of a name begin with; None if it has to be refused."""
    key = f"{prefix}:{name}" if has_tag(name) else f"{prefix}:{{{name}}}"
    try:
        key.encode()
    except UnicodeEncodeError:
        return None
    return key if name and has_tag(key) else None


def keys_with(stem: str, *parts: str) -> set[bytes]:
    return {f"{stem}:{part}".encode() for part in parts}


# Semaphores and events


@pytest.mark.parametrize("strategy", list(SemaphoreInitStrategy))
@some
@given(name=names, identifier=names)
@example(name="}", identifier="x")
@example(name="{}", identifier="a b\nc\0d 1 2 3")
def test_a_semaphore_has_the_keys_of_its_name_and_no_others(
    client: Redis, strategy: SemaphoreInitStrategy, name: str, identifier: str
) -> None:
    client.flushall()
    client.set("somebody's", "x")
    expected = stem("redsync:semaphore", name)

    def make() -> RedisSemaphore:
        return RedisSemaphore(
            client, name, count=1, identifier=identifier, semaphore_init_strategy=strategy
        )

    if expected is None or stem("", identifier.replace("}", "x")) is None:
        with pytest.raises(ValueError, match=r"name|identifier"):
            make()
        assert all_keys(client) == {b"somebody's"}
        return
    semaphore = make()
    permit = semaphore.acquire(0)
    (held,) = semaphore.status().held
    assert held.identifier == identifier
    assert all_keys(client) == {b"somebody's", *keys_with(expected, "held", "meta")}
    permit.release()
    assert all_keys(client) == {b"somebody's", *keys_with(expected, "free", "meta")}
    semaphore.close()
    assert client.get("somebody's") == b"x"


@some
@given(name=names)
def test_an_event_has_the_keys_of_its_name_and_no_others(client: Redis, name: str) -> None:
    client.flushall()
    expected = stem("redsync:event", name)
    if expected is None:
        with pytest.raises(ValueError, match="name"):
            RedisEvent(client, name)
        return
    event = RedisEvent(client, name)
    event.set()
    assert all_keys(client) == keys_with(expected, "signals", "open", "sets")
    event.wait(0)
    assert all_keys(client) == keys_with(expected, "open", "sets")
    event.clear()
    event.close()
    assert all_keys(client) == keys_with(expected, "sets")


@many
@given(first=names, second=names)
@example(first="x", second="x:free")
@example(first="x", second="{x}:free")
@example(first="{x}:wake", second="x")
@example(first="a{b}", second="a{b}c")
@example(first="{}x", second="x")
def test_two_names_share_no_key(first: str, second: str) -> None:
    assume(stem("p", first) is not None and stem("p", second) is not None)
    # As documented, x and {x} are the same.
    assume(first != second and first != f"{{{second}}}" and second != f"{{{first}}}")
    for kind in (SemaphoreKeys, EventKeys):
        one, other = kind.of("p", first), kind.of("p", second)
        worker = b"0123456789abcdef:1"
        *fixed, wake = one
        *others, other_wake = other
        mine = {*fixed, wake + worker}
        assert len(mine) == 4
        assert not mine & {*others, other_wake + worker}
        assert len({slot_of(key) for key in mine}) == 1


def test_x_with_and_without_braces_is_the_same() -> None:
    assert SemaphoreKeys.of("p", "x") == SemaphoreKeys.of("p", "{x}")
    assert EventKeys.of("p", "x") == EventKeys.of("p", "{x}")


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_tasks_wait_in_keys_of_their_name_too(client: Redis, server: Server, name: str) -> None:
    def both_are_blocked() -> bool:
        clients: Any = client.info("clients")
        return int(clients["blocked_clients"]) == 2

    async def main(client: AsyncRedis) -> None:
        for strategy in SemaphoreInitStrategy:
            semaphore = redsync.aio.RedisSemaphore(
                client, name, count=1, semaphore_init_strategy=strategy, identifier=name
            )
            permit = await semaphore.acquire(0)
            waiting = asyncio.ensure_future(semaphore.acquire())
            event = redsync.aio.RedisEvent(client, name)
            woken = asyncio.ensure_future(event.wait())
            await tasks.eventually(both_are_blocked)
            waiting.cancel()
            await permit.release()
            await event.set()
            await woken
            assert not (await semaphore.status()).held
            await semaphore.close()
            await event.close()

    async def with_client() -> None:
        client = tasks.connect(server)
        await main(client)
        await tasks.disconnect(client)

    client.set("somebody's", "x")
    asyncio.run(with_client())
    expected = {
        b"somebody's",
        *keys_with(stem("redsync:semaphore", name) or "", "free", "held", "meta"),
        *keys_with(stem("redsync:event", name) or "", "signals", "open", "sets"),
    }
    wakes = tuple(f"{stem(f'redsync:{kind}', name)}:wake:" for kind in ("semaphore", "event"))
    left = {key for key in all_keys(client) if not key.startswith(tuple(map(str.encode, wakes)))}
    assert left <= expected
    assert client.get("somebody's") == b"x"


# Timers


@pytest.fixture
def seen() -> list[tuple[str, object]]:
    return []


def timers_of(client: Redis, seen: list[Any], *topics: str, **options: Any) -> Timers:
    router = Router()
    for topic in topics:

        def handle(data: object, context: object, run: Any) -> None:
            seen.append((run.topic, run.timer_id, data))

        router.handler(topic=topic, max_attempts=1)(handle)
    return Timers(redis_client=client, routers=[router], **options)


@some
@given(topic=names, timer_id=names, payload=json_values)
def test_a_timer_has_the_keys_of_its_timeline_and_no_others(
    client: Redis, topic: str, timer_id: str, payload: object
) -> None:
    client.flushall()
    seen: list[Any] = []
    if not topic or stem("", topic.replace("}", "x")) is None:
        with pytest.raises(ValueError, match="topic"):
            timers_of(client, seen, topic)
        return
    timers = timers_of(client, seen, topic)
    try:
        timers.set_timer(topic, timer_id, payload, timedelta(0))
    except RedisTimersPayloadError:  # what a str may hold and UTF-8 may not
        assert r"\ud" in json.dumps(payload)
    except ValueError:
        assert not timer_id or stem("", timer_id.replace("}", "x")) is None
    else:
        own = {"timers_timeline", "timers_payloads", "{timers_timeline}:state"}
        own |= {f"{{timers_timeline}}:{each}:{topic}" for each in ("due", "wake")}
        assert set(map(str.encode, own)) == without_requests(client)
        assert client.zrange("timers_timeline", 0, -1) == [f"{topic}--{timer_id}".encode()]
        assert timers.fetch_all_timers()[0] == [f"{topic}--{timer_id}"]
        assert timers.handle_ready_timers() == 1
        assert seen == [(topic, timer_id, payload)]
        rest = {b"{timers_timeline}:state", b"{timers_timeline}:meta"}
        assert without_requests(client) <= rest
    finally:
        timers.close()
    assert client.zcard("timers_timeline") == 0


def without_requests(client: Redis) -> set[bytes]:
    """All keys but those that are named like requests and workers, at random, and expire."""
    kept = re.compile(rb"\{timers_timeline\}:(request|claimed|unblock):[0-9a-f]{16}(:\d+)?")
    return {key for key in all_keys(client) if not kept.fullmatch(key)}


@some
@given(parts=st.lists(names, min_size=3, max_size=4), data=st.data())
@example(parts=["a", "b", "c"], data=None)
def test_two_timers_of_one_name_are_never_both_there(
    client: Redis, parts: list[str], data: Any
) -> None:
    assume(all(each and stem("", each.replace("}", "x")) is not None for each in parts))
    cut = data.draw(st.integers(2, len(parts) - 1)) if data else 2
    first = parts[0], "--".join(parts[1:])
    second = "--".join(parts[:cut]), "--".join(parts[cut:])
    assert member_of(first[0], "--", first[1]) == member_of(second[0], "--", second[1])
    client.flushall()
    timers = timers_of(client, [], first[0], second[0])
    timers.set_timer(*first, "first", timedelta(hours=1))
    with pytest.raises(RedisTimersConflictError):
        timers.set_timer(*second, "second", timedelta(hours=1))
    assert not timers.remove_timer(*second)
    assert timers.remove_timer(*first)
    timers.close()


@many
@given(name=names)
def test_the_keys_of_a_timeline_are_its_own(name: str) -> None:
    assume(name and stem("", name.replace("}", "x")) is not None)
    keys = TimerKeys.of(name, None, clustered=False)
    assert len(set(keys)) == len(keys)
    others = TimerKeys.of(f"{name}x", None, clustered=False)
    assert not set(keys) & set(others)
    if has_tag(name):
        assert len({slot_of(key) for key in keys}) == 1


@some
@given(payload=st.binary(max_size=200))
@example(payload=b"[" * 100_000)
@example(payload=b'{"a":' * 100_000)
@example(payload=b"1" * 10_000)
@example(payload=b"1e999999999")
@example(payload=b"")
@example(payload=b"NaN")
@example(payload=b"\xff\xfe\x00")
@example(payload=b"\xef\xbb\xbf{}")
def test_whatever_a_payload_is_it_is_handed_over_or_kept_with_the_dead(
    client: Redis, payload: bytes
) -> None:
    client.flushall()
    client.zadd("timers_timeline", {"t--hostile": 1, "t--sound": 2})
    client.hset("timers_payloads", "t--hostile", payload)
    client.hset("timers_payloads", "t--sound", '"sound"')
    seen: list[Any] = []
    timers = timers_of(client, seen, "t")
    assert timers.handle_ready_timers() == 2
    assert ("t", "sound", "sound") in seen
    dead = timers.fetch_dead_timers()
    if len(seen) == 1:
        assert [(each.timer_id, each.payload) for each in dead] == [("hostile", payload)]
        assert "payload" in dead[0].error
    else:
        assert dead == []
    assert client.zcard("timers_timeline") == 0
    timers.close()


def test_long_names_are_taken_or_refused_before_anything_is_sent(client: Redis) -> None:
    timers = timers_of(client, [], "t")
    with pytest.raises(ValueError, match="at most"):
        timers.set_timers([Timer("t", "i" * 100_001, None, timedelta(0))])
    with pytest.raises(ValueError, match="at most"):
        timers.discard_timer("t" * 10_000, "i")
    with pytest.raises(ValueError, match="at most"):
        Router().handler(topic="t" * 10_000)
    assert all_keys(client) == set()
    timers.set_timer("t", LONG, None, timedelta(hours=1))
    assert timers.remove_timer("t", LONG)
    timers.close()
