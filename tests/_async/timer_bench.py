"""What a worker process does with timers when it is told to; see worker.py."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from redsync._async import runner, schedule
from redsync._protocol import timers as protocol
from redsync.aio import Backoff, MissedRuns, Router, Timer, TimerRun, Timers

from ..support.aio import Redis, sleep

Facts = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


class TimerBench:
    """The timers that the process has in its hands, of one topic, and what their handler does.

    It writes into the journal, a file that many processes share, when a run begins and ends, and in
    between does what the payload says: `wait` until the process is told to let go, `take` so many
    seconds, `arm` the timer anew with another payload, `fail` in the first attempts, or `die` and
    take the process along.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._timers: dict[str, Timers] = {}
        self._let_go: set[str] = set()
        self._journal = -1
        self._warnings: list[str] = []

    async def open_timers(self, name: str, topic: str, journal: str, options: Facts) -> None:
        """Make timers with a handler; do nothing yet."""
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND)
        router = Router()
        router.handler(topic=topic, backoff=Backoff(0.01, maximum=0.05))(self._handle)
        self._timers[name] = timers = Timers(
            redis_client=self._client,
            routers=[router],
            timeline_key=name,
            payloads_key=f"{name}-payloads",
            **options,
        )
        timers.context = timers
        logging.getLogger("redsync").addHandler(_Ear(self._warnings))

    async def work(self, name: str) -> None:
        await self._timers[name].run_forever()

    async def stop_work(self, name: str) -> None:
        await self._timers[name].stop()

    async def set_timer(
        self,
        name: str,
        topic: str,
        timer_id: str,
        payload: Facts,
        seconds: float,
        every: float | None = None,
        missed: str = "once",
    ) -> int:
        """When it is due, in microseconds of the server's clock."""
        due = await self._timers[name].set_timer(
            topic,
            timer_id,
            payload,
            timedelta(seconds=seconds),
            every=None if every is None else timedelta(seconds=every),
            missed=MissedRuns(missed),
        )
        return _micros(due)

    async def set_timers(
        self, name: str, topic: str, after: dict[str, float], payload: Facts
    ) -> dict[str, int]:
        """The same for many, all with the same payload."""
        many = [Timer(topic, each, payload, timedelta(seconds=s)) for each, s in after.items()]
        dues = await self._timers[name].set_timers(many)
        return {each: _micros(due) for each, due in zip(after, dues, strict=True)}

    async def remove_timer(self, name: str, topic: str, timer_id: str) -> bool:
        return await self._timers[name].remove_timer(topic, timer_id)

    async def discard_timer(self, name: str, topic: str, timer_id: str) -> bool:
        return await self._timers[name].discard_timer(topic, timer_id)

    async def timer_names(self, name: str) -> list[str]:
        return (await self._timers[name].fetch_all_timers())[0]

    async def let_go(self, timer_id: str) -> None:
        """Have the handler of this timer wait no more."""
        self._let_go.add(timer_id)

    async def warnings(self) -> list[str]:
        return self._warnings

    async def look_often(self, seconds: float) -> None:
        """Have workers wait for no longer than this before they look by themselves."""
        for module in (protocol, runner, schedule):
            vars(module)["SLICE"] = int(seconds * 1e6)

    async def shift_clock(self, seconds: float) -> float:
        """Have this process believe in another time of day; returns which."""
        changed: dict[int, Any] = {
            id(time.time): lambda: _now() / 1e6 + seconds,
            id(time.time_ns): lambda: _now() * 1000 + int(seconds * 1e9),
            id(datetime): type("Shifted", (_Shifted,), {"shift": timedelta(seconds=seconds)}),
        }
        ours = [module for name, module in sys.modules.items() if name.startswith("redsync")]
        for module in (time, *ours):
            for name, value in list(vars(module).items()):
                if id(value) in changed:
                    vars(module)[name] = changed[id(value)]
        return time.time()

    async def _handle(self, data: Facts, timers: Timers, run: TimerRun) -> None:
        self._note("begun", data, run)
        while data.get("wait") and run.timer_id not in self._let_go:
            await sleep(0.002)
        await sleep(data.get("take", 0))
        if "die" in data:
            os.kill(os.getpid(), signal.SIGKILL)
        if "arm" in data:
            await timers.set_timer(run.topic, run.timer_id, data["arm"], timedelta(0))
        if run.attempt <= data.get("fail", 0):
            raise ValueError("as it was told to")
        self._note("ended", data, run)

    def _note(self, what: str, data: Facts, run: TimerRun) -> None:
        entry = {
            "what": what,
            "pid": os.getpid(),
            "timer_id": run.timer_id,
            "due": _micros(run.scheduled_for),
            "at": _now(),
            "attempt": run.attempt,
            "fence": run.fence,
            "lateness": run.lateness,
            "lost": run.lost,
            "payload": data,
        }
        # One write, which a kill does not tear, and others do not mix with theirs.
        os.write(self._journal, json.dumps(entry).encode() + b"\n")


class _Shifted(datetime):
    shift: timedelta

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + cls.shift

    @classmethod
    def utcnow(cls) -> Any:
        return datetime.now(timezone.utc).replace(tzinfo=None) + cls.shift


class _Ear(logging.Handler):
    """Keeps what is to be expected when things break; anything worse is a complaint."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__()
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.WARNING:
            print(self.format(record), file=sys.stderr, flush=True)
        self._warnings.append(record.getMessage())


def _now() -> int:
    """The server's clock, as it is on the same machine, whatever `shift_clock` has done."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND
