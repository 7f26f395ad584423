"""Running timers until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ... import aio, sync
from .target import AnyTimers
from .timeline import fetch_time

__all__ = ["work"]

_log = logging.getLogger("redsync")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_RACE: Final = 0.05
"""Seconds until a signal that came before there was anything to stop is seen to again."""


def work(timers: AnyTimers, name: str, timeout: float | None) -> bool:
    """Run timers until SIGTERM or SIGINT, and wait for the handlers that run then.

    Args:
        timers: Of either kind.
        name: For the log.
        timeout: Seconds to wait after the first signal; a second one ends that at once.

    Returns:
        Whether all that ran came to its end.

    Raises:
        redis.exceptions.RedisError: The server is not there, or refuses.
    """
    course = _Course(name, timeout)
    if isinstance(timers, aio.Timers):
        asyncio.run(_work_in_tasks(timers, course))
    else:
        _work_in_threads(timers, course)
    if course.cut_off:
        _log.warning("redsync: stopped; what still ran was cut off, and will be run again")
    else:
        _log.info("redsync: stopped")
    return not course.cut_off


class _Course:
    """What is told and noted on the way."""

    def __init__(self, name: str, timeout: float | None) -> None:
        self.cut_off = False
        self._name = name
        self._timeout = timeout
        self._signals = 0

    def begin(self, timers: AnyTimers) -> None:
        """Tell what is run."""
        kind = "asyncio" if isinstance(timers, aio.Timers) else "threads"
        _log.info(
            "redsync: %s runs timers (%s, up to %d at once) of the topics %s",
            self._name,
            kind,
            timers._concurrency,
            ", ".join(map(repr, timers.handlers_by_topics)),
        )

    def patience(self, number: int) -> float | None:
        """How long to wait after this signal."""
        self._signals += 1
        which = signal.Signals(number).name
        if self._signals > 1:
            _log.warning("redsync: %s again: what runs is cut off", which)
            return 0.0
        limit = "" if self._timeout is None else f", for {self._timeout:g} s at most"
        _log.info("redsync: %s: no more timers are taken; waiting for what runs%s", which, limit)
        return self._timeout


async def _work_in_tasks(timers: aio.Timers, course: _Course) -> None:
    loop = asyncio.get_running_loop()
    stops: list[asyncio.Task[None]] = []

    async def stop(number: int) -> None:
        if not await timers.stop(course.patience(number)):
            course.cut_off = True

    def begin_stop(number: int) -> None:
        # By way of the loop: so it comes after the first step of what it stops.
        loop.call_soon_threadsafe(lambda: stops.append(loop.create_task(stop(number))))

    try:
        await fetch_time(timers)  # whether the server is there
        course.begin(timers)
        running = loop.create_task(timers.run_forever())
        with _told_of_signals(begin_stop):
            try:
                await running
            finally:
                await asyncio.gather(*stops)
    finally:
        await timers.close()


def _work_in_threads(timers: sync.Timers, course: _Course) -> None:
    ended = threading.Event()
    stops: list[threading.Thread] = []

    def stop(number: int) -> None:
        patience = course.patience(number)
        if not timers.stop(patience):
            course.cut_off = True
        while not ended.wait(_RACE):
            timers.stop(patience)

    def begin_stop(number: int) -> None:
        # Not here: it would wait for what it has interrupted.
        stops.append(threading.Thread(target=stop, args=(number,), daemon=True))
        stops[-1].start()

    try:
        asyncio.run(fetch_time(timers))
        course.begin(timers)
        with _told_of_signals(begin_stop):
            try:
                timers.run_forever()
            finally:
                ended.set()
                for thread in stops:
                    thread.join()
    finally:
        timers.close()


@contextmanager
def _told_of_signals(tell: Callable[[int], None]) -> Iterator[None]:
    """Have the first two signals told, and any other one end the program as ever."""
    count = 0

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 2:
            restore()
        tell(number)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, receive) for each in _SIGNALS}
    try:
        yield
    finally:
        restore()
