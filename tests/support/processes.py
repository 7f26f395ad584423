"""Machines in which several processes, as redsync sees them, use the same thing.

A client with its connections, and an event loop, are a process to redsync.  So all of them can be
here, of both kinds, and a failure is one that Hypothesis can repeat and shrink.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from redis import Redis

from . import Reachable
from .process import KINDS, Kind
from .properties import PICKS, picked, within
from .sync import disconnect
from .worlds import Actor, World

__all__ = ["KIND", "PATIENCE", "PAUSE", "Process", "ProcessesMachine"]

PATIENCE: Final = 10.0
"""Seconds in which what has to happen, happens, on a machine that stalls now and then."""

KIND: Final = st.sampled_from(KINDS)

PAUSE: Final = st.sampled_from([0.0, 0.0002, 0.0005, 0.001])
"""Seconds between two things that may meet."""

_PROCESSES: Final = 3
_ACTORS: Final = 3


class Process:
    """A client and those who use it."""

    def __init__(self, world: World, server: Reachable) -> None:
        self.world = world
        self.client = world.connect(server)
        self.desk = world.actor()
        """Is never kept waiting."""
        self.actors = [world.actor() for _ in range(_ACTORS)]

    @property
    def cancels(self) -> bool:
        """Whether those who wait can be cancelled."""
        return self.world.kind == "asyncio"

    def idle(self, pick: int, busy: Collection[Actor]) -> Actor:
        """An actor that does not wait."""
        return picked(pick, [each for each in self.actors if each not in busy]) or self.desk

    def stations(self) -> list[Any]:
        """What is looked after here."""
        session = self._session()
        stations = [] if session is None else list(session._charges.values())
        return [each for each in stations if not self.desk.call(each.idle)]

    def tend(self) -> None:
        """The watchdog comes by."""
        for each in self.stations():
            self.desk.call(each.tend)

    def end(self) -> None:
        """Everything of it has been closed or dropped."""
        session = self._session()
        if session is not None:
            self.desk.call(session.wake)  # by itself it notices after a while what was dropped
        for actor in (self.desk, *self.actors):
            actor.end()
        self.world.disconnect(self.client)

    def _session(self) -> Any:
        return self.desk.call(self.world.session, self.client)


class ProcessesMachine(RuleBasedStateMachine):
    """Processes that come, and have trouble."""

    def __init__(self, server: Reachable, worlds: Mapping[Kind, World]) -> None:
        super().__init__()
        self.server = server
        self.worlds = worlds
        self.raw = Redis.from_url(server.url)
        self.raw.flushall()
        self.processes: list[Process] = []

    def process(self, pick: int, fresh: Kind | None = None) -> Process:
        """One of those that there are, or a new one, if there are not too many."""
        if not self.processes or (fresh is not None and len(self.processes) < _PROCESSES):
            self.processes.append(Process(self.worlds[fresh or KINDS[pick % 2]], self.server))
            return self.processes[-1]
        return self.processes[pick % len(self.processes)]

    def watchdogs_come(self) -> None:
        """Each process looks after what it has."""
        for each in self.processes:
            each.tend()

    def looked_after(self) -> bool:
        """Whether anybody would."""
        return any(each.stations() for each in self.processes)

    def lose_data(self) -> None:
        """Do what has to be done beside FLUSHALL."""

    @rule(what=st.sampled_from(["cut", "scripts", "watchdogs", "client", "data"]), process=PICKS)
    def trouble(self, what: str, process: int) -> None:
        """Something that nobody must notice, or that takes all data."""
        if what == "cut":
            self.raw.client_kill_filter(_type="normal", skipme=True)
        elif what == "data":
            self.lose_data()
        elif what == "scripts":
            self.raw.script_flush()
        elif what == "watchdogs":
            self.watchdogs_come()
        else:
            its = self.process(process)
            its.world.disconnect(its.client)  # whose connections are not used

    def end(self, well: bool) -> None:
        """End the processes, which leave nothing."""
        for each in self.processes:
            each.end()
        if well:
            within(PATIENCE, lambda: [each["addr"] for each in self.raw.client_list()][1:])
        disconnect(self.raw)
