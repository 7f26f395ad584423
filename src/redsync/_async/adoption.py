"""Timers that redis-timers has armed: found in the timeline, and indexed for the workers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Final

from redis import exceptions

from .._protocol.timers import parse_scanned, texts
from .._runtime.aio import Worker
from .schedule import Schedule

_log = logging.getLogger("redsync")

_INTERVAL: Final = 10.0
"""Seconds between two passes at least: most likely others come."""

_WHOLE: Final = 900.0
"""Seconds after which there is a pass even if nothing seems to have changed."""


class Adoption:
    """A worker's passes over the timeline: at its start, and when there are timers without a record
    other than those that it left alone, as they are not of its topics.  What has lost its entry in
    an index is found at a start.

    Args:
        schedule: The way to Redis.
        separator: Between topic and id.
    """

    def __init__(self, schedule: Schedule, separator: str) -> None:
        self._schedule = schedule
        self._separator = separator.encode()
        self._topics: frozenset[str] = frozenset()
        self._left = -1
        self._next = 0.0
        self._whole = 0.0
        self._worker: Worker | None = None

    def look(self, unindexed: int, topics: Iterable[str]) -> None:
        """Begin a pass in the background, if there is a reason for one."""
        now = monotonic()
        if self._worker is not None and self._worker.alive:
            return
        known = frozenset(topics)
        changed = known != self._topics
        if (
            changed
            or (now >= self._next and unindexed != self._left)
            or (unindexed and now >= self._whole)
        ):
            self._topics = known
            self._next = now + _INTERVAL
            self._whole = now + _WHOLE
            self._worker = Worker(partial(self._pass, known), "redsync-adoption")

    async def _pass(self, topics: frozenset[str]) -> None:
        try:
            await self._schedule.ask(self._schedule.scripts.register(topics))
            self._left = await self._adopt_all(topics)
        except (exceptions.RedisError, OSError) as error:
            _log.warning("redsync: looking for timers of redis-timers failed: %s", error)
            self._left = -1
        except Exception:
            _log.exception("redsync: looking for timers of redis-timers failed")

    async def _adopt_all(self, topics: frozenset[str]) -> int:
        """Go through the timeline; returns how many were left to others."""
        ask, scripts = self._schedule.ask, self._schedule.scripts
        everybodys = sorted(texts(await ask(scripts.topics())), key=len, reverse=True)
        cursor, left = b"0", 0
        while True:
            page = await ask(scripts.scan(cursor, topics))
            cursor, unknown, wrong = parse_scanned(page)
            found = [(self._topic_of(each, everybodys), each) for each in unknown + wrong]
            left += sum(topic not in topics for topic, _ in found[: len(unknown)])
            ours = [(topic, member) for topic, member in found if topic in topics]
            if ours:
                await ask(scripts.adopt(ours))
            if cursor == b"0":
                return left

    def _topic_of(self, member: bytes, topics: list[bytes]) -> str:
        """The longest topic that it may be of; others must leave it to the workers of that one."""
        for topic in topics:
            if member.startswith(topic + self._separator):
                return topic.decode()
        return ""
