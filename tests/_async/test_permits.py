"""What a permit and the context managers promise, and what `status` tells of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial
from time import monotonic

import pytest

from redsync.aio import (
    Permit,
    RedisSemaphoreNotAcquiredError,
    RedisSemaphorePermitLostError,
    RedisSemaphoreTimeoutError,
)

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from ..support.proxy import FaultProxy
from .helpers import Make, assert_none_free, free, in_line, left_alone, renew, renewed, settled


@pytest.fixture(autouse=True)
async def nothing_is_left(client: Redis) -> AsyncIterator[None]:
    """However a test ends, its semaphores leave no connection behind."""
    yield
    await left_alone(client)


# Context managers


async def test_permit_acquires_and_releases(make: Make) -> None:
    semaphore = make(count=2)
    async with semaphore.permit(5) as permit:
        assert permit.held
        assert await free(semaphore) == 1
    assert not permit.held
    assert await free(semaphore) == 2
    with pytest.raises(RedisSemaphoreNotAcquiredError):
        await semaphore.release()


async def test_permit_waits_no_longer_than_told(make: Make) -> None:
    semaphore = make(count=1)
    async with semaphore.permit():
        with pytest.raises(RedisSemaphoreTimeoutError):
            async with semaphore.permit(0.05):
                pytest.fail("there was none")
    await settled(semaphore)


@pytest.mark.parametrize("how", ["permit", "itself"])
async def test_an_error_of_the_body_passes_and_the_permit_comes_back(make: Make, how: str) -> None:
    semaphore = make(count=1)
    with pytest.raises(KeyError, match="mine"):
        async with semaphore.permit(5) if how == "permit" else semaphore:
            raise KeyError("mine")
    assert await free(semaphore) == 1


async def test_a_permit_given_back_within_the_body_is_given_back_once(make: Make) -> None:
    semaphore = make(count=2)
    keep = await semaphore.acquire(0)
    async with semaphore.permit() as permit:
        await permit.release()
    async with semaphore:
        await semaphore.release()
    assert keep.held
    assert await free(semaphore) == 1


async def test_the_semaphore_itself_is_a_context_manager(make: Make) -> None:
    semaphore = make(count=2)
    for _ in range(2):
        async with semaphore as same:
            assert same is semaphore
            async with semaphore:
                await assert_none_free(semaphore)
            assert await free(semaphore) == 1
        assert await free(semaphore) == 2


async def test_leaving_the_semaphore_releases_what_was_entered(make: Make) -> None:
    semaphore = make(count=3)
    async with semaphore:
        kept = await semaphore.acquire(0)
    assert kept.held
    assert [each.slot for each in (await semaphore.status()).held] == [kept.slot]


async def test_many_may_enter_one_semaphore(make: Make) -> None:
    semaphore = make(count=2)
    inside: list[None] = []

    async def work() -> None:
        for _ in range(5):
            async with semaphore:
                inside.append(None)
                assert len(inside) <= 2
                await sleep(0.001)
                inside.pop()

    await together(*[work] * 10)
    await settled(semaphore)


# Permits


async def test_a_permit_tells_what_it_is(make: Make, name: str) -> None:
    semaphore = make(count=1, permit_ttl=20)
    permit = await semaphore.acquire(0)
    assert (permit.name, permit.slot, permit.held, permit.lost) == (name, 0, True, False)
    assert isinstance(permit.fence, int)
    assert 15 < permit.remaining() < 20
    assert str(permit.fence) in repr(permit)
    await permit.release()
    assert (permit.held, permit.lost, permit.remaining()) == (False, False, 0)
    assert (permit.name, permit.slot) == (name, 0)


async def test_what_remains_is_less_than_what_redis_has(make: Make) -> None:
    semaphore = make(count=1, permit_ttl=3)
    permit = await semaphore.acquire(0)
    first = monotonic() + permit.remaining()
    while monotonic() + permit.remaining() < first + 0.1:  # until its lease was renewed
        remaining = permit.remaining()  # read before, so that it is the larger one
        at = monotonic()
        (held,) = (await semaphore.status()).held
        # Redis keeps whole milliseconds, and answered later than `at`.
        assert remaining <= held.expires_in + (monotonic() - at) + 0.001
        await sleep(0.01)
    assert permit.held


async def test_what_remains_leaves_a_margin_for_clocks_that_differ(make: Make) -> None:
    semaphore = make(count=1, permit_ttl=100)
    permit = await semaphore.acquire(5)
    assert 60 < permit.remaining() < 99
    waiting = spawn(lambda: semaphore.acquire(30))
    await eventually(lambda: in_line(semaphore))
    await permit.release()
    permit = await waiting.result()
    await eventually(lambda: permit.remaining() > 60)  # once it is claimed
    assert permit.remaining() < 99


async def test_a_lease_is_renewed_while_the_permit_is_held(make: Make) -> None:
    semaphore = make(count=1, permit_ttl=3)
    began = monotonic()
    permit = await semaphore.acquire(0)
    await renewed(permit)
    (held,) = (await semaphore.status()).held
    assert held.fence == permit.fence
    assert held.held_for < monotonic() - began + 0.01
    assert held.held_for + held.expires_in > 3.05


async def test_a_lease_that_came_by_waiting_is_renewed_too(make: Make) -> None:
    semaphore = make(count=1, permit_ttl=3)
    permit = await semaphore.acquire(0)
    waiting = spawn(lambda: semaphore.acquire(10))
    await eventually(lambda: in_line(semaphore) == 1)
    await permit.release()
    granted = await waiting.result()
    await settled(semaphore, granted.fence)  # its lease is confirmed
    await renewed(granted)
    await settled(semaphore, granted.fence)


async def test_waiting_for_the_loss_ends_with_the_release(make: Make) -> None:
    permit = await make(count=1).acquire(0)
    waiting = spawn(permit.wait_lost)
    assert not waiting.done()
    await permit.release()
    assert await waiting.result(1) is False
    assert await permit.wait_lost() is False


@pytest.mark.parametrize("timeout", [float("nan"), -1, True, "1"])
async def test_waiting_for_the_loss_refuses_a_timeout(make: Make, timeout: float) -> None:
    permit = await make(count=1).acquire(0)
    with pytest.raises((TypeError, ValueError), match="timeout"):
        await permit.wait_lost(timeout)


@pytest.mark.punctual
async def test_a_permit_is_lost_when_its_lease_cannot_be_renewed(
    make: Make, proxy: FaultProxy, client: Redis
) -> None:
    cut_off = connect(proxy)
    semaphore, other = make(cut_off, count=1, permit_ttl=0.4), make(count=1, permit_ttl=0.4)
    permit = await semaphore.acquire(1)
    began = monotonic()
    waiting = spawn(permit.wait_lost)
    proxy.partition()
    assert await waiting.result(1) is True
    assert monotonic() - began < 0.9
    assert (permit.held, permit.lost, permit.remaining()) == (False, True, 0)
    heir = await other.acquire(2)
    assert heir.fence > permit.fence
    proxy.heal()
    await permit.release()
    assert permit.lost
    assert heir.held
    await settled(other, heir.fence)
    await semaphore.close()
    await disconnect(cut_off)


@pytest.mark.punctual
async def test_a_body_hears_of_the_loss_if_it_wants_to(make: Make, proxy: FaultProxy) -> None:
    cut_off = connect(proxy)
    semaphore = make(cut_off, count=1, permit_ttl=0.4)
    with pytest.raises(RedisSemaphorePermitLostError, match=semaphore.name):
        async with semaphore.permit(1, cancel_on_loss=True) as permit:
            proxy.partition()
            await permit.wait_lost(5)
            await sleep(0.1)  # where a task is cancelled
            proxy.heal()
    proxy.heal()
    async with semaphore.permit(2) as permit:
        assert permit.held
    await semaphore.close()
    await disconnect(cut_off)


# Status


async def test_status_tells_who_holds_what(make: Make) -> None:
    first = make(count=4, identifier="first one", permit_ttl=20)
    second = make(count=4, permit_ttl=10)
    permits = [await first.acquire(0), await second.acquire(0)]
    status = await second.status()
    assert (status.count, status.free, status.missing) == (4, 2, 0)
    assert [(each.slot, each.fence) for each in status.held] == sorted(
        (permit.slot, permit.fence) for permit in permits
    )
    held = {each.fence: each for each in status.held}
    mine, theirs = held[permits[0].fence], held[permits[1].fence]
    assert mine.identifier == "first one"
    assert str(os.getpid()) in theirs.identifier
    assert 0 <= mine.held_for < 5
    assert 15 < mine.expires_in <= 20
    assert 5 < theirs.expires_in <= 10


@pytest.mark.parametrize("identifier", ["a b  c ", "é🚦", "1 2:3 -", "line\nbreak", "-"])
async def test_status_shows_the_identifier_as_it_was_given(make: Make, identifier: str) -> None:
    semaphore = make(count=1, identifier=identifier)
    permit = await semaphore.acquire(0)
    assert [each.identifier for each in (await semaphore.status()).held] == [identifier]
    deadline = permit._grant.deadline
    renew(semaphore)
    await eventually(lambda: permit._grant.deadline > deadline)
    assert [each.identifier for each in (await semaphore.status()).held] == [identifier]
    await permit.release()
    assert await free(semaphore) == 1


async def test_status_can_be_asked_by_somebody_who_only_attaches(make: Make) -> None:
    await make(count=3).acquire(0)
    status = await make().status()
    assert (status.count, status.free, len(status.held)) == (3, 2, 1)


async def test_one_with_object_serves_several_at_once(make: Make) -> None:
    semaphore = make(count=2)
    both = semaphore.permit(5)
    inside: list[Permit] = []

    async def use(first: bool) -> None:
        async with both as permit:
            inside.append(permit)
            await eventually(lambda: len(inside) == 2)
            if not first:
                await eventually(lambda: any(not each.held for each in inside))
            assert permit.held

    await together(partial(use, True), partial(use, False))
    assert not any(each.held for each in inside)
