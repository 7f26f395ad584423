"""What a worker of the first scene runs: ``python -m redsync.cli.demo.worker KIND KEY NAME``.

Two contenders, tasks or threads, acquire and release permits until told to stop; a third one waits
for a signal.  Each step is reported as a line of JSON on standard output.  Orders come in by
standard input, whose end is the end of the demo, however that came about: the process dies then.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import redis
import redis.asyncio

import redsync.aio
import redsync.sync

from ..orders import Orders

__all__ = ["CONTENDERS", "COUNT", "KEEP", "PERMIT_TTL", "main", "report"]

COUNT: Final = 3
PERMIT_TTL: Final = 2.0
KEEP: Final = 30
"""Seconds for which the keys outlive a demo that was killed."""
CONTENDERS: Final = 2

_HOLD: Final = (0.15, 0.4)
_REST: Final = (0.0, 0.1)
_TICK: Final = 0.05


def report(what: str, **facts: Any) -> None:
    """Tell the demo; one write, so that threads do not mix up their lines."""
    line = json.dumps({"what": what, "at": time.monotonic(), **facts}) + "\n"
    try:
        os.write(sys.stdout.fileno(), line.encode())
    except BrokenPipeError:
        os._exit(1)


class Permit(Protocol):
    """What the permits of both kinds have in common."""

    slot: int
    fence: int

    @property
    def held(self) -> bool: ...

    def remaining(self) -> float: ...


class Use:
    """The use of one permit, and the reports of it."""

    def __init__(self, contender: int, asked: float, permit: Permit) -> None:
        now = time.monotonic()  # before remaining(): the sum must not be optimistic
        self._until = now + permit.remaining()
        self._contender = contender
        self._permit = permit
        report(
            "granted",
            at=now,
            contender=contender,
            slot=permit.slot,
            fence=permit.fence,
            asked=asked,
            until=self._until,
        )

    def pauses(self, orders: Orders) -> Iterator[float]:
        """How long to sleep, again and again, while it is in use."""
        kept = self._contender == 0 and orders.given("keep")  # this permit, until it is killed
        end = time.monotonic() + random.uniform(*_HOLD)
        while not orders.given("stop") and (kept or time.monotonic() < end):
            yield _TICK
            now = time.monotonic()
            if remaining := self._permit.remaining():
                self._until = now + remaining
                report("sure", contender=self._contender, until=self._until)

    def end(self) -> None:
        """Report the end, which has to come before the release."""
        now = time.monotonic()
        lost = not self._permit.held
        report("ended", at=self._until if lost else now, contender=self._contender, lost=lost)


def run_threads(url: str, name: str, worker: str) -> None:
    """Contend with threads."""
    client = redis.Redis.from_url(url)
    semaphore = redsync.sync.RedisSemaphore(
        client, name, count=COUNT, permit_ttl=PERMIT_TTL, lease_ttl=KEEP, identifier=worker
    )
    event = redsync.sync.RedisEvent(client, name)
    orders = Orders()

    def contend(contender: int) -> None:
        while not orders.given("stop"):
            asked = time.monotonic()
            permit = semaphore.acquire()
            use = Use(contender, asked, permit)
            for pause in use.pauses(orders):
                time.sleep(pause)
            use.end()
            permit.release()
            time.sleep(random.uniform(*_REST))

    def listen() -> None:
        while True:
            event.wait()
            report("woken")

    def send() -> None:
        report("sent")
        event.set()

    orders.follow(signal=send)
    threading.Thread(target=listen, daemon=True).start()  # waits on when the program ends
    report("ready")
    with ThreadPoolExecutor(CONTENDERS) as pool:
        list(pool.map(contend, range(CONTENDERS)))
    semaphore.close()
    client.close()


async def run_asyncio(url: str, name: str, worker: str) -> None:
    """Contend with tasks."""
    client = redis.asyncio.Redis.from_url(url)
    semaphore = redsync.aio.RedisSemaphore(
        client, name, count=COUNT, permit_ttl=PERMIT_TTL, lease_ttl=KEEP, identifier=worker
    )
    event = redsync.aio.RedisEvent(client, name)
    orders = Orders()
    loop = asyncio.get_running_loop()

    async def contend(contender: int) -> None:
        while not orders.given("stop"):
            asked = time.monotonic()
            permit = await semaphore.acquire()
            use = Use(contender, asked, permit)
            for pause in use.pauses(orders):
                await asyncio.sleep(pause)
            use.end()
            await permit.release()
            await asyncio.sleep(random.uniform(*_REST))

    async def listen() -> None:
        while True:
            await event.wait()
            report("woken")

    def send() -> None:
        report("sent")
        asyncio.run_coroutine_threadsafe(event.set(), loop).result()

    orders.follow(signal=send)
    listener = asyncio.create_task(listen())
    report("ready")
    await asyncio.gather(*map(contend, range(CONTENDERS)))
    listener.cancel()
    await asyncio.wait([listener])
    await semaphore.close()
    await event.close()
    # redis-py 5.0.0 has no aclose().
    await (client.aclose if hasattr(client, "aclose") else client.close)()


def main() -> None:
    """Run as the kind of worker that the command line names."""
    kind, name, worker = sys.argv[1:]
    url = os.environ["REDIS_URL"]
    if kind == "asyncio":
        asyncio.run(run_asyncio(url, name, worker))
    else:
        run_threads(url, name, worker)


if __name__ == "__main__":
    main()
