"""Timers: how late they are, how fast many that are due are run, and how fast they are set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from time import time

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, repeated, serve

from redsync.aio import Router, Timer, Timers

LEAD = 1.0
"""Seconds from the setting to the first instant."""
AWAY = timedelta(days=30)


def instants(number: int, span: float) -> list[float]:
    """Random times of day, the same each time but for the beginning."""
    rng, begin = random.Random(number), time() + LEAD
    return [begin + rng.uniform(0, span) for _ in range(number)]


class Runs:
    """A handler that notes how late it is called, and an end to wait for."""

    def __init__(self, number: int) -> None:
        self.late: list[float] = []
        self.done = asyncio.Event()
        self._number = number

    def note(self, due: float) -> None:
        """Called by the handler."""
        self.late.append(time() - due)
        if len(self.late) == self._number:
            self.done.set()

    def router(self) -> Router:
        """Of the one topic that there is."""
        router = Router()

        @router.handler(topic="t")
        async def handle(due: float) -> None:
            self.note(due)

        return router


async def lateness(url: str) -> Round:
    """Timers at random instants, and one worker."""
    client = Redis.from_url(url)

    async def round_(number: int, span: float) -> Answer:
        await client.flushall()
        runs = Runs(number)
        async with Timers(redis_client=client, routers=[runs.router()]) as timers:
            clock = Clock()
            for due in instants(number, span):
                at = datetime.fromtimestamp(due, timezone.utc)
                await timers.set_timer("t", str(due), due, activate_at=at)
            await runs.done.wait()
            return clock.answer(number, samples=runs.late)

    return round_


async def drain(url: str) -> Round:
    """Timers that are due already, and a worker that begins then."""
    client = Redis.from_url(url)

    async def round_(number: int) -> Answer:
        await client.flushall()
        runs = Runs(number)
        setter = Timers(redis_client=client, routers=[runs.router()])
        due = time()
        await setter.set_timers(Timer("t", str(n), due, timedelta(0)) for n in range(number))
        await setter.close()
        clock = Clock()
        async with Timers(redis_client=client, routers=[runs.router()]):
            await runs.done.wait()
            return clock.answer(number)

    return round_


async def _armed(url: str, armed: str) -> Timers:
    """With as many timers armed that are not due for a long time."""
    timers = Timers(redis_client=Redis.from_url(url), routers=[Runs(0).router()])
    step = 10_000
    for first in range(0, int(armed), step):
        await timers.set_timers(
            Timer("t", f"armed {n}", 0.0, AWAY) for n in range(first, first + min(step, int(armed)))
        )
    return timers


async def arming(url: str, armed: str) -> Round:
    """Setting timers one by one."""
    timers = await _armed(url, armed)
    number = 0

    async def once() -> None:
        nonlocal number
        number += 1
        await timers.set_timer("t", str(number), 0.0, AWAY)

    return repeated(once)


async def arming_many(url: str, armed: str) -> Round:
    """Setting many at once."""
    timers = await _armed(url, armed)
    rounds = 0

    async def round_(number: int) -> Answer:
        nonlocal rounds
        rounds += 1
        clock = Clock()
        await timers.set_timers(Timer("t", f"{rounds} {n}", 0.0, AWAY) for n in range(number))
        return clock.answer(number)

    return round_


async def ping(url: str) -> Round:
    """One PING by the client."""
    return repeated(Redis.from_url(url).ping)


PROGRAMS: dict[str, Callable[..., Awaitable[Round]]] = {
    "lateness": lateness,
    "drain": drain,
    "arming": arming,
    "arming-many": arming_many,
    "ping": ping,
}


if __name__ == "__main__":
    serve(PROGRAMS)
