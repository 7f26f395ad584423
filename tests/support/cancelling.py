"""Cancels a task at an await of one's choice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

import anyio
import pytest

T = TypeVar("T")


class Trap(Generic[T]):
    """Awaits something, and calls `spring` at its n-th suspension.

    Args:
        woken: Not when it suspends, but when what it waits for has come and it is about to go on.
    """

    def __init__(
        self, awaitable: Awaitable[T], number: int, spring: Callable[[], object], *, woken: bool
    ) -> None:
        self.sprung = False
        self._awaitable = awaitable
        self._number = number
        self._spring = spring
        self._woken = woken

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._awaitable.__await__()
        suspensions = 0
        step = inner.__next__
        while True:
            try:
                future = step()
            except StopIteration as end:
                result: T = end.value
                return result
            suspensions += 1
            if suspensions == self._number:
                self._set(future)
            try:
                yield future
            except BaseException as error:
                step = _throwing(inner, error)
            else:
                step = inner.__next__

    def _set(self, future: Any) -> None:
        def spring(_: object = None) -> None:
            self.sprung = True
            self._spring()

        # Of a future's callbacks ours is the first, and the one that wakes the task comes after it.
        if self._woken and isinstance(future, asyncio.Future):
            future.add_done_callback(spring)
        else:
            spring()


def _throwing(inner: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: inner.throw(error)


async def by_asyncio(awaitable: Awaitable[T], number: int, woken: bool) -> tuple[T | None, bool]:
    """Cancel the task; return the result, if there is one, and whether there was a cancellation."""

    async def run() -> T:
        return await trap

    task = asyncio.ensure_future(run())
    trap = Trap(awaitable, number, task.cancel, woken=woken)
    try:
        return await task, trap.sprung
    except asyncio.CancelledError:
        assert trap.sprung
        return None, True


async def by_anyio(awaitable: Awaitable[T], number: int, woken: bool) -> tuple[T | None, bool]:
    """Cancel a scope, which goes on cancelling until it is left."""

    async def run() -> tuple[T | None, bool]:
        result = None
        with anyio.CancelScope() as scope:
            trap = Trap(awaitable, number, scope.cancel, woken=woken)
            result = await trap
        return result, scope.cancel_called

    return await asyncio.create_task(run())


Cancelled = Callable[[Awaitable[Any], int, bool], Awaitable[tuple[Any, bool]]]

each_way = pytest.mark.parametrize("cancelled", [by_asyncio, by_anyio])
each_moment = pytest.mark.parametrize("woken", [False, True], ids=["asleep", "woken"])
