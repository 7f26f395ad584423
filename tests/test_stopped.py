"""A process stopped by SIGSTOP for longer than a lease, and continued.

It knows nothing of the time that has passed, but it can look at the clock: so it finds its permit
lost before it does anything else, and does no harm to the one who has it now.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from redsync import SemaphoreInitStrategy
from redsync.cli.server import Server

from .support.checker import Hold, check
from .support.commands import load_scripts
from .support.process import KINDS, Facts, Kind, WorkerProcess
from .support.proxy import FaultProxy
from .support.sync import eventually, sleep

pytestmark = [pytest.mark.faults, pytest.mark.punctual]

TTL = 0.6
"""So short that a machine may stand still for as long: then a test is tried again."""

NAME = "halted"


class Pair:
    """Two workers: one to be stopped, and one of the other kind that goes on."""

    def __init__(
        self, sleeper: WorkerProcess, other: WorkerProcess, proxy: FaultProxy, client: redis.Redis
    ) -> None:
        self.sleeper = sleeper
        self.other = other
        self.proxy = proxy
        """Between the sleeper and Redis."""
        self._client = client

    def contents(self) -> tuple[object, object, object]:
        """What Redis holds, but for the ends of leases."""
        stem = f"redsync:semaphore:{{{NAME}}}"
        return (
            self._client.lrange(f"{stem}:free", 0, -1),
            self._client.zrange(f"{stem}:held", 0, -1),
            self._client.hgetall(f"{stem}:meta"),
        )

    def blocked(self) -> int:
        """How many connections wait for a permit."""
        return sum("b" in each["flags"] for each in self._client.client_list())

    def acquire(self, worker: WorkerProcess) -> Facts:
        """Acquire a permit that is free, and wait until Redis knows whose it is."""
        facts: Facts = worker.ask("acquire", name=NAME, timeout=5)
        eventually(lambda: self.held() == [facts["fence"]])
        return facts

    def held(self) -> list[int]:
        """The fence of the permit that is held, if any."""
        fences: list[int] = self.other.ask("status", name=NAME)["held"]
        return fences

    def take_over(self) -> Facts:
        """Stop the sleeper until the other one has its permit, and let it continue."""
        waiting = self.other.begin("acquire", name=NAME)
        stopped = self.sleeper.stop()
        self.proxy.heal()
        taken: Facts = waiting.result(TTL + 5)
        assert taken["granted"] < stopped + TTL + 1
        eventually(lambda: self.held() == [taken["fence"]])
        self.sleeper.go_on()
        return taken


@pytest.fixture
def ttl() -> float:
    return TTL


@pytest.fixture(params=list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value)
def options(request: pytest.FixtureRequest, ttl: float) -> dict[str, object]:
    return {"count": 1, "permit_ttl": ttl, "semaphore_init_strategy": request.param.value}


@pytest.fixture(params=KINDS)
def pair(
    request: pytest.FixtureRequest, server: Server, proxy: FaultProxy, options: dict[str, object]
) -> Iterator[Pair]:
    load_scripts(server)
    other: Kind = "threads" if request.param == "asyncio" else "asyncio"
    with (
        WorkerProcess(request.param, proxy) as sleeper,
        WorkerProcess(other, server) as waker,
        redis.Redis.from_url(server.url) as client,
    ):
        for worker in (sleeper, waker):
            worker.ask("open", name=NAME, options=options)
        yield Pair(sleeper, waker, proxy, client)


def test_a_permit_is_lost_before_the_next_action(pair: Pair) -> None:
    granted = pair.acquire(pair.sleeper)
    acting = pair.sleeper.begin("act", key=NAME)
    eventually(lambda: pair.sleeper.ask("acts") > 0)
    taken = pair.take_over()
    acted = acting.result()
    assert (acted["held"], acted["lost"]) == (False, True)
    assert granted["granted"] < acted["last"] < taken["granted"]
    assert granted["fence"] < taken["fence"]


def test_whoever_waits_for_the_loss_is_woken(pair: Pair) -> None:
    pair.acquire(pair.sleeper)
    losing = pair.sleeper.begin("wait_lost", key=NAME)
    taken = pair.take_over()
    lost = losing.result(2)
    assert lost["lost"]
    assert lost["at"] > taken["granted"]  # it was stopped until then


def test_to_release_a_lost_permit_changes_nothing(pair: Pair) -> None:
    pair.acquire(pair.sleeper)
    taken = pair.take_over()
    before = pair.contents()
    pair.sleeper.ask("release", key=NAME)
    assert pair.sleeper.ask("status", name=NAME)["held"] == [taken["fence"]]
    assert pair.contents() == before
    assert pair.other.ask("look", key=NAME)["held"]
    pair.other.ask("release", key=NAME)
    again = pair.acquire(pair.sleeper)
    assert again["fence"] > taken["fence"]


def test_a_body_that_wants_to_know_is_told(pair: Pair, options: dict[str, object]) -> None:
    # What it has taken over, the other one keeps until the body ends.
    pair.other.ask("open", name=NAME, options={**options, "permit_ttl": 5})
    # A thread cannot be cancelled: it hears of it when its body ends.
    patient = pair.sleeper.kind == "threads"
    body = pair.sleeper.begin("body", name=NAME, seconds=TTL + 2 if patient else 60)
    eventually(lambda: pair.sleeper.ask("inside", name=NAME))  # Redis knows of it sooner
    [fence] = pair.held()
    pair.take_over()
    before = pair.contents()
    told = body.result()
    assert told["cancelled"] == (not patient)
    assert told.get("lost", True)
    assert f"fence {fence} was lost" in told["error"]
    assert pair.contents() == before


@pytest.mark.parametrize("ttl", [3.0])
def test_a_stop_that_is_shorter_than_the_lease_does_no_harm(pair: Pair, ttl: float) -> None:
    granted = pair.acquire(pair.sleeper)
    waiting = pair.other.begin("acquire", name=NAME)
    pair.sleeper.stop()
    sleep(ttl / 6)  # renewed every third of a lease or so, it has more than half of it left
    pair.sleeper.go_on()
    later = granted["granted"] + 1.5 * ttl
    eventually(lambda: pair.sleeper.ask("look", key=NAME)["until"] > later)
    assert not waiting.done()
    pair.sleeper.ask("release", key=NAME)
    assert waiting.result()["fence"] > granted["fence"]


def test_a_permit_that_comes_for_somebody_stopped_goes_to_the_next(pair: Pair) -> None:
    first = pair.acquire(pair.other)
    waiting = pair.sleeper.begin("acquire", name=NAME)
    eventually(lambda: pair.blocked() == 1)
    pair.sleeper.stop()
    released = pair.other.ask("release", key=NAME)["ended"]
    second = pair.other.ask("acquire", name=NAME, key="second")
    assert second["granted"] < released + TTL + 1
    eventually(lambda: pair.held() == [second["fence"]])
    before = pair.contents()
    pair.sleeper.go_on()
    eventually(lambda: pair.blocked() == 1)  # it has read what came, and waits again
    assert not waiting.done()
    assert pair.contents() == before
    second |= pair.other.ask("release", key="second")
    third = waiting.result()
    check([Hold.reported("", each) for each in (first | {"ended": released}, second, third)], 1)


def test_a_grant_that_is_read_too_late_is_not_handed_out(pair: Pair) -> None:
    # The first one on a connection does more.
    pair.sleeper.ask("acquire", name=NAME, key="before")
    pair.sleeper.ask("release", key="before")
    pair.proxy.partition(requests=False)
    acquiring = pair.sleeper.begin("acquire", name=NAME)
    eventually(lambda: pair.other.ask("status", name=NAME)["free"] == 0)
    taken = pair.take_over()  # the answer comes while it is stopped
    before = pair.contents()
    eventually(lambda: pair.blocked() == 1)  # it has got in line instead
    assert not acquiring.done()
    assert pair.contents() == before
    taken |= pair.other.ask("release", key=NAME)
    check([Hold.reported("", each) for each in (taken, acquiring.result())], 1)
