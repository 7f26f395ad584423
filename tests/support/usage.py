"""Traffic of tasks and of threads at the same time, for as long as a test breaks things.

with Usage(site, "n", permit_ttl=6) as usage:
    usage.settle()
    switch = ...
    usage.settle(since=switch.promoted, timeout=5)
verdict = judge(usage.held, COUNT, switch)
"""

from __future__ import annotations

import asyncio
from time import monotonic

from tests._async.traffic import SEMAPHORES
from tests._async.traffic import Traffic as TasksTraffic
from tests._sync.traffic import Traffic as ThreadsTraffic

from . import Site, aio, sync
from .failover import Held, Journal
from .sync import Handle, spawn

__all__ = ["Usage"]


class Usage:
    """Both kinds of traffic, through clients of their own.

    Args:
        site: The servers.
        name: What the names begin with.
        options: For the semaphores.
    """

    def __init__(self, site: Site, name: str, **options: object) -> None:
        self._site = site
        self._name = name
        self._options = options
        self._traffic: list[TasksTraffic | ThreadsTraffic] = []
        self._running: list[Handle[None]] = []

    def __enter__(self) -> Usage:
        self._running = [spawn(self._tasks), spawn(self._threads)]
        sync.eventually(lambda: len(self._traffic) == 2)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for each in self._traffic:
            each.going = False
        for running in self._running:
            running.result(60)

    @property
    def journals(self) -> list[Journal]:
        """What they have noted: those of the tasks and of the threads, in any order."""
        return [each.journal for each in self._traffic]

    @property
    def held(self) -> list[Held]:
        """All permits that they had."""
        return [each for journal in self.journals for each in list(journal.held)]

    def await_use(self, since: float = 0.0, timeout: float = 20.0) -> float:
        """Wait until all of them have got something done that they began before that time or
        after; returns when they had.

        Args:
            since: What was done before does not count.
            timeout: In seconds.
        """
        deadline = monotonic() + timeout
        while idle := [name for each in self.journals for name in _idle(each, since)]:
            assert monotonic() < deadline, f"idle for {timeout} s: {idle}"
            sync.sleep(0.002)
        return monotonic()

    def assert_no_errors(self) -> None:
        """Nobody has noticed anything."""
        errors = [each for journal in self.journals for each in journal.errors]
        assert not errors, errors

    def assert_all_run(self) -> None:
        """Each timer whose arming was acknowledged was run; after the end of the traffic."""
        for journal in self.journals:
            assert set(journal.armed) <= {number for _, number in journal.runs}

    def _threads(self) -> None:
        client = sync.join(self._site)
        traffic = ThreadsTraffic(client, self._name, "threads", **self._options)
        self._traffic.append(traffic)
        traffic.run()
        sync.part(client)

    def _tasks(self) -> None:
        async def main() -> None:
            client = aio.join(self._site)
            traffic = TasksTraffic(client, self._name, "tasks", **self._options)
            self._traffic.append(traffic)
            await traffic.run()
            await aio.part(client)

        asyncio.run(main())


def _idle(journal: Journal, since: float) -> list[str]:
    """What has not been got since then."""
    latest = dict.fromkeys(["set", "wake", "run", *map(str, range(SEMAPHORES))], 0.0)
    for each in list(journal.held):
        latest[each.semaphore.rpartition("-")[2]] = each.granted
    for what, times in (
        ("set", journal.sets),
        ("wake", journal.wakes),
        ("run", [at for at, _ in journal.runs]),
    ):
        latest[what] = max(times[-1:], default=0.0)
    return [what for what, at in latest.items() if at <= since]
