"""The one worker that looks after all that a process holds on a node."""

from __future__ import annotations

from typing import Any

import pytest

from redsync._async.station import Station
from redsync.aio import RedisSemaphore

from ..support.aio import Redis
from .helpers import Make, renewed, take

NAMES = 50


async def test_what_happens_to_one_name_is_not_asked_of_all(
    client: Redis, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    due = Station.due

    def noted(station: Station[Any]) -> float:
        nonlocal asked
        asked += 1
        return due(station)

    monkeypatch.setattr(Station, "due", noted)
    semaphores = [RedisSemaphore(client, f"{name}-{n}", count=1) for n in range(NAMES)]
    for each in semaphores:
        await each.get_count()
    for each in semaphores:
        await (await each.acquire(0)).release()
    for each in semaphores:
        await each.close()
    assert NAMES <= asked <= 20 * NAMES, "each of them whenever something happens to one"


async def test_many_names_are_renewed_beside_each_other(make: Make, name: str) -> None:
    semaphores = [make(called=f"{name}-{n}", count=1, permit_ttl=1.5) for n in range(10)]
    permits = [(await take(each, 1))[0] for each in semaphores]
    await renewed(*permits)
    await semaphores[0].close()
    await renewed(*permits[1:])
    assert all(each.held for each in permits[1:])
