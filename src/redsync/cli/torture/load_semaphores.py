"""Contenders for permits."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import redis

from redsync.exceptions import RedisSemaphoreError, RedisSemaphoreTimeoutError

from ..orders import Orders
from .history import Entry, Journal
from .terms import CANCELLATIONS, CANCELLED, PERMIT_TTL, SEMAPHORES, TRY, strategy_for
from .world import CancelledCallError, World

__all__ = ["Contender", "open_semaphores"]

_TIMEOUTS: Final = (None, None, 0, 0.3, 1.0, 3.0, 8.0)
_SHORT: Final = (0.0, 0.3)
_LONG: Final = (1.0, 2.5 * PERMIT_TTL)
_SELDOM: Final = 0.15
_REST: Final = (0.0, 0.15)
_LOOK: Final = 0.1
_RESIZE: Final = (2.0, 20.0)


def open_semaphores(world: World, client: Any, seat: int, worker: str) -> dict[str, Any]:
    """All semaphores, by name."""
    return {
        each.name: world.package.RedisSemaphore(
            client,
            each.name,
            count=each.fixed,
            permit_ttl=PERMIT_TTL,
            semaphore_init_strategy=world.package.SemaphoreInitStrategy(strategy_for(each, seat)),
            identifier=worker,
        )
        for each in SEMAPHORES
    }


class Contender:
    """A task or thread that uses the semaphores.

    Args:
        deaf: Have it believe in a permit whatever that says: a fault that the checks must find.
    """

    def __init__(
        self,
        world: World,
        journal: Journal,
        orders: Orders,
        rng: random.Random,
        semaphores: dict[str, Any],
        *,
        deaf: bool = False,
    ) -> None:
        self._world = world
        self._journal = journal
        self._orders = orders
        self._rng = rng
        self._semaphores = semaphores
        self._deaf = deaf

    async def run(self) -> None:
        """Acquire and release permits, until told to rest."""
        names = list(self._semaphores)
        while not self._orders.given("rest"):
            await self._once(self._rng.choice(names), self._rng.choice(_TIMEOUTS))
            await self._world.sleep(self._rng.uniform(*_REST))

    async def resize(self) -> None:
        """Change the number of permits of those that are resized, until told to rest."""
        while not self._orders.given("rest"):
            for each in SEMAPHORES:
                if each.fewest is not None:
                    await self._resize(each.name, self._rng.randint(each.fewest, each.count))
            await self._world.sleep(self._rng.uniform(*_RESIZE))

    async def _resize(self, name: str, count: int) -> None:
        entry = self._journal.begin("resize", name, count=count)
        try:
            await self._world.call(self._semaphores[name].resize, count)
        except RedisSemaphoreError as error:  # somebody else was faster
            entry.end("fail", error=str(error))
        except (redis.RedisError, OSError) as error:
            entry.end("unknown", error=f"{type(error).__name__}: {error}")
        else:
            entry.end("ok")

    async def _once(self, name: str, timeout: float | None) -> None:
        entry = self._journal.begin("acquire", name, timeout=timeout)
        try:
            permit = await self._acquire(self._semaphores[name].acquire, timeout)
        except RedisSemaphoreTimeoutError:
            entry.end("fail", error="timeout")
        except CancelledCallError:
            entry.end("fail", error=CANCELLED)
        except (redis.RedisError, OSError) as error:
            entry.end("unknown", error=f"{type(error).__name__}: {error}")
        else:
            now = monotonic()  # before remaining(): the sum must not be optimistic
            until = now + permit.remaining()
            entry.end("ok", at=now, slot=permit.slot, fence=permit.fence)
            entry.look(now, until)
            await self._hold(entry, permit)
            await self._release(entry, name, permit)

    async def _acquire(self, acquire: Callable[..., Any], timeout: float | None) -> Any:
        if self._rng.random() < CANCELLATIONS:
            return await self._world.try_for(self._rng.uniform(*TRY), acquire, timeout)
        return await self._world.call(acquire, timeout)

    async def _hold(self, entry: Entry, permit: Any) -> None:
        length = self._rng.uniform(*(_LONG if self._rng.random() < _SELDOM else _SHORT))
        if self._deaf:
            length += 4 * PERMIT_TTL  # longer than any outage of a test
        end = monotonic() + length
        while not self._orders.given("rest") and (left := end - monotonic()) > 0:
            await self._world.sleep(min(_LOOK, left))
            self._look(entry, permit)

    def _look(self, entry: Entry, permit: Any) -> bool:
        now = monotonic()
        remaining = permit.remaining() or (PERMIT_TTL if self._deaf else 0)
        if remaining:
            entry.look(now, now + remaining)
        return bool(remaining)

    async def _release(self, acquired: Entry, name: str, permit: Any) -> None:
        lost = not self._look(acquired, permit)
        entry = self._journal.begin("release", name, acquired=acquired.number, lost=lost)
        try:
            await self._world.call(permit.release)
        except (redis.RedisError, OSError) as error:
            entry.end("unknown", error=f"{type(error).__name__}: {error}")
        else:
            entry.end("ok")
