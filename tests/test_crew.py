"""The threads that run handlers: each job begins at once, and none is forgotten."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redsync._runtime.sync import Crew, Worker
from redsync._runtime.sync import crew as module

from .support.sync import eventually

_numbers = itertools.count()


@pytest.fixture
def make_crew() -> Iterator[Callable[[int], Crew]]:
    crews = []

    def make(size: int) -> Crew:
        crews.append(Crew(size, f"crew-{next(_numbers)}"))
        return crews[-1]

    yield make
    for crew in crews:
        crew.dismiss()
        eventually(lambda crew=crew: threads(crew) == 0)  # type: ignore[misc]


MakeCrew = Callable[[int], Crew]


def threads(crew: Crew) -> int:
    return sum(each.name == crew._name for each in threading.enumerate())


def waiting(gate: threading.Event) -> Callable[[], None]:
    def job() -> None:
        assert gate.wait(20)

    return job


def meet(crew: Crew, count: int) -> None:
    """So many jobs that wait for each other."""
    met = threading.Barrier(count + 1)

    def job() -> None:
        met.wait(20)

    for _ in range(count):
        crew.start(job)
    met.wait(20)


@pytest.mark.parametrize("idle", [0, 6])
def test_jobs_that_take_long_all_begin_at_once(make_crew: MakeCrew, idle: int) -> None:
    crew = make_crew(6)
    if idle:
        meet(crew, 6)
        eventually(lambda: len(crew._idle) == idle)
    meet(crew, 6)
    assert threads(crew) == 6


def test_there_are_no_more_threads_than_its_size_and_each_job_is_done(make_crew: MakeCrew) -> None:
    crew = make_crew(3)
    going, most, done = set[int](), [], []
    gate = threading.Semaphore(0)

    def job(number: int) -> None:
        going.add(number)
        most.append(len(going))
        gate.acquire()
        going.discard(number)
        done.append(number)

    for number in range(10):
        crew.start(lambda number=number: job(number))  # type: ignore[misc]
    eventually(lambda: len(going) == 3)
    assert threads(crew) == 3
    for count in range(1, 11):
        gate.release()
        eventually(lambda count=count: len(done) == count)  # type: ignore[misc]
    assert max(most) == 3
    assert sorted(done) == list(range(10))


def test_a_thread_without_a_job_ends_and_another_one_comes_for_the_next(
    make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.01)
    crew = make_crew(2)
    done: list[int] = []
    for number in range(3):
        crew.start(lambda number=number: done.append(number))  # type: ignore[misc]
        eventually(lambda: threads(crew) == 0)
        assert done == list(range(number + 1))
        assert crew._threads == 0 and not crew._idle and not crew._sent


def test_a_thread_that_is_sent_while_it_gives_up_goes_to_its_job(
    make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever sends it has taken its gate, and has not opened it yet: it may never do so.
    monkeypatch.setattr(module, "_IDLE", 0.2)
    crew = make_crew(1)
    done: list[int] = []
    crew.start(lambda: done.append(1))
    eventually(lambda: crew._idle)
    with crew._mutex:
        gate = crew._idle.pop()
        crew._sent = True
        crew._jobs.append(lambda: done.append(2))
    eventually(lambda: done == [1, 2])
    gate.release()  # too late
    crew.start(lambda: done.append(3))
    eventually(lambda: done == [1, 2, 3])
    assert crew._threads == 1


def test_threads_may_come_and_go_while_jobs_come(
    make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.0002)
    crew = make_crew(2)
    for _ in range(300):
        meet(crew, 2)
    eventually(lambda: threads(crew) == 0)


def test_what_was_started_before_a_dismissal_is_done(make_crew: MakeCrew) -> None:
    crew = make_crew(1)
    gate, done = threading.Event(), list[int]()
    crew.start(waiting(gate))
    for number in range(3):
        crew.start(lambda number=number: done.append(number))  # type: ignore[misc]
    crew.dismiss()
    gate.set()
    eventually(lambda: threads(crew) == 0, timeout=5)
    assert done == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_raises_costs_no_thread(make_crew: MakeCrew) -> None:
    crew = make_crew(1)
    done: list[int] = []

    def fail() -> None:
        raise SystemExit

    for number in range(3):
        crew.start(fail)
        crew.start(lambda number=number: done.append(number))  # type: ignore[misc]
    eventually(lambda: done == [0, 1, 2])


class NoMoreThreads:
    """So many can be made, and then none; called each time when one cannot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.attempts = 0
        self.missed: Callable[[], None] = lambda: None
        self._most = most
        monkeypatch.setattr(module, "Worker", self)

    def __call__(self, *arguments: Any) -> object:
        self.attempts += 1
        if self.attempts > self._most:
            self.missed()
            raise RuntimeError("can't start new thread")
        return Worker(*arguments)


def test_without_any_thread_a_job_is_refused(
    make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = make_crew(5)
    NoMoreThreads(monkeypatch, most=0)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            crew.start(lambda: None)
    assert crew._threads == 0


def test_with_too_few_threads_those_there_are_do_all_jobs(
    make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = make_crew(5)
    there_are = NoMoreThreads(monkeypatch, most=1)
    gates = [threading.Event() for _ in range(3)]
    crew._jobs.append(waiting(gates[0]))
    crew.start(waiting(gates[1]))  # the first one's thread cannot send another
    eventually(lambda: there_are.attempts == 2 and not crew._sent)
    crew.start(waiting(gates[2]))  # nor can this one
    assert there_are.attempts == 3 and crew._threads == 1
    for left, gate in zip((2, 1, 0), gates, strict=True):
        eventually(lambda left=left: len(crew._jobs) == left)  # type: ignore[misc]
        gate.set()
    eventually(lambda: len(crew._idle) == 1)
    monkeypatch.undo()
    meet(crew, 5)


def test_a_thread_that_has_gone_to_sleep_while_no_other_could_be_made_is_sent(
    make_crew: MakeCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = make_crew(3)
    there_are = NoMoreThreads(monkeypatch, most=2)
    gates = [threading.Event() for _ in range(2)]
    for gate in gates:
        crew.start(waiting(gate))
    eventually(lambda: not crew._jobs and not crew._sent)
    done: list[int] = []

    def missed() -> None:
        gates[1].set()
        eventually(lambda: done == [3] and len(crew._idle) == 1)
        crew.start(lambda: done.append(4))  # it relies on the thread that is being made
        assert done == [3]

    there_are.missed = missed
    crew.start(lambda: done.append(3))
    eventually(lambda: done == [3, 4], timeout=5)
    gates[0].set()
