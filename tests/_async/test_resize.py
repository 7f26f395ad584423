"""Changing the count, closing, sharing, and the extremes of names, counts and clients."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic
from typing import Any

import pytest

from redsync._async import link
from redsync._protocol.semaphore import Facts, Terms
from redsync.aio import (
    Permit,
    RedisSemaphore,
    RedisSemaphoreCountMismatchError,
    RedisSemaphoreError,
    SemaphoreInitStrategy,
)
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, spawn, together
from .helpers import Make, assert_none_free, free, in_line, left_alone, renewed, settled, take


@pytest.fixture(autouse=True)
async def nothing_is_left(client: Redis) -> AsyncIterator[None]:
    """However a test ends, its semaphores leave no connection behind."""
    yield
    await left_alone(client)


async def release_all(permits: list[Permit]) -> None:
    for permit in permits:
        await permit.release()


# Resizing


async def test_growing_makes_permits_at_once(make: Make) -> None:
    semaphore = make(count=2)
    held = await take(semaphore, 2)
    await semaphore.resize(5)
    assert await semaphore.get_count() == 5
    held += await take(semaphore, 3)
    assert sorted(permit.slot for permit in held) == [0, 1, 2, 3, 4]
    await assert_none_free(semaphore)


async def test_growing_serves_those_who_wait(make: Make) -> None:
    semaphore = make(count=1)
    await semaphore.acquire(0)
    waiting = [spawn(partial(semaphore.acquire, 5)) for _ in range(3)]
    await eventually(lambda: in_line(semaphore) == 3)
    await semaphore.resize(3)
    await eventually(lambda: sum(handle.done() for handle in waiting) == 2)
    assert in_line(semaphore) == 1
    await semaphore.resize(4)
    permits = [await handle.result(2) for handle in waiting]
    assert {permit.slot for permit in permits} == {1, 2, 3}


async def test_shrinking_takes_free_permits_away_at_once(make: Make) -> None:
    semaphore = make(count=5)
    await semaphore.resize(2)
    assert await free(semaphore) == 2
    permits = await take(semaphore, 2)
    assert sorted(permit.slot for permit in permits) == [0, 1]
    await assert_none_free(semaphore)


async def test_shrinking_leaves_holders_alone_and_waits_for_them(make: Make) -> None:
    semaphore = make(count=4, permit_ttl=3)
    permits = await take(semaphore, 4)
    await semaphore.resize(2)
    await renewed(*permits)  # too many though they are
    for count, permit in enumerate(permits[:2], 1):
        await permit.release()
        assert len((await semaphore.status()).held) == 4 - count
        await assert_none_free(semaphore)
    await permits[2].release()
    assert (await semaphore.acquire(0)).slot in {0, 1}
    await assert_none_free(semaphore)


async def test_after_shrinking_slots_are_within_the_new_count(make: Make) -> None:
    semaphore = make(count=6)
    permits = await take(semaphore, 6)
    await semaphore.resize(3)
    waiting = [spawn(partial(semaphore.acquire, 5)) for _ in range(3)]
    await eventually(lambda: in_line(semaphore) == 3)
    # The low slots come back first, when there are still too many.
    await release_all(sorted(permits, key=lambda permit: permit.slot))
    granted = [await handle.result(2) for handle in waiting]
    assert sorted(permit.slot for permit in granted) == [0, 1, 2]
    await release_all(granted)
    await settled(semaphore)
    assert await free(semaphore) == 3


@pytest.mark.parametrize("sizes", [(1, 3), (2, 5), (5, 1, 5), (4, 4), (1, 2, 3, 2, 1, 4)])
async def test_resizing_over_and_over_ends_with_the_last_count(
    make: Make, sizes: tuple[int, ...]
) -> None:
    semaphore = make(count=3)
    permits = await take(semaphore, 2)
    for size in sizes:
        await semaphore.resize(size)
        assert await semaphore.get_count() == size
    await release_all(permits)
    await settled(semaphore)
    permits = await take(semaphore, sizes[-1])
    assert sorted(permit.slot for permit in permits) == list(range(sizes[-1]))
    await assert_none_free(semaphore)


async def test_fences_rise_over_a_resize(make: Make) -> None:
    semaphore = make(count=2)
    fences = []
    for size in (3, 1, 2, 4, 1, 3):
        permits = await take(semaphore, 1)
        fences += [permit.fence for permit in permits]
        await semaphore.resize(size)
        await release_all(permits)
    assert fences == sorted(set(fences))


async def test_of_resizes_at_the_same_time_one_wins(make: Make, server: Server) -> None:
    clients = [connect(server) for _ in range(4)]
    semaphores = [make(client) for client in clients]
    await make(count=3).get_count()
    outcomes: list[int | RedisSemaphoreError] = []

    async def resize(semaphore: RedisSemaphore, count: int) -> None:
        try:
            await semaphore.resize(count)
        except RedisSemaphoreError as error:
            outcomes.append(error)
        else:
            outcomes.append(count)

    for first in (5, 9, 1):
        outcomes.clear()
        sizes = range(first, first + 4)
        await together(*[partial(resize, *each) for each in zip(semaphores, sizes, strict=True)])
        won = [outcome for outcome in outcomes if isinstance(outcome, int)]
        status = await semaphores[0].status()
        assert status.count in won
        assert (status.free, status.missing) == (status.count, 0)
    for semaphore in semaphores:
        await semaphore.close()
    for client in clients:
        await disconnect(client)


async def test_a_resize_that_somebody_else_has_won_is_told(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    semaphore = make(count=1)
    await semaphore.get_count()
    pool = semaphore._homes.get().membership.station
    assert pool is not None

    async def lost(*_: object) -> Facts:
        return Facts(count=7, version=1, fence=1, grace=1, ttl=1)

    monkeypatch.setattr(pool, "resize", lost)
    with pytest.raises(RedisSemaphoreError, match="resized to 7 by somebody else"):
        await semaphore.resize(2)


async def test_a_shrink_does_not_take_what_was_popped_meanwhile(
    make: Make, client: Redis, strategy: SemaphoreInitStrategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    if strategy is SemaphoreInitStrategy.LUA:
        pytest.skip("nobody pops in the middle of a script")
    semaphore = make(count=3)
    await semaphore.get_count()
    pool = semaphore._homes.get().membership.station
    assert pool is not None
    wire = await pool._link.connected(monotonic() + 5)
    exchange, left = wire.exchange, ["before the first EXEC"]

    async def interposed(commands: Any, timeout: float) -> Any:
        if b"MULTI" in commands[0] and b"EXEC" in commands[-1] and left:
            left.pop()
            assert await client.lpop(pool._keys[0].decode(), 3)
        return await exchange(commands, timeout)

    assert pool._facts is not None
    version = pool._facts.version
    monkeypatch.setattr(wire, "exchange", interposed)
    await pool._backend.resize(Terms(30_000, 300_000), 1, version, 0, monotonic() + 5)
    assert not left
    # Their poppers believe in all three until they have claimed them.
    assert {b"s0", b"s1", b"s2"} <= set(await client.hkeys(pool._keys[2].decode()))


async def test_a_resize_is_seen_by_all_and_counts_for_newcomers(make: Make) -> None:
    first, second = make(count=2), make(count=2)
    assert await second.get_count() == 2
    await first.resize(3)
    assert await second.get_count() == 3
    await take(second, 3)
    with pytest.raises(RedisSemaphoreCountMismatchError):
        await make(count=2).get_count()
    assert await make(count=3).get_count() == 3


# Closing


@pytest.mark.parametrize("use", ["acquire", "get_count", "status", "resize"])
async def test_a_closed_instance_refuses_to_be_used(make: Make, use: str) -> None:
    semaphore = make(count=2)
    assert await semaphore.get_count() == 2
    await semaphore.close()
    arguments = {"acquire": [0], "resize": [4]}.get(use, [])
    with pytest.raises(RedisSemaphoreError, match=f"{semaphore.name}.*closed"):
        await getattr(semaphore, use)(*arguments)


async def test_closing_twice_or_unused_does_nothing(make: Make, client: Redis) -> None:
    semaphore = make(count=2)
    await semaphore.close()
    await semaphore.close()
    assert await client.dbsize() == 0


async def test_closing_gives_nothing_back_and_what_is_held_can_be_released(make: Make) -> None:
    semaphore, other = make(count=3), make(count=3)
    permits = await take(semaphore, 2)
    await semaphore.close()
    await settled(other, *[permit.fence for permit in permits])
    await permits[0].release()
    await semaphore.release(permits[1])
    await settled(other)


async def test_closing_ends_the_waits_of_the_instance_alone(make: Make) -> None:
    first, second = make(count=1), make(count=1)
    permit = await second.acquire(0)
    ending, staying = spawn(first.acquire), spawn(second.acquire)
    await eventually(lambda: in_line(second) == 2)
    await first.close()
    with pytest.raises(RedisSemaphoreError, match="closed"):
        await ending.result(2)
    await permit.release()
    await (await staying.result(2)).release()
    await settled(second)


async def test_what_is_held_at_the_close_is_not_renewed(make: Make) -> None:
    semaphore, other = make(count=1, permit_ttl=0.5), make(count=1, permit_ttl=0.5)
    assert await other.get_count() == 1
    permit = await semaphore.acquire(0)
    end = monotonic() + permit.remaining()
    await semaphore.close()
    assert monotonic() + permit.remaining() < end + 0.01
    assert await permit.wait_lost(10)


async def test_an_instance_that_names_another_count_may_resize_to_it(make: Make) -> None:
    small, large = make(count=2), make(count=5)
    await small.acquire(0)
    await large.resize(5)
    assert await small.get_count() == 5
    async with large.permit(0):
        pass


async def test_closing_one_instance_leaves_the_others_at_work(make: Make) -> None:
    first, second = make(count=2, permit_ttl=3), make(count=2, permit_ttl=3)
    mine, theirs = await first.acquire(0), await second.acquire(0)
    await mine.release()
    await first.close()
    await renewed(theirs)
    waiting = [spawn(partial(second.acquire, 10)) for _ in range(2)]
    await eventually(lambda: any(handle.done() for handle in waiting))
    await theirs.release()
    for handle in waiting:
        assert (await handle.result(2)).held


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux")
async def test_closing_leaves_no_socket_behind(make: Make, client: Redis) -> None:
    await client.ping()
    gc.collect()  # what earlier tests left; not again, as nothing here may need it
    before = open_files()
    first, second = make(count=1), make(count=1)
    permit = await first.acquire(0)
    waiting = spawn(partial(second.acquire, 5))
    await eventually(lambda: in_line(second) == 1)
    await eventually(lambda: open_files() == before + 2)
    await permit.release()
    await (await waiting.result(2)).release()
    await first.close()
    await second.close()
    await left_alone(client)
    await eventually(lambda: open_files() == before)


@pytest.fixture
async def quiet(make_server: Callable[..., Server]) -> AsyncIterator[Redis]:
    """A client of a server of its own: what stays behind fails no other test."""
    client = connect(make_server())
    yield client
    await disconnect(client)


async def test_closing_with_a_permit_held_leaves_no_connection_behind(
    quiet: Redis, name: str, strategy: SemaphoreInitStrategy
) -> None:
    semaphore = RedisSemaphore(quiet, name, count=1, semaphore_init_strategy=strategy)
    permit = await semaphore.acquire(0)
    await semaphore.close()
    try:
        await left_alone(quiet)
    finally:
        await permit.release()


async def test_a_release_after_closing_leaves_no_connection_behind(
    quiet: Redis, name: str, strategy: SemaphoreInitStrategy
) -> None:
    semaphore = RedisSemaphore(quiet, name, count=1, semaphore_init_strategy=strategy)
    permit = await semaphore.acquire(0)
    await semaphore.close()
    await permit.release()
    await left_alone(quiet)


# Sharing


async def test_instances_of_one_name_share_two_connections(make: Make, client: Redis) -> None:
    semaphores = [make(count=2) for _ in range(10)]
    held = await take(semaphores[0], 2)

    async def use(semaphore: RedisSemaphore) -> None:
        # Each gives back its own: nobody knows in which order threads get in line.
        async with semaphore.permit(5):
            pass

    waiting = [spawn(partial(use, semaphore)) for semaphore in semaphores]
    await eventually(lambda: in_line(semaphores[0]) == 10)
    assert len(await client.client_list()) <= 3
    await release_all(held)
    for handle in waiting:
        await handle.result(2)
    await settled(semaphores[0])


async def test_instances_of_one_name_may_have_leases_of_their_own(make: Make) -> None:
    short, long = make(count=2, permit_ttl=3), make(count=2, permit_ttl=60)
    first, second = await long.acquire(0), await short.acquire(0)
    await renewed(second)
    assert first.held
    assert 50 < first.remaining() < 60
    assert second.remaining() < 3


async def test_other_names_prefixes_and_databases_are_other_semaphores(
    make: Make, server: Server, name: str
) -> None:
    elsewhere = connect(server, db=3)
    semaphores = [
        make(count=1),
        make(count=2, key_prefix="other"),
        make(count=3, key_prefix=""),
        make(called=name + "x", count=4),
        make(elsewhere, count=5),
    ]
    for semaphore in semaphores:
        await semaphore.acquire(0)
    assert [await semaphore.get_count() for semaphore in semaphores] == [1, 2, 3, 4, 5]
    assert [await free(semaphore) for semaphore in semaphores] == [0, 1, 2, 3, 4]
    for semaphore in semaphores:
        await semaphore.release()
        await semaphore.close()
    await disconnect(elsewhere)


# Names, counts and clients

NAMES = [
    "with spaces and\ttabs",
    "line\r\nbreak",
    "семафор 🚦 信号机",
    "e\u0301",
    "nul\0byte",
    "{tag}:rest",
    "a{b}c",
    "{open",
    "a}b",
    "{}",
    "{}x",
    "*?[a-z]",
    "%s%d{0}",
    "'\"\\",
    "0",
    "-1",
    "x" * 2000,
]


@pytest.mark.parametrize("called", NAMES, ids=lambda text: ascii(text)[:20])
async def test_any_name_will_do(make: Make, client: Redis, called: str) -> None:
    semaphore = make(called=called, count=2, permit_ttl=5)
    assert semaphore.name == called
    first, _ = await take(semaphore, 2)
    assert first.name == called
    waiting = spawn(partial(semaphore.acquire, 5))
    await eventually(lambda: in_line(semaphore) == 1)
    await first.release()
    assert (await waiting.result(2)).held
    for key in await client.keys():
        assert called.encode() in key
        assert b"{" in key
    assert await client.dbsize() >= 2


async def test_a_name_in_braces_is_the_same_as_without(make: Make, name: str) -> None:
    await make(count=3).acquire(0)
    assert (await make(called=f"{{{name}}}").status()).free == 2


async def test_all_keys_will_expire(make: Make, client: Redis) -> None:
    semaphore = make(count=3, permit_ttl=2, lease_ttl=50)
    await semaphore.acquire(0)
    await semaphore.resize(2)
    await semaphore.acquire(0)
    await semaphore.release()
    keys = await client.keys()
    assert len(keys) >= 3
    for key in keys:
        assert 40_000 < await client.pttl(key) <= 50_000


async def test_the_keys_outlive_the_leases(make: Make, client: Redis) -> None:
    semaphore = make(count=1, permit_ttl=100, lease_ttl=1)
    await semaphore.acquire(1)
    assert len(await client.keys("*")) == 2  # nothing is free
    for key in await client.keys("*"):
        assert await client.ttl(key) > 150


async def test_one_permit_and_4096_permits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PATIENCE", 20)  # a transaction reads and writes all of them
    semaphore = make(count=4096, permit_ttl=60)
    permits = await take(semaphore, 50)
    assert len({permit.slot for permit in permits}) == 50
    assert await free(semaphore) == 4046
    await semaphore.resize(1)
    await release_all(permits)
    assert await free(semaphore) == 1
    await semaphore.resize(4096)
    assert await free(semaphore) == 4096
    await semaphore.acquire(0)


async def test_all_of_4096_permits_are_renewed(make: Make, strategy: SemaphoreInitStrategy) -> None:
    if strategy is not SemaphoreInitStrategy.LUA:
        pytest.skip("each of its acquisitions reads all 4096 records")
    semaphore = make(count=4096, permit_ttl=4)
    permits = await take(semaphore, 4096)
    assert sorted(permit.slot for permit in permits) == list(range(4096))
    await assert_none_free(semaphore)
    await renewed(*permits)
    assert len((await semaphore.status()).held) == 4096
    for permit in permits:
        await permit.release()  # by name: to look for the latest one each time takes longer


@pytest.mark.parametrize(
    "options",
    [{"decode_responses": True}, {"protocol": 3}, {"protocol": 2, "encoding": "utf-16"}],
    ids=str,
)
async def test_a_client_that_reads_otherwise_does_the_same(
    make: Make, server: Server, options: dict[str, Any]
) -> None:
    other = connect(server, **options)
    semaphore, plain = make(other, count=2, identifier="é"), make(count=2)
    permit = await semaphore.acquire(0)
    (held,) = (await semaphore.status()).held
    assert (held.slot, held.fence, held.identifier) == (permit.slot, permit.fence, "é")
    await plain.acquire(0)
    waiting = spawn(partial(plain.acquire, 5))
    await eventually(lambda: in_line(plain) == 1)
    await permit.release()
    assert (await waiting.result(2)).fence > permit.fence
    await semaphore.resize(3)
    assert await plain.get_count() == 3
    await semaphore.close()
    await disconnect(other)
