"""A worker stopped by SIGSTOP for longer than a lease, at each step of a run, and continued.

It knows nothing of the time that has passed.  Whatever it still does comes too late: the other one
has taken the timer over, and nothing of what that one does is undone.
"""

from __future__ import annotations

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
from .support.sync import eventually, together

pytestmark = [pytest.mark.faults, pytest.mark.punctual]

LEASE = 0.6

TURN = evalsha("timers/turn")
REPORT = "completed"
"""Only a turn that reports the end of a run contains it."""


class Scene:
    """A sleeper behind a proxy, and another worker of the other kind that goes on."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def enter(self, server: Server, stack: ExitStack, folder: Path) -> None:
        """Start the processes; neither works."""
        other: Kind = "threads" if self._kind == "asyncio" else "asyncio"
        self.proxy = stack.enter_context(FaultProxy(server.address))
        self.fleet = Fleet(server, stack, folder, f"halted-{self._kind}", lease=LEASE)
        self.sleeper = self.fleet.add(self._kind, self.proxy)
        self.other = self.fleet.add(other)
        self.sleeper.catch_up()  # its connection is there

    def begin(self, payload: dict[str, object] | None = None, **options: object) -> None:
        """Have the sleeper run a timer, which waits in its handler."""
        self.other.set_timer("1", {"wait": True, **(payload or {})}, 0, **options)
        self.sleeper.work()
        eventually(lambda: self.fleet.begun("1"))

    def take_over(self) -> Entry:
        """Stop the sleeper until the other one runs the timer; that handler waits."""
        stopped = now()
        self.sleeper.process.stop()
        self.other.work()
        eventually(lambda: self.others())
        run = self.others()[0]
        assert run.at < stopped + (LEASE + 1) * 1e6
        return run

    def go_on(self) -> None:
        """Have the sleeper continue, and do all that it has to do."""
        self.sleeper.process.go_on()
        self.proxy.heal()
        self.sleeper.let_go("1")

    def is_claimed(self) -> bool:
        """Whether somebody runs the timer, as far as Redis knows."""
        record = self.fleet.record("1")
        return record is not None and int(record[1]) > 0

    def others(self) -> list[Entry]:
        """The runs of the other worker."""
        return [each for each in self.fleet.begun("1") if each.pid == self.other.process.pid]

    def is_undisturbed(self, run: Entry) -> None:
        """The other's run is still the one that counts, and comes to its end."""
        record = self.fleet.record("1")
        assert record is not None and int(record[1]) == run.fence
        self.other.let_go("1")
        eventually(lambda: [each for each in self.fleet.ended("1") if each.fence == run.fence])
        [done] = [each for each in self.fleet.ended("1") if each.fence == run.fence]
        assert not done.lost

    def is_over(self, runs: int) -> None:
        """Nothing is left, so many runs have begun, and both still work."""
        eventually(self.fleet.is_empty)
        self.fleet.check()
        assert len(self.fleet.begun("1")) == runs
        # More than either takes at once.
        self.other.set_timers({f"after {number}": 0 for number in range(5)}, {"take": 0.01})
        eventually(lambda: len({each.timer_id for each in self.fleet.ended()}) == 6)
        eventually(self.fleet.is_empty)
        assert len(self.fleet.begun("1")) == runs


