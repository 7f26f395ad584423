"""Programs of threads; the same names as in `aio`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from . import Answer, Clock, leave, say

Round = Callable[..., Answer]
Operation = Callable[[], object]


def connect(url: str) -> Any:
    """A client; not every peer has this one."""
    from redis import Redis

    return Redis.from_url(url)


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


def serve(prepares: dict[str, Callable[..., Round]]) -> None:
    """Run the one that the command line names, and answer orders; there is no loop."""
    _, name, *arguments = sys.argv[1:]
    round_ = prepares[name](*arguments)
    say({})
    while line := sys.stdin.readline():
        say(round_(**json.loads(line)))
    leave()


def in_threads(number: int, work: Callable[[], None]) -> None:
    """Have as many threads do something, and wait for them all."""
    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(work) for _ in range(number)]:
            future.result()
