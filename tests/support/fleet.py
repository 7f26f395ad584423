"""Worker processes that run the same timers, and the journal of what their handlers did.

    fleet = Fleet(server, stack, tmp_path, "n")
    one, other = fleet.add("asyncio"), fleet.add("threads", proxy)
    one.work()
    other.set_timer("id", {"take": 0.1})
    eventually(lambda: fleet.ended("id"))

What the handlers do is in tests/_async/timer_bench.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from redsync._protocol.keys import TimerKeys
from redsync.cli.server import Server

from . import Reachable
from .process import Answer, Facts, Kind, WorkerProcess
from .sync import eventually

__all__ = ["Entry", "Fleet", "TimerWorker", "now"]

TOPIC = "notes"


@dataclass(frozen=True)
class Entry:
    """Something that a handler has written into the journal; times are microseconds."""

    what: str
    """begun or ended"""
    pid: int
    timer_id: str
    due: int
    at: int
    attempt: int
    fence: int
    lateness: float
    lost: bool
    payload: Facts


class TimerWorker:
    """A process of the fleet."""

    def __init__(self, process: WorkerProcess, name: str, **options: object) -> None:
        self.process = process
        self._name = name
        self._opened = process.begin("open_timers", name=name, **options)

    def begin(self, do: str, **arguments: object) -> Answer:
        """Give an order about the timers."""
        self._opened.result()
        return self.process.begin(do, name=self._name, **arguments)

    def ask(self, do: str, **arguments: object) -> Any:
        """Give an order about the timers, and wait for what comes of it."""
        return self.begin(do, **arguments).result()

    def work(self) -> Answer:
        """Have it run timers from now on."""
        return self.begin("work")

    def set_timer(
        self, timer_id: str, payload: Facts | None = None, seconds: float = 0, **options: object
    ) -> int:
        """Set a timer; returns when it is due."""
        due: int = self.ask(
            "set_timer",
            topic=TOPIC,
            timer_id=timer_id,
            payload=payload or {},
            seconds=seconds,
            **options,
        )
        return due

    def set_timers(
        self, after: Mapping[str, float], payload: Facts | None = None
    ) -> dict[str, int]:
        """Set a timer for each of these, after so many seconds; returns when they are due."""
        dues: dict[str, int] = self.ask(
            "set_timers", topic=TOPIC, after=dict(after), payload=payload or {}
        )
        return dues

    def remove_timer(self, timer_id: str) -> bool:
        """Remove a timer."""
        removed: bool = self.ask("remove_timer", topic=TOPIC, timer_id=timer_id)
        return removed

    def let_go(self, timer_id: str) -> None:
        """Have handlers of this timer wait no more in this process."""
        self.process.ask("let_go", timer_id=timer_id)

    def look_often(self, seconds: float) -> None:
        """Have it look by itself after so many seconds, not 12."""
        self.process.ask("look_often", seconds=seconds)

    def catch_up(self) -> None:
        """Return when Redis has answered everything that it was told by this worker before."""
        self.ask("timer_names")


class Fleet:
    """Workers of both kinds.

    Args:
        server: Where the timers are.
        stack: Ends the workers.
        folder: For the journal.
        name: Of the timeline.
        options: For `Timers`.
    """

    def __init__(
        self, server: Server, stack: ExitStack, folder: Path, name: str, **options: object
    ) -> None:
        self.name = name
        self.keys = TimerKeys.of(name, f"{name}-payloads", clustered=False)
        self.client = stack.enter_context(redis.Redis.from_url(server.url))
        self.workers: list[TimerWorker] = []
        self._server = server
        self._stack = stack
        self._options = options
        self._journal = folder / f"{name}.journal"
        self._journal.touch()

    def add(self, kind: Kind, via: Reachable | None = None, **options: object) -> TimerWorker:
        """A worker more; it does not run timers yet."""
        process = self._stack.enter_context(WorkerProcess(kind, via or self._server))
        options = {**self._options, **options}
        journal = str(self._journal)
        worker = TimerWorker(process, self.name, topic=TOPIC, journal=journal, options=options)
        self.workers.append(worker)
        return worker

    # What the handlers did

    def entries(self, what: str, timer_id: str | None = None) -> list[Entry]:
        """What is in the journal, in the order in which it was written."""
        # At once: the last line may be about to be written, and its end must not look like one.
        *lines, _ = self._journal.read_text().split("\n")
        found = [Entry(**json.loads(line)) for line in lines]
        return [
            each
            for each in found
            if each.what == what and (timer_id is None or each.timer_id == timer_id)
        ]

    def begun(self, timer_id: str | None = None) -> list[Entry]:
        """The runs that have begun."""
        return self.entries("begun", timer_id)

    def ended(self, timer_id: str | None = None) -> list[Entry]:
        """The runs that have come to a good end."""
        return self.entries("ended", timer_id)

    def await_runs(self, count: int) -> None:
        """Wait until so many runs have begun."""
        eventually(lambda: len(self.begun()) >= count)

    def check(self) -> None:
        """No run was early, and each one but the first of an arming had a reason, and a greater
        fence.
        """
        armings: dict[tuple[str, int], list[Entry]] = {}
        for run in self.begun():
            assert run.at >= run.due, f"{run.due - run.at} us early: {run}"
            armings.setdefault((run.timer_id, run.due), []).append(run)
        for runs in armings.values():
            attempts = [run.attempt for run in runs]
            assert attempts == sorted(set(attempts)), runs
            fences = [run.fence for run in runs]
            assert fences == sorted(set(fences)), runs

    # What is in Redis

    def record(self, timer_id: str) -> tuple[str, str, int, bool, int] | None:
        """What Redis knows of a timer: number of the arming, fence of the run or zeros, when it is
        due, whether it was armed anew during the run, attempts.
        """
        text = self.client.hget(self.keys.state.decode(), f"{TOPIC}--{timer_id}")
        if text is None:
            return None
        assert isinstance(text, bytes)
        line = text.decode()
        return line[:16], line[16:32], int(line[32:48]), line[48] == "1", int(line[49:53])

    def dead(self) -> list[str]:
        """The timers that have failed for good."""
        members = self.client.hkeys(self.keys.dead.decode())
        return sorted(member.decode().removeprefix(f"{TOPIC}--") for member in members)

    def contents(self) -> list[object]:
        """All that Redis knows of the timers that are there."""
        keys = [self.keys.timeline, self.keys.payloads, self.keys.state]
        due = f"{self.keys.due.decode()}{TOPIC}"
        return [
            self.client.zrange(keys[0].decode(), 0, -1, withscores=True),
            self.client.hgetall(keys[1].decode()),
            self.client.hgetall(keys[2].decode()),
            self.client.zrange(due, 0, -1, withscores=True),
        ]

    def is_empty(self) -> bool:
        """Whether there is nothing left but what is of no timer, or goes by itself."""
        stem = self.keys.state.removesuffix(b"state")
        for key in self.client.keys("*"):
            if key in (self.keys.timeline, self.keys.payloads, self.keys.dead):
                return False
            if key.startswith(stem + b"due:"):
                return False
            known = key in (self.keys.state, self.keys.meta, self.keys.topics)
            if key.startswith(stem) and not known and self.client.ttl(key) < 0:
                return False
        promises = {b"w:" + TOPIC.encode(), b""}
        fields = {*self.client.hkeys(self.keys.state.decode())}
        noted = {*self.client.hkeys(self.keys.meta.decode())}
        return fields <= {b""} and noted <= promises

    def blocked(self) -> int:
        """How many workers wait for a token."""
        return sum("b" in each["flags"] for each in self.client.client_list())

    def await_workers(self, count: int) -> None:
        """Wait until so many workers wait."""
        eventually(lambda: self.blocked() == count)


def now() -> int:
    """The server's clock, in microseconds: it is that of the machine."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000
