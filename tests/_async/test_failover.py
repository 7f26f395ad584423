"""A master that is replaced by one which lacks its last writes.

Two clients of one process are as two processes to each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from redsync.aio import (
    Permit,
    RedisSemaphore,
    RedisSemaphorePermitLostError,
    SemaphoreInitStrategy,
)

from ..support.aio import eventually, join, part, spawn
from ..support.cluster import Cluster
from ..support.sentinel import Watched
from .helpers import in_line
from .states import key

pytestmark = pytest.mark.faults

TTL = 5
"""The lease in these tests, in seconds: the first renewal comes 1.3 s after the grant."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(node_timeout=2) as running:
        yield running


@pytest.fixture(params=["cluster", "sentinel"])
def site(request: pytest.FixtureRequest) -> Iterator[Cluster | Watched]:
    if request.param == "cluster":
        yield request.getfixturevalue("cluster")
        request.getfixturevalue("cluster").mend()
    else:
        with Watched() as watched:
            yield watched


@pytest.fixture
async def pair(
    site: Cluster | Watched, name: str, strategy: SemaphoreInitStrategy
) -> AsyncIterator[tuple[RedisSemaphore, RedisSemaphore]]:
    """Two that want the same permit, of which there is one, and know of each other's master."""
    clients = [join(site), join(site)]
    one, other = (
        RedisSemaphore(each, name, count=1, permit_ttl=TTL, semaphore_init_strategy=strategy)
        for each in clients
    )
    for each in (one, other):
        async with each.permit(5):
            pass
    yield one, other
    for semaphore, client in zip((one, other), clients, strict=True):
        await semaphore.close()
        await part(client)


async def again(semaphore: RedisSemaphore) -> Permit:
    """Release a permit and have the next one."""
    async with semaphore.permit(5):
        pass
    return await semaphore.acquire(5)


async def once(semaphore: RedisSemaphore) -> Permit:
    """Have a permit."""
    return await semaphore.acquire(5)


Pair = tuple[RedisSemaphore, RedisSemaphore]
Grant = Callable[..., Any]

grants = pytest.mark.parametrize("grant", [once, again], ids=["once", "again"])
"""What the new master does not know of."""


@grants
async def test_who_loses_a_permit_that_is_granted_again_has_the_lower_fence(
    site: Cluster | Watched, pair: Pair, name: str, grant: Grant
) -> None:
    one, other = pair
    site.stop_copying(key(name, "meta"))
    permit = await grant(one)
    await eventually(site.kill(key(name, "meta")), 20)
    later = await other.acquire(5)
    await assert_lost(permit, later)


@grants
async def test_who_loses_a_permit_to_one_that_waited_has_the_lower_fence(
    site: Cluster | Watched, pair: Pair, name: str, grant: Grant
) -> None:
    one, other = pair
    site.stop_copying(key(name, "meta"))
    permit = await grant(one)
    waiting = spawn(lambda: other.acquire(20))
    await eventually(lambda: in_line(other) == 1)
    await eventually(site.kill(key(name, "meta")), 20)
    later = await waiting.result(5)
    await assert_lost(permit, later)


async def test_a_body_whose_permit_is_granted_again_is_told(
    site: Cluster | Watched, pair: Pair, name: str
) -> None:
    one, other = pair
    site.stop_copying(key(name, "meta"))
    with pytest.raises(RedisSemaphorePermitLostError):
        async with one.permit(5, cancel_on_loss=True) as permit:
            await eventually(site.kill(key(name, "meta")), 20)
            later = await other.acquire(5)
            await permit.wait_lost(TTL)
    await assert_lost(permit, later)


async def test_what_was_released_in_vain_is_released_again(
    site: Cluster | Watched, pair: Pair, name: str
) -> None:
    one, other = pair
    permit = await one.acquire(5)
    site.stop_copying(key(name, "meta"))
    await permit.release()
    await eventually(site.kill(key(name, "meta")), 20)
    later = await other.acquire(TTL / 2)
    assert later.held
    assert later.fence > permit.fence
    await later.release()


async def assert_lost(permit: Permit, later: Permit) -> None:
    """The earlier one is told in time, and the receiver of both fences knows better."""
    assert await permit.wait_lost(TTL / 2)
    assert later.held
    assert permit.fence < later.fence
    await later.release()