@pytest.fixture
def play(server: Server, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Play a scene in which the sleeper uses asyncio, and at the same time one with threads."""
    load_scripts(server)
    with ExitStack() as stack:

        def play(scene: Callable[[Scene], None]) -> None:
            def enact(kind: Kind) -> None:
                entered = Scene(kind)
                entered.enter(server, stack, tmp_path)
                scene(entered)

            together(*[partial(enact, kind) for kind in KINDS])

        yield play


@pytest.mark.parametrize("answer", ["late", "lost"])
def test_what_was_claimed_and_is_heard_of_too_late_is_not_run(
    play: Callable[..., None], answer: str
) -> None:
    def scene(scene: Scene) -> None:
        scene.other.set_timer("1", {"wait": True})
        if answer == "late":
            scene.proxy.partition(requests=False)
        else:
            scene.proxy.lose_reply(TURN, how="stall")
        scene.sleeper.work()
        eventually(scene.is_claimed)
        run = scene.take_over()
        assert run.attempt == 2
        scene.go_on()
        if answer == "lost":
            scene.proxy.close_all()
            eventually(lambda: scene.proxy.sent(TURN) > 1)  # it asks again
        for _ in range(3):  # time enough to do something wrong
            scene.sleeper.catch_up()
        scene.is_undisturbed(run)
        scene.is_over(1)

    play(scene)


def test_whoever_was_stopped_in_a_handler_learns_that_it_is_lost(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        scene.begin()
        run = scene.take_over()
        assert run.attempt == 2
        scene.go_on()
        eventually(lambda: scene.fleet.ended("1"))
        [ended] = scene.fleet.ended("1")
        assert ended.pid == scene.sleeper.process.pid and ended.lost
        eventually(lambda: scene.proxy.sent(REPORT) > 0)
        scene.sleeper.catch_up()
        scene.is_undisturbed(run)
        scene.is_over(2)

    play(scene)


@pytest.mark.parametrize("how", ["completed", "failed"])
def test_a_late_report_does_not_touch_a_new_arming(play: Callable[..., None], how: str) -> None:
    def scene(scene: Scene) -> None:
        scene.begin({"fail": 1} if how == "failed" else {})
        scene.take_over()
        scene.other.let_go("1")
        eventually(scene.fleet.is_empty)
        scene.other.set_timer("1", {"new": True}, 60)
        before = scene.fleet.contents()
        scene.go_on()
        eventually(lambda: scene.proxy.sent(" again " if how == "failed" else REPORT) > 0)
        scene.sleeper.catch_up()
        assert scene.fleet.contents() == before
        assert scene.sleeper.ask("timer_names") == ["notes--1"]
        assert scene.other.remove_timer("1")
        scene.is_over(2)

    play(scene)


def test_a_report_that_arrives_too_late_changes_nothing(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        scene.begin()
        scene.proxy.partition(replies=False)
        scene.sleeper.let_go("1")
        eventually(lambda: scene.fleet.ended("1"))
        run = scene.take_over()
        scene.go_on()
        eventually(lambda: scene.proxy.sent(REPORT) > 0)
        scene.sleeper.catch_up()
        scene.is_undisturbed(run)
        scene.is_over(2)

    play(scene)


def test_a_report_whose_answer_is_late_is_made_again_without_effect(
    play: Callable[..., None],
) -> None:
    def scene(scene: Scene) -> None:
        scene.begin()
        fault = scene.proxy.lose_reply(REPORT, how="stall")
        scene.sleeper.let_go("1")
        eventually(lambda: fault.fired)
        scene.sleeper.process.stop()
        assert scene.fleet.is_empty()
        scene.other.set_timer("1", {"wait": True})
        scene.other.set_timer("later than any lease", seconds=LEASE + 0.1)
        scene.other.work()  # only now: the sleeper is next in line for a token
        eventually(lambda: scene.fleet.ended("later than any lease"))
        [run] = scene.others()
        reports = scene.proxy.sent(REPORT)
        scene.sleeper.process.go_on()
        scene.proxy.close_all()
        eventually(lambda: scene.proxy.sent(REPORT) > reports)
        scene.sleeper.catch_up()
        scene.is_undisturbed(run)
        eventually(scene.fleet.is_empty)
        assert [each.attempt for each in scene.fleet.begun("1")] == [1, 1]
        scene.fleet.check()

    play(scene)


def test_a_renewal_that_comes_too_late_is_none(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        scene.begin()
        fault = scene.proxy.lose_request(evalsha("timers/renew"), how="stall")
        eventually(lambda: fault.fired)  # it will be sent again over a new connection
        run = scene.take_over()
        renewals = scene.proxy.sent(evalsha("timers/renew"))
        scene.sleeper.process.go_on()
        eventually(lambda: scene.proxy.sent(evalsha("timers/renew")) > renewals)
        scene.sleeper.catch_up()
        scene.sleeper.let_go("1")
        eventually(lambda: scene.fleet.ended("1"))
        assert scene.fleet.ended("1")[0].lost
        scene.is_undisturbed(run)
        scene.is_over(2)

    play(scene)


def test_a_new_arming_that_comes_late_waits_for_the_other_run(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        scene.begin({"arm": {"new": True}})
        scene.proxy.partition(replies=False)
        scene.sleeper.let_go("1")  # its handler arms the timer anew
        run = scene.take_over()
        scene.sleeper.process.go_on()
        scene.proxy.heal()
        eventually(lambda: scene.fleet.ended("1"))
        eventually(lambda: scene.proxy.sent(REPORT) > 0)
        scene.sleeper.catch_up()
        record = scene.fleet.record("1")
        assert record is not None and int(record[1]) == run.fence and record[3]
        assert len(scene.fleet.begun("1")) == 2
        scene.other.let_go("1")  # which arms it once more
        eventually(scene.fleet.is_empty)
        assert [each.payload for each in scene.fleet.begun("1")[2:]] == [{"new": True}]
        scene.fleet.check()

    play(scene)


def test_a_series_goes_on_without_the_one_that_was_stopped(play: Callable[..., None]) -> None:
    every = 0.15

    def scene(scene: Scene) -> None:
        scene.begin(every=every, missed="all")
        first = scene.fleet.begun("1")[0].due
        scene.other.let_go("1")
        scene.take_over()
        scene.go_on()
        eventually(lambda: scene.proxy.sent(REPORT) > 0)
        scene.sleeper.catch_up()
        seen = len(scene.fleet.begun("1"))
        eventually(lambda: len(scene.fleet.begun("1")) > seen + 3)
        scene.other.remove_timer("1")
        eventually(scene.fleet.is_empty)
        scene.fleet.check()
        runs = scene.fleet.begun("1")
        assert [run.attempt for run in runs] == [1, 2] + [1] * (len(runs) - 2)
        assert [run.due for run in runs[1:]] == [
            first + number * int(every * 1e6) for number in range(len(runs) - 1)
        ]

    play(scene)
