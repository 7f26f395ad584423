"""What is found when all faults are over."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import redis

from redsync.sync import RedisSemaphore, RedisSemaphoreTimeoutError

from .history import Journal
from .terms import GRACE, PERMIT_TTL, SEMAPHORES, Shared
from .verdict import ALLOWANCE

__all__ = ["Judge"]

_ALL_BACK: Final = PERMIT_TTL + GRACE / 2 + 2 * ALLOWANCE
"""Seconds after which every permit of a dead holder can be had."""
_SETTLING: Final = 5.0


class Judge:
    """Looks at everything once the workers rest.

    Args:
        client: Directly to the server.
        journal: Where to write what was found.
    """

    def __init__(self, client: redis.Redis, journal: Journal) -> None:
        self._client = client
        self._journal = journal

    def look(self) -> None:
        """Look at everything, at once."""
        looks: list[Callable[[], None]] = [self._semaphores]
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
            count=shared.count,
            permit_ttl=PERMIT_TTL,
            identifier="judge",
        )
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
