"""One set wakes one wait; no signal is lost, and none is doubled."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from redsync.aio import RedisEvent, RedisEventError, RedisEventTimeoutError
from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect, eventually, spawn, together
from ..support.proxy import FaultProxy, How

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
    await waiting.result(1)
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


async def test_a_wait_of_zero_seconds_is_one_try(event: RedisEvent) -> None:
    began = time.monotonic()
    with pytest.raises(RedisEventTimeoutError, match="'e'") as caught:
        await event.wait(0)
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 0.5
    await event.set()
    await event.wait(0)


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
    fault = proxy.lose_reply("BLPOP")
    await event.set()
    await waiting.result(12)
    assert fault.fired == 1
    assert await drain(event) == 0
    await event.close()
    await disconnect(client)


async def test_waits_go_on_when_the_data_is_lost(client: Redis, event: RedisEvent) -> None:
    waiting = spawn(lambda: event.wait(10))
    await eventually(lambda: blocked(client))
    await client.flushall()
    await event.set()
    await waiting.result(1)


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
