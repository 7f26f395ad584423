"""Those who set and remove timers, and the handlers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

import redis

from redsync import Backoff, MissedRuns, Router, TimerRun

from ..._instants import micros_of
from ..orders import Orders
from .history import Entry, Journal
from .terms import BEAT, MAX_ATTEMPTS, TIMELINE, TIMER_LEASE, TOPICS
from .world import World

__all__ = ["SERIES", "Setter", "options", "router_for", "wall"]

SERIES: Final = "series"
"""The id of the recurring timer."""

_PAUSE: Final = Backoff(0.1, factor=2, maximum=1.0)
_SET: Final = (0.05, 0.5)
_PERIOD: Final = (0.0, 3.0)
_SHARED: Final = 8
_TICK: Final = 0.1
_TAKE: Final = {"quick": (0.0, 0.05), "long": (0.3, 1.6 * TIMER_LEASE), "flaky": (0.0, 0.1)}
_LONG_FAILURES: Final = 0.3
_FAILS: Final = (1, 1, 1, 2, 3, MAX_ATTEMPTS + 1)


class Failure(Exception):
    """One that belongs to the play."""


def wall() -> int:
    """The time of day, in microseconds, by the machine's clock."""
    return time.time_ns() // 1000


def router_for(handler: Callable[..., Any]) -> Router:
    """A router that has this handler for each topic."""
    router = Router()
    for topic in TOPICS:
        router.handler(topic=topic, lease=TIMER_LEASE, max_attempts=MAX_ATTEMPTS, backoff=_PAUSE)(
            handler
        )
    return router


def options() -> dict[str, Any]:
    """Where the timers are, for `Timers`, whatever the environment says."""
    return {
        "timeline_key": TIMELINE,
        "payloads_key": f"{TIMELINE}:payloads",
        "separator": "--",
        "concurrency": 16,
    }


class Setter:
    """What a worker does with timers.

    Args:
        thief: Have it remove a timer's keys now and then: a fault that the checks must find.
    """

    def __init__(
        self,
        world: World,
        client: Any,
        journal: Journal,
        orders: Orders,
        rng: random.Random,
        name: str,
        *,
        thief: bool = False,
    ) -> None:
        self._world = world
        self._client = client
        self._journal = journal
        self._orders = orders
        self._rng = rng
        self._name = name
        self._thief = thief
        self._numbers = count()
        self._timers = world.package.Timers(
            redis_client=client, routers=[router_for(world.handler(self._act))], **options()
        )

    def working(self) -> AbstractAsyncContextManager[None]:
        """Run timers until the end of the body."""
        return self._world.running(self._timers)

    async def run(self) -> None:
        """Set and remove timers until told to rest."""
        if self._name == "0.1":
            await self._set("beat", SERIES, every=BEAT)
        while not self._orders.given("rest"):
            await self._once()
            await self._world.sleep(self._rng.uniform(*_SET))

    async def _once(self) -> None:
        chance = self._rng.random()
        topic = self._rng.choice(list(_TAKE))
        if chance < 0.25:
            shared = f"shared-{self._rng.randrange(_SHARED)}"
            if self._rng.random() < 0.7:
                await self._set(topic, shared, self._rng.uniform(*_PERIOD))
            else:
                await self._remove(topic, shared)
        elif chance < 0.4:
            own = f"{self._name}-{next(self._numbers)}"
            await self._set(topic, own, self._rng.uniform(0.5, 2.0))
            await self._world.sleep(self._rng.uniform(0.0, 2.5))
            await self._remove(topic, own)
        else:
            own = f"{self._name}-{next(self._numbers)}"
            await self._set(topic, own, max(0.0, self._rng.uniform(-0.5, _PERIOD[1])))
            if self._thief and self._rng.random() < 0.3:
                await self._world.call(self._client.zrem, TIMELINE, f"{topic}--{own}")

    async def _set(
        self, topic: str, timer_id: str, period: float = BEAT, every: float | None = None
    ) -> None:
        which = f"{topic}:{timer_id}"
        entry = self._journal.begin("arm", which, period=period, every=every, wall=wall())
        payload = {
            "arming": f"{self._name}:{entry.number}",
            "take": round(self._take(topic), 3),
            "fails": self._rng.choice(_FAILS) if topic == "flaky" else 0,
        }
        terms: dict[str, Any] = {}
        if every is not None:
            terms = {"every": timedelta(seconds=every), "missed": MissedRuns.ALL}
        try:
            due: datetime = await self._world.call(
                self._timers.set_timer,
                topic,
                timer_id,
                payload,
                timedelta(seconds=period),
                **terms,
            )
        except (redis.RedisError, OSError) as error:
            entry.end("unknown", error=f"{type(error).__name__}: {error}")
        else:
            entry.end("ok", due=micros_of(due), told=wall(), fails=payload["fails"])

    def _take(self, topic: str) -> float:
        """How long a run takes; some that fail are long enough to lose their lease before."""
        if topic == "flaky" and self._rng.random() < _LONG_FAILURES:
            topic = "long"
        return self._rng.uniform(*_TAKE.get(topic, (0.0, 0.0)))

    async def _remove(self, topic: str, timer_id: str) -> None:
        entry = self._journal.begin("remove", f"{topic}:{timer_id}")
        try:
            removed = await self._world.call(self._timers.remove_timer, topic, timer_id)
        except (redis.RedisError, OSError) as error:
            entry.end("unknown", error=f"{type(error).__name__}: {error}")
        else:
            entry.end("ok", removed=removed)

    async def _act(self, payload: dict[str, Any], run: TimerRun) -> None:
        """A handler."""
        entry = self._journal.begin(
            "run",
            f"{run.topic}:{run.timer_id}",
            arming=payload["arming"],
            attempt=run.attempt,
            fence=run.fence,
            due=micros_of(run.scheduled_for),
            wall=wall(),
        )
        self._look(entry, run)
        end = time.monotonic() + payload["take"]
        while (left := end - time.monotonic()) > 0:
            await self._world.sleep(min(_TICK, left))
            self._look(entry, run)
        if run.attempt <= payload["fails"]:
            entry.end("fail", lost=run.lost)
            raise Failure
        entry.end("ok", lost=run.lost)

    def _look(self, entry: Entry, run: TimerRun) -> None:
        now = time.monotonic()  # before remaining(): the sum must not be optimistic
        if remaining := run.remaining():
            entry.look(now, now + remaining)
