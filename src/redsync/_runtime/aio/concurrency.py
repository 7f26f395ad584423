"""Tasks: how they wait, what they share, and what runs beside them.

There is one thread, so state is safe between two awaits and a `Mutex` does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio

sleep = asyncio.sleep

T = TypeVar("T")


class Mutex:
    """Keeps state in one piece between threads; tasks need nothing for that. Never await inside."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class PerHome(Generic[T]):
    """A value for each event loop that asks for it, and none from before a fork."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}
        self._pid = os.getpid()

    def get(self) -> T:
        """The value of the running loop, made at the first call."""
        loop = asyncio.get_running_loop()
        if self._pid != _pid or loop not in self._values:
            with _making:  # other threads may run loops of their own
                kept = self._values if self._pid == _pid else {}
                # The values refer to their loops, so weak keys would live for ever.
                kept = {each: value for each, value in kept.items() if not each.is_closed()}
                kept[loop] = self._make()
                self._values, self._pid = kept, _pid
        return self._values[loop]

    def peek(self) -> T | None:
        """The value of the running loop, if there is one already."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return None
        return self._values.get(loop) if self._pid == _pid else None


_pid = os.getpid()
_making = threading.RLock()


def _note_fork() -> None:
    global _pid, _making
    _pid = os.getpid()
    _making = threading.RLock()


os.register_at_fork(after_in_child=_note_fork)


def current() -> object:
    """The task that runs, as something to hold weakly."""
    return asyncio.current_task()


def going_on() -> bool:
    """Whether the program still runs; tasks end with their loop, so here it does."""
    return True


def from_anywhere(call: Callable[[Any], object]) -> Callable[[Any], None]:
    """The same call, to be made by whoever collects the garbage: in the loop that runs now."""
    loop = asyncio.get_running_loop()

    def pass_on(argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(call, argument)

    return pass_on


# Waiting


class Flag:
    """An event that can be cleared."""

    def __init__(self) -> None:
        self._set = False
        self._wakers: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """Wake whoever waits, and let whoever comes pass."""
        self._set = True
        for waker in self._wakers:
            _wake(waker)

    def clear(self) -> None:
        """Let those who come wait."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most so many seconds; tell whether it was."""
        if not self._set and (timeout is None or timeout > 0):
            waker = asyncio.get_running_loop().create_future()
            self._wakers.add(waker)
            try:
                await _woken(waker, timeout)
            finally:
                self._wakers.discard(waker)
        return self._set


class Promise(Generic[T]):
    """One value that one task waits for."""

    __slots__ = ("_error", "_value", "_waker")

    def __init__(self) -> None:
        # Apart from the waker, which a timeout or a cancellation ends: just then it may come.
        self._value: tuple[T] | None = None
        self._error: BaseException | None = None
        self._waker: asyncio.Future[None] | None = None

    def resolve(self, value: T) -> None:
        """Hand over the value; the first one counts."""
        if not self._settled:
            self._value = (value,)
            self._announce()

    def fail(self, error: BaseException) -> None:
        """Hand over an error, to be raised."""
        if not self._settled:
            self._error = error
            self._announce()

    async def wait(self, timeout: float | None) -> bool:
        """Wait for it, at most so many seconds; tell whether `result` has it."""
        if not self._settled and (timeout is None or timeout > 0):
            waker = self._waker = asyncio.get_running_loop().create_future()
            if timeout is None:
                await waker  # with no frame more for each of thousands who wait
            else:
                await _woken(waker, timeout)
        return self._settled

    def result(self) -> T:
        """The value, or the error raised."""
        if self._error is not None:
            raise self._error
        assert self._value is not None, "nobody asks before it is there"
        return self._value[0]

    @property
    def _settled(self) -> bool:
        return self._value is not None or self._error is not None

    def _announce(self) -> None:
        if self._waker is not None:
            _wake(self._waker)


async def within(future: asyncio.Future[Any], timeout: float | None) -> None:
    """Wait until the future is done or the time is up; neither cancels nor raises its error."""
    if future.done():
        return
    waker = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        _wake(waker)

    future.add_done_callback(wake)
    try:
        await _woken(waker, timeout)
    finally:
        future.remove_done_callback(wake)


async def _woken(waker: asyncio.Future[None], timeout: float | None) -> None:
    """Wait until it is woken, or the time is up."""
    if timeout is None:
        await waker
        return
    timer = asyncio.get_running_loop().call_later(timeout, _wake, waker)
    try:
        await waker
    finally:
        timer.cancel()


def _wake(waker: asyncio.Future[None]) -> None:
    if not waker.done():
        waker.set_result(None)


class Lock:
    """One at a time, for work that does I/O.

    To be acquired inside of the `try` that releases it, as in threads.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()

    async def acquire(self, timeout: float) -> bool:
        """Wait for it, at most so many seconds; tell whether it is ours."""
        with anyio.move_on_after(max(0.0, timeout)) as scope:
            await self._lock.acquire()
        return not scope.cancelled_caught

    def release(self) -> None:
        """Let the next one in, if it is ours."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


class Worker:
    """A task in the background. Its target never raises; it ends when it has nothing to do."""

    def __init__(self, target: Callable[[], Awaitable[None]], name: str) -> None:
        self._task = asyncio.get_running_loop().create_task(_awaited(target), name=name)

    async def join(self, timeout: float) -> bool:
        """Wait for its end, at most so many seconds; tell whether it came."""
        await within(self._task, timeout)
        return self._task.done()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._task.done()


class cancelled_by:
    """Cancel the body when a call returns true."""

    def __init__(self, wait: Callable[[], Awaitable[object]]) -> None:
        self._wait = wait
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> cancelled_by:
        self._scope.__enter__()
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def _watch(self) -> None:
        if await self._wait():
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._task is not None:
            self._task.cancel()
        return bool(self._scope.__exit__(kind, error, traceback))
