"""The server, the processors and the programs of a comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from redsync.cli.server import Server

from .environments import Environments
from .subjects import Case, Results, Subject, take_turns

__all__ = ["Bench", "Where", "meter_of"]


@dataclass(frozen=True)
class Where:
    """Conditions."""

    python: str
    transport: str = "unix"
    loop: str = "asyncio"
    pinned: bool = False
    """Client and server on one processor."""

    def __str__(self) -> str:
        loop = "" if self.loop == "asyncio" else f", {self.loop}"
        transport = {"unix": "unix socket", "tcp": "loopback"}[self.transport]
        return f"{self.python}{loop}, {transport}{', one core' if self.pinned else ''}"


class Bench:
    """Makes comparisons.

    Args:
        environments: Where the programs find what they need.
        pythons: The versions of CPython to use.
        quick: Whether to only have a look.
        tell: Called with what is being done.
    """

    def __init__(
        self,
        environments: Environments,
        pythons: Sequence[str],
        quick: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.environments = environments
        self.pythons = pythons
        self.quick = quick
        self.tell = tell

    def everywhere(
        self, *, loops: Sequence[str] = ("asyncio",), pinned: bool = False
    ) -> list[Where]:
        """Each CPython with each transport and loop; quick: the newest one, on a unix socket."""
        if self.quick:
            return [Where(self.pythons[-1], pinned=pinned)]
        return [
            Where(python, transport, loop, pinned)
            for python in self.pythons
            for transport in ("unix", "tcp")
            for loop in loops
        ]

    def compare(
        self,
        where: Where,
        cases: Sequence[Case],
        rounds: int,
        *,
        warm_up: bool = True,
        **order: Any,
    ) -> Results:
        """Have programs take turns on a server of their own; see `take_turns`. Quick: they do not
        warm up.
        """
        self.tell(f"{where}: {', '.join(case.name for case in cases)}")
        with Server(tcp=True) as server, redis.Redis.from_url(server.url) as admin:
            admin.ping()  # connected before anybody counts connections
            core = None
            if where.pinned:
                core = min(os.sched_getaffinity(0))
                os.sched_setaffinity(server.pid, {core})
            urls = {"tcp": server.url, "unix": f"unix://{server.unix_socket}"}

            def start(case: Case) -> Subject:
                python = self.environments.python(where.python, case.peer)
                url = urls[case.only or where.transport]
                return Subject(python, case, where.loop, url, core)

            meter = partial(meter_of, admin)
            warm_up = warm_up and not self.quick
            return take_turns(cases, start, rounds, order, self.tell, meter, warm_up)


def meter_of(admin: redis.Redis) -> Mapping[str, float]:
    """What the server has done so far: its main thread, its commands but for this one.

    "requests" are reads from connections, which may bring several commands; this one is one.
    "usec" is the time of all commands, and counts what a script calls once more; "scripts" is the
    time of scripts with all that they call.
    """
    info: dict[str, Any] = admin.info("everything")
    commands = {name: each for name, each in info.items() if name.startswith("cmdstat_")}
    commands.pop("cmdstat_info", None)
    return {
        "cpu": info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"],
        "requests": info["total_reads_processed"],
        "commands": sum(each["calls"] for each in commands.values()),
        "usec": sum(each["usec"] for each in commands.values()),
        "scripts": commands.get("cmdstat_evalsha", {"usec": 0})["usec"],
    }
