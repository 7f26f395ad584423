"""What a worker tells Redis, and makes of the answers, with a server that the test plays itself."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest
from redis import exceptions

from redsync._async.adoption import Adoption
from redsync._async.runner import Duty, Runner
from redsync._async.schedule import Lease, Schedule
from redsync._backoff import Backoff
from redsync._protocol.keys import TimerKeys
from redsync._protocol.scripts import Command
from redsync._protocol.timers import Claimed, Outcome, Terms, TimerScripts
from redsync.routing import Handler, Policy

from ..support.aio import eventually, spawn

TERMS = [Terms("t", 1_000_000, 3)]
MEMBER = b"t--x"
NOTHING: list[Any] = [b"0", 12_000_000, 0, b"", b""]
"""The answer to a turn for which there is no timer."""


def taken(fence: int, *, held: bool = False) -> list[Any]:
    """The answer to a turn that takes a timer, for the first time or as one that it had."""
    attempt = -2 if held else 1
    return [b"0", -1, 0, b"1 %d 0 %d %d 0" % (fence, attempt, len(MEMBER)), MEMBER]


def outcome(fence: int, what: Any = "completed") -> Outcome:
    return Outcome("t", MEMBER, fence, what)


class Scripts(TimerScripts):
    """Notes what a worker asks for."""

    def __init__(self) -> None:
        super().__init__(TimerKeys.of("timers", None, clustered=False))
        self.turns: list[tuple[int, bool, str]] = []
        self.outcomes: list[Outcome] = []

    def turn(
        self,
        worker: str,
        number: int,
        again: bool,
        limit: int,
        mode: Any,
        outcomes: Sequence[Outcome],
        terms: Sequence[Terms],
    ) -> Any:
        self.turns.append((number, again, mode))
        self.outcomes += outcomes
        return Command(b"")

    def renew(self, runs: Sequence[tuple[str, int, int, bytes]]) -> Any:
        return Command(b"")


class Server:
    """Answers as it is told to, at the end of a way that leads nowhere else."""

    place = None
    moves = 0

    def __init__(self) -> None:
        self.answers: list[Any] = []

    async def run(self, command: Command, deadline: float) -> Any:
        answer = self.answers.pop(0) if self.answers else NOTHING
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def give_up_stalled(self, *_: Any) -> None:
        pass


class Passes(Adoption):
    """Makes none, and counts how often they were ended."""

    def __init__(self) -> None:
        super().__init__("--")
        self.ended = 0

    def look(self, *_: Any) -> None:
        pass

    async def end(self) -> None:
        self.ended += 1


class Scene:
    """A worker of one topic."""

    def __init__(self) -> None:
        self.server, self.scripts = Server(), Scripts()
        way: Any = self.server
        self.schedule = Schedule("timers", way, self.scripts, lambda: ["t"], lambda: None)
        self.adoption = Passes()
        handler = Handler("t", None, lambda payload: None, 1)
        duties = {"t": Duty.of(handler, Policy(3, Backoff(1.0), 30.0, None))}
        self.runner = Runner(self.schedule, duties, None, 1, "--", self.adoption)

    async def turn(self, *answers: Any) -> list[Claimed]:
        self.server.answers += answers
        turn, _ = await self.schedule.turn(1, "stay", TERMS)
        return turn.claimed

    async def take(self, fence: int, length: float = 1.0) -> Lease:
        """Take a timer, and look after its lease."""
        [claimed] = await self.turn(taken(fence))
        lease = self.schedule.hold(claimed, length, monotonic())
        self.runner._running.add(lease)
        return lease


async def test_each_turn_has_a_number_of_its_own_until_it_was_answered() -> None:
    scene = Scene()
    await scene.turn()
    with pytest.raises(exceptions.ConnectionError):
        await scene.turn(exceptions.ConnectionError("away"))
    await scene.turn()
    await scene.turn()
    assert [each[:2] for each in scene.scripts.turns] == [
        (0, False),
        (1, False),
        (1, True),
        (2, False),
    ]


async def test_a_worker_that_was_woken_says_so_once() -> None:
    scene = Scene()
    scene.schedule.deliver([b"1"], monotonic())
    await scene.turn()
    await scene.turn()
    scene.schedule.reconnected()
    await scene.turn()
    assert [mode for *_, mode in scene.scripts.turns] == ["woken", "stay", "woken"]


async def test_what_ends_while_it_is_offered_once_more_is_not_run_again() -> None:
    scene = Scene()
    lease = await scene.take(17)

    def ends() -> Any:
        scene.schedule.finish(lease, outcome(17))
        return taken(17, held=True)  # its lease was over, and nobody else had it

    assert await scene.turn(ends) == []
    assert scene.schedule.unreported
    await scene.turn()
    assert scene.scripts.outcomes == [outcome(17)] and not scene.schedule.unreported


async def test_a_run_that_was_given_up_has_no_outcome_but_that() -> None:
    scene = Scene()
    lease = await scene.take(17)
    lease.lose()
    assert await scene.turn(taken(17, held=True)) == []
    scene.schedule.finish(lease, outcome(17))
    await scene.turn()
    assert scene.scripts.outcomes == [outcome(17, "again")]


async def test_a_run_whose_lease_is_not_renewed_has_lost_it() -> None:
    scene = Scene()
    lost, kept = await scene.take(17, 100), await scene.take(18, 100)
    for each in (lost, kept):
        each.renewal = 0.0
    scene.server.answers.append([0, 1])
    await scene.schedule.tend()
    assert (lost.remaining(), kept.remaining() > 0) == (0, True)


async def test_whoever_runs_something_is_not_idle() -> None:
    scene = Scene()
    assert scene.schedule.idle()
    lease = await scene.take(17)
    assert not scene.schedule.idle()
    scene.schedule.finish(lease, None)
    assert scene.schedule.idle()


async def test_what_has_never_begun_goes_back_at_a_stop() -> None:
    scene = Scene()
    begun = await scene.take(17)
    begun.started = True
    await scene.take(18)
    scene.runner._abandon()
    await scene.turn()
    assert scene.scripts.outcomes == [outcome(18, "back")]


async def test_what_a_last_turn_brings_whose_answer_was_lost_before_goes_back_too() -> None:
    scene = Scene()
    scene.server.answers.append(taken(17))
    await scene.runner._finish()
    assert scene.scripts.outcomes == [outcome(17, "back")]


async def test_a_worker_ends_when_all_is_reported() -> None:
    scene = Scene()
    lease = await scene.take(17)

    def ends() -> Any:
        scene.runner._end(lease, outcome(17))
        return NOTHING

    scene.server.answers.append(ends)
    await scene.runner._finish()
    assert scene.scripts.outcomes == [outcome(17)]


async def test_a_worker_whose_server_is_away_waits_for_what_runs() -> None:
    scene = Scene()
    lease = await scene.take(17)
    scene.server.answers.append(exceptions.ConnectionError("away"))
    finishing = spawn(scene.runner._finish)
    await eventually(lambda: len(scene.scripts.turns) == 2)
    scene.runner._end(lease, outcome(17))
    await finishing.result()
    assert scene.scripts.outcomes == [outcome(17)]


async def test_a_worker_takes_its_passes_along() -> None:
    scene = Scene()
    scene.runner.leave()
    await scene.runner.run()
    assert scene.adoption.ended == 1
