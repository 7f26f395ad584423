"""Semaphores, an event and timers in constant use, whatever becomes of the servers meanwhile.

    traffic = Traffic(client, "n", "tasks", permit_ttl=5)
    await traffic.run()         # until somebody sets traffic.going to False

It notes what it was given and told, and judges nothing: `support.failover` does that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from redsync.aio import RedisEvent, RedisSemaphore, Router, Timers
from redsync.exceptions import RedisEventTimeoutError, RedisSemaphoreTimeoutError

from ..support.aio import Redis, RedisCluster, eventually, sleep, together
from ..support.failover import Held, Journal

COUNT = 2
SEMAPHORES = 2
CONTENDERS = 3

_PATIENCE = 15.0
_PAUSE = 0.01
_LULL = 2.0


class Traffic:
    """What one client does.

    Args:
        client: Of whatever kind.
        name: What the names begin with; others may use the same.
        who: Told apart by this.
        options: For the semaphores.
    """

    def __init__(self, client: Redis | RedisCluster, name: str, who: str, **options: Any) -> None:
        self.journal = Journal()
        self.going = True
        self._client = client
        self._name = name
        self._who = who
        self._random = random.Random(who)
        self._semaphores = [
            RedisSemaphore(client, f"{name}-{n}", count=COUNT, **options) for n in range(SEMAPHORES)
        ]
        self._event = RedisEvent(client, f"{name}-event")
        self._numbers = 0
        self._last = ""

    async def run(self) -> None:
        """Be busy until `going` is false; then let everything end well."""
        router = Router()
        router.handler(topic=self._who)(self._handle)
        timers = Timers(redis_client=self._client, timeline_key=self._name, routers=[router])
        async with timers:
            calls: list[Callable[[], Any]] = [
                partial(self._contend, semaphore, hold)
                for semaphore in self._semaphores
                for hold in [0.5] + [0.02] * (CONTENDERS - 1)
            ]
            calls += [self._set, self._wait, partial(self._arm, timers)]
            await together(*calls, timeout=120)
            await eventually(self._all_run, 10)
        for each in self._semaphores:
            await each.close()
        await self._event.close()

    async def _contend(self, semaphore: RedisSemaphore, hold: float) -> None:
        while self.going:
            held = Held(semaphore.name, self._who, asked=monotonic())
            try:
                permit = await semaphore.acquire(_PATIENCE)
            except (RedisError, OSError, RedisSemaphoreTimeoutError) as error:
                self.journal.errors.append((monotonic(), "acquire", error))
                await sleep(_PAUSE)
                continue
            held.take(permit.slot, permit.fence)
            self.journal.held.append(held)
            end = monotonic() + self._random.uniform(0, 2 * hold)
            while held.look(permit) and monotonic() < end:
                await sleep(0.005)
            await self._attempt("release", permit.release)

    async def _set(self) -> None:
        while self.going:
            if await self._attempt("set", self._event.set):
                self.journal.sets.append(monotonic())
            await sleep(0.02)

    async def _wait(self) -> None:
        while self.going:
            try:
                await self._event.wait(_LULL)
            except RedisEventTimeoutError:
                pass
            except (RedisError, OSError) as error:
                self.journal.errors.append((monotonic(), "wait", error))
                await sleep(_PAUSE)
            else:
                self.journal.wakes.append(monotonic())

    async def _arm(self, timers: Timers) -> None:
        while self.going:
            self._numbers += 1
            number = f"{self._who}-{self._numbers}"
            after = timedelta(seconds=self._random.uniform(0, 0.2))
            arming = partial(timers.set_timer, self._who, number, number, after)
            if await self._attempt("arm", arming):
                self.journal.armed[number] = monotonic()
                self._last = number
            await sleep(0.03)

    def _all_run(self) -> bool:
        # What was armed shortly before a master died may have died with it.
        return not self.journal.armed or self._last in {run for _, run in self.journal.runs}

    def _handle(self, number: str) -> None:
        self.journal.runs.append((monotonic(), number))

    async def _attempt(self, what: str, call: Callable[[], Any]) -> bool:
        try:
            await call()
        except (RedisError, OSError) as error:
            self.journal.errors.append((monotonic(), what, error))
            return False
        return True
