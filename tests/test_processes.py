"""Processes of both kinds share semaphores under load, and their whole history is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise

import pytest

from redsync import SemaphoreInitStrategy
from redsync.cli.server import Server

from .support.checker import Hold, check, most_at_once
from .support.process import KINDS, Kind, WorkerProcess
from .support.sync import eventually

pytestmark = pytest.mark.faults

LUA, OPTIMISTIC = SemaphoreInitStrategy.LUA.value, SemaphoreInitStrategy.OPTIMISTIC_LOCKING.value

Start = Callable[[Kind], WorkerProcess]


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """Start worker processes."""
    with ExitStack() as workers:
        yield lambda kind: workers.enter_context(WorkerProcess(kind, server))


def crew(
    start: Start, name: str, count: int, strategies: Sequence[str], *, permit_ttl: float = 10
) -> list[WorkerProcess]:
    """A worker of each kind for each strategy, with the semaphore open."""
    workers = []
    for strategy in strategies:
        for kind in KINDS:
            workers.append(start(kind))
            terms = {"count": count, "permit_ttl": permit_ttl}
            workers[-1].ask(
                "open", name=name, options=terms | {"semaphore_init_strategy": strategy}
            )
    return workers


def contend(
    workers: Sequence[WorkerProcess], name: str, *, contenders: int, seconds: float, hold: float
) -> list[Hold]:
    """Have them all compete; returns every hold that there was."""
    load = {"contenders": contenders, "seconds": seconds, "hold": hold}
    answers = [worker.begin("contend", name=name, **load) for worker in workers]
    holds = []
    for worker, answer in zip(workers, answers, strict=True):
        facts = answer.result(seconds + 20)
        assert all(each["held"] and not each["lost"] for each in facts)
        holds += [Hold.reported(f"{worker.kind} {worker.pid}", each) for each in facts]
    return holds


def assert_at_rest(worker: WorkerProcess, name: str, count: int) -> None:
    eventually(
        lambda: worker.ask("status", name=name) == {"free": count, "held": [], "missing": 0},
        timeout=4,
    )


MIXES = pytest.mark.parametrize(
    "strategies",
    [(LUA, LUA), (OPTIMISTIC, OPTIMISTIC), (LUA, OPTIMISTIC)],
    ids=["lua", "optimistic", "both strategies"],
)


@pytest.mark.punctual
@MIXES
@pytest.mark.parametrize("count", [1, 3])
def test_there_are_never_more_holders_than_permits(
    start: Start, strategies: Sequence[str], count: int
) -> None:
    workers = crew(start, "busy", count, strategies)
    holds: list[Hold] = []
    # Until all permits were used at once, and by everybody: for a busy machine a turn is short.
    while (
        len(holds) < 50
        or most_at_once(holds) < count
        or len({hold.process for hold in holds}) < len(workers)
    ):
        holds += contend(workers, "busy", contenders=4, seconds=1.2, hold=0.002)
        check(holds, count)
    assert_at_rest(workers[0], "busy", count)


@pytest.mark.punctual
def test_permits_do_not_pause_between_two_holders(start: Start) -> None:
    # A hand-over that had to wait for a lease or a slice to end would take seconds.
    workers = crew(start, "smooth", 2, (LUA,))
    holds = contend(workers, "smooth", contenders=3, seconds=1.5, hold=0.01)
    check(holds, 2)
    holds.sort(key=lambda hold: hold.granted)
    for slot in range(2):
        mine = [hold for hold in holds if hold.slot == slot]
        pauses = [later.granted - hold.ended for hold, later in pairwise(mine)]
        assert len(pauses) > 20
        assert max(pauses) < 0.5


@pytest.mark.punctual
def test_a_semaphore_with_many_permits_serves_many_processes(start: Start) -> None:
    workers = crew(start, "wide", 20, (LUA, OPTIMISTIC))
    holds = contend(workers, "wide", contenders=10, seconds=1.5, hold=0.1)
    check(holds, 20)
    assert most_at_once(holds) == 20
    assert {hold.slot for hold in holds} == set(range(20))
    assert_at_rest(workers[-1], "wide", 20)


@pytest.mark.punctual
@MIXES
def test_killing_one_process_in_full_flight_costs_the_others_nothing_for_good(
    start: Start, strategies: Sequence[str]
) -> None:
    workers = crew(start, "flight", 3, strategies, permit_ttl=1)
    *others, victim = workers
    load = {"name": "flight", "contenders": 4, "hold": 0.002}
    answers = [worker.begin("contend", seconds=2.5, **load) for worker in others]
    victim.begin("contend", seconds=60, **load)
    eventually(lambda: others[0].ask("status", name="flight")["free"] < 3)
    killed = victim.kill()
    holds = []
    for worker, answer in zip(others, answers, strict=True):
        holds += [Hold.reported(f"{worker.kind} {worker.pid}", each) for each in answer.result(20)]
    check(holds, 3)
    later = [hold for hold in holds if hold.granted > killed + 1 + 1]
    assert most_at_once(later) == 3, "a permit of the killed one did not come back"
    assert_at_rest(others[0], "flight", 3)
