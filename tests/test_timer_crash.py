"""Workers killed by SIGKILL, at each step between a claim and the report of what came of it.

The victim's connections go through a proxy, which holds exactly the request or the answer in
question for good; then it is killed.  For the server its connections stay open, as after the death
of a whole machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from redsync.cli.server import Server

from .support.commands import evalsha, load_scripts
from .support.fleet import Fleet, now
from .support.process import KINDS, Kind
from .support.proxy import Fault, FaultProxy
from .support.sync import eventually, together

pytestmark = [pytest.mark.faults, pytest.mark.punctual]

LEASE = 0.7

LONG = 2.5
"""For those who must not lose their leases when the machine stands still."""

TURN = evalsha("timers/turn")
REPORT = "completed"
"""Only a turn that reports the end of a run contains it."""


class Scene:
    """A victim behind a proxy, and a heir of the other kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def enter(self, server: Server, stack: ExitStack, folder: Path) -> None:
        """Start the processes; the victim works."""
        other: Kind = "threads" if self._kind == "asyncio" else "asyncio"
        self.proxy = stack.enter_context(FaultProxy(server.address))
        self.fleet = Fleet(server, stack, folder, f"fatal-{self._kind}", lease=LEASE)
        self.victim = self.fleet.add(self._kind, self.proxy)
        self.heir = self.fleet.add(other)
        self.victim.work()
        eventually(lambda: self.proxy.sent("BLPOP") > 0)

    def hold(self, what: str, match: str) -> Fault:
        """Hold this request or its answer, and all that comes after it on the same connection."""
        lose = self.proxy.lose_request if what == "request" else self.proxy.lose_reply
        return lose(match, times=None, how="stall")

    def begin(self, payload: dict[str, object]) -> None:
        """Have the victim run a timer."""
        self.armed = now()
        self.heir.set_timer("1", payload)
        eventually(lambda: self.fleet.begun("1"))

    def kill(self) -> int:
        """The heir works, and the victim is killed; returns when."""
        self.heir.let_go("1")
        self.heir.work()
        killed = now()
        self.victim.process.kill()
        return killed

    def is_inherited(self, killed: int, attempt: int) -> None:
        """The heir runs the timer, once, when the lease is over, and nothing is left."""
        eventually(lambda: self.fleet.ended("1"))
        eventually(self.fleet.is_empty)
        run = self.fleet.begun("1")[-1]
        assert [each.fence for each in self.fleet.ended("1")] == [run.fence]
        assert (run.pid, run.attempt) == (self.heir.process.pid, attempt)
        assert len(self.fleet.begun("1")) <= attempt
        if attempt > 1:
            assert run.at >= self.armed + LEASE * 1e6
        assert run.at < killed + (LEASE + 1) * 1e6
        self.fleet.check()

    def is_over(self) -> None:
        """Nothing is left, and will be run."""
        assert self.fleet.is_empty()
        self.heir.set_timer("later than any lease", seconds=LEASE + 0.1)
        eventually(lambda: self.fleet.ended("later than any lease"))
        eventually(self.fleet.is_empty)
        self.fleet.check()


