"""Whom to ask where the master is, and that nobody waits for a sentinel that hangs."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ConnectionError, TimeoutError

from redsync._runtime.aio import network as of_tasks
from redsync._runtime.sync import network as of_threads

THERE = ("there", 26379)


def test_whoever_comes_while_somebody_looks_waits_for_the_same_answer() -> None:
    gate, looks = threading.Event(), list[int]()

    def look() -> str:
        looks.append(1)
        assert gate.wait(10)
        return "there"

    errand = of_threads._Errand(look)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            errand.result(0.01)
    assert looks == [1]
    gate.set()
    assert errand.result(10) == "there"


async def test_so_does_a_task() -> None:
    gate, looks = asyncio.Event(), list[int]()

    async def look() -> str:
        looks.append(1)
        await gate.wait()
        return "there"

    errand = of_tasks._Errand(look)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await errand.result(0.01)
    assert looks == [1], "one that hangs is not asked again and again"
    gate.set()
    assert await errand.result(10) == "there"
    assert await errand.result(10) == "there"
    assert looks == [1, 1]


def test_an_interrupt_leaves_nothing_that_others_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    errand = of_threads._Errand(lambda: "there")
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        errand.result(10)
    assert errand.result(10) == "there"


def test_whoever_comes_after_that_has_an_answer_of_its_own() -> None:
    answers = ["here", "there"]
    errand = of_threads._Errand(partial(answers.pop, 0))
    assert [errand.result(10), errand.result(10)] == ["here", "there"]


def test_an_answer_that_is_an_error_is_told_and_looked_for_anew() -> None:
    answers = [1, 0]
    errand = of_threads._Errand(lambda: 1 // (1 - answers.pop(0)))
    with pytest.raises(ZeroDivisionError):
        errand.result(10)
    assert errand.result(10) == 1


class Asked:
    """A sentinel that answers, or does not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.times = 0

    def tell(self) -> tuple[str, int]:
        self.times += 1
        if self.error is not None:
            raise self.error
        return THERE

    async def discover_master(self, service: str) -> tuple[str, int]:
        return self.tell()


@pytest.mark.parametrize("world", ["tasks", "threads"])
def test_the_next_sentinel_is_asked_and_goes_on_to_be_the_first_one(world: str) -> None:
    broken, works = Asked(ConnectionError("no")), Asked()
    found = [_ask(world, broken, works), _ask(world, works, broken)]
    assert found == [[THERE, THERE]] * 2
    assert (broken.times, works.times) == (1, 4)


@pytest.mark.parametrize("world", ["tasks", "threads"])
def test_if_no_sentinel_answers_the_last_error_is_told(world: str) -> None:
    with pytest.raises(ConnectionError, match="last"):
        _ask(world, Asked(ConnectionError("first")), Asked(ConnectionError("last")))


def _ask(world: str, *asked: Asked) -> list[tuple[str, int]]:
    """Ask twice."""
    if world == "threads":
        looking: Any = object.__new__(of_threads.Sentinels)
        looking._errands = [of_threads._Errand(each.tell) for each in asked]
        return [looking.master(5), looking.master(5)]
    sentinels: Any = object.__new__(of_tasks.Sentinels)
    sentinels._errands = [of_tasks._Errand(partial(each.discover_master, "it")) for each in asked]

    async def ask() -> list[tuple[str, int]]:
        return [await sentinels.master(5), await sentinels.master(5)]

    return asyncio.run(ask())
