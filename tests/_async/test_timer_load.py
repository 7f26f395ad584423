"""Very many timers: each once, and none costs more because of the others."""

from __future__ import annotations

from typing import Any

import pytest

from redsync.aio import Timer

from ..support.aio import Redis
from .timing import NOW, MakeTimers, Record, after, emptied

APART = ("config", "info", "hello", "client", "ping", "select", "blpop")
"""Commands of connections and of the test itself."""


class Cost:
    """What the server has done since `begin`, all that scripts have called included."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def begin(self) -> None:
        await self._client.config_resetstat()

    async def commands(self) -> int:
        """How many commands there were."""
        stats = await self._stats()
        return sum(stats[name]["calls"] for name in stats if not name.startswith(APART))

    async def scripts(self) -> tuple[int, float]:
        """How many scripts there were, and seconds of the server's time for all of them."""
        stats = (await self._stats())["evalsha"]
        return stats["calls"], stats["usec"] / 1e6

    async def _stats(self) -> dict[str, dict[str, Any]]:
        found = await self._client.info("commandstats")
        return {name.removeprefix("cmdstat_"): each for name, each in found.items()}


def many(count: int, topic: str = "notes") -> list[Timer]:
    return [Timer(topic, str(number), number, NOW) for number in range(count)]


async def test_of_twenty_thousand_overdue_timers_each_is_run_once_at_the_price_of_two_thousand(
    make_timers: MakeTimers, client: Redis
) -> None:
    prices = []
    for count in (2000, 20_000):
        record, cost = Record(), Cost(client)
        timers = make_timers(record.router, concurrency=100)
        await timers.set_timers(many(count))
        await cost.begin()
        async with timers:
            await record.written(count, timeout=30)
            await emptied(timers)
        prices.append(await cost.commands() / count)
        assert sorted(record.payloads) == list(range(count))  # type: ignore[type-var]
        assert {run.attempt for run in record.runs} == {1}
    assert prices[1] < 1.5 * prices[0] < 10


@pytest.mark.punctual
async def test_no_script_is_about_more_than_five_hundred_timers(
    make_timers: MakeTimers, client: Redis
) -> None:
    # It would hold up everybody else who uses the server.
    record, cost = Record(), Cost(client)
    timers = make_timers(record.router, concurrency=5000)
    await timers.set_timer("notes", "so that the server knows the script", None, after(60))
    await cost.begin()
    await timers.set_timers(many(2500))
    assert (await cost.scripts())[0] == 5
    assert await timers.handle_ready_timers() == 2500
    count, seconds = await cost.scripts()
    assert count >= 5 + 5 + 1
    assert seconds / count < 0.25
    assert len(record.payloads) == 2500


@pytest.mark.punctual
async def test_a_hundred_thousand_due_timers_that_nobody_handles_are_in_nobodys_way(
    make_timers: MakeTimers, client: Redis
) -> None:
    record, cost = Record(), Cost(client)
    timers = make_timers(record.router, concurrency=100)
    await timers.set_timers(many(1))
    assert await timers.handle_ready_timers() == 1  # the server knows the scripts by now
    counts, seconds = [], []
    for backlog in (0, 100_000):
        await make_timers(Record("others").router).set_timers(many(backlog, "others"))
        await timers.set_timers(many(2000))
        await cost.begin()
        assert await timers.handle_ready_timers() == 2000
        counts.append(await cost.commands())
        seconds.append((await cost.scripts())[1])
    assert counts[0] == counts[1]
    assert seconds[1] < 4 * seconds[0] + 0.5
    record.runs.clear()
    async with timers:  # and it looks through all of them for some that it may adopt
        await timers.set_timers([Timer("notes", str(n), n, after(n / 100)) for n in range(50)])
        await record.written(4051)
    assert max(run.lateness for run in record.runs) < 1
    assert len(record.runs) == 50
    assert await client.zcard(timers._scripts.keys.timeline) == 100_000
