"""A run, from the start of the server to what is found in the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import redis

from redsync.sync import RedisSemaphore

from ..server import Server, ServerStartError
from .clock import Clock, find_library
from .heart import Heart, pulse_of
from .history import Journal
from .judge import Judge
from .nemesis import Nemesis
from .plan import Fault, storms
from .seats import Seat
from .terms import PERMIT_TTL, SEATS, SEMAPHORES, event_names

__all__ = ["Course", "Progress"]

_STEP: Final = 0.05
_LAST_CALM: Final = 5.0
"""Seconds of work after the last fault."""
_STARTING: Final = 30.0
_ENDING: Final = 40.0
"""Seconds for workers to end."""

_OPTIONS: Final = ("--appendonly", "yes", "--appendfsync", "always", "--hz", "100")
_DEBUG: Final = ("--enable-debug-command", "yes")


class Progress:
    """What there is to see while it runs."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.phase = "start"
        self.seconds = seconds
        self.passed = 0.0
        self.faults: dict[str, int] = {}
        self.operations = 0
        self._folder = folder
        self._read: dict[Path, int] = {}

    def count(self) -> None:
        """Bring the number of operations up to date."""
        for path in self._folder.glob("*.jsonl"):
            with open(path, "rb") as lines:
                lines.seek(self._read.get(path, 0))
                new = lines.read()
            whole = new.rfind(b"\n") + 1
            self.operations += new[:whole].count(b'"what":')
            self._read[path] = self._read.get(path, 0) + whole


class Course:
    """A run.

    Args:
        plan: What is to happen.
        seconds: For how long.
        seed: For what the workers do.
        folder: Where everything is written.
        plant: A fault that all workers shall have, to see that it is found.
        tell: Called often, with how far it is.
    """

    def __init__(
        self,
        plan: list[Fault],
        seconds: float,
        seed: int,
        folder: Path,
        tell: Callable[[Progress], None],
        plant: str = "",
    ) -> None:
        self._plan = plan
        self._seconds = seconds
        self._seed = seed
        self._folder = folder
        self._tell = tell
        self._plant = plant
        self.progress = Progress(folder, seconds)
        self.left_out: dict[str, int] = {}

    def run(self) -> None:
        """From beginning to end; leaves nothing but what is in the folder."""
        journal = Journal(self._folder / "nemesis.jsonl")
        with ExitStack() as cleanup:
            clock = Clock(self._folder, find_library())
            server = _start_server(clock)
            cleanup.callback(server.stop)
            _make_resized(server)
            seats = [
                cleanup.enter_context(
                    Seat(n, self._seed, server.address, self._folder, journal, self._plant)
                )
                for n in range(SEATS)
            ]
            cleanup.enter_context(Heart(journal))
            pulse = Journal(self._folder / "server.jsonl")
            cleanup.enter_context(Heart(pulse, pulse_of(server)))
            nemesis = Nemesis(server, clock, seats, journal)
            self.progress.faults = nemesis.done
            self.left_out = nemesis.left_out
            for seat in seats:
                seat.start()
            self._await_workers(seats)
            began = monotonic()
            journal.write(began=began)
            self._faults(nemesis, seats)
            self._phase("calm")
            self._go_on(monotonic() + min(_LAST_CALM, self._seconds / 4), nemesis, seats)
            self._end(server, seats, journal, began)

    def _await_workers(self, seats: list[Seat]) -> None:
        """Wait until all have begun: they take a while on a busy machine."""
        deadline = monotonic() + _STARTING
        paths = [self._folder / f"{seat.worker}.jsonl" for seat in seats]
        while monotonic() < deadline and not all(_has_begun(path) for path in paths):
            sleep(_STEP)

    def _faults(self, nemesis: Nemesis, seats: list[Seat]) -> None:
        began = monotonic()
        for fault in self._plan:
            self._go_on(began + fault.at, nemesis, seats, began)
            nemesis.begin(fault)
        self._go_on(began + self._seconds, nemesis, seats, began)
        nemesis.end_all()

    def _go_on(
        self, until: float, nemesis: Nemesis, seats: list[Seat], began: float | None = None
    ) -> None:
        """Wait, and put right what is due."""
        while (now := monotonic()) < until:
            nemesis.end_due()
            if began is not None:
                self._note(now - began)
            for seat in seats:
                seat.look()
            ends = nemesis.next_end
            sleep(max(0.0, min(until, now + _STEP, ends or until) - monotonic()))

    def _note(self, passed: float) -> None:
        self.progress.passed = passed
        stormy = any(begin <= passed < end for begin, end in storms(self._seconds))
        self._phase("storm" if stormy else "calm")

    def _phase(self, name: str) -> None:
        self.progress.phase = name
        self._tell(self.progress)

    def _end(self, server: Server, seats: list[Seat], journal: Journal, began: float) -> None:
        """Have the workers rest, look at what there is, and have them end."""
        self._phase("end")
        for seat in seats:
            seat.process.tell("rest")
        journal.write(finds={"rested": monotonic()})
        with redis.Redis.from_url(server.url) as client:
            judge = Journal(self._folder / "judge.jsonl")
            Judge(client, judge, event_names(began, monotonic())).look()
        for seat in seats:
            seat.process.tell("stop")
        deadline = monotonic() + _ENDING
        for seat in seats:
            seat.join(deadline)
        self.progress.count()
        self._phase("done")


def _has_begun(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _make_resized(server: Server) -> None:
    """Make what those who use it only attach to."""
    with redis.Redis.from_url(server.url) as client:
        for each in SEMAPHORES:
            if each.fixed is None:
                RedisSemaphore.create(
                    client, each.name, count=each.count, permit_ttl=PERMIT_TTL
                ).close()


def _start_server(clock: Clock) -> Server:
    """A server that keeps what it has acknowledged."""
    server = Server(*_OPTIONS, *_DEBUG, environment=clock.environment())
    try:
        server.start()
    except ServerStartError:
        # Before 7.0 there is no such option, and DEBUG is always there.
        server = Server(*_OPTIONS, environment=clock.environment())
        server.start()
    return server
