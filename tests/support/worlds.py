"""Both namespaces behind one face, for tests that are no coroutines.

    with AsyncioWorld() as world:
        client = world.connect(server)
        semaphore = world.names.RedisSemaphore(client, "n", count=1)
        actor = world.actor()
        permit = actor.call(semaphore.acquire, 0)
        waiting = world.actor().begin(semaphore.acquire)

An actor is a task, or a thread, that does one thing after the other.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any, Final, Protocol

import redsync._async.session
import redsync._sync.session
import redsync.aio
import redsync.sync

from . import Reachable, aio, describe, sync
from .process import Kind

__all__ = ["Actor", "AsyncioWorld", "Call", "ThreadWorld", "World"]

_PATIENCE: Final = 20.0


class Call:
    """Something that an actor does."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function: Callable[..., Any] | None = function
        self.arguments = arguments
        self.future: Future[Any] = Future()
        self._name = describe(function)

    def done(self) -> bool:
        """Whether it has returned or raised."""
        return self.future.done()

    def error(self, timeout: float = _PATIENCE) -> BaseException | None:
        """What it raises, if anything."""
        wait([self.future], timeout)
        assert self.future.done(), f"still running after {timeout} s: {self._name}"
        return self.future.exception()

    def result(self, timeout: float = _PATIENCE) -> Any:
        """What it returns; raises what it raises."""
        error = self.error(timeout)
        if error is not None:
            raise error
        return self.future.result()

    def forget(self) -> None:
        """Refer to nothing of it any more but what came of it."""
        self.function, self.arguments = None, ()


class Actor(Protocol):
    """Does one thing after the other."""

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Call:
        """Have a plain or a coroutine function called."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have it called, and wait for what it returns."""

    def cancel(self, call: Call) -> bool:
        """Cancel a call; False if this kind of actor cannot."""

    def end(self) -> None:
        """Do nothing any more."""


class World(Protocol):
    """A namespace, and those who use it."""

    kind: Kind
    names: ModuleType

    def connect(self, server: Reachable) -> Any:
        """A client."""

    def disconnect(self, client: Any) -> None:
        """Close it and its connections."""

    def actor(self) -> Actor:
        """A new task or thread."""

    def session(self, client: Any) -> Any:
        """What is kept for a client, if anything. To be called by an actor."""


class _Thread:
    """An actor of its own thread."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="actor", daemon=True)
        self._thread.start()

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Call:
        call = Call(function, arguments)
        self._inbox.put(call)
        return call

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.begin(function, *arguments).result()

    def cancel(self, call: Call) -> bool:
        return False

    def end(self) -> None:
        self._inbox.put(None)
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive(), "an actor still does something"

    def _work(self) -> None:
        while True:
            call = self._inbox.get()
            if call is None:
                return
            _do(call)
            call = None  # nor what it was about


def _do(call: Call) -> None:
    assert call.function is not None
    try:
        result = call.function(*call.arguments)
    except BaseException as error:
        call.forget()
        call.future.set_exception(error)
    else:
        call.forget()
        call.future.set_result(result)


class ThreadWorld:
    """`redsync.sync`."""

    kind: Kind = "threads"
    names: ModuleType = redsync.sync

    def __enter__(self) -> ThreadWorld:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def connect(self, server: Reachable) -> Any:
        """A client."""
        return sync.connect(server)

    def disconnect(self, client: Any) -> None:
        """Close it and its connections."""
        sync.disconnect(client)

    def actor(self) -> Actor:
        """A new thread."""
        return _Thread()

    def session(self, client: Any) -> Any:
        """What is kept for a client, if anything."""
        return redsync._sync.session._registries.get().sessions.get(client)


class _Task:
    """An actor of its own task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: asyncio.Queue[Call | None] = asyncio.Queue()
        self._current: Call | None = None
        self._ended: Future[None] = Future()
        self._task: asyncio.Task[None] | None = None
        loop.call_soon_threadsafe(self._start)

    def begin(self, function: Callable[..., Any], *arguments: Any) -> Call:
        call = Call(function, arguments)
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, call)
        return call

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.begin(function, *arguments).result()

    def cancel(self, call: Call) -> bool:
        self._loop.call_soon_threadsafe(self._cancel, call)
        return True

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, None)
        wait([self._ended], _PATIENCE)
        assert self._ended.done(), "an actor still does something"

    def _start(self) -> None:
        self._task = self._loop.create_task(self._work(), name="actor")

    def _cancel(self, call: Call) -> None:
        if self._current is call and self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        while True:
            call = await self._inbox.get()
            if call is None:
                self._ended.set_result(None)
                return
            self._current = call
            await self._do(call)
            self._current = call = None  # nor what it was about

    async def _do(self, call: Call) -> None:
        assert call.function is not None
        try:
            result = call.function(*call.arguments)
            if inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            self._current = None
            if sys.version_info >= (3, 11) and isinstance(error, asyncio.CancelledError):
                assert self._task is not None
                self._task.uncancel()
            call.forget()
            call.future.set_exception(error)
        else:
            self._current = None
            call.forget()
            call.future.set_result(result)


class AsyncioWorld:
    """`redsync.aio`, in an event loop in a thread of its own."""

    kind: Kind = "asyncio"
    names: ModuleType = redsync.aio

    def __enter__(self) -> AsyncioWorld:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        if kind is None:
            left = self._do(_others)
            assert not left, f"tasks are left: {left}"
        self._do(_cancel_others)
        self._do(self._loop.shutdown_default_executor)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, function: Callable[..., Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result(_PATIENCE)

    def connect(self, server: Reachable) -> Any:
        """A client."""
        return aio.connect(server)

    def disconnect(self, client: Any) -> None:
        """Close it and its connections."""

        async def close() -> None:
            await aio.disconnect(client)

        self._do(close)

    def actor(self) -> Actor:
        """A new task."""
        return _Task(self._loop)

    def session(self, client: Any) -> Any:
        """What is kept for a client, if anything."""
        return redsync._async.session._registries.get().sessions.get(client)


async def _cancel_others() -> None:
    """End what a failure has left."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _others() -> list[str]:
    """The other tasks of the loop."""
    return [repr(each) for each in asyncio.all_tasks() if each is not asyncio.current_task()]
