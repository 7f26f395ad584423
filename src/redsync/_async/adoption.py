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
from ..exceptions import RedisTimersError
from .schedule import Schedule

_log = logging.getLogger("redsync")

_INTERVAL: Final = 10.0
"""Seconds between two passes at least: most likely others come."""

_PATIENCE: Final = 1.0
"""Seconds to wait for a page. A worker that ends waits for that, too."""

_WHOLE: Final = 3600.0
"""Seconds after which there is a pass even if nothing seems to have changed: redis-timers may have
removed as many as it has armed."""

_AMONG_OTHERS: Final = 300.0
"""The same while some were left to others: these may have adopted theirs, and as many of ours have
come.
"""


class Adoption:
    """Passes over the timeline: at the start of a worker, and when there are more timers without a
    record than those that were left alone, as they are of other topics. A pass also finds what has
    lost its entry in an index.

    Args:
        separator: Between topic and id.
    """

    def __init__(self, separator: str) -> None:
        self._separator = separator.encode()
        self._topics: frozenset[str] = frozenset()
        self._left = 0
        self._adopted = 0
        self._next = 0.0
        self._whole = 0.0
        self._worker: Worker | None = None
        self._ending = False

    def look(self, schedule: Schedule, unindexed: int, topics: Iterable[str]) -> None:
        """Begin a pass in the background, if there is a reason for one."""
        if self._worker is not None and self._worker.alive:
            return
        now, known = monotonic(), frozenset(topics)
        others = self._others(unindexed) and now >= self._next
        if others or known != self._topics or now >= self._whole:
            self._ending = False
            self._worker = Worker(partial(self._try, schedule, known), "redsync-adoption")

    async def end(self) -> None:
        """Have a pass in the background end; after it a connection would be left behind."""
        self._ending = True
        if self._worker is not None:
            await self._worker.join(2 * _PATIENCE)

    def forget(self) -> None:
        """Have the next `look_now` make a pass if there is any timer without a record."""
        self._left = 0

    async def look_now(self, schedule: Schedule, unindexed: int, topics: Iterable[str]) -> bool:
        """Make a pass, if there are timers for it; tells whether it has adopted any."""
        self._adopted = 0
        if self._others(unindexed):
            self._ending = False  # an earlier worker may have ended
            await self._pass(schedule, frozenset(topics))
        return self._adopted > 0

    def _others(self, unindexed: int) -> bool:
        """Whether there are more than those that were left alone."""
        if unindexed < self._left:
            self._left = max(0, unindexed)  # less than 0: redis-timers has removed ours
        return unindexed > self._left

    async def _try(self, schedule: Schedule, topics: frozenset[str]) -> None:
        try:
            await self._pass(schedule, topics)
        except (exceptions.RedisError, OSError, RedisTimersError) as error:
            _log.warning("redsync: looking for timers of redis-timers failed: %s", error)
        except Exception:
            _log.exception("redsync: looking for timers of redis-timers failed")

    async def _pass(self, schedule: Schedule, topics: frozenset[str]) -> None:
        now = monotonic()
        self._topics, self._next, self._whole = topics, now + _INTERVAL, now + _WHOLE
        self._left = -1  # should this fail
        await schedule.ask(schedule.scripts.register(topics), _PATIENCE)
        self._left = await self._adopt_all(schedule, topics)
        if self._left > 0:
            self._whole = now + _AMONG_OTHERS

    async def _adopt_all(self, schedule: Schedule, topics: frozenset[str]) -> int:
        """Go through the timeline; returns how many were left to others."""
        ask, scripts = partial(schedule.ask, patience=_PATIENCE), schedule.scripts
        everybodys = sorted(texts(await ask(scripts.topics())), key=len, reverse=True)
        cursor, left = b"0", 0
        while True:
            page = await ask(scripts.scan(cursor, topics))
            cursor, unknown, wrong = parse_scanned(page)
            found = [(self._topic_of(each, everybodys), each) for each in unknown + wrong]
            left += sum(topic not in topics for topic, _ in found[: len(unknown)])
            ours = [(topic, member) for topic, member in found if topic in topics]
            if ours:
                adopted = await ask(scripts.adopt(ours))
                assert isinstance(adopted, int)
                self._adopted += adopted
            if cursor == b"0":
                return left
            if self._ending:
                return -1

    def _topic_of(self, member: bytes, topics: list[bytes]) -> str:
        """The longest topic that it may be of; others must leave it to the workers of that one."""
        for topic in topics:
            if member.startswith(topic + self._separator):
                return topic.decode("utf-8", "surrogateescape")
        return ""
