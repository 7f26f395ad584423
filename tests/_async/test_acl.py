"""The permissions that docs/guarantees.md lists are enough, and none is superfluous."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest

from redsync.aio import (
    RedisEvent,
    RedisEventTimeoutError,
    RedisSemaphore,
    RedisSemaphoreTimeoutError,
    Router,
    SemaphoreInitStrategy,
    Timer,
    Timers,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn
from .helpers import renew

ROOT: Final = Path(__file__).parent.parent.parent
PROTOCOL: Final = ROOT / "src" / "redsync" / "_protocol"
CODE: Final = ("_protocol/*.py", "_async/*.py", "_runtime/*.py")

SENT: Final = re.compile(
    r"""(?:\bpack(?:_arguments\()?\(|_change\(|\bcall\(|^\s*\()["']([A-Z]+)["']""", re.MULTILINE
)
"""Where a command's name stands in the sources: pack("X", self._change("X", ("X", and call('X'."""

BY_OTHERS: Final = {"select"}
"""What redis-py sends when it connects."""

CHOSEN: Final = {"hscan"}
"""What the code chooses when it runs."""

IN_CLUSTERS: Final = {"asking"}

TRIED: Final = {"client", "client|setinfo"}
"""What redis-py tries, and does without."""


def permissions() -> list[list[str]]:
    """The words of the two examples: for everything, and for a semaphore without scripts."""
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    found = re.findall(r"^```text\n(ACL SETUSER .*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [example.split() for example in found]


def granted(words: list[str]) -> set[str]:
    """The commands that an example allows."""
    return {word[1:] for word in words if word.startswith("+")}


def named_in(text: str) -> set[str]:
    """The commands that a source sends."""
    return {name.lower() for name in SENT.findall(text)}


async def with_user(server: Server, words: list[str]) -> Redis:
    """Make the user of an example, and be that user."""
    admin: Any = connect(server)
    assert words[:3] == ["ACL", "SETUSER", "app"]
    await admin.execute_command("ACL", "SETUSER", "app", *words[3:])
    await disconnect(admin)
    return connect(server, username="app", password="secret", db=1)


async def refused(server: Server) -> set[str]:
    """What users were not allowed to do since the server's start."""
    admin: Any = connect(server, decode_responses=True)
    log = await admin.execute_command("ACL", "LOG")
    await disconnect(admin)
    entries = [
        entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
        for entry in log
    ]
    return {str(entry["object"]) for entry in entries} - TRIED


async def use_semaphore(server: Server, user: Redis, strategy: SemaphoreInitStrategy) -> None:
    """Have every command sent, those of rare occasions too."""
    semaphore = await RedisSemaphore.create(
        user, "x", count=2, permit_ttl=1, semaphore_init_strategy=strategy
    )
    first, second = await semaphore.acquire(), await semaphore.acquire()
    with pytest.raises(RedisSemaphoreTimeoutError):
        await semaphore.acquire(timeout=0.05)
    waiting = [spawn(semaphore.acquire) for _ in range(2)]
    await semaphore.resize(3)
    await eventually(lambda: any(each.done() for each in waiting))
    await first.release()
    await second.release()
    permits = [await each.result() for each in waiting]
    await semaphore.resize(1)
    admin = connect(server, db=1)
    await admin.delete("redsync:semaphore:{x}:held")  # as eviction would
    renew(semaphore)
    await eventually(lambda: _has(admin, "redsync:semaphore:{x}:held"))
    await admin.flushdb()
    renew(semaphore)
    await eventually(lambda: _has(admin, "redsync:semaphore:{x}:meta"))
    await disconnect(admin)
    for permit in permits:
        await permit.release()
    async with semaphore.permit(timeout=5):
        assert (await semaphore.status()).count == await semaphore.get_count()
    await semaphore.close()


async def _has(client: Redis, key: str) -> bool:
    return bool(await client.exists(key))


async def use_event(server: Server, user: Redis) -> None:
    """Have every command sent, those of rare occasions too."""
    event = RedisEvent(user, "x")
    await event.set()
    await event.wait(timeout=0)
    waiting = spawn(event.wait)
    await event.set()
    await waiting.result()
    await event.set()
    assert await event.is_set()
    admin = connect(server, db=1)
    await admin.delete("redsync:event:{x}:open")  # as eviction would
    # Popped by one that died; and one more is left, for the tend to look at.
    await event.set()
    await admin.lpop("redsync:event:{x}:signals")
    await disconnect(admin)
    await event.wait(timeout=0)
    with pytest.raises(RedisEventTimeoutError):
        await event.wait(timeout=0.05)
    await event.clear()
    await event.close()


async def use_timers(server: Server, user: Redis) -> None:
    """Have every command sent, those of rare occasions too."""
    router = Router()
    seen: list[object] = []
    now = timedelta(0)

    @router.handler(topic="x", lease=0.2, max_attempts=1)
    async def handle(data: object) -> None:
        seen.append(data)
        await sleep(0.3 if data == "long" else 0)
        if data == "bad":
            raise ValueError

    admin: Any = connect(server, db=1)
    await admin.zadd("timers_timeline", {"x--theirs": 1})  # as redis-timers does
    await admin.hset("timers_payloads", "x--theirs", '"theirs"')
    await disconnect(admin)
    timers = Timers(redis_client=user, routers=[router])
    async with timers:
        await eventually(lambda: "theirs" in seen)
        await timers.set_timers([Timer("x", each, each, now) for each in ("long", "bad")])
        await timers.set_timer("x", "often", "often", every=timedelta(seconds=0.05))
        await eventually(lambda: seen.count("often") == 3)
        await timers.remove_timer("x", "often")
        await timers.set_timer("x", "later", "later", timedelta(hours=1))
        assert await timers.remove_timer("x", "later")
    timers = Timers(redis_client=user, routers=[router])
    assert len(await timers.fetch_dead_timers()) == 1
    await timers.fetch_all_timers()
    await timers.fetch_ready_timers(datetime.now(timezone.utc))
    assert await timers.revive_timer("x", "bad")
    assert await timers.handle_ready_timers() == 1
    assert await timers.discard_timer("x", "bad")
    await timers.close()


@pytest.mark.punctual
async def test_the_permissions_are_enough(
    make_server: Callable[..., Server], strategy: SemaphoreInitStrategy
) -> None:
    server = make_server()
    user = await with_user(server, permissions()[0])
    await use_semaphore(server, user, strategy)
    await use_event(server, user)
    await use_timers(server, user)
    await disconnect(user)
    assert await refused(server) == set()


@pytest.mark.punctual
async def test_a_semaphore_without_scripts_needs_fewer(make_server: Callable[..., Server]) -> None:
    server = make_server()
    user = await with_user(server, permissions()[1])
    await use_semaphore(server, user, SemaphoreInitStrategy.OPTIMISTIC_LOCKING)
    await disconnect(user)
    assert await refused(server) == set()


async def test_a_refusal_is_told(make_server: Callable[..., Server]) -> None:
    # The control: the log has what is refused.
    server = make_server()
    user = await with_user(server, permissions()[1])
    with pytest.raises(Exception, match=r"docs/guarantees\.md"):
        await RedisEvent(user, "x").set()
    await disconnect(user)
    assert await refused(server) & {"eval", "evalsha"}


def test_the_permissions_are_those_of_the_sources() -> None:
    folder = PROTOCOL.parent
    code = [
        path.read_text("utf-8")
        for glob in CODE
        for path in folder.glob(glob)
        if path.name != "trouble.py"  # it names errors
    ]
    scripts = [path.read_text("utf-8") for path in (PROTOCOL / "lua").rglob("*.lua")]
    everything = set[str]().union(*map(named_in, [*code, *scripts]))
    assert granted(permissions()[0]) == everything - IN_CLUSTERS | BY_OTHERS | CHOSEN
    transactions = [PROTOCOL / "transitions.py", folder / "_async" / "optimistic.py"]
    transactions.append(folder / "_async" / "waiting.py")
    without = set[str]().union(*(named_in(path.read_text("utf-8")) for path in transactions))
    assert granted(permissions()[1]) == without | BY_OTHERS
