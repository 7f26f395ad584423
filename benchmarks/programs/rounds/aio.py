"""Programs of asyncio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from . import Answer, Clock, leave, say

Round = Callable[..., Awaitable[Answer]]
Operation = Callable[[], Awaitable[object]]


def connect(url: str) -> Any:
    """A client; not every peer has this one."""
    from redis.asyncio import Redis

    return Redis.from_url(url)


def repeated(once: Operation) -> Round:
    """A round that repeats an operation, one at a time."""

    async def round_(seconds: float) -> Answer:
        samples: list[float] = []
        clock = Clock()
        last, end = clock.began, clock.began + seconds
        while last < end:
            await once()
            now = perf_counter()
            samples.append(now - last)
            last = now
        return clock.answer(len(samples), samples=samples)

    return round_


def serve(prepares: dict[str, Callable[..., Awaitable[Round]]]) -> None:
    """Run the one that the command line names, with the further arguments, and answer orders.

    The first argument is the loop: asyncio or uvloop.
    """
    loop, name, *arguments = sys.argv[1:]
    serving = _serve(prepares[name], arguments)
    if loop == "uvloop":
        import uvloop

        uvloop.run(serving)
    else:
        asyncio.run(serving)


async def _serve(prepare: Callable[..., Awaitable[Round]], arguments: list[str]) -> None:
    round_ = await prepare(*arguments)
    say({})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(await round_(**json.loads(line)))
    leave()
