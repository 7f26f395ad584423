"""Those who run handlers beside each other: a pool of threads."""

from __future__ import annotations

import inspect
import os
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from .concurrency import Mutex, Worker

DEFAULT_SIZE: Final = min(32, (os.cpu_count() or 1) + 4)
"""How many handlers run at once, if nobody says otherwise: as in concurrent.futures."""

_IDLE: Final = 10.0
"""Seconds after which a thread without a job ends."""


class Crew:
    """Runs jobs, which never raise, in threads that are kept for the next ones.

    At most one thread is on its way to a job at a time, and sends the next one when it has its own.
    So jobs that take long all begin at once, and short ones are done by a thread that is awake
    already: to wake one takes longer than they do. (Schedulers of coroutines call that spinning or
    searching: see "Scalable Go Scheduler Design Doc", Vyukov 2012.)

    Not concurrent.futures: the end of the program would wait for its threads, whatever they do.

    Args:
        size: How many there are at most; whoever starts jobs counts.
        name: Of the threads.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._mutex = Mutex()
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle: list[Lock] = []
        """Each opens the way for a thread that sleeps."""
        self._threads = 0
        self._sent = False
        """Whether a thread is on its way to a job."""
        self._dismissed = False

    def start(self, job: Callable[[], None]) -> None:
        """Have a job done.

        Raises:
            RuntimeError: There is no thread, and there can be none at the moment. If there are
                some, but not enough, the job waits for one of them.
        """
        self._jobs.append(job)
        self._send()

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
        with self._mutex:
            self._dismissed = True
            gates, self._idle = self._idle, []
        for gate in gates:
            gate.release()

    def _send(self) -> None:
        """Send a thread to the next job, unless one is on its way, or all are at work: then the
        first one that is done comes to it.
        """
        with self._mutex:
            if self._sent or not self._jobs:
                return
            gate = self._idle.pop() if self._idle else None
            if gate is None:
                if self._threads >= self._size:
                    return
                self._threads += 1
            self._sent = True
        if gate is not None:
            gate.release()
            return
        try:
            Worker(self._work, self._name)
        except BaseException as error:
            with self._mutex:
                self._threads -= 1
                self._sent = False
                rescued = isinstance(error, Exception) and self._threads > 0
            if not rescued:
                raise
            if self._idle:  # since it was looked for
                self._send()

    def _work(self) -> None:
        try:
            self._serve()
        except BaseException:
            with self._mutex:
                self._threads -= 1
            self._send()  # somebody else has to do the next one
            raise

    def _serve(self) -> None:
        sent = True
        while True:
            # A gate of its own for each sleep: whoever was to open it may have been interrupted.
            gate = Lock()
            with self._mutex:
                if sent:
                    self._sent = False
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    if self._dismissed:
                        self._threads -= 1
                        return
                    gate.acquire()
                    self._idle.append(gate)
            if job is not None:
                self._send()
                job()
                del job  # it refers to the payload
                sent = False
            elif gate.acquire(timeout=_IDLE) or not self._gives_up(gate):
                sent = True
            else:
                return

    def _gives_up(self, gate: Lock) -> bool:
        """Whether a thread that has slept for long may end: not if it is being sent."""
        with self._mutex:
            if gate not in self._idle:
                return False
            self._idle.remove(gate)
            self._threads -= 1
            return True


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
