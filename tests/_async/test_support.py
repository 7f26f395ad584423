"""What the other tests lean on: the proxy's faults are what they say, no wait is endless."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ConnectionError, TimeoutError

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn, together
from ..support.proxy import Direction, FaultProxy

pytestmark = pytest.mark.punctual  # their clients wait half a second, and no more


@pytest.fixture
async def proxied(proxy: FaultProxy) -> AsyncIterator[Redis]:
    """A client behind the proxy that neither retries nor waits long."""
    connected = connect(proxy, retry=None, socket_timeout=0.5)
    yield connected
    await disconnect(connected)


@pytest.fixture
async def newcomer(proxy: FaultProxy) -> AsyncIterator[Redis]:
    """A second client behind the proxy, not yet connected."""
    connected = connect(proxy, retry=None, socket_timeout=0.5)
    yield connected
    await disconnect(connected)


async def test_calls_run_together() -> None:
    async def nap() -> int:
        await sleep(0.05)
        return 1

    handle = spawn(nap)
    assert not handle.done()
    assert await together(nap, nap) == [1, 1]
    assert await handle.result(5) == 1
    assert handle.done()


async def test_an_error_of_a_call_is_raised_where_it_is_awaited() -> None:
    async def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await together(fail, fail)
    with pytest.raises(KeyError):
        await spawn(fail).result()


async def test_a_call_that_does_not_end_is_named() -> None:
    async def nap() -> None:
        await sleep(0.1)

    handle = spawn(nap)
    with pytest.raises(AssertionError, match=r"still running after 0\.01 s: .*nap"):
        await handle.result(0.01)
    await handle.result()


async def test_a_condition_that_does_not_come_true_is_named(client: Redis) -> None:
    async def is_there() -> bool:
        return bool(await client.exists("key"))

    with pytest.raises(AssertionError, match=r"not within 0\.01 s: .*is_there"):
        await eventually(is_there, timeout=0.01)
    await client.set("key", 1)
    await eventually(is_there)
    await eventually(lambda: True)


async def test_a_lost_request_is_not_executed(
    client: Redis, proxied: Redis, proxy: FaultProxy
) -> None:
    fault = proxy.lose_request("INCRBY n")
    with pytest.raises(ConnectionError):
        await proxied.incr("n")
    await eventually(lambda: fault.fired == 1)
    assert await client.get("n") is None
    assert await proxied.incr("n") == 1


async def test_a_lost_reply_is_that_of_an_executed_request(
    proxied: Redis, proxy: FaultProxy
) -> None:
    fault = proxy.lose_reply("INCRBY n")
    with pytest.raises(ConnectionError):
        await proxied.incr("n")
    await eventually(lambda: fault.fired == 1)
    assert proxy.sent("INCRBY n 1") == 1
    assert await proxied.incr("n") == 2


async def test_a_disarmed_fault_does_not_fire(proxied: Redis, proxy: FaultProxy) -> None:
    fault = proxy.lose_reply(times=None)
    proxy.disarm(fault)
    assert await proxied.ping()
    assert fault.fired == 0


async def test_a_partition_holds_what_is_sent(
    client: Redis, proxied: Redis, proxy: FaultProxy
) -> None:
    await proxied.ping()
    proxy.partition()
    with pytest.raises(TimeoutError):
        await proxied.incr("n")
    assert await client.get("n") is None
    proxy.heal()

    async def executed() -> bool:
        return await client.get("n") == b"1"

    await eventually(executed)


async def test_a_partition_may_cut_the_replies_only(
    client: Redis, proxied: Redis, proxy: FaultProxy
) -> None:
    await proxied.ping()
    proxy.partition(requests=False)
    with pytest.raises(TimeoutError):
        await proxied.incr("n")
    assert await client.get("n") == b"1"


@pytest.mark.parametrize("how", ["close_all", "reset_all"])
async def test_all_connections_can_be_cut(proxy: FaultProxy, how: str) -> None:
    patient = connect(proxy, retry=None, socket_timeout=None)
    blocked = spawn(lambda: patient.blpop(["q"], 10))
    await eventually(lambda: proxy.sent("BLPOP q") >= 1)
    assert getattr(proxy, how)() == 1
    with pytest.raises(ConnectionError):
        await blocked.result()
    await eventually(lambda: proxy.connections == 0)
    await disconnect(patient)


async def test_a_refusing_proxy_lets_open_connections_go_on(
    newcomer: Redis, proxied: Redis, proxy: FaultProxy
) -> None:
    await proxied.ping()
    proxy.refuse()
    assert await proxied.ping()
    with pytest.raises(ConnectionError):
        await newcomer.ping()
    proxy.heal()
    assert await newcomer.ping()


async def test_a_stalled_connection_stays_open(proxied: Redis, proxy: FaultProxy) -> None:
    await proxied.ping()
    proxy.lose_reply("PING", how="stall")
    with pytest.raises(TimeoutError):
        await proxied.ping()
    assert await proxied.ping()  # on a new connection


@pytest.mark.parametrize("direction", ["requests", "replies"])
async def test_a_message_can_be_torn(
    proxied: Redis, proxy: FaultProxy, direction: Direction
) -> None:
    await proxied.set("key", "x" * 1000)
    fault = proxy.cut_after_bytes(10, direction=direction)
    with pytest.raises(ConnectionError):
        await proxied.get("key")
    await eventually(lambda: fault.fired == 1)


async def test_replies_can_be_counted(proxied: Redis, proxy: FaultProxy) -> None:
    await proxied.ping()
    proxy.cut_after_replies(2)
    assert await proxied.ping()
    assert await proxied.ping()
    with pytest.raises(ConnectionError):
        await proxied.ping()


async def test_delay_is_added(proxied: Redis, proxy: FaultProxy) -> None:
    await proxied.ping()
    proxy.delay(replies=1)
    with pytest.raises(TimeoutError):
        await proxied.ping()
