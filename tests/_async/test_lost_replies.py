"""A command whose request or reply is lost has one effect, and its caller gets an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from time import monotonic

import pytest
from redis.exceptions import RedisError

from redsync._protocol.scripts import _SCRIPTS
from redsync.aio import Permit, RedisSemaphore, RedisSemaphoreTimeoutError, SemaphoreInitStrategy
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, spawn, together
from ..support.commands import evalsha
from ..support.proxy import Direction, FaultProxy, How
from .helpers import Make, in_line, left_alone, renewed, take
from .losing import lose, losses
from .states import becomes_whole, is_whole, key, state

pytestmark = pytest.mark.faults

LUA = SemaphoreInitStrategy.LUA


@pytest.fixture(autouse=True)
async def shaky(proxy: FaultProxy, client: Redis) -> AsyncIterator[Redis]:
    """A client whose connections the proxy breaks; no other is left when the test has ended."""
    connected = connect(proxy)
    yield connected
    await disconnect(connected)
    await client.connection_pool.disconnect()  # one for each task that has used it
    await left_alone(client)


@pytest.fixture
def lease() -> float:
    """Seconds for which permits are leased: more than a machine stands still."""
    return 3


brief = pytest.mark.parametrize("lease", [1])
"""For those who wait for the end of one, or of half of one."""


@pytest.fixture
async def near(make: Make, client: Redis, lease: float) -> RedisSemaphore:
    """The semaphore, for somebody with a good connection. The server knows all scripts."""
    for script in _SCRIPTS.values():
        await client.script_load(script)
    return make(count=3, permit_ttl=lease)


@pytest.fixture
async def far(make: Make, shaky: Redis, near: RedisSemaphore, lease: float) -> RedisSemaphore:
    """The same semaphore, for somebody behind the proxy, who has used it before."""
    semaphore = make(shaky, count=3, permit_ttl=lease)
    await semaphore.get_count()
    return semaphore


def sent_as(strategy: SemaphoreInitStrategy, transition: str) -> str:
    """What goes over the wire when it is asked for."""
    return evalsha(f"semaphore/{transition}") if strategy is LUA else "EXEC"


async def all_can_be_had(client: Redis, semaphore: RedisSemaphore) -> None:
    """All permits come, each once; without scripts, one may have been popped for nobody."""
    permits = await take(semaphore, 3)
    assert {permit.slot for permit in permits} == {0, 1, 2}
    for permit in permits:
        await permit.release()
    assert await is_whole(client, semaphore.name, 3)


# Whoever asks


@losses
async def test_making_it(
    proxy: FaultProxy,
    shaky: Redis,
    client: Redis,
    name: str,
    near: RedisSemaphore,
    lease: float,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    fault = lose(proxy, loss, sent_as(strategy, "create"), how)
    semaphore = await RedisSemaphore.create(
        shaky, name, count=3, permit_ttl=lease, semaphore_init_strategy=strategy
    )
    assert fault.fired == 1
    assert await is_whole(client, name, 3)
    first = await state(client, name)
    made = first.version
    assert sorted(first.free.values()) == [made + 1, made + 2, made + 3], "made and filled once"
    await semaphore.close()


@losses
async def test_acquiring(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    fault = lose(proxy, loss, sent_as(strategy, "acquire"), how)
    permit = await far.acquire(0)
    assert fault.fired == 1
    assert permit.held
    found = await state(client, far.name)
    assert found.owned == {permit.slot: permit.fence}
    if strategy is LUA:
        assert set(found.held) == {permit.slot}
        assert len(found.free) == 2
    await permit.release()
    await all_can_be_had(client, far)


@losses
async def test_acquiring_the_last(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    near: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    others = await take(near, 2)
    lose(proxy, loss, sent_as(strategy, "acquire"), how)
    permit = await far.acquire(0)
    found = await state(client, far.name)
    assert found.owned == {each.slot: each.fence for each in (*others, permit)}
    assert set(found.held) == {0, 1, 2}


@pytest.mark.punctual
@pytest.mark.parametrize("how", ["close", "reset"])
@brief
async def test_acquiring_without_scripts_when_the_pop_is_lost(
    proxy: FaultProxy, client: Redis, far: RedisSemaphore, strategy: SemaphoreInitStrategy, how: How
) -> None:
    if strategy is LUA:
        pytest.skip("its scripts pop and claim at once")
    lose(proxy, "reply", "LPOP", how)
    permit = await far.acquire(0)
    found = await state(client, far.name)
    assert found.owned == {permit.slot: permit.fence}
    assert len(found.free) == 1
    others = await take(far, 2)  # half of a lease later, at the latest
    assert {each.slot for each in (permit, *others)} == {0, 1, 2}


@losses
async def test_releasing(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    first, second = await take(far, 2)
    fault = lose(proxy, loss, sent_as(strategy, "release"), how)
    await first.release()
    assert fault.fired == 1
    found = await state(client, far.name)
    assert found.owned == {second.slot: second.fence}
    assert len(found.free) == 2
    await second.release()
    assert await is_whole(client, far.name, 3)


@losses
async def test_releasing_what_somebody_else_gets_at_once(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    near: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    kept = await take(near, 2)
    permit = await far.acquire(0)
    waiting = spawn(lambda: near.acquire(5))
    await eventually(lambda: in_line(near) == 1)
    lose(proxy, loss, sent_as(strategy, "release"), how)
    await permit.release()
    heir = await waiting.result()

    async def seated() -> bool:
        owned = (await state(client, far.name)).owned
        return owned == {each.slot: each.fence for each in (*kept, heir)}

    await eventually(seated)
    assert heir.held


@losses
async def test_renewing(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    permit = await far.acquire(0)
    fault = lose(proxy, loss, sent_as(strategy, "tend") if strategy is LUA else "ZADD", how)
    await renewed(permit)
    assert fault.fired == 1
    assert (await state(client, far.name)).seated(permit.slot, permit.fence)


@losses
@pytest.mark.parametrize("count", [1, 5])
async def test_resizing(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
    count: int,
) -> None:
    # Without scripts, the first EXEC is that of a look at the version.
    await far.status()
    match = sent_as(strategy, "resize") if strategy is LUA else "HSET " + key(far.name, "meta")
    fault = lose(proxy, loss, match, how)
    await far.resize(count)
    assert fault.fired == 1
    assert await is_whole(client, far.name, count)


@losses
async def test_asking_for_the_status(
    proxy: FaultProxy, far: RedisSemaphore, strategy: SemaphoreInitStrategy, loss: str, how: How
) -> None:
    fault = lose(proxy, loss, sent_as(strategy, "status"), how)
    assert (await far.status()).free == 3
    assert fault.fired == 1


@losses
@pytest.mark.parametrize("match", ["WATCH", "MULTI", "UNWATCH", "LRANGE", "TIME"])
async def test_every_step_of_a_transaction(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
    match: str,
) -> None:
    if strategy is LUA:
        pytest.skip("scripts have no steps")
    permit = await far.acquire(0)
    fault = lose(proxy, loss, match, how)
    await permit.release()
    assert fault.fired == 1
    assert await is_whole(client, far.name, 3)


# Whoever waits


@losses
@brief
@pytest.mark.punctual
async def test_waiting(
    proxy: FaultProxy, client: Redis, far: RedisSemaphore, near: RedisSemaphore, loss: str, how: How
) -> None:
    permits = await take(near, 3)
    fault = lose(proxy, loss, "BLPOP", how)
    waiting = spawn(lambda: far.acquire(5))
    await eventually(lambda: in_line(far) == 1)
    if loss == "reply":
        await eventually(lambda: proxy.sent("BLPOP") >= 1)
    await permits[0].release()
    # The token that was lost on its way is issued anew: after a grace of 0.5 s.
    granted = await waiting.result(2)
    assert fault.fired == 1
    assert granted.slot == permits[0].slot
    assert granted.fence > permits[0].fence
    for each in (granted, *permits):
        await each.release()
    await becomes_whole(client, far.name, 3)


@brief
@pytest.mark.punctual
async def test_waiting_for_several_at_once(
    proxy: FaultProxy, client: Redis, far: RedisSemaphore, near: RedisSemaphore
) -> None:
    permits = await take(near, 3)
    waiting = [spawn(lambda: far.acquire(5)) for _ in range(4)]
    await eventually(lambda: in_line(far) == 4)
    rounds = proxy.sent("BLPOP")
    await eventually(lambda: proxy.sent("BLPOP") > rounds)  # the first may ask for more than one
    rest = "LPOP " + key(far.name, "free") + " 2"  # for the third and the fourth
    before = proxy.sent(rest)
    fault = proxy.lose_reply(rest)
    await permits[0].release()  # where one token has come, there may be more
    await eventually(lambda: proxy.sent(rest) > before)
    await near.resize(6)  # three tokens at once
    granted = [await each.result(2) for each in waiting]
    assert fault.fired == 1
    assert len({each.slot for each in (*granted, *permits[1:])}) == 6
    for each in (*granted, *permits):
        await each.release()
    await becomes_whole(client, far.name, 6)


@losses
async def test_claiming_what_was_handed_out(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    near: RedisSemaphore,
    strategy: SemaphoreInitStrategy,
    loss: str,
    how: How,
) -> None:
    permits = await take(near, 3)
    waiting = spawn(lambda: far.acquire(5))
    await eventually(lambda: proxy.sent("BLPOP") >= 1)
    # The owner's name is in the claim alone, as long as the lease need not be renewed.
    fault = lose(proxy, loss, sent_as(strategy, "tend"), how)
    await permits[0].release()
    granted = await waiting.result()
    await renewed(granted)  # handed out for 1.5 s, and confirmed in time
    assert fault.fired == 1
    assert (await state(client, far.name)).seated(granted.slot, granted.fence)


@losses
@pytest.mark.parametrize("match", ["RPUSH", "PEXPIRE"])
async def test_ending_a_wait(
    proxy: FaultProxy,
    client: Redis,
    far: RedisSemaphore,
    near: RedisSemaphore,
    loss: str,
    how: How,
    match: str,
) -> None:
    permits = await take(near, 3)
    waiting = spawn(lambda: far.acquire(0.8))
    await eventually(lambda: proxy.sent("BLPOP") >= 1)
    fault = lose(proxy, loss, match + " " + key(far.name, "wake"), how)
    with pytest.raises(RedisSemaphoreTimeoutError):
        await waiting.result()
    await eventually(lambda: fault.fired == 1)
    # What is left of it wakes nobody for nothing for long, and is in nobody's way.
    await permits[0].release()
    granted = await far.acquire(10)
    for each in (granted, *permits):
        await each.release()
    await becomes_whole(client, far.name, 3)
    await far.close()
    for left in await client.keys(key(far.name, "wake:*")):
        assert await client.pttl(left) > 0


# Anything, anywhere


@pytest.mark.punctual
@pytest.mark.parametrize("direction", ["requests", "replies"])
@brief
async def test_a_cut_after_any_number_of_bytes(
    proxy: FaultProxy, client: Redis, far: RedisSemaphore, direction: Direction
) -> None:
    for number in range(0, 600, 29):
        fault = proxy.cut_after_bytes(number, direction=direction)
        while not fault.fired:
            async with far.permit(10) as permit:
                assert (await state(client, far.name)).owned[permit.slot] == permit.fence
    await all_can_be_had(client, far)


@pytest.mark.punctual
@brief
async def test_many_cuts_while_many_work(
    proxy: FaultProxy, client: Redis, far: RedisSemaphore, near: RedisSemaphore
) -> None:
    inside: list[Permit] = []

    async def work(semaphore: RedisSemaphore) -> None:
        for _ in range(15):
            async with semaphore.permit(30) as permit:
                # Whoever could not renew in time has lost it, and is in here all the same.
                others = [each for each in inside if each.slot == permit.slot and each.held]
                assert not others or not permit.held
                inside.append(permit)
                await state(client, far.name)
                inside.remove(permit)

    def goes_on(seen: int) -> bool:
        # Without scripts, an acquisition on new connections takes up to 50 requests.
        return proxy.sent("") > seen + 150 or all(each.done() for each in workers)

    workers = [spawn(partial(work, semaphore)) for semaphore in (far, near) for _ in range(5)]
    while not all(each.done() for each in workers):
        (proxy.reset_all if len(inside) % 2 else proxy.close_all)()
        await eventually(partial(goes_on, proxy.sent("")))
    for each in workers:
        await each.result(20)
    await all_can_be_had(client, far)


# Connections that stay open, and nothing comes any more: the machine at the other end has died


async def release_into_silence(server: Server, make: Make, near: Redis, loss: str) -> None:
    name = f"released-{loss}"
    with FaultProxy(server.address) as proxy:
        connected = connect(proxy)
        far = make(connected, name, count=1, permit_ttl=30)
        permit = await far.acquire(1)
        waiting = spawn(lambda: make(near, name, count=1, permit_ttl=30).acquire(20))
        fault = lose(proxy, loss, name, "stall")
        began = monotonic()
        with suppress(RedisError, OSError):
            await permit.release()
        assert monotonic() - began < 6
        granted = await waiting.result(3)
        assert granted.fence > permit.fence
        assert fault.fired == 1
        await far.close()
        await disconnect(connected)
    await granted.release()
    await becomes_whole(near, name, 1)


async def wait_in_silence(server: Server, make: Make, near: Redis, loss: str) -> None:
    name = f"waited-{loss}"
    with FaultProxy(server.address) as proxy:
        connected = connect(proxy)
        far = make(connected, name, count=1, permit_ttl=2)
        permit = await make(near, name, count=1, permit_ttl=2).acquire(1)
        fault = lose(proxy, loss, "BLPOP", "stall")
        waiting = spawn(lambda: far.acquire(20))
        await eventually(lambda: proxy.sent("BLPOP") >= 1)
        await permit.release()
        # A slice of 1 s and 2 s of patience, then the grace of whoever had popped the token: 1 s.
        granted = await waiting.result(6)
        assert granted.fence > permit.fence
        assert fault.fired == 1
        await granted.release()
        await far.close()
        await disconnect(connected)
    await becomes_whole(near, name, 1)


@pytest.mark.punctual
@pytest.mark.parametrize("strategy", [LUA], indirect=True)  # the connections are the same
async def test_connections_that_fall_silent(server: Server, client: Redis, make: Make) -> None:
    await together(
        *[
            partial(scene, server, make, client, loss)
            for scene in (release_into_silence, wait_in_silence)
            for loss in ("request", "reply")
        ]
    )
