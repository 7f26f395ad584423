"""Those who run handlers beside each other: a pool of threads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from .concurrency import Mutex, Worker

DEFAULT_SIZE: Final = min(32, (os.cpu_count() or 1) + 4)
"""How many handlers run at once, if nobody says otherwise: as in concurrent.futures."""

_IDLE: Final = 10.0
"""Seconds after which a thread without a job ends."""


class Crew:
    """Runs jobs, which never raise, in threads that are kept for the next ones.

    Not concurrent.futures: the end of the program would wait for its threads, whatever they do.

    Args:
        size: How many there are at most; whoever starts jobs counts.
        name: Of the threads.
    """

    def __init__(self, size: int, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._mutex = Mutex()
        self._idle = 0
        self._threads = 0

    def start(self, job: Callable[[], None]) -> None:
        """Have a job done."""
        with self._mutex:
            hire = self._idle == 0
            if hire:
                self._threads += 1
            else:
                self._idle -= 1
        self._jobs.put(job)
        if hire:
            Worker(self._work, self._name)

    def call(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        timeout: float | None,
        *,
        cancellable: bool,
    ) -> bool:
        """Call a handler; nobody can end it early.

        Returns:
            True: it has come to its end.

        Raises:
            TypeError: It has only made a coroutine.
        """
        result = function(*arguments)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(_coroutine(function))
        return True

    def cancel(self) -> bool:
        """Nothing can be cancelled."""
        return False

    def dismiss(self) -> None:
        """Have the threads end when they are done: there will be no more jobs."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE)
            except Empty:
                with self._mutex:
                    if self._idle == 0:
                        continue  # a job is on its way to this one
                    self._idle -= 1
                job = None
            if job is None:
                break
            job()
            del job  # it refers to the payload
            with self._mutex:
                self._idle += 1
        with self._mutex:
            self._threads -= 1


def is_cancellable(function: Callable[..., Any]) -> bool:
    """Whether a handler ends early when it is told to: no thread does."""
    return False


def checked_handler(function: Callable[..., Any]) -> None:
    """Refuse what would only make a coroutine.

    Raises:
        TypeError: It is a coroutine function.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - it is about what it is, not if
    ):
        raise TypeError(_coroutine(function))


def _coroutine(function: Callable[..., Any]) -> str:
    return f"the handler {function!r} makes a coroutine, which only redsync.aio can run"
