"""A process that is killed while it is being woken does not take the signal along.

Its connections go through a proxy, which holds exactly the request or the answer in question for
good; then it is killed by SIGKILL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Literal

import pytest

from redsync.cli.server import Server

from .support.commands import evalsha, load_scripts
from .support.process import KINDS, Kind, WorkerProcess
from .support.proxy import FaultProxy
from .support.sync import eventually, together

pytestmark = [pytest.mark.faults, pytest.mark.punctual]

BOUND = 8.0
"""Seconds within which somebody else who waits has the signal, as the README says."""

LEASE = 2.0
"""Seconds for which it is left to whoever took it."""


class Scene:
    """A victim behind a proxy, and a heir of the other kind."""

    def __init__(self, kind: Kind) -> None:
        self.name = f"fatal {kind}"
        self._kind = kind

    def enter(self, server: Server, stack: ExitStack) -> None:
        """Start the processes."""
        other: Kind = "threads" if self._kind == "asyncio" else "asyncio"
        self.proxy = stack.enter_context(FaultProxy(server.address))
        self.victim = stack.enter_context(WorkerProcess(self._kind, self.proxy))
        self.heir = stack.enter_context(WorkerProcess(other, server))

    def set(self) -> None:
        self.heir.ask("set_event", name=self.name)

    def hold(self, what: Literal["request", "reply"], match: str) -> None:
        """Have the victim come as far as this, and no further."""
        lose = self.proxy.lose_request if what == "request" else self.proxy.lose_reply
        fault = lose(match, times=None, how="stall")
        waiting = self.victim.begin("wait_event", name=self.name)
        if match == "BLPOP":
            eventually(lambda: self.proxy.sent("BLPOP") > 0)
            self.set()
        eventually(lambda: fault.fired)
        assert not waiting.done()

    def inherits(self, within: float) -> None:
        """The victim dies, and the heir is woken: once."""
        waiting = self.heir.begin("wait_event", name=self.name)
        killed = self.victim.kill()
        assert waiting.result(within + 5)["woken"] < killed + within
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        assert not self.heir.ask("is_set", name=self.name)["set"]
        self.set()
        self.heir.ask("wait_event", name=self.name, timeout=1)
        assert not self.heir.ask("is_set", name=self.name)["set"]


@pytest.fixture
def scenes(server: Server) -> Iterator[list[Scene]]:
    """One with a victim that uses asyncio, and one with threads."""
    load_scripts(server)
    with ExitStack() as stack:
        entered = [Scene(kind) for kind in KINDS]
        for scene in entered:
            scene.enter(server, stack)
        yield entered


def test_killed_when_a_signal_was_popped_for_it(scenes: list[Scene]) -> None:
    def play(scene: Scene) -> None:
        scene.hold("reply", "BLPOP")
        scene.inherits(BOUND)

    together(*[partial(play, scene) for scene in scenes])


@pytest.mark.parametrize("what", ["request", "reply"])
def test_killed_while_it_takes_a_signal(
    scenes: list[Scene], what: Literal["request", "reply"]
) -> None:
    def play(scene: Scene) -> None:
        scene.set()
        scene.hold(what, evalsha("event/take"))
        scene.inherits(LEASE + 1)

    together(*[partial(play, scene) for scene in scenes])


def test_killed_before_it_has_confirmed(scenes: list[Scene]) -> None:
    def play(scene: Scene) -> None:
        scene.set()
        scene.hold("request", evalsha("event/confirm"))
        scene.inherits(LEASE + 1)

    together(*[partial(play, scene) for scene in scenes])


def test_killed_when_it_has_confirmed_the_signal_is_used_up(scenes: list[Scene]) -> None:
    def play(scene: Scene) -> None:
        scene.set()
        scene.hold("reply", evalsha("event/confirm"))
        scene.victim.kill()
        answer = scene.heir.begin("wait_event", name=scene.name, timeout=LEASE + 1)
        with pytest.raises(Exception, match="RedisEventTimeoutError"):
            answer.result()
        scene.nothing_is_left()

    together(*[partial(play, scene) for scene in scenes])
