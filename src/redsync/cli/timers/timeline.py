"""What Redis knows of timers that are not dead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeVar

from ..._instants import datetime_of
from ..._protocol.resp import Reply, pack
from ..._protocol.scripts import Command
from ..._protocol.timers import LAST_INSTANT, MOST, Record, parse_record, readable, texts
from .target import AnyTimers, given

__all__ = ["Armed", "fetch", "fetch_time", "remove"]

_FEW: Final = 50
"""Payloads for one answer: each may be large."""

T = TypeVar("T")

State = Literal["armed", "waiting", "running", "retrying"]


@dataclass(frozen=True)
class Armed:
    """A timer that is not dead."""

    topic: str
    timer_id: str
    due: datetime
    state: State
    """Whether its time has not come; it has, and nobody has taken it; it runs; or it has failed and
    will run again."""
    attempts: int
    """How often it has begun to run since it was due."""
    every: timedelta | None
    payload: bytes | None


async def fetch(
    timers: AnyTimers, topic: str | None = None, limit: int | None = None
) -> tuple[list[Armed], int, datetime]:
    """The first timers by due time, of a topic or of all; how many there are; the server's time."""
    scores = await given(timers._pages("timeline"))
    now = await fetch_time(timers)
    members = sorted(scores, key=lambda each: (float(scores[each]), each))
    known = await _topics(timers)
    keys, separator = timers._scripts.keys, timers._separator.encode()
    chosen: list[tuple[bytes, Record]] = []
    count = len(members)
    if topic is None:
        members = members[:limit]
    for some in _batches(members, MOST):
        for member, text in zip(some, await _fields(timers, keys.state, some), strict=True):
            found = _noted(text) or _guess(member, known, separator)
            if topic is None or member[: found.topic_length] == topic.encode():
                chosen.append((member, found))
    if topic is not None:
        count = len(chosen)
        chosen = chosen[:limit]
    payloads: list[bytes | None] = []
    for batch in _batches(chosen, _FEW):
        payloads += await _fields(timers, keys.payloads, [member for member, _ in batch])
    armed = []
    for (member, record), payload in zip(chosen, payloads, strict=True):
        due = _instant(scores[member])
        armed.append(
            Armed(
                topic=readable(member[: record.topic_length]),
                timer_id=readable(member[record.topic_length + len(separator) :]),
                due=due,
                state=_state(record, due <= now),
                attempts=record.attempts,
                every=None if record.every is None else timedelta(microseconds=record.every),
                payload=payload,
            )
        )
    return armed, count, now


async def fetch_time(timers: AnyTimers) -> datetime:
    """The server's time."""
    seconds, micros = map(int, texts(await given(timers._ask(Command(pack("TIME"))))))
    return datetime_of(seconds * 1_000_000 + micros)


async def remove(timers: AnyTimers, topic: str, timer_id: str) -> str:
    """Remove a timer, also of a topic without a handler.

    Returns:
        "cancelled"; "started", if a run of it has begun, but no other one will; or "absent".
    """
    reply = await given(timers._cancel(topic, timer_id))
    assert isinstance(reply, bytes)
    return reply.decode()


def _state(record: Record, due: bool) -> State:
    if record.runs:
        return "running"
    if record.attempts:
        return "retrying"
    return "waiting" if due else "armed"


def _noted(record: bytes | None) -> Record | None:
    """What is noted of a timer, unless that makes no sense."""
    try:
        return None if record is None else parse_record(record)
    except ValueError:
        return None


def _guess(member: bytes, topics: Sequence[bytes], separator: bytes) -> Record:
    """Of a timer that redis-timers has armed, only its name tells the topic."""
    for topic in topics:
        if member.startswith(topic + separator):
            return Record(len(topic))
    return Record(len(member.partition(separator)[0]))


def _instant(score: bytes) -> datetime:
    return datetime_of(min(max(0, round(min(float(score), 1e10) * 1e6)), LAST_INSTANT))


async def _topics(timers: AnyTimers) -> list[bytes]:
    """All that workers were ever run for, and those known here; the longest first."""
    noted = texts(await given(timers._ask(timers._scripts.topics())))
    return sorted({*noted, *(each.encode() for each in timers.handlers_by_topics)}, key=len)[::-1]


async def _fields(timers: AnyTimers, key: bytes, fields: Sequence[bytes]) -> list[bytes | None]:
    reply: Reply = await given(timers._ask(Command(pack("HMGET", key, *fields))))
    assert isinstance(reply, list)
    return [each if isinstance(each, bytes) else None for each in reply]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
