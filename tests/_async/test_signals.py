"""What a process makes of the answers about an event, with a server that the test plays itself."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest
from redis import exceptions

from redsync._async.signals import Signals
from redsync._async.waiting import Waiter
from redsync._protocol.keys import EventKeys
from redsync._protocol.scripts import Request
from redsync.aio import RedisEventTimeoutError

from ..support.aio import eventually, spawn


class Server:
    """The way to a server that answers as it is told to, by the name of the script."""

    place = None
    moves = 0
    clustered = False

    def __init__(self) -> None:
        self.answers: dict[str, list[int]] = {}
        self.asked: list[str] = []

    async def open_line(self, timeout: float) -> None:
        raise exceptions.ConnectionError("nowhere")

    async def run(self, command: Any, deadline: float) -> int:
        assert isinstance(command, Request)
        name = command.script.name.removeprefix("event/")
        self.asked.append(name)
        return self.answers[name].pop(0)


def scene() -> tuple[Server, Signals]:
    server = Server()
    way: Any = server
    return server, Signals("x", way, EventKeys.of("p", "x"), lambda: None)


async def test_whoever_confirms_too_late_goes_on_waiting() -> None:
    server, signals = scene()
    server.answers = {"take": [1], "confirm": [0]}
    with pytest.raises(RedisEventTimeoutError):
        await signals.wait("me:1", None, 0)
    server.answers = {"take": [1], "confirm": [1]}
    await signals.wait("me:2", None, 0)
    assert server.asked == ["take", "confirm"] * 2


async def test_whoever_waits_and_confirms_too_late_goes_on_waiting() -> None:
    server, signals = scene()
    server.answers = {"take": [0], "confirm": [0, 1]}
    waiting = spawn(lambda: signals.wait("me:1", None, 5))
    for signal in (b"1", b"2"):
        await eventually(lambda: len(signals._queue) == 1)
        signals.deliver([signal], monotonic())
    await waiting.result()
    assert server.asked == ["take", "confirm", "confirm"]


async def test_a_newcomer_does_not_ask_for_what_others_wait_for() -> None:
    server, signals = scene()
    signals._queue._waiting["me:9"] = Waiter("me:9", None)
    with pytest.raises(RedisEventTimeoutError):
        await signals.wait("me:1", None, 0)
    assert server.asked == []


async def test_a_signal_that_was_not_confirmed_is_looked_for_when_its_time_is_over() -> None:
    server, signals = scene()
    signals._queue._waiting["me:9"] = Waiter("me:9", None)
    for answer, wait in ((700, 0.7), (-1, 4.0)):
        server.answers = {"tend": [answer]}
        before = monotonic()
        await signals.tend()
        assert before + 0.8 * wait - 0.01 < signals.due() < monotonic() + 1.2 * wait + 0.01


async def test_what_was_given_back_is_forgotten() -> None:
    server, signals = scene()
    signals.deliver([b"17"], monotonic())
    assert signals.due() == 0.0 and not signals.idle()
    server.answers = {"tend": [-1]}
    await signals.tend()
    assert server.asked == ["tend"] and signals.idle()


async def test_whoever_leaves_gives_back_what_it_was_given() -> None:
    _, signals = scene()
    waiter: Waiter[str] = Waiter("me:9", None)
    signals._queue._waiting["me:9"] = waiter
    signals.deliver([b"17"], monotonic())
    assert waiter.result() == "17" and signals._returns == {}
    signals.abandon("me:9")
    signals.abandon("me:9")
    assert list(signals._returns) == ["17"] and signals.due() == 0.0


async def test_what_ends_a_wait_is_no_signal() -> None:
    _, signals = scene()
    queue = signals._queue
    assert not queue._hand_out([queue._wake, b"1"], True, monotonic())
    assert not queue._hand_out(None, True, monotonic())
    assert not queue._hand_out(None, False, monotonic())
    assert list(signals._returns) == []
    assert queue._hand_out([b"signals", b"17"], True, monotonic())
    assert queue._hand_out([b"18", b"19"], False, monotonic())
    assert list(signals._returns) == ["17", "18", "19"]
