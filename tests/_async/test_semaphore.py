"""How a semaphore comes to be, and how its permits are acquired and released."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic
from typing import Any

import pytest

from redsync.aio import (
    Permit,
    RedisSemaphore,
    RedisSemaphoreCountMismatchError,
    RedisSemaphoreNotAcquiredError,
    RedisSemaphoreTimeoutError,
    SemaphoreInitStrategy,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from ..support.proxy import FaultProxy
from .helpers import Make, assert_none_free, free, in_line, left_alone, settled, take


@pytest.fixture(autouse=True)
async def nothing_is_left(client: Redis) -> AsyncIterator[None]:
    """However a test ends, its semaphores leave no connection behind."""
    yield
    await left_alone(client)


# Making it, and joining


async def test_constructing_sends_nothing(client: Redis, make: Make) -> None:
    make(count=3)
    assert await client.dbsize() == 0


async def test_the_first_use_makes_it(make: Make) -> None:
    semaphore = make(count=3)
    await semaphore.acquire(0)
    assert await semaphore.get_count() == 3
    assert await free(semaphore) == 2


async def test_create_makes_all_permits(
    client: Redis, name: str, strategy: SemaphoreInitStrategy
) -> None:
    semaphore = await RedisSemaphore.create(client, name, count=3, semaphore_init_strategy=strategy)
    status = await semaphore.status()
    assert (status.count, status.free, status.held, status.missing) == (3, 3, (), 0)
    await semaphore.close()


async def test_create_makes_one_permit_unless_told(
    client: Redis, name: str, strategy: SemaphoreInitStrategy
) -> None:
    semaphore = await RedisSemaphore.create(client, name, semaphore_init_strategy=strategy)
    assert await semaphore.get_count() == 1
    await semaphore.close()


async def test_many_may_create_it_at_once(
    server: Server, name: str, strategy: SemaphoreInitStrategy
) -> None:
    async def create() -> None:
        # A client of its own each, as if they were processes.
        client = connect(server)
        semaphore = await RedisSemaphore.create(
            client, name, count=5, semaphore_init_strategy=strategy
        )
        assert await free(semaphore) == 5
        await semaphore.close()
        await disconnect(client)

    await together(*[create] * 10)


async def test_creating_it_again_changes_nothing(make: Make, client: Redis) -> None:
    first, second = make(count=3), make(count=3)
    permit = await first.acquire(0)
    assert await second.get_count() == 3
    assert await free(second) == 2
    await permit.release()
    assert await free(second) == 3


async def test_another_count_is_refused_with_both_numbers(
    client: Redis, name: str, strategy: SemaphoreInitStrategy, make: Make
) -> None:
    first = make(count=37)
    permit = await first.acquire(0)
    before = await first.status()
    with pytest.raises(RedisSemaphoreCountMismatchError, match=r"(?s)37.*52|52.*37") as caught:
        await RedisSemaphore.create(client, name, count=52, semaphore_init_strategy=strategy)
    assert name in str(caught.value)
    after = await first.status()
    assert (after.count, after.free, after.missing) == (37, 36, 0)
    assert [each.fence for each in after.held] == [each.fence for each in before.held]
    assert permit.held


@pytest.mark.parametrize("use", ["acquire", "get_count", "status"])
async def test_another_count_is_refused_at_every_use(make: Make, use: str) -> None:
    assert await make(count=2).get_count() == 2
    lazy = make(count=3)
    arguments = {"acquire": [0]}.get(use, [])
    for _ in range(2):
        with pytest.raises(RedisSemaphoreCountMismatchError):
            await getattr(lazy, use)(*arguments)
    assert await make().get_count() == 2


async def test_without_a_count_the_first_use_waits_for_the_creator(make: Make) -> None:
    waiting = spawn(lambda: make().acquire(5))
    await eventually(lambda: not waiting.done())
    await make(count=1).get_count()
    assert (await waiting.result()).held


@pytest.mark.punctual
async def test_without_a_creator_acquire_ends_in_time(make: Make) -> None:
    began = monotonic()
    with pytest.raises(RedisSemaphoreTimeoutError):
        await make().acquire(0.2)
    assert 0.2 <= monotonic() - began < 1.2


async def test_attach_waits_for_the_creator(
    client: Redis, name: str, strategy: SemaphoreInitStrategy, make: Make
) -> None:
    attaching = spawn(lambda: RedisSemaphore.attach(client, name, semaphore_init_strategy=strategy))
    assert not attaching.done()
    assert await make(count=7).get_count() == 7
    attached = await attaching.result()
    assert await attached.get_count() == 7
    await attached.close()


@pytest.mark.punctual
@pytest.mark.parametrize("timeout", [0, 0.3])
async def test_attach_ends_in_time(
    client: Redis, name: str, strategy: SemaphoreInitStrategy, timeout: float
) -> None:
    began = monotonic()
    with pytest.raises(RedisSemaphoreTimeoutError, match=name):
        await RedisSemaphore.attach(client, name, timeout=timeout, semaphore_init_strategy=strategy)
    assert timeout <= monotonic() - began < timeout + 1
    assert await client.dbsize() == 0


@pytest.mark.punctual
async def test_attach_does_not_poll_fast(
    proxy: FaultProxy, name: str, strategy: SemaphoreInitStrategy
) -> None:
    client = connect(proxy)
    sent = [0]
    for timeout in (0, 1):
        with pytest.raises(RedisSemaphoreTimeoutError):
            await RedisSemaphore.attach(
                client, name, timeout=timeout, semaphore_init_strategy=strategy
            )
        sent.append(proxy.sent(name) - sent[-1])
    _, one_look, looks = sent
    await disconnect(client)
    assert 0 < one_look
    assert looks <= 10 * one_look


async def test_nobody_waits_long_to_look_at_a_semaphore_that_nobody_has_made(make: Make) -> None:
    began = monotonic()

    async def look(call: Callable[[], Any]) -> None:
        with pytest.raises(RedisSemaphoreTimeoutError, match="count"):
            await call()

    one, two, three = make(), make(), make()
    calls = (one.status, two.get_count, partial(three.resize, 2))
    await together(*[partial(look, call) for call in calls])
    assert 5 <= monotonic() - began < 6


async def test_attach_with_no_timeout_to_wait_finds_what_is_there(
    client: Redis, name: str, strategy: SemaphoreInitStrategy, make: Make
) -> None:
    await make(count=2).get_count()
    attached = await RedisSemaphore.attach(
        client, name, timeout=0, semaphore_init_strategy=strategy
    )
    assert await attached.get_count() == 2
    await attached.close()


# Acquiring


async def test_as_many_permits_as_the_count_in_slots_of_their_own(make: Make) -> None:
    semaphore = make(count=5)
    permits = await take(semaphore, 5)
    assert sorted(permit.slot for permit in permits) == [0, 1, 2, 3, 4]
    await assert_none_free(semaphore)
    await permits[2].release()
    assert (await semaphore.acquire(0)).slot == permits[2].slot
    await assert_none_free(semaphore)


async def test_fences_rise_over_all_grants(make: Make, server: Server, name: str) -> None:
    other = connect(server)
    contenders = [make(count=3), make(count=3), make(other, count=3)]
    fences = []
    for turn in range(60):
        permits = await take(contenders[turn % 3], 1 + turn % 3)
        fences += [permit.fence for permit in permits]
        for permit in reversed(permits):
            await permit.release()
    assert fences == sorted(set(fences))
    await contenders[2].close()
    await disconnect(other)


async def test_permits_that_others_hold_are_not_granted(make: Make, server: Server) -> None:
    other = connect(server)
    near, far = make(count=2), make(other, count=2)
    permits = [await near.acquire(0), await far.acquire(0)]
    assert {permit.slot for permit in permits} == {0, 1}
    await assert_none_free(near)
    await assert_none_free(far)
    await permits[0].release()
    assert (await far.acquire(1)).slot == permits[0].slot
    await far.close()
    await disconnect(other)


async def test_whoever_waits_gets_what_is_released(make: Make) -> None:
    semaphore = make(count=1)
    permit = await semaphore.acquire(0)
    waiting = spawn(lambda: semaphore.acquire(5))
    await eventually(lambda: in_line(semaphore) == 1)
    await permit.release()
    granted = await waiting.result(2)
    assert granted.held
    assert granted.slot == permit.slot
    assert granted.fence > permit.fence


async def test_whoever_waits_gets_what_another_program_releases(make: Make, server: Server) -> None:
    other = connect(server)
    near, far = make(count=1), make(other, count=1)
    permit = await far.acquire(0)
    waiting = spawn(lambda: near.acquire(5))
    await eventually(lambda: in_line(near) == 1)
    await permit.release()
    assert (await waiting.result(2)).fence > permit.fence
    await far.close()
    await disconnect(other)


async def test_those_who_wait_are_served_in_order(make: Make) -> None:
    semaphore = make(count=1)
    first = await semaphore.acquire(0)
    served: list[int] = []

    async def wait(number: int) -> None:
        async with semaphore.permit(10):
            served.append(number)

    handles = []
    for number in range(20):
        handles.append(spawn(partial(wait, number)))
        await eventually(partial(lambda reached: in_line(semaphore) == reached, number + 1))
    await first.release()
    for handle in handles:
        await handle.result()
    assert served == list(range(20))


async def test_a_newcomer_does_not_overtake_those_who_wait(make: Make) -> None:
    semaphore = make(count=1)
    permit = await semaphore.acquire(0)
    waiting = spawn(lambda: semaphore.acquire(5))
    await eventually(lambda: in_line(semaphore) == 1)
    await assert_none_free(semaphore)
    assert not waiting.done()
    await permit.release()
    await waiting.result(2)


async def test_whoever_comes_to_a_queue_gets_in_line_without_a_try(
    make: Make, client: Redis, strategy: SemaphoreInitStrategy
) -> None:
    tries = "evalsha" if strategy is SemaphoreInitStrategy.LUA else "lpop"

    async def tried() -> int:
        return int((await client.info("commandstats"))[f"cmdstat_{tries}"]["calls"])

    semaphore = make(count=1)
    permit = await semaphore.acquire(1)
    first = spawn(lambda: semaphore.acquire(30))
    await eventually(lambda: in_line(semaphore) == 1)
    before = await tried()
    second = spawn(lambda: semaphore.acquire(30))
    await eventually(lambda: in_line(semaphore) == 2)
    assert await tried() == before
    for waiting in (first, second):
        await permit.release()
        permit = await waiting.result()


async def test_a_timed_out_wait_takes_no_permit_with_it(make: Make) -> None:
    semaphore = make(count=1)
    permit = await semaphore.acquire(0)
    with pytest.raises(RedisSemaphoreTimeoutError, match=semaphore.name):
        await semaphore.acquire(0.1)
    await permit.release()
    await settled(semaphore)
    assert (await semaphore.acquire(0)).held


async def test_infinity_is_a_timeout_too(make: Make) -> None:
    semaphore = make(count=1)
    permit = await semaphore.acquire(float("inf"))
    waiting = spawn(lambda: semaphore.acquire(1e300))
    await eventually(lambda: in_line(semaphore) == 1)
    await permit.release()
    assert (await waiting.result(2)).held


async def test_one_instance_serves_many_and_no_more_than_the_count_at_a_time(make: Make) -> None:
    semaphore = make(count=3)
    inside: list[int] = []
    most: list[int] = []

    async def work() -> None:
        for _ in range(5):
            async with semaphore.permit(20) as permit:
                assert permit.slot not in inside
                inside.append(permit.slot)
                most.append(len(inside))
                # All permits get used: the first ones stay until there are as many.
                await eventually(lambda: max(most) == 3)
                await sleep(0.001)
                inside.remove(permit.slot)

    await together(*[work] * 20)
    assert max(most) == 3, "there were more"
    await settled(semaphore)


# Releasing


async def test_release_gives_back_the_latest_of_the_caller(make: Make) -> None:
    semaphore = make(count=4)
    theirs: list[Permit] = []

    async def acquire() -> None:
        theirs.append(await semaphore.acquire(5))

    first, second = await take(semaphore, 2)
    await together(acquire)
    await semaphore.release()
    assert (first.held, second.held, theirs[0].held) == (True, False, True)
    await semaphore.release()
    assert (first.held, theirs[0].held) == (False, True)
    await semaphore.release()  # the caller has none left: the oldest of the instance
    assert not theirs[0].held
    assert await free(semaphore) == 4


async def test_release_gives_back_the_oldest_if_the_caller_has_none(make: Make) -> None:
    semaphore = make(count=3)
    permits = await take(semaphore, 3)
    for expected in range(3):
        await together(semaphore.release)
        assert [permit.held for permit in permits] == [n > expected for n in range(3)]
    with pytest.raises(RedisSemaphoreNotAcquiredError):
        await together(semaphore.release)


async def test_release_passes_over_what_was_given_back_otherwise(make: Make) -> None:
    semaphore = make(count=3)
    permits = await take(semaphore, 3)
    await permits[2].release()
    await semaphore.release(permits[0])
    await semaphore.release()
    assert not any(permit.held for permit in permits)
    assert await free(semaphore) == 3


async def test_release_without_a_permit_is_an_error(make: Make) -> None:
    semaphore = make(count=2)
    with pytest.raises(RedisSemaphoreNotAcquiredError, match=semaphore.name):
        await semaphore.release()
    permit = await semaphore.acquire(0)
    await semaphore.release(permit)
    for given in ([], [permit]):
        with pytest.raises(RedisSemaphoreNotAcquiredError):
            await semaphore.release(*given)
    assert await free(semaphore) == 2


async def test_an_instance_releases_its_own_permits_only(make: Make) -> None:
    first, second = make(count=2), make(count=2)
    permit = await first.acquire(0)
    for given in ([], [permit]):
        with pytest.raises(RedisSemaphoreNotAcquiredError):
            await second.release(*given)
    assert permit.held
    await first.release(permit)
    assert await free(first) == 2


async def test_a_permit_may_be_released_twice(make: Make) -> None:
    semaphore = make(count=2)
    first, second = await take(semaphore, 2)
    for _ in range(3):
        await first.release()
    assert await free(semaphore) == 1
    assert second.held
    again = await semaphore.acquire(0)  # the same slot
    await first.release()
    assert again.held
    await assert_none_free(semaphore)


async def test_a_permit_may_be_released_by_many_at_once(make: Make) -> None:
    semaphore = make(count=3)
    permit, _ = await take(semaphore, 2)
    await together(*[permit.release] * 10)
    assert await free(semaphore) == 2


async def test_an_acquisition_that_ends_otherwise_gives_up_what_it_was_granted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    semaphore = make(count=1)
    await semaphore.get_count()
    pool = semaphore._homes.get().membership.station
    owners: list[str] = []

    async def fail(owner: str, *_: object) -> None:
        owners.append(owner)
        raise ZeroDivisionError

    monkeypatch.setattr(pool, "acquire", fail)
    monkeypatch.setattr(pool, "abandon", owners.append)
    with pytest.raises(ZeroDivisionError):
        await semaphore.acquire(1)
    assert len(owners) == 2 and owners[0] == owners[1]
