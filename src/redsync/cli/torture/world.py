"""What differs between tasks and threads, so that loads are written once.

A load is a coroutine.  In the world of threads nothing that it awaits ever suspends it: each call
blocks, and the coroutine runs from beginning to end in one go.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import ModuleType
from typing import Any, Protocol, TypeVar

import anyio
import redis
import redis.asyncio

import redsync.aio
import redsync.sync

__all__ = ["CancelledCallError", "Load", "Tasks", "Threads", "World", "finish"]

T = TypeVar("T")
Load = Callable[[], Coroutine[Any, Any, None]]


class CancelledCallError(Exception):
    """A call was cancelled."""


class World(Protocol):
    """Tasks or threads."""

    package: ModuleType
    """The namespace."""

    def connect(self, url: str) -> Any:
        """A client of redis-py."""

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of redsync or redis-py."""

    async def try_for(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        """Call it and, if that can be, cancel the call after some time.

        Raises:
            CancelledCallError: It was cancelled.
        """

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def together(self, loads: Sequence[Load]) -> None:
        """Carry all out, and wait for their ends."""

    def handler(self, act: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
        """A handler of timers."""

    def running(self, timers: Any) -> contextlib.AbstractAsyncContextManager[None]:
        """Have timers run in the background until the end of the body."""

    def run(self, load: Load) -> None:
        """Carry out a load, in the main thread."""


class Tasks:
    """asyncio."""

    package: ModuleType = redsync.aio

    def connect(self, url: str) -> Any:
        """A client of redis-py."""
        return redis.asyncio.Redis.from_url(url)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of redsync or redis-py."""
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def try_for(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        """Call it, and cancel the call after some time."""
        with anyio.move_on_after(seconds):
            return await function(*args)
        raise CancelledCallError

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def together(self, loads: Sequence[Load]) -> None:
        """Carry all out, and wait for their ends."""
        await asyncio.gather(*(load() for load in loads))

    def handler(self, act: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
        """A handler of timers."""

        async def handle(payload: object, context: object, run: Any) -> None:
            await act(payload, run)

        return handle

    @contextlib.asynccontextmanager
    async def running(self, timers: Any) -> AsyncIterator[None]:
        """Have timers run in the background until the end of the body."""
        async with timers:
            yield

    def run(self, load: Load) -> None:
        """Carry out a load, in the main thread."""
        asyncio.run(load())


class Threads:
    """A thread for each load."""

    package: ModuleType = redsync.sync

    def connect(self, url: str) -> Any:
        """A client of redis-py."""
        return redis.Redis.from_url(url)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call something of redsync or redis-py."""
        return function(*args, **kwargs)

    async def try_for(self, seconds: float, function: Callable[..., Any], *args: Any) -> Any:
        """Call it: a thread cannot be cancelled."""
        return function(*args)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    async def together(self, loads: Sequence[Load]) -> None:
        """Carry all out, and wait for their ends."""
        threads = [threading.Thread(target=lambda load=load: finish(load())) for load in loads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def handler(self, act: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
        """A handler of timers."""

        def handle(payload: object, context: object, run: Any) -> None:
            finish(act(payload, run))

        return handle

    @contextlib.asynccontextmanager
    async def running(self, timers: Any) -> AsyncIterator[None]:
        """Have timers run in the background until the end of the body."""
        with timers:
            yield

    def run(self, load: Load) -> None:
        """Carry out a load, in the main thread."""
        finish(load())


def finish(coroutine: Awaitable[T]) -> T:
    """Run a coroutine that never suspends."""
    steps = coroutine.__await__()
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("a load of threads was suspended")
