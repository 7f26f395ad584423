"""A permit that comes by waiting is handed over before its claim is confirmed, but not too late."""

from __future__ import annotations

import pytest

from ..support.aio import connect, disconnect, eventually, sleep, spawn
from ..support.proxy import FaultProxy
from .helpers import Make

TTL = 2.0
GRACE = TTL / 2


@pytest.mark.punctual
@pytest.mark.parametrize("held", [False, True], ids=["sent then", "on its way since"])
@pytest.mark.parametrize("after", [0.05, 0.45, 0.9])
async def test_a_permit_has_time_left_whenever_it_comes(
    make: Make, proxy: FaultProxy, after: float, held: bool
) -> None:
    semaphore = make(count=1, permit_ttl=TTL)
    holder = await semaphore.acquire(0)
    client = connect(proxy)
    left: list[float] = []

    async def wait() -> None:
        permit = await make(client, count=1, permit_ttl=TTL).acquire(5)
        left.append(permit.remaining())
        await eventually(lambda: permit.lost or permit.remaining() > GRACE)
        assert permit.held  # it is claimed
        await permit.release()

    waiting = spawn(wait)
    await eventually(lambda: proxy.sent("BLPOP") > 0)
    if held:
        proxy.partition(requests=False)
        await holder.release()
    await sleep(after * GRACE)
    proxy.heal()
    await holder.release()
    await waiting.result()
    assert left[0] > GRACE / 5
    await disconnect(client)
