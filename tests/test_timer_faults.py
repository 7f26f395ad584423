"""Several worker processes in trouble: a server that restarts, clocks that are wrong, races."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from redsync.cli.server import Server

from .support.commands import evalsha, load_scripts
from .support.fleet import Entry, Fleet, now
from .support.process import KINDS, Kind
from .support.proxy import FaultProxy
from .support.standstill import Standstill
from .support.sync import eventually, sleep, together

pytestmark = pytest.mark.faults


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def check_lateness(runs: list[Entry], standstill: Standstill, bound: float = 1.0) -> None:
    """None of them was late by more than this, but for what the machine has added."""
    latest = max(runs, key=lambda run: run.at - run.due)
    assert latest.at - latest.due < (bound + 3 * standstill.longest) * 1e6, latest


# The server


class Outage:
    """Two workers of a server that is killed and started again in the middle of their work."""

    def __init__(self, server: Server, stack: ExitStack, folder: Path) -> None:
        self.server = server
        self.fleet = Fleet(server, stack, folder, "outage", lease=5)
        self.workers = [self.fleet.add(kind) for kind in KINDS]
        for worker in self.workers:
            worker.work()
        self.fleet.await_workers(2)

    def begin(self) -> None:
        """A timer for each worker, which waits in its handler."""
        for number, worker in enumerate(self.workers):
            worker.set_timer(f"long {number}", {"wait": True})
        eventually(lambda: len(self.fleet.begun()) == 2)

    def strike(self, seconds: float) -> int:
        """Kill the server, and start it again after so many seconds; returns when."""
        self.server.kill()
        sleep(seconds)
        self.server.start()
        return now()

    def end(self) -> None:
        """Let the handlers that wait go on."""
        for number in range(2):
            for worker in self.workers:
                worker.let_go(f"long {number}")

    def went_on(self) -> None:
        """Both workers do what is set now."""
        self.fleet.await_workers(2)
        for number in range(50):
            self.workers[number % 2].set_timer(f"after {number}", {"take": 0.02})
        ids = {f"after {number}" for number in range(50)}
        eventually(lambda: ids <= {each.timer_id for each in self.fleet.ended()})
        eventually(self.fleet.is_empty)
        ends = [each for each in self.fleet.ended() if each.timer_id in ids]
        assert len(ends) == 50


@pytest.mark.punctual
@pytest.mark.parametrize("seconds", [0.0, 0.7])
def test_after_a_restart_with_its_data_everything_is_run_once(
    make_server: Callable[..., Server], stack: ExitStack, tmp_path: Path, seconds: float
) -> None:
    # What was answered is in the file: without fsync, a write is never put off.
    server = make_server("--appendonly", "yes", "--appendfsync", "no")
    outage = Outage(server, stack, tmp_path)
    outage.begin()
    setter = outage.workers[0]
    dues = setter.set_timers({str(number): number / 100 for number in range(200)}, {"take": 0.02})
    first = setter.set_timer("series", every=0.1, missed="all")
    eventually(lambda: len(outage.fleet.begun()) > 60)
    up = outage.strike(seconds)
    outage.end()
    eventually(lambda: {*dues, "long 0", "long 1"} <= {e.timer_id for e in outage.fleet.ended()})
    eventually(lambda: len(outage.fleet.ended("series")) > 20)
    setter.remove_timer("series")
    eventually(outage.fleet.is_empty)
    outage.fleet.check()
    runs = [run for run in outage.fleet.begun() if run.timer_id != "series"]
    assert sorted(run.timer_id for run in runs) == sorted([*dues, "long 0", "long 1"])
    assert not any(end.lost for end in outage.fleet.ended())
    late = [run for run in runs if run.timer_id in dues and run.due > up]
    assert all(run.at - max(run.due, up) < 2e6 for run in late)
    series = [run.due for run in outage.fleet.begun("series")]
    assert series == [first + number * 100_000 for number in range(len(series))]
    outage.went_on()


def test_after_a_restart_without_its_data_workers_go_on(
    make_server: Callable[..., Server], stack: ExitStack, tmp_path: Path
) -> None:
    outage = Outage(make_server(), stack, tmp_path)
    outage.begin()
    outage.workers[0].set_timers({"lost": 0.3})
    outage.workers[0].set_timer("series", every=0.1)
    outage.strike(0.1)
    outage.workers[0].set_timer("long 0", {"new": True}, 60)
    before = outage.fleet.contents()
    outage.end()
    eventually(lambda: outage.fleet.ended("long 0") and outage.fleet.ended("long 1"))
    outage.fleet.await_workers(2)
    for worker in outage.workers:
        worker.catch_up()
    assert outage.fleet.contents() == before
    assert outage.workers[0].remove_timer("long 0")
    outage.went_on()
    assert outage.fleet.begun("lost") == []
    assert {"new": True} not in [run.payload for run in outage.fleet.begun()]


# Clocks


@pytest.mark.parametrize("hours", [1, -1])
def test_only_the_clock_of_the_server_counts(
    server: Server, stack: ExitStack, tmp_path: Path, hours: int
) -> None:
    load_scripts(server)

    def play(kind: Kind) -> None:
        fleet = Fleet(server, stack, tmp_path, f"clock-{kind}")
        worker = fleet.add(kind)
        believed = worker.process.ask("shift_clock", seconds=hours * 3600)
        assert abs(believed - time.time() - hours * 3600) < 60
        worker.work()
        for number in range(5):
            earliest = now()
            due = worker.set_timer(str(number), seconds=0.2 + number / 10)
            assert earliest <= due - (200_000 + number * 100_000) <= now()
        first = worker.set_timer("series", seconds=0.3, every=0.1, missed="all")
        eventually(lambda: len(fleet.ended("series")) >= 4)
        worker.remove_timer("series")
        eventually(fleet.is_empty)
        fleet.check()
        check_lateness(fleet.begun(), standstill)
        assert sorted({run.timer_id for run in fleet.begun()}) == [*"01234", "series"]
        assert [run.due for run in fleet.begun("series")][:2] == [first, first + 100_000]

    with Standstill() as standstill:
        together(*[partial(play, kind) for kind in KINDS])


# Many at once


def test_five_hundred_timers_of_three_workers_run_once_each_and_in_time(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)
    fleet = Fleet(server, stack, tmp_path, "many")
    for kind in (*KINDS, "asyncio"):
        fleet.add(kind)
    with Standstill() as standstill:
        for worker in fleet.workers:
            worker.work()
        fleet.await_workers(3)
        chance = random.Random(500)
        after = {str(number): 0.2 + 3 * chance.random() for number in range(500)}
        dues = fleet.workers[0].set_timers(after)
        eventually(lambda: len(fleet.ended()) >= 500)
        eventually(fleet.is_empty)
    assert sorted((run.timer_id, run.due) for run in fleet.begun()) == sorted(dues.items())
    assert {run.attempt for run in fleet.begun()} == {1}
    fleet.check()
    check_lateness(fleet.begun(), standstill)


@pytest.mark.punctual
def test_what_was_removed_in_time_never_runs_and_all_else_does(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)
    fleet = Fleet(server, stack, tmp_path, "race")
    one, other = (fleet.add(kind) for kind in KINDS)
    removers = [fleet.add(kind) for kind in KINDS]
    for worker in (one, other):
        worker.work()
    fleet.await_workers(2)
    names = [str(number) for number in range(400)]
    dues = one.set_timers({each: 0.3 + number / 400 for number, each in enumerate(names)})
    removed = set()
    for number, each in enumerate(names):
        # From well before it is due to that very moment; what has been missed runs.
        wait = (dues[each] - now()) / 1e6 - (number % 7) ** 2 / 1000
        if wait >= 0:
            sleep(wait)
            if removers[number % 2].remove_timer(each):
                removed.add(each)
    eventually(lambda: len(fleet.ended()) >= 400 - len(removed))
    eventually(fleet.is_empty)
    assert 0 < len(removed) < 400
    assert {each.timer_id for each in fleet.begun()} == set(names) - removed
    assert len(fleet.begun()) == len(fleet.ended()) == 400 - len(removed)
    fleet.check()


@pytest.mark.punctual
def test_a_handler_that_takes_three_leases_runs_once_although_others_are_free(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)
    lease = 0.4

    def play(kind: Kind) -> None:
        fleet = Fleet(server, stack, tmp_path, f"long-{kind}", lease=lease)
        other: Kind = "threads" if kind == "asyncio" else "asyncio"
        busy, free = fleet.add(kind), fleet.add(other)
        busy.set_timer("1", {"take": 3 * lease})
        busy.work()
        eventually(lambda: fleet.begun("1"))
        free.work()
        eventually(fleet.is_empty)
        [run], [end] = fleet.begun(), fleet.ended()
        assert run.pid == busy.process.pid and not end.lost

    together(*[partial(play, kind) for kind in KINDS])


def test_workers_that_have_long_been_idle_are_in_time(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)
    proxy = stack.enter_context(FaultProxy(server.address))
    fleet = Fleet(server, stack, tmp_path, "idle")
    for kind in KINDS:
        worker = fleet.add(kind, proxy)
        worker.look_often(0.1)
        worker.work()
    eventually(lambda: proxy.sent("BLPOP") > 20)
    for worker in fleet.workers:
        worker.look_often(17)  # from now on only a token wakes them
    eventually(lambda: proxy.sent("17.000") >= 2)
    with Standstill() as standstill:
        for number in range(5):
            fleet.workers[number % 2].set_timer(str(number), seconds=0.15 * (number % 3))
            eventually(lambda: fleet.ended(str(number)))  # noqa: B023
        check_lateness(fleet.begun(), standstill)
    eventually(fleet.is_empty)
    assert len(fleet.begun()) == 5
    assert proxy.sent(evalsha("timers/turn")) > 20


@pytest.mark.punctual
def test_a_token_that_gets_lost_on_its_way_costs_no_more_than_one_wait(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)

    def play(kind: Kind) -> None:
        proxy = stack.enter_context(FaultProxy(server.address))
        fleet = Fleet(server, stack, tmp_path, f"token-{kind}")
        worker, other = fleet.add(kind, proxy), fleet.add(kind)
        worker.look_often(1.0)
        worker.work()
        eventually(lambda: proxy.sent("BLPOP") > 0)
        # As if a router had forgotten the connection.
        fault = proxy.lose_reply("BLPOP", times=None, how="stall")
        other.set_timer("1")
        eventually(lambda: fleet.ended("1"))
        assert fault.fired
        check_lateness(fleet.begun(), standstill, 1.0 + 1.0)
        eventually(fleet.is_empty)

    with Standstill() as standstill:
        together(*[partial(play, kind) for kind in KINDS])


@pytest.mark.punctual
def test_a_worker_that_is_cut_off_for_longer_than_a_lease_knows_it_and_does_no_harm(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)
    lease = 0.5

    def play(kind: Kind) -> None:
        proxy = stack.enter_context(FaultProxy(server.address))
        fleet = Fleet(server, stack, tmp_path, f"cut-off-{kind}", lease=lease)
        lonely, other = fleet.add(kind, proxy), fleet.add(kind)
        lonely.work()
        other.set_timer("1", {"wait": True})
        eventually(lambda: fleet.begun())
        proxy.partition()
        cut = now()
        other.work()
        eventually(lambda: len(fleet.begun()) == 2)
        first, second = fleet.begun()
        assert (second.attempt, second.pid) == (2, other.process.pid)
        assert first.fence + lease * 1e6 <= second.at < cut + (lease + 1) * 1e6
        lonely.let_go("1")
        eventually(lambda: fleet.ended())
        assert fleet.ended()[0].lost
        proxy.heal()
        eventually(lambda: proxy.sent("completed") > 0)
        lonely.catch_up()
        record = fleet.record("1")
        assert record is not None and int(record[1]) == second.fence
        other.let_go("1")
        eventually(fleet.is_empty)
        assert [end.lost for end in fleet.ended()] == [True, False]
        assert len(fleet.begun()) == 2
        fleet.check()

    together(*[partial(play, kind) for kind in KINDS])


def test_a_handler_that_raises_stops_neither_its_worker_nor_its_siblings(
    server: Server, stack: ExitStack, tmp_path: Path
) -> None:
    load_scripts(server)

    def play(kind: Kind) -> None:
        fleet = Fleet(server, stack, tmp_path, f"siblings-{kind}", concurrency=4, max_attempts=2)
        worker = fleet.add(kind)
        worker.set_timer("sibling", {"wait": True})
        worker.set_timers({"once": 0, "late": 0.1}, {"fail": 1})
        worker.set_timers({"sound": 0.2})
        working = worker.work()
        eventually(lambda: len(fleet.ended()) == 3)
        assert not working.done()
        worker.let_go("sibling")
        eventually(fleet.is_empty)
        attempts = [(run.timer_id, run.attempt) for run in fleet.begun()]
        assert sorted(attempts) == [
            ("late", 1), ("late", 2), ("once", 1), ("once", 2), ("sibling", 1), ("sound", 1)
        ]  # fmt: skip
        worker.ask("stop_work")
        working.result()
        fleet.check()

    together(*[partial(play, kind) for kind in KINDS])
