"""What is found when all faults are over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, Final

import redis

from redsync.sync import (
    RedisEvent,
    RedisEventTimeoutError,
    RedisSemaphore,
    RedisSemaphoreTimeoutError,
    Timers,
)

from ..._instants import micros_of
from .history import Journal
from .load_timers import SERIES, options, router_for
from .terms import GRACE, OWN_TRY, PERMIT_TTL, SEMAPHORES, Shared
from .verdict import ALLOWANCE

__all__ = ["Judge"]

_ALL_BACK: Final = PERMIT_TTL + GRACE / 2 + 2 * ALLOWANCE
"""Seconds after which every permit of a dead holder can be had."""
_SETTLING: Final = 5.0
_REDELIVERY: Final = 9.0
"""Seconds after which the signal of a dead waiter has come to another one."""
_ALL_RUN: Final = 40.0
"""Seconds after which all attempts of all timers are over."""
_AT_ONCE: Final = 100
_STEP: Final = 0.2


class Judge:
    """Looks at everything once the workers rest.

    Args:
        client: Directly to the server.
        journal: Where to write what was found.
        events: The names of all events.
    """

    def __init__(self, client: redis.Redis, journal: Journal, events: Sequence[str]) -> None:
        self._client = client
        self._journal = journal
        self._names = events

    def look(self) -> None:
        """Look at everything, at once."""
        looks: list[Callable[[], None]] = [self._semaphores, self._events, self._timers]
        with ThreadPoolExecutor(len(looks)) as pool:
            for each in [pool.submit(look) for look in looks]:
                each.result()

    # Semaphores

    def _semaphores(self) -> None:
        with ThreadPoolExecutor(len(SEMAPHORES)) as pool:
            found = dict(zip(
                [each.name for each in SEMAPHORES], pool.map(self._semaphore, SEMAPHORES),
                strict=True,
            ))  # fmt: skip
        self._journal.write(finds={"semaphores": found})

    def _semaphore(self, shared: Shared) -> dict[str, Any]:
        """Have all permits at once, and give them back."""
        semaphore = RedisSemaphore(
            self._client,
            shared.name,
            count=shared.fixed,
            permit_ttl=PERMIT_TTL,
            identifier="judge",
        )
        if shared.fixed is None:
            sleep(OWN_TRY + ALLOWANCE)  # for those who were about to resize it
            semaphore.resize(shared.count)
        began = monotonic()
        permits = []
        with suppress(RedisSemaphoreTimeoutError):
            for _ in range(shared.count):
                left = began + _ALL_BACK - monotonic()
                permits.append(semaphore.acquire(max(0.0, left)))
        took = monotonic() - began
        found: dict[str, Any] = {"granted": len(permits), "took": took}
        found["held"] = self._settled(semaphore, [0, shared.count, 0])
        for permit in permits:
            permit.release()
        found["free"] = self._settled(semaphore, [shared.count, 0, 0])
        semaphore.close()
        return found

    def _settled(self, semaphore: RedisSemaphore, wanted: list[int]) -> list[int]:
        """Free, held and missing permits: as soon as they are as wanted, or what they are then."""
        deadline = monotonic() + _SETTLING
        while True:
            status = semaphore.status()
            now = [status.free, len(status.held), status.missing]
            if now == wanted or monotonic() > deadline:
                return now

    # Events

    def _events(self) -> None:
        """Take all signals that are left, those of the dead ones too."""
        for batch in _batches(self._names):
            with ThreadPoolExecutor(len(batch)) as pool:
                list(pool.map(self._drain, batch))
        self._journal.write(finds={"events": len(self._names)})

    def _drain(self, name: str) -> None:
        event = RedisEvent(self._client, name)
        while True:
            entry = self._journal.begin("wait", name, timeout=_REDELIVERY)
            try:
                event.wait(_REDELIVERY)
            except RedisEventTimeoutError:
                entry.end("fail", error="timeout")
                break
            entry.end("ok")
        event.close()

    # Timers

    def _timers(self) -> None:
        """End the series, and wait until all that is due has run."""
        timers = Timers(
            redis_client=self._client, routers=[router_for(lambda payload: None)], **options()
        )
        entry = self._journal.begin("remove", f"beat:{SERIES}")
        entry.end("ok", removed=timers.remove_timer("beat", SERIES))
        deadline = monotonic() + _ALL_RUN
        while (left := timers.fetch_all_timers()[0]) and monotonic() < deadline:
            sleep(_STEP)
        dead = [
            {
                "name": f"{each.topic}:{each.timer_id}",
                "arming": json.loads(each.payload or b"{}").get("arming"),
                "attempts": each.attempts,
                "due": micros_of(each.scheduled_for),
                "error": each.error,
            }
            for each in timers.fetch_dead_timers()
        ]
        timers.close()
        self._journal.write(finds={"timers": {"left": left, "dead": dead}})


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _AT_ONCE):
        yield names[first : first + _AT_ONCE]