@pytest.fixture
def play(server: Server, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Play a scene in which the victim uses asyncio, and at the same time one with threads."""
    load_scripts(server)
    with ExitStack() as stack:

        def play(scene: Callable[[Scene], None]) -> None:
            def enact(kind: Kind) -> None:
                entered = Scene(kind)
                entered.enter(server, stack, tmp_path)
                scene(entered)

            together(*[partial(enact, kind) for kind in KINDS])

        yield play


EITHER = pytest.mark.parametrize("what", ["request", "reply"])


@EITHER
def test_killed_while_it_claims(play: Callable[..., None], what: str) -> None:
    def scene(scene: Scene) -> None:
        fault = scene.hold(what, TURN)
        scene.armed = now()
        scene.heir.set_timer("1")
        eventually(lambda: fault.fired)
        record = scene.fleet.record("1")
        if what == "reply" and record is not None and record[4] == 0:
            # A worker looks once per lease without a reason, and that was it.
            scene.proxy.disarm(fault)
            fault = scene.hold(what, TURN)
            scene.proxy.reset_all()
            eventually(lambda: fault.fired)
            record = scene.fleet.record("1")
        assert record is not None and record[4] == (1 if what == "reply" else 0)
        scene.is_inherited(scene.kill(), 2 if what == "reply" else 1)
        assert len(scene.fleet.begun()) == 1

    play(scene)


def test_killed_while_its_handler_runs(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        scene.begin({"wait": True})
        scene.is_inherited(scene.kill(), 2)
        assert len(scene.fleet.begun()) == 2

    play(scene)


@EITHER
def test_killed_while_it_renews_a_lease(play: Callable[..., None], what: str) -> None:
    def scene(scene: Scene) -> None:
        renew = evalsha("timers/renew")
        scene.begin({"wait": True})
        eventually(lambda: scene.proxy.sent(renew) > 1)
        fault = scene.hold(what, renew)
        eventually(lambda: fault.fired)
        scene.armed += int(LEASE / 3 * 1e6)  # at least twice it has been renewed
        scene.is_inherited(scene.kill(), 2)
        assert len(scene.fleet.begun()) == 2

    play(scene)


def test_killed_before_it_has_told_that_a_timer_is_done(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        fault = scene.hold("request", REPORT)
        scene.begin({})
        eventually(lambda: fault.fired)
        killed = scene.kill()
        eventually(lambda: len(scene.fleet.ended("1")) == 2)
        eventually(scene.fleet.is_empty)
        first, second = scene.fleet.begun("1")
        assert (first.attempt, second.attempt) == (1, 2)
        assert scene.armed + LEASE * 1e6 <= second.at < killed + (LEASE + 1) * 1e6
        scene.is_over()
        assert len(scene.fleet.begun("1")) == 2

    play(scene)


def test_killed_when_it_has_told_that_a_timer_is_done(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        fault = scene.hold("reply", REPORT)
        scene.begin({})
        eventually(lambda: fault.fired)
        scene.kill()
        scene.is_over()
        assert len(scene.fleet.begun("1")) == 1

    play(scene)


@EITHER
def test_killed_while_it_tells_that_a_timer_has_failed(
    play: Callable[..., None], what: str
) -> None:
    def scene(scene: Scene) -> None:
        fault = scene.hold(what, " again ")
        scene.begin({"fail": 1})
        eventually(lambda: fault.fired)
        if what == "reply":
            scene.armed -= int(LEASE * 1e6)  # the heir does not have to wait for the lease
        scene.is_inherited(scene.kill(), 2)

    play(scene)


@EITHER
def test_killed_while_its_handler_arms_the_timer_anew(play: Callable[..., None], what: str) -> None:
    def scene(scene: Scene) -> None:
        fault = scene.hold(what, evalsha("timers/arm"))
        scene.begin({"arm": {"take": 0.01}})
        eventually(lambda: fault.fired)
        scene.proxy.disarm(fault)
        killed = scene.kill()
        # Until it is done or replaced: the old arming is run again, and the new one once.
        armed_anew = what == "reply"
        eventually(lambda: {"take": 0.01} in [each.payload for each in scene.fleet.ended("1")])
        eventually(scene.fleet.is_empty)
        runs = scene.fleet.begun("1")
        attempts = [run.attempt for run in runs]
        assert attempts == ([1, 1] if armed_anew else [1, 2, 1])
        assert [run.payload == {"take": 0.01} for run in runs[:-1]] == [False] * (len(runs) - 1)
        assert scene.armed + LEASE * 1e6 <= runs[1].at < killed + (LEASE + 1) * 1e6
        scene.fleet.check()

    play(scene)


@pytest.mark.parametrize(
    ("what", "missed"), [("request", "all"), ("request", "once"), ("reply", "all")]
)
def test_killed_while_it_tells_that_an_instant_of_a_series_is_done(
    play: Callable[..., None], what: str, missed: str
) -> None:
    every = 0.1

    def scene(scene: Scene) -> None:
        fault = scene.hold(what, REPORT)
        first = scene.heir.set_timer("1", every=every, missed=missed)
        eventually(lambda: fault.fired)
        scene.kill()
        eventually(lambda: len(scene.fleet.begun("1")) >= 6)
        scene.heir.remove_timer("1")
        eventually(scene.fleet.is_empty)
        scene.fleet.check()
        again = 1 if what == "request" else 0
        runs = scene.fleet.begun("1")
        assert [run.attempt for run in runs[: again + 4]] == [*range(1, again + 2), 1, 1, 1]
        done = [(run.due - first) / every / 1e6 for run in runs[again:]]
        assert done == sorted({round(instant) for instant in done})
        if missed == "all":
            assert done == list(range(len(done)))
        else:  # the ones during the lease are made up for by the latest of them
            assert done[0] == 0 and done[1] >= LEASE / every - 1

    play(scene)


def test_a_worker_killed_with_a_token_in_its_hand_is_made_up_for(play: Callable[..., None]) -> None:
    def scene(scene: Scene) -> None:
        fault = scene.hold("request", TURN)
        scene.heir.look_often(0.5)
        scene.heir.work()
        eventually(lambda: scene.fleet.blocked() >= 2)
        scene.heir.set_timer("1")
        eventually(lambda: fault.fired)  # it has waited for longer, so it got the token
        killed = now()
        scene.victim.process.kill()
        eventually(lambda: scene.fleet.ended("1"))
        [run] = scene.fleet.begun("1")
        assert run.at < killed + (0.5 + 1) * 1e6
        eventually(scene.fleet.is_empty)

    play(scene)


def test_a_handler_that_kills_its_workers_is_not_called_for_ever(
    server: Server, tmp_path: Path
) -> None:
    load_scripts(server)
    with ExitStack() as stack:
        fleet = Fleet(server, stack, tmp_path, "poison", lease=0.4, max_attempts=2)
        *victims, last = [fleet.add(kind) for kind in (*KINDS, "asyncio")]
        last.set_timer("1", {"die": True})
        for number, victim in enumerate(victims, 1):
            victim.work()
            fleet.await_runs(number)
        last.set_timer("another", {"take": 0.01})
        last.work()
        eventually(lambda: fleet.dead() == ["1"])
        eventually(lambda: fleet.ended("another"))
        assert [(run.timer_id, run.attempt) for run in fleet.begun()[:2]] == [("1", 1), ("1", 2)]
        assert len(fleet.begun("1")) == 2
        assert last.ask("discard_timer", topic="notes", timer_id="1")
        eventually(fleet.is_empty)
        fleet.check()


# Many of them


class Crowd:
    """Workers of both kinds, one of which is killed from time to time."""

    def __init__(self, fleet: Fleet, size: int, kills: int) -> None:
        self.fleet = fleet
        self.kills = kills
        kinds = KINDS * (size + kills)
        for kind in kinds[: size + kills]:
            fleet.add(kind)
        self._reserve = iter(fleet.workers[size:])
        for worker in fleet.workers[:size]:
            worker.work()

    def kill_some(self, runs: int) -> set[int]:
        """Kill the oldest ones, one after so many runs; others take their places."""
        killed = set()
        for victim in self.fleet.workers[: self.kills]:
            self.fleet.await_runs(len(self.fleet.begun()) + runs)
            next(self._reserve).work()
            victim.process.kill()
            killed.add(victim.process.pid)
        return killed


def test_timers_are_run_however_many_workers_are_killed(server: Server, tmp_path: Path) -> None:
    load_scripts(server)
    with ExitStack() as stack:
        fleet = Fleet(server, stack, tmp_path, "crowd", lease=LONG)
        crowd = Crowd(fleet, 3, 3)
        spread = {str(number): number * 7919 % 300 / 200 for number in range(300)}
        dues = fleet.workers[-1].set_timers(spread, {"take": 0.1})
        killed = crowd.kill_some(40)
        eventually(lambda: {each.timer_id for each in fleet.ended()} == set(dues))
        eventually(fleet.is_empty)
        fleet.check()
        failed = []
        for timer_id in dues:
            runs = fleet.begun(timer_id)
            assert runs[-1].due == dues[timer_id]
            failed += runs[:-1]
            for earlier, later in pairwise(runs):
                # A fence is the time of the claim, or hardly later.
                assert later.at > earlier.fence + (LONG - 0.01) * 1e6, "taken over too soon"
        assert failed, "none was killed in the middle of something"
        assert {run.pid for run in failed} <= killed


def test_each_instant_of_a_series_is_armed_once_however_many_workers_are_killed(
    server: Server, tmp_path: Path
) -> None:
    load_scripts(server)
    every = 0.1
    with ExitStack() as stack:
        fleet = Fleet(server, stack, tmp_path, "series", lease=LONG)
        crowd = Crowd(fleet, 3, 4)
        last = fleet.workers[-1]
        names = [str(number) for number in range(6)]
        first = {
            each: last.set_timer(each, {"take": 0.03}, every=every, missed="all") for each in names
        }

        killed = crowd.kill_some(12)
        counts = {each: len(fleet.ended(each)) for each in names}
        eventually(lambda: all(len(fleet.ended(each)) > counts[each] + 2 for each in names))
        for each in names:
            last.remove_timer(each)
        eventually(fleet.is_empty)
        fleet.check()
        for each in names:
            runs = fleet.begun(each)
            assert [run.at for run in runs] == sorted(run.at for run in runs)
            # Each instant in turn, and again only after somebody was killed with it.
            instants = sorted({run.due for run in runs})
            steps = range(first[each], instants[-1] + 1, int(every * 1e6))
            assert instants == list(steps)
            for earlier, later in pairwise(runs):
                if later.due == earlier.due:
                    assert earlier.pid in killed and later.attempt == earlier.attempt + 1
                else:
                    # Who was killed before the handler wrote that it had begun has used attempts.
                    assert later.due > earlier.due and later.attempt <= 1 + len(killed)
