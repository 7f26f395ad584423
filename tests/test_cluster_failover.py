"""A cluster in use, by tasks and threads, while slots move and masters die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from time import monotonic

import pytest

from redsync import Router, SemaphoreInitStrategy, sync
from redsync._protocol.keys import EventKeys, SemaphoreKeys

from ._async.traffic import COUNT
from .support.cluster import Cluster
from .support.failover import Switch, judge
from .support.nodes import Node
from .support.sync import eventually, join, part, sleep
from .support.usage import Usage

pytestmark = [pytest.mark.proof, pytest.mark.punctual(patient=True)]

TTL = 6
"""The lease in these tests, in seconds: of half of it an outage costs nothing."""

Record = Callable[[str, object], None]

PATIENCE = 5.0
"""Seconds after a promotion within which everybody goes on."""

strategies = pytest.mark.parametrize(
    "strategy", list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value
)


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with Cluster(node_timeout=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    yield running
    running.mend()


def key(name: str) -> bytes:
    """A key of the first semaphore of `Traffic`."""
    return SemaphoreKeys.of("redsync:semaphore", f"{name}-0").meta


@strategies
def test_slots_move_under_load(cluster: Cluster, strategy: SemaphoreInitStrategy) -> None:
    name = f"moves-{strategy.value}"
    with Usage(cluster, name, permit_ttl=TTL, semaphore_init_strategy=strategy) as usage:
        usage.await_use()
        began = monotonic()
        for each in (key(name), EventKeys.of("redsync:event", f"{name}-event").open, name):
            # With half of the keys elsewhere, scripts have to be tried again, or are sent there.
            cluster.move(each, partial(sleep, 0.3))
            usage.await_use(since=monotonic())
    usage.assert_no_errors()
    verdict = judge(usage.held, COUNT, Switch(began, began), TTL)
    assert verdict.over_granted == 0
    usage.assert_all_run()


@strategies
def test_a_master_is_killed_under_load(
    cluster: Cluster, strategy: SemaphoreInitStrategy, record_property: Record
) -> None:
    name = f"killed-{strategy.value}"
    with Usage(cluster, name, permit_ttl=TTL, semaphore_init_strategy=strategy) as usage:
        usage.await_use()
        old, new = cluster.await_copies(key(name)), cluster.replica(key(name))
        broken = monotonic()
        old.kill()
        switch = await_promotion(broken, new)
        usage.await_use(since=switch.promoted, timeout=PATIENCE)
    verdict = judge(usage.held, COUNT, switch, TTL)
    record_property("verdict", str(verdict))
    assert verdict.last_waiter < PATIENCE


def test_a_master_is_stopped_under_load(cluster: Cluster, record_property: Record) -> None:
    # On the node that clients know first, and redis-py asks first.
    [name] = cluster.names("stopped", 1, key, cluster.masters()[0])
    with Usage(cluster, name, permit_ttl=TTL) as usage:
        usage.await_use()
        old, new = cluster.await_copies(key(name)), cluster.replica(key(name))
        broken = monotonic()
        old.suspend()
        switch = await_promotion(broken, new)
        usage.await_use(since=switch.promoted, timeout=PATIENCE)
        old.resume()
        usage.await_use(since=monotonic(), timeout=PATIENCE)
    verdict = judge(usage.held, COUNT, switch, TTL)
    record_property("verdict", str(verdict))
    assert verdict.last_waiter < PATIENCE


def test_timers_that_were_copied_are_run_by_the_next_master(cluster: Cluster) -> None:
    router, seen = Router(), list[object]()
    router.handler(topic="t")(seen.append)
    client = join(cluster)
    timers = sync.Timers(redis_client=client, timeline_key="copied", routers=[router])
    with timers:
        for number in range(50):
            timers.set_timer("t", str(number), number, timedelta(seconds=4))
        cluster.await_copies("copied")
        new = cluster.replica("copied")
        cluster.master("copied").kill()
        switch = await_promotion(monotonic(), new)
        timers.set_timer("t", "later", "later", timedelta(0))
        eventually(lambda: "later" in seen, switch.promoted + PATIENCE - monotonic())
        eventually(lambda: len(seen) == 51, 10)
    timers.close()
    part(client)
    assert sorted(seen, key=str) == sorted([*range(50), "later"], key=str)


def await_promotion(broken: float, new: Node) -> Switch:
    """Wait until the replica calls itself master."""
    eventually(lambda: new.is_master, 30)
    return Switch(broken, monotonic())
