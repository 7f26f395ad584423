"""The same timers with other libraries: each in its environment, with the defaults it has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import import_module
from time import time
from typing import Any, Protocol

from redis.asyncio import Redis
from rounds import Answer, Clock
from rounds.aio import Round, serve

LEAD = 1.0


class Runs:
    """How late each run was, and an end to wait for."""

    def __init__(self, number: int) -> None:
        self.late: list[float] = []
        self.done = asyncio.Event()
        self._number = number
        self._loop = asyncio.get_running_loop()

    def note(self, due: float) -> None:
        """Called by the handler, in whichever thread."""
        self.late.append(time() - due)
        if len(self.late) == self._number:
            self._loop.call_soon_threadsafe(self.done.set)


def _instants(number: int, span: float) -> list[float]:
    rng, begin = random.Random(number), time() + LEAD
    return [begin + rng.uniform(0, span) for _ in range(number)]


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("redis://").partition(":")
    return host, int(port)


class Peer(Protocol):
    """A library, and what is asked of it."""

    async def set(self, dues: list[float]) -> None:
        """Set a timer for each instant."""

    async def run(self, runs: Runs) -> Callable[[], Any]:
        """Begin to run them; returns what ends that."""


class Arq:
    """arq: one worker in this loop."""

    def __init__(self, url: str) -> None:
        self._settings = import_module("arq.connections").RedisSettings(*_address(url))

    async def set(self, dues: list[float]) -> None:
        """Set a timer for each instant."""
        pool = await import_module("arq").create_pool(self._settings)
        for due in dues:
            at = datetime.fromtimestamp(due, timezone.utc)
            await pool.enqueue_job("handle", due, _defer_until=at)
        await pool.aclose()

    async def run(self, runs: Runs) -> Callable[[], Any]:
        """Begin to run them; returns what ends that."""

        async def handle(context: object, due: float) -> None:
            runs.note(due)

        worker = import_module("arq.worker").Worker(
            functions=[import_module("arq.worker").func(handle, name="handle")],
            redis_settings=self._settings,
            handle_signals=False,
            max_jobs=1000,
            keep_result=0,
        )
        task = asyncio.create_task(worker.async_run())

        async def end() -> None:
            task.cancel()
            # It cancels whatever has not ended, and raises that.
            await asyncio.gather(task, worker.close(), return_exceptions=True)

        return end


class FastStream:
    """faststream-redis-timers."""

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(url)
        self._broker = import_module("faststream_redis_timers").TimersBroker(self._client)
        self._runs: Runs | None = None

        @self._broker.subscriber("t")  # type: ignore[untyped-decorator]
        async def handle(due: float) -> None:
            if self._runs is not None:
                self._runs.note(due)

    async def set(self, dues: list[float]) -> None:
        """Set a timer for each instant."""
        await self._broker.connect()
        for due in dues:
            at = datetime.fromtimestamp(due, timezone.utc)
            await self._broker.publish(due, topic="t", activate_at=at)

    async def run(self, runs: Runs) -> Callable[[], Any]:
        """Begin to run them; returns what ends that."""
        self._runs = runs
        await self._broker.start()
        stop: Callable[[], Any] = self._broker.stop
        return stop


def note(due: float) -> None:
    """What APScheduler calls: it has to find it by name."""
    assert _runs is not None
    _runs.note(due)


_runs: Runs | None = None


class ApScheduler:
    """APScheduler 3 with its store in Redis."""

    def __init__(self, url: str) -> None:
        host, port = _address(url)
        store = import_module("apscheduler.jobstores.redis").RedisJobStore(host=host, port=port)
        module = import_module("apscheduler.schedulers.asyncio")
        defaults = {"misfire_grace_time": None, "max_instances": 1000}
        self._scheduler = module.AsyncIOScheduler(
            jobstores={"default": store}, job_defaults=defaults, timezone=timezone.utc
        )

    async def set(self, dues: list[float]) -> None:
        """Set a timer for each instant."""
        self._scheduler.start(paused=True)
        for due in dues:
            at = datetime.fromtimestamp(due, timezone.utc)
            self._scheduler.add_job(f"{__name__}:note", "date", run_date=at, args=[due])

    async def run(self, runs: Runs) -> Callable[[], Any]:
        """Begin to run them; returns what ends that."""
        global _runs
        _runs = runs
        self._scheduler.resume()

        async def end() -> None:
            self._scheduler.shutdown(wait=False)

        return end


class Huey:
    """huey: its consumer, with ten threads as workers."""

    def __init__(self, url: str) -> None:
        package = import_module("huey")
        self._huey = package.RedisHuey("bench", url=url)
        self._task = self._huey.task()(note)

    async def set(self, dues: list[float]) -> None:
        """Set a timer for each instant."""
        for due in dues:
            self._task.schedule(args=(due,), eta=datetime.fromtimestamp(due))

    async def run(self, runs: Runs) -> Callable[[], Any]:
        """Begin to run them; returns what ends that."""
        global _runs
        _runs = runs
        consumer = self._huey.create_consumer(workers=10, worker_type="thread")
        consumer._set_signal_handlers = lambda: None
        consumer.start()

        async def end() -> None:
            await asyncio.to_thread(consumer.stop, graceful=True)

        return end


PEERS: dict[str, Callable[[str], Peer]] = {
    "arq": Arq,
    "faststream": FastStream,
    "apscheduler": ApScheduler,
    "huey": Huey,
}


async def lateness(url: str, peer: str) -> Round:
    """Timers at random instants, and one worker."""
    client = Redis.from_url(url)

    async def round_(number: int, span: float) -> Answer:
        await client.flushall()
        timers, runs = PEERS[peer](url), Runs(number)
        clock = Clock()
        await timers.set(_instants(number, span))
        end = await timers.run(runs)
        await runs.done.wait()
        answer = clock.answer(number, samples=runs.late)
        await end()
        return answer

    return round_


async def drain(url: str, peer: str) -> Round:
    """Timers that are due already, and a worker that begins then."""
    client = Redis.from_url(url)

    async def round_(number: int) -> Answer:
        await client.flushall()
        timers, runs = PEERS[peer](url), Runs(number)
        await timers.set([time()] * number)
        clock = Clock()
        end = await timers.run(runs)
        await runs.done.wait()
        answer = clock.answer(number)
        await end()
        return answer

    return round_


if __name__ == "__main__":
    serve({"lateness": lateness, "drain": drain})
