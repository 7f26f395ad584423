"""A program of a benchmark: it gets ready, and then answers each line of JSON with another.

It may run with a peer's environment, in which there is nothing of ours: standard library only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, process_time
from typing import Any

# Whatever a peer prints must not come in between.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

Answer = dict[str, Any]
AsyncRound = Callable[..., Awaitable[Answer]]
Round = Callable[..., Answer]
AsyncOperation = Callable[[], Awaitable[object]]
Operation = Callable[[], object]


class Clock:
    """Seconds and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self.began, self._cpu = perf_counter(), process_time()

    def answer(self, operations: int, **more: Any) -> Answer:
        """What a round came to."""
        seconds = perf_counter() - self.began
        return {
            "operations": operations,
            "seconds": seconds,
            "cpu": process_time() - self._cpu,
            **more,
        }


def repeated_async(once: AsyncOperation) -> AsyncRound:
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


def repeated(once: Operation) -> Round:
    """A round that repeats an operation, one at a time."""

    def round_(seconds: float) -> Answer:
        samples: list[float] = []
        clock = Clock()
        last, end = clock.began, clock.began + seconds
        while last < end:
            once()
            now = perf_counter()
            samples.append(now - last)
            last = now
        return clock.answer(len(samples), samples=samples)

    return round_


def serve_async(prepares: dict[str, Callable[..., Awaitable[AsyncRound]]]) -> None:
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


async def _serve(prepare: Callable[..., Awaitable[AsyncRound]], arguments: list[str]) -> None:
    round_ = await prepare(*arguments)
    _say({})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _say(await round_(**json.loads(line)))
    _answers.close()


def serve(prepares: dict[str, Callable[..., Round]]) -> None:
    """The same for threads; the first argument is ignored."""
    _, name, *arguments = sys.argv[1:]
    round_ = prepares[name](*arguments)
    _say({})
    while line := sys.stdin.readline():
        _say(round_(**json.loads(line)))
    _answers.close()


def _say(answer: Answer) -> None:
    _answers.write(json.dumps(answer) + "\n")
    _answers.flush()


def in_threads(number: int, work: Callable[[], None]) -> None:
    """Have as many threads do something, and wait for them all."""
    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(work) for _ in range(number)]:
            future.result()
