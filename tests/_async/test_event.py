"""One set wakes one wait; no signal is lost, and none is doubled."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest
from redis.exceptions import RedisError

from redsync._async import station
from redsync._runtime.aio import connections
from redsync.aio import RedisEvent, RedisEventError, RedisEventTimeoutError
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from ..support.commands import evalsha
from ..support.proxy import FaultProxy, How
from .helpers import left_alone

SIGNALS = "redsync:event:{e}:signals"
OPEN = "redsync:event:{e}:open"


@pytest.fixture
async def event(client: Redis) -> AsyncIterator[RedisEvent]:
    event = RedisEvent(client, "e")
    yield event
    await event.close()


async def drain(event: RedisEvent) -> int:
    """How many signals there are to take."""
    found = 0
    while True:
        try:
            await event.wait(0)
        except RedisEventTimeoutError:
            return found
        found += 1


async def blocked(client: Redis) -> int:
    return int((await client.info("clients"))["blocked_clients"])


async def test_a_signal_is_kept_until_somebody_waits(event: RedisEvent) -> None:
    assert not await event.is_set()
    await event.set()
    assert await event.is_set()
    await event.wait(1)
    assert not await event.is_set()


async def test_a_signal_wakes_who_waits_already(client: Redis, event: RedisEvent) -> None:
    waiting = spawn(lambda: event.wait(10))
    await eventually(lambda: blocked(client))
    await event.set()
    await waiting.result(2)
    assert await drain(event) == 0


async def test_each_signal_wakes_exactly_one(client: Redis, event: RedisEvent) -> None:
    handles = [spawn(lambda: event.wait(10)) for _ in range(20)]
    await eventually(lambda: blocked(client))
    for _ in range(7):
        await event.set()
    await eventually(lambda: sum(handle.done() for handle in handles) == 7)
    for _ in range(13):
        await event.set()
    for handle in handles:
        await handle.result()
    assert await drain(event) == 0


async def test_waits_of_two_clients_share_the_signals(server: Server, event: RedisEvent) -> None:
    other_client = connect(server)
    other = RedisEvent(other_client, "e")
    calls = [each.wait for each in (event, other) for _ in range(10)]
    waits = spawn(lambda: together(*[lambda call=call: call(10) for call in calls]))
    await together(*[event.set for _ in range(20)])
    await waits.result()
    assert await drain(other) == 0
    await other.close()
    await disconnect(other_client)


@pytest.mark.punctual
async def test_a_wait_of_zero_seconds_is_one_try(event: RedisEvent) -> None:
    began = time.monotonic()
    with pytest.raises(RedisEventTimeoutError, match="'e'") as caught:
        await event.wait(0)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 0.5
    await event.set()
    await event.wait(0)


@pytest.mark.punctual
@pytest.mark.parametrize("timeout", [0.05, 0.5])
async def test_a_wait_ends_in_time(event: RedisEvent, timeout: float) -> None:
    began = time.monotonic()
    with pytest.raises(RedisEventTimeoutError):
        await event.wait(timeout)
    assert timeout <= time.monotonic() - began < timeout + 1


async def test_a_wait_that_gave_up_takes_no_signal(client: Redis, event: RedisEvent) -> None:
    for _ in range(3):
        with pytest.raises(RedisEventTimeoutError):
            await event.wait(0.02)
        # At once, while the connection that waited may still be blocked.
        await event.set()
        await event.wait(5)
    await event.set()
    await eventually(lambda: client.llen(SIGNALS))
    assert await drain(event) == 1


async def test_clear_removes_what_nobody_has_taken(event: RedisEvent) -> None:
    await event.set()
    await event.set()
    await event.clear()
    assert not await event.is_set()
    assert await drain(event) == 0
    await event.set()
    await event.wait(1)


async def test_a_signal_that_was_popped_and_never_confirmed_comes_back(
    client: Redis, event: RedisEvent
) -> None:
    await event.set()
    assert await client.lpop(SIGNALS)  # by somebody who dies now
    await event.wait(10)
    assert await drain(event) == 0


async def test_signals_survive_the_loss_of_the_key_beside_them(
    client: Redis, event: RedisEvent
) -> None:
    waiting = spawn(lambda: event.wait(15))
    await eventually(lambda: blocked(client))
    await event.set()
    await waiting.result()
    await event.set()
    await client.delete(OPEN)
    await event.wait(15)


async def test_only_pending_signals_stay_for_ever(client: Redis, event: RedisEvent) -> None:
    await event.set()
    assert await client.ttl(SIGNALS) == await client.ttl(OPEN) == -1
    await event.wait(1)
    for key in await client.keys("*"):
        assert 0 < await client.ttl(key) <= 120, key


@pytest.mark.parametrize("how", ["close", "stall"])
@pytest.mark.parametrize("reply", [False, True], ids=["request", "reply"])
async def test_a_set_that_has_to_be_repeated_adds_one_signal(
    proxy: FaultProxy, how: How, reply: bool
) -> None:
    client = connect(proxy)
    event = RedisEvent(client, "e")
    await event.set()
    lose = proxy.lose_reply if reply else proxy.lose_request
    fault = lose("EVALSHA", how=how)
    if how == "stall":
        handle = spawn(event.set)
        await eventually(lambda: fault.fired == 1)
        proxy.reset_all()
        await handle.result()
    else:
        await event.set()
    assert fault.fired == 1
    assert await drain(event) == 2
    await event.close()
    await disconnect(client)


async def test_a_clear_that_has_to_be_repeated_leaves_what_came_after_it(
    event: RedisEvent, proxy: FaultProxy
) -> None:
    client = connect(proxy)
    far = RedisEvent(client, "e")
    await far.set()
    await far.clear()  # so that the server knows the script
    await far.set()
    fault = proxy.lose_reply("EVALSHA", how="stall")
    clearing = spawn(far.clear)
    await eventually(lambda: fault.fired == 1)
    await event.set()
    proxy.reset_all()
    await clearing.result()
    assert await drain(event) == 1
    await far.close()
    await disconnect(client)


@pytest.mark.punctual
async def test_a_wait_that_cannot_confirm_ends_in_time_and_the_signal_stays(
    event: RedisEvent, proxy: FaultProxy
) -> None:
    client = connect(proxy)
    far = RedisEvent(client, "e")
    await far.set()
    await far.wait(0)  # so that the server knows the scripts
    await event.set()
    fault = proxy.lose_reply(evalsha("event/confirm"), how="stall")
    began = time.monotonic()
    with pytest.raises((RedisError, OSError)):
        await far.wait(0.2)
    assert time.monotonic() < began + 0.2 + 1
    assert fault.fired == 1
    proxy.reset_all()
    await event.wait(10)
    assert await drain(event) == 0
    await far.close()
    await disconnect(client)


@pytest.mark.punctual
async def test_waits_with_a_server_that_is_dead_end_in_time(proxy: FaultProxy) -> None:
    client = connect(proxy)
    event = RedisEvent(client, "e")
    assert not await event.is_set()

    async def wait(timeout: float) -> None:
        began = time.monotonic()
        with pytest.raises((RedisEventTimeoutError, RedisError, OSError)):
            await event.wait(timeout)
        assert timeout <= time.monotonic() - began < timeout + 1

    waiting = spawn(lambda: wait(3))
    await eventually(lambda: proxy.sent("BLPOP"))
    proxy.partition()
    await together(*[partial(wait, timeout) for timeout in (0, 0.05, 3)])
    await waiting.result()
    proxy.heal()
    await event.set()
    await event.wait(5)
    await event.close()
    await disconnect(client)


async def test_waits_that_give_up_at_random_take_no_signal_along(event: RedisEvent) -> None:
    sets, woken = 300, []

    async def wait() -> None:
        for _ in range(300):
            try:
                await event.wait(random.choice((0, 0.0005, 0.002, 0.005)) * random.random())
            except RedisEventTimeoutError:
                continue
            woken.append(1)

    async def set_all() -> None:
        for _ in range(sets):
            await event.set()
            await sleep(0.002 * random.random())

    await together(set_all, *[wait] * 8)
    # What came for nobody goes back in the background.
    total = len(woken)
    while total < sets:
        await event.wait(5)
        total += 1
    assert await drain(event) == 0


async def test_closing_ends_the_waits_of_the_instance_alone(client: Redis) -> None:
    first, second = RedisEvent(client, "e"), RedisEvent(client, "e")
    ending, staying = spawn(first.wait), spawn(second.wait)
    await eventually(lambda: blocked(client))
    await sleep(0.05)
    await first.close()
    with pytest.raises(RedisEventError, match="closed"):
        await ending.result(2)
    await second.set()
    await staying.result(2)
    await second.close()


async def test_a_wait_whose_commands_get_lost_takes_one_signal(proxy: FaultProxy) -> None:
    client = connect(proxy)
    event = RedisEvent(client, "e")
    for _ in range(2):  # so that the server knows the scripts
        await event.set()
    await event.wait(0)
    for number in (1, 2):  # to take, and to confirm
        await event.set()
        fault = proxy.cut_after_replies(number - 1)
        await event.wait(5)
        assert fault.fired == 1
    assert await drain(event) == 1
    await event.close()
    await disconnect(client)


async def test_a_signal_whose_delivery_got_lost_is_delivered_again(proxy: FaultProxy) -> None:
    client = connect(proxy)
    event = RedisEvent(client, "e")
    waiting = spawn(lambda: event.wait(15))
    await eventually(lambda: proxy.sent("BLPOP"))
    faults = [proxy.lose_reply(each) for each in ("BLPOP", evalsha("event/tend"))]
    await event.set()
    await waiting.result(12)
    assert [fault.fired for fault in faults] == [1, 1]
    assert await drain(event) == 0
    await event.close()
    await disconnect(client)


async def test_waits_go_on_when_the_data_is_lost(client: Redis, event: RedisEvent) -> None:
    waiting = spawn(lambda: event.wait(10))
    await eventually(lambda: blocked(client))
    await client.flushall()
    await event.set()
    await waiting.result(2)


async def test_a_closed_event_refuses_to_work(event: RedisEvent) -> None:
    await event.set()
    await event.close()
    await event.close()
    with pytest.raises(RedisEventError, match="closed"):
        await event.set()


async def test_a_key_of_another_type_is_named(client: Redis, event: RedisEvent) -> None:
    await client.set(SIGNALS, "text")
    for call in (event.set, lambda: event.wait(0), event.is_set):
        with pytest.raises(RedisEventError, match=r"redsync:event:\{e\}:signals"):
            await call()
    await event.close()
    await left_alone(client)  # though it could not ask for anything


@pytest.mark.punctual
async def test_a_connection_that_does_not_answer_any_more_is_given_up(
    server: Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.3)
    monkeypatch.setattr(station, "_TEND_PATIENCE", 60)  # else the watchdog would give it up too
    async with connect(proxy) as far:
        event = RedisEvent(far, "e")
        assert not await event.is_set()
        proxy.lose_reply("EVALSHA", how="stall")
        with pytest.raises(RedisError):
            await event.wait(0)
        with pytest.raises(RedisEventTimeoutError):
            await event.wait(0)  # on a new connection
        await event.close()


async def test_all_whose_connection_breaks_go_on_at_once(proxy: FaultProxy) -> None:
    async with connect(proxy) as far:
        event = RedisEvent(far, "e")
        assert not await event.is_set()
        proxy.partition(requests=False)
        asking = [spawn(event.is_set) for _ in range(5)]
        await eventually(lambda: proxy.sent("LLEN") >= 2)
        began = time.monotonic()
        proxy.reset_all()
        proxy.heal()
        for each in asking:
            assert not await each.result()
        assert time.monotonic() - began < 3
        await event.close()


async def test_a_call_that_outlasts_the_close_leaves_no_connection(proxy: FaultProxy) -> None:
    async with connect(proxy) as far:
        event = RedisEvent(far, "e")
        assert not await event.is_set()
        proxy.partition(requests=False)
        asking = spawn(event.is_set)
        await eventually(lambda: proxy.sent("LLEN") >= 2)
        await event.close()
        proxy.heal()
        proxy.reset_all()  # it asks once more
        assert not await asking.result()
        await eventually(lambda: proxy.connections == 0)


@pytest.mark.punctual
async def test_who_runs_out_of_time_leaves_the_connection_to_others(proxy: FaultProxy) -> None:
    async with connect(proxy) as far:
        event = RedisEvent(far, "e")
        assert not await event.is_set()
        with pytest.raises(RedisEventTimeoutError):
            await event.wait(0)  # its connection is there, too
        before = proxy.accepted
        proxy.partition(requests=False)
        with pytest.raises(RedisError):
            await event.wait(0)
        proxy.heal()
        assert not await event.is_set()
        assert proxy.accepted == before
        await event.close()


async def test_the_last_one_to_give_up_leaves_no_blocked_connection(
    client: Redis, event: RedisEvent
) -> None:
    with pytest.raises(RedisEventTimeoutError):
        await event.wait(0.1)

    async def nobody() -> bool:
        return not await blocked(client)

    await eventually(nobody, timeout=3)  # a wait has five seconds


async def test_a_wait_that_ends_otherwise_gives_up_what_it_was_given(
    event: RedisEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = event._signals()
    owners: list[str] = []

    async def fail(owner: str, *_: object) -> None:
        owners.append(owner)
        raise ZeroDivisionError

    monkeypatch.setattr(signals, "wait", fail)
    monkeypatch.setattr(signals, "abandon", owners.append)
    with pytest.raises(ZeroDivisionError):
        await event.wait(1)
    assert len(owners) == 2 and owners[0] == owners[1]
