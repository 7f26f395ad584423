"""Threads: how they wait, what they share, and what runs beside them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

sleep = time.sleep

T = TypeVar("T")

_FOREVER = threading.TIMEOUT_MAX

# Re-entrant, as what holds it calls what takes it again.
Mutex = threading.RLock


class PerHome(Generic[T]):
    """A value for the process, and none from before a fork: what it refers to, threads and locks
    that may be held, did not come along.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._value: tuple[int, T] | None = None

    def get(self) -> T:
        """The value of this process, made at the first call."""
        found = self._value
        if found is None or found[0] != _pid:
            with _making:
                found = self._value
                if found is None or found[0] != _pid:
                    found = self._value = (_pid, self._make())
        return found[1]

    def peek(self) -> T | None:
        """The value of this process, if there is one already."""
        found = self._value
        return None if found is None or found[0] != _pid else found[1]


_pid = os.getpid()
_making = threading.RLock()


def _note_fork() -> None:
    global _pid, _making
    _pid = os.getpid()
    _making = threading.RLock()


os.register_at_fork(after_in_child=_note_fork)


def current() -> object:
    """The thread that runs, as something to hold weakly."""
    return threading.current_thread()


def going_on() -> bool:
    """Whether the program still runs, or has left its main thread and waits for the others."""
    return threading.main_thread().is_alive()


def from_anywhere(call: Callable[[Any], object]) -> Callable[[Any], object]:
    """The same call, to be made by whoever collects the garbage: it must not take a lock."""
    return call


# Waiting


class Flag:
    """An event that can be cleared.

    Unlike threading.Event it has no lock inside: an interrupt between two lines of that one's
    Python code would leave its lock held for ever.
    """

    def __init__(self) -> None:
        self._set = False
        self._gates: list[threading.Lock] = []

    def set(self) -> None:
        """Wake whoever waits, and let whoever comes pass."""
        self._set = True
        for gate in list(self._gates):
            with contextlib.suppress(RuntimeError):  # another thread has just opened it
                gate.release()

    def clear(self) -> None:
        """Let those who come wait."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most so many seconds; tell whether it was."""
        if self._set or (timeout is not None and timeout <= 0):
            return self._set
        gate = threading.Lock()
        gate.acquire()
        self._gates.append(gate)
        try:
            # Only now: whoever set it in between has not seen this gate.
            if not self._set:
                gate.acquire(timeout=-1 if timeout is None else min(timeout, _FOREVER))
        finally:
            self._gates.remove(gate)
        return self._set


class Promise(Generic[T]):
    """One value that threads wait for."""

    __slots__ = ("_error", "_gate", "_value")

    def __init__(self) -> None:
        # A bare lock is the cheapest thing that a thread can wait for.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._value: list[T] = []
        self._error: BaseException | None = None

    def resolve(self, value: T) -> None:
        """Hand over the value; the first one counts."""
        if self._error is None and not self._value:
            self._value.append(value)
            self._gate.release()

    def fail(self, error: BaseException) -> None:
        """Hand over an error, to be raised."""
        if self._error is None and not self._value:
            self._error = error
            self._gate.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait for it, at most so many seconds; tell whether `result` has it."""
        if timeout is not None and timeout <= 0:
            return not self._gate.locked()
        if self._gate.acquire(timeout=-1 if timeout is None else min(timeout, _FOREVER)):
            self._gate.release()
            return True
        return False

    def result(self) -> T:
        """The value, or the error raised."""
        if self._error is not None:
            raise self._error
        return self._value[0]


class Lock:
    """One at a time, for work that does I/O.

    To be acquired inside of the `try` that releases it: an interrupt may come between the two.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def acquire(self, timeout: float) -> bool:
        """Wait for it, at most so many seconds; tell whether it is ours."""
        return self._lock.acquire(timeout=min(max(0.0, timeout), _FOREVER))

    def release(self) -> None:
        """Let the next one in, if it is ours."""
        try:
            self._lock.release()
        except RuntimeError:
            pass


class Worker:
    """A thread in the background. Its target never raises; it ends when it has nothing to do."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        # A daemon: it must not keep a program alive that has ended.
        self._thread = threading.Thread(target=target, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for its end, at most so many seconds; tell whether it came."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()


class cancelled_by:
    """Leave the body alone: a thread cannot be cancelled."""

    def __init__(self, wait: Callable[[], object]) -> None:
        pass

    def __enter__(self) -> cancelled_by:
        return self

    def __exit__(self, *_: object) -> bool | None:
        return None
