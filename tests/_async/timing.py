"""What the tests of the timers share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from redsync.aio import Router, TimerRun, Timers

from ..support.aio import eventually

NOW = timedelta(0)

MakeTimers = Callable[..., Timers]


def after(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


class Record:
    """A router with a topic whose handler writes down what it is called with."""

    def __init__(self, topic: str = "notes", **options: object) -> None:
        self.payloads: list[object] = []
        self.runs: list[TimerRun] = []
        self.router = Router()

        @self.router.handler(topic=topic, **options)  # type: ignore[arg-type]
        async def write(data: object, context: object, run: TimerRun) -> None:
            self.runs.append(run)
            self.payloads.append(data)

    @property
    def ids(self) -> list[str]:
        return [each.timer_id for each in self.runs]

    async def written(self, count: int, timeout: float = 20) -> None:
        """Wait until there have been so many calls."""
        await eventually(lambda: len(self.payloads) >= count, timeout=timeout)


async def is_empty(timers: Timers) -> bool:
    """Whether nothing is left of any timer that is not dead."""
    client: Any = timers.redis_client
    keys = timers._scripts.keys
    left: int = await client.zcard(keys.timeline) + await client.hlen(keys.payloads)
    left += len(set(await client.hkeys(keys.state)) - {b"", ""})
    for key in await client.keys(keys.due.decode().replace("{", "\\{") + "*"):
        left += await client.zcard(key)
    return left == 0


async def emptied(timers: Timers, timeout: float = 20) -> None:
    """Wait until nothing is left to be run."""

    async def empty() -> bool:
        return await is_empty(timers)

    await eventually(empty, timeout=timeout)
