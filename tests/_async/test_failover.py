"""A master that is replaced by one which lacks its last writes.

Two clients of one process are as two processes to each other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any

import pytest
from redis.sentinel import MasterNotFoundError

from redsync._runtime.aio import Flag
from redsync.aio import (
    Permit,
    RedisSemaphore,
    RedisSemaphorePermitLostError,
    SemaphoreInitStrategy,
)

from ..support.aio import eventually, join, part, sleep, spawn
from ..support.cluster import Cluster
from ..support.failover import Held, Switch, judge
from ..support.sentinel import Watched
from .helpers import in_line
from .states import key

pytestmark = [
    pytest.mark.proof,
    pytest.mark.punctual(patient=True),
    pytest.mark.usefixtures("collected"),
]


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
        yield request.getfixturevalue("watched")


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as running:
        yield running


@pytest.fixture
def ttl() -> float:
    return TTL


@pytest.fixture
async def pair(
    site: Cluster | Watched, name: str, strategy: SemaphoreInitStrategy, ttl: float
) -> AsyncIterator[tuple[RedisSemaphore, RedisSemaphore]]:
    """Two that want the same permit, of which there is one, and know of each other's master."""
    clients = [join(site), join(site)]
    one, other = (
        RedisSemaphore(each, name, count=1, permit_ttl=ttl, semaphore_init_strategy=strategy)
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

# Where a replica takes over so quickly that the holder has not renewed before.
at_once = pytest.mark.parametrize("site", ["cluster"], indirect=True)

grants = pytest.mark.parametrize("grant", [once, again], ids=["once", "again"])
"""What the new master does not know of."""


@at_once
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


@at_once
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


@pytest.mark.parametrize("ttl", [5, 30])
async def test_all_whose_grants_were_lost_are_told_and_have_the_lower_fences(
    site: Cluster | Watched,
    name: str,
    strategy: SemaphoreInitStrategy,
    ttl: float,
    record_property: Callable[[str, object], None],
) -> None:
    clients, count = [join(site), join(site)], 4
    one, other = (
        RedisSemaphore(each, name, count=count, permit_ttl=ttl, semaphore_init_strategy=strategy)
        for each in clients
    )
    for each in (one, other):
        async with each.permit(5):
            pass
    site.stop_copying(key(name, "meta"))
    story, over = list[Held](), Flag()

    async def hold(semaphore: RedisSemaphore) -> None:
        held = Held(name, "", asked=monotonic())
        permit = await semaphore.acquire(30)
        held.take(permit.slot, permit.fence)
        story.append(held)
        while held.look(permit) and not over.is_set():
            await sleep(0.005)
        await permit.release()

    holders = [spawn(partial(hold, one)) for _ in range(count)]
    await eventually(lambda: len(story) == count)
    holders += [spawn(partial(hold, other)) for _ in range(count)]
    await eventually(lambda: in_line(other) == count)
    broken, promoted = monotonic(), site.kill(key(name, "meta"))
    await eventually(promoted, 20)
    switch = Switch(broken, monotonic())
    # Either the one who had it comes first, or one of those who waited has it beside it.
    if isinstance(site, Cluster):
        await eventually(lambda: len(story) == 2 * count, 5)
    await eventually(lambda: all(each.told for each in superseded(story, count)), ttl / 2)
    over.set()
    for holder in holders:
        await holder.result(10)
    verdict = judge(story, count, switch, ttl)
    record_property("verdict", str(verdict))
    assert verdict.lower == verdict.over_granted
    for semaphore, client in zip((one, other), clients, strict=True):
        await semaphore.close()
        await part(client)


def superseded(story: list[Held], count: int) -> list[Held]:
    """Those of the first holders whose slot somebody else has got."""
    slots = {each.slot for each in story[count:]}
    return [each for each in story[:count] if each.slot in slots]


@at_once
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


async def test_the_latest_grant_counts_even_if_the_next_master_has_never_heard_of_it(
    site: Cluster | Watched, pair: Pair, name: str
) -> None:
    one, other = pair
    former = await one.acquire(5)
    site.stop_copying(key(name, "meta"))
    await former.release()
    permit = await other.acquire(5)
    await one.close()  # it will not release it again
    await eventually(site.kill(key(name, "meta")), 20)
    assert not await permit.wait_lost(TTL)
    await permit.release()


@pytest.mark.parametrize("ttl", [30])
async def test_what_was_released_in_vain_is_released_again(
    site: Cluster | Watched, pair: Pair, name: str
) -> None:
    one, other = pair
    permit = await one.acquire(5)
    site.stop_copying(key(name, "meta"))
    await permit.release()
    await eventually(site.kill(key(name, "meta")), 20)
    later = await other.acquire(10)
    assert later.fence > permit.fence
    await later.release()


@pytest.mark.parametrize("strategy", [SemaphoreInitStrategy.LUA])
async def test_a_wait_goes_on_while_no_sentinel_can_be_asked(
    watched: Watched, name: str, strategy: SemaphoreInitStrategy
) -> None:
    client: Any = join(watched)
    manager = client.connection_pool.sentinel_manager
    asked, discover = list[str](), manager.discover_master

    async def ask(service: str) -> Any:
        asked.append(service)
        if len(asked) > 2:
            raise MasterNotFoundError("no sentinel answers")
        return await discover(service)

    manager.discover_master = ask
    semaphore = RedisSemaphore(client, name, count=1)
    permit = await semaphore.acquire(5)
    waiting = spawn(lambda: semaphore.acquire(20))
    await eventually(lambda: len(asked) > 2, 10)  # two connections, and a look
    connections = watched.master().users
    await eventually(lambda: len(asked) > 6, 10)
    assert watched.master().users == connections == 2
    await permit.release()
    await (await waiting.result(2)).release()
    await semaphore.close()
    await part(client)


async def test_sentinels_that_hang_are_passed_over(watched: Watched, name: str) -> None:
    for each in watched.watchers[:2]:
        each.suspend()
    client = join(watched)
    semaphore = RedisSemaphore(client, name, count=1)
    async with semaphore.permit(4):
        pass
    for each in watched.watchers[:2]:
        each.resume()
    await semaphore.close()
    await part(client)


@pytest.mark.parametrize("site", ["sentinel"], indirect=True)
async def test_who_holds_and_does_nothing_else_leaves_an_old_master(
    watched: Watched, pair: Pair, name: str
) -> None:
    one, other = pair
    permit = await one.acquire(5)
    old = watched.master()
    old.await_copies(*(node for node in watched.nodes if node is not old))
    watched.cut_off()
    await eventually(lambda: watched.has_replaced(old), 20)
    await eventually(lambda: old.users == 0)
    assert permit.held
    waiting = spawn(lambda: other.acquire(20))
    await eventually(lambda: in_line(other) == 1)
    await permit.release()
    later = await waiting.result(2)
    assert later.fence > permit.fence
    await later.release()


async def assert_lost(permit: Permit, later: Permit) -> None:
    """The earlier one is told in time, and the receiver of both fences knows better."""
    assert await permit.wait_lost(TTL / 2)
    assert later.held
    assert permit.fence < later.fence
    await later.release()
