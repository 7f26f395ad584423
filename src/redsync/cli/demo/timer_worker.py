"""What a worker of the timers runs: ``python -m redsync.cli.demo.timer_worker KIND KEY NAME``.

It runs the handlers of all topics, and reports what each run begins with and comes to.  Reports and
orders travel as those of `worker` do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import redis
import redis.asyncio

import redsync.aio
import redsync.sync
from redsync import Backoff, Router, TimerRun

from ..._instants import micros_of
from ..orders import Orders
from .worker import report

__all__ = [
    "ATTEMPTS",
    "FAILURES",
    "LEASE",
    "PAUSE",
    "REASON",
    "TOPICS",
    "main",
    "options",
    "router_for",
]

LEASE: Final = 1.0
"""Seconds after which another worker takes over, in the topics whose worker may be killed."""
FAILURES: Final = 2
"""So often the flaky one fails."""
PAUSE: Final = 0.2
"""Seconds before its second attempt; before the third one it is twice as long."""
ATTEMPTS: Final = 2
"""So often the broken one is tried."""
REASON: Final = "it does not work yet"
"""Why those fail."""

_WORK: Final = 0.05
_TICK: Final = 0.05

TOPICS: Final[dict[str, dict[str, Any]]] = {
    "once": {},
    "beat": {"lease": LEASE},
    "flaky": {"backoff": Backoff(PAUSE, factor=2, jitter=0)},
    "broken": {"backoff": Backoff(PAUSE, jitter=0), "max_attempts": ATTEMPTS},
    "long": {"lease": LEASE},
}


class Failure(Exception):
    """One that belongs to the play."""


def router_for(handler: Callable[..., object]) -> Router:
    """A router that has this handler for each topic."""
    router = Router()
    for topic, terms in TOPICS.items():
        router.handler(topic=topic, **terms)(handler)
    return router


def options(key: str) -> dict[str, Any]:
    """Where the timers are, for `Timers`, whatever the environment says."""
    return {
        "timeline_key": key,
        "payloads_key": f"{{{key}}}:payloads",
        "separator": "--",
        "concurrency": 8,
    }


def act(
    orders: Orders, payload: object, run: TimerRun, seconds: int, micros: int
) -> Iterator[float]:
    """One run: how long to sleep, again and again; it has begun at this time of the server."""
    now = time.monotonic()  # before remaining(): the sum must not be optimistic
    which = {"timer": run.timer_id, "fence": run.fence}
    report(
        "began",
        at=now,
        **which,
        payload=payload,
        attempt=run.attempt,
        due=micros_of(run.scheduled_for),
        clock=seconds * 1_000_000 + micros,
        until=now + run.remaining(),
    )
    yield _WORK
    while run.topic == "long" and not (run.lost or orders.given("finish") or orders.given("stop")):
        yield _TICK
        now = time.monotonic()
        if remaining := run.remaining():
            report("sure", **which, until=now + remaining)
    fails = (run.topic == "flaky" and run.attempt <= FAILURES) or (
        run.topic == "broken" and not orders.given("mend")
    )
    report("ended", **which, how="lost" if run.lost else "failed" if fails else "completed")
    if fails:
        raise Failure(REASON)


def run_threads(url: str, key: str) -> None:
    """Run timers in threads."""
    client = redis.Redis.from_url(url)
    orders = Orders()
    stopped = threading.Event()

    def handle(payload: object, context: object, run: TimerRun) -> None:
        for pause in act(orders, payload, run, *client.time()):
            time.sleep(pause)

    orders.follow(stop=stopped.set, mend=lambda: report("mended"))
    timers = redsync.sync.Timers(redis_client=client, routers=[router_for(handle)], **options(key))
    with timers:
        report("ready")
        stopped.wait()
    client.close()


async def run_asyncio(url: str, key: str) -> None:
    """Run timers in tasks."""
    client = redis.asyncio.Redis.from_url(url)
    orders = Orders()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handle(payload: object, context: object, run: TimerRun) -> None:
        for pause in act(orders, payload, run, *await client.time()):
            await asyncio.sleep(pause)

    orders.follow(
        stop=lambda: loop.call_soon_threadsafe(stopped.set), mend=lambda: report("mended")
    )
    timers = redsync.aio.Timers(redis_client=client, routers=[router_for(handle)], **options(key))
    async with timers:
        report("ready")
        await stopped.wait()
    # redis-py 5.0.0 has no aclose().
    await (client.aclose if hasattr(client, "aclose") else client.close)()


def is_news(record: logging.LogRecord) -> bool:
    """Whether the library tells of something that does not belong to the play."""
    return not (record.exc_info and isinstance(record.exc_info[1], Failure))


def main() -> None:
    """Run as the kind of worker that the command line names."""
    kind, key, _ = sys.argv[1:]
    url = os.environ["REDIS_URL"]
    logging.getLogger("redsync").addFilter(is_news)
    if kind == "asyncio":
        asyncio.run(run_asyncio(url, key))
    else:
        run_threads(url, key)


if __name__ == "__main__":
    main()
