"""Those who set events, and those who wait for them."""

from __future__ import annotations

import random
from time import monotonic
from typing import Any, Final

import redis

from redsync.exceptions import RedisEventTimeoutError

from ..orders import Orders
from .history import Journal
from .terms import CANCELLATIONS, CANCELLED, SEATS, TRY, event_name
from .world import CancelledCallError, World

__all__ = ["Events"]

_TIMEOUTS: Final = (0, 0.3, 1.0, 4.0, 8.0)
_SET: Final = (0.05, 0.6)
_REST: Final = (0.0, 0.2)


class Events:
    """What a worker does with events.

    There is a new event for each seat every few seconds, so that a wait whose end nobody knows
    makes but one sum uncertain.  Everybody sets it, and two seats wait for it.

    Args:
        echo: Have it set each event twice: a fault that the checks must find.
    """

    def __init__(
        self,
        world: World,
        client: Any,
        journal: Journal,
        orders: Orders,
        seat: int,
        *,
        echo: bool = False,
    ) -> None:
        self._world = world
        self._client = client
        self._journal = journal
        self._orders = orders
        self._seat = seat
        self._echo = echo
        self._events: dict[str, Any] = {}

    async def set(self, rng: random.Random) -> None:
        """Set events until told to rest."""
        while not self._orders.given("rest"):
            name = event_name(monotonic(), rng.randrange(SEATS))
            event = await self._event(name)
            entry = self._journal.begin("set", name)
            try:
                await self._world.call(event.set)
                if self._echo:
                    await self._world.call(event.set)
            except (redis.RedisError, OSError) as error:
                entry.end("unknown", error=f"{type(error).__name__}: {error}")
            else:
                entry.end("ok")
            await self._world.sleep(rng.uniform(*_SET))

    async def wait(self, rng: random.Random) -> None:
        """Wait for events until told to rest."""
        while not self._orders.given("rest"):
            name = event_name(monotonic(), (self._seat + rng.randrange(2)) % SEATS)
            event = await self._event(name)
            timeout = rng.choice(_TIMEOUTS)
            entry = self._journal.begin("wait", name, timeout=timeout)
            try:
                if rng.random() < CANCELLATIONS:
                    await self._world.try_for(rng.uniform(*TRY), event.wait, timeout)
                else:
                    await self._world.call(event.wait, timeout)
            except RedisEventTimeoutError:
                entry.end("fail", error="timeout")
            except CancelledCallError:
                entry.end("fail", error=CANCELLED)
            except (redis.RedisError, OSError) as error:
                entry.end("unknown", error=f"{type(error).__name__}: {error}")
            else:
                entry.end("ok")
            await self._world.sleep(rng.uniform(*_REST))

    async def close(self) -> None:
        """Close all."""
        for event in list(self._events.values()):
            await self._world.call(event.close)

    async def _event(self, name: str) -> Any:
        event = self._events.get(name)
        if event is None:
            event = self._world.package.RedisEvent(self._client, name)
            # Two threads may have made one; both are good, and the forgotten one has no state.
            event = self._events.setdefault(name, event)
        return event
