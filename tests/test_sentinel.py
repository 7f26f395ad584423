"""Servers that sentinels watch over, in use by tasks and threads, while they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from time import monotonic

import pytest

from redsync import Router, SemaphoreInitStrategy, sync

from ._async.traffic import COUNT
from .support.failover import Switch, judge
from .support.sentinel import Watched
from .support.sync import eventually, join, part
from .support.usage import Usage

pytestmark = [
    pytest.mark.proof,
    pytest.mark.punctual(patient=True),
    pytest.mark.usefixtures("collected"),
]

TTL = 6
"""The lease in these tests, in seconds: of half of it an outage costs nothing."""

PATIENCE = 5.0
"""Seconds after a promotion within which everybody goes on."""

Record = Callable[[str, object], None]

strategies = pytest.mark.parametrize(
    "strategy", list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value
)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as running:
        yield running


@strategies
def test_a_master_is_killed_under_load(
    watched: Watched, strategy: SemaphoreInitStrategy, record_property: Record
) -> None:
    with Usage(watched, "killed", permit_ttl=TTL, semaphore_init_strategy=strategy) as usage:
        usage.await_use()
        watched.await_copies()
        broken = monotonic()
        switch = await_promotion(broken, watched.kill())
        usage.await_use(since=switch.promoted, timeout=PATIENCE)
    verdict = judge(usage.held, COUNT, switch, TTL)
    record_property("verdict", str(verdict))
    assert verdict.last_waiter < PATIENCE


def test_a_master_is_stopped_under_load(watched: Watched, record_property: Record) -> None:
    with Usage(watched, "stopped", permit_ttl=TTL) as usage:
        usage.await_use()
        old, broken = watched.await_copies(), monotonic()
        old.suspend()
        switch = await_promotion(broken, lambda: watched.has_replaced(old))
        usage.await_use(since=switch.promoted, timeout=PATIENCE)
        old.resume()
        usage.await_use(since=monotonic(), timeout=PATIENCE)
    verdict = judge(usage.held, COUNT, switch, TTL)
    record_property("verdict", str(verdict))
    assert verdict.last_waiter < PATIENCE


@pytest.mark.parametrize("fault", [Watched.fail_over, Watched.cut_off], ids=["replaced", "cut off"])
def test_everybody_leaves_an_old_master_that_lives(
    watched: Watched, fault: Callable[[Watched], None], record_property: Record
) -> None:
    with Usage(watched, "leaving", permit_ttl=TTL) as usage:
        usage.await_use()
        old, broken = watched.await_copies(), monotonic()
        assert old.users > 0
        fault(watched)
        promoted = await_promotion(broken, lambda: watched.has_replaced(old)).promoted
        eventually(lambda: old.users == 0, PATIENCE)
        left = monotonic()
        assert old.is_master  # it would go on serving them
        usage.await_use(since=left, timeout=PATIENCE)
    # Until then there were two masters.
    verdict = judge(usage.held, COUNT, Switch(broken, left), TTL)
    record_property("verdict", f"{verdict}, nobody left {left - promoted:.2f} s after promotion")


def test_timers_that_were_copied_are_run_by_the_next_master(watched: Watched) -> None:
    router, seen = Router(), list[object]()
    router.handler(topic="t")(seen.append)
    client = join(watched)
    timers = sync.Timers(redis_client=client, routers=[router])
    with timers:
        for number in range(50):
            timers.set_timer("t", str(number), number, timedelta(seconds=4))
        watched.await_copies()
        switch = await_promotion(monotonic(), watched.kill())
        timers.set_timer("t", "later", "later", timedelta(0))
        eventually(lambda: "later" in seen, switch.promoted + PATIENCE - monotonic())
        eventually(lambda: len(seen) == 51, 10)
    timers.close()
    part(client)
    assert sorted(seen, key=str) == sorted([*range(50), "later"], key=str)


def await_promotion(broken: float, promoted: Callable[[], bool]) -> Switch:
    """Wait until there is another master."""
    eventually(promoted, 30)
    return Switch(broken, monotonic())
