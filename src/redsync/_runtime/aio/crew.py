"""Those who run handlers beside each other: tasks, and threads for plain functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from anyio import to_thread

from .concurrency import _awaited

DEFAULT_SIZE: Final = 100
"""How many handlers run at once, if nobody says otherwise."""


class Crew:
    """Runs jobs, which never raise, each in a task of its own.

    Args:
        size: How many there are at most; whoever starts them counts.
        name: Of the tasks.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()
        self._limiter: anyio.CapacityLimiter | None = None

    def start(self, job: Callable[[], Awaitable[None]]) -> None:
        """Have a job done."""
        task = asyncio.get_running_loop().create_task(_awaited(job), name=self._name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        timeout: float | None,
        *,
        cancellable: bool,
    ) -> bool:
        """Call a handler; a coroutine is cancelled when the time is up.

        Args:
            function: The handler.
            arguments: What it takes.
            timeout: How long it may take, in seconds.
            cancellable: What `is_cancellable` says of it: to ask each time would take longer than
                the call.

        Returns:
            False if this was cancelled and the handler goes on, as a thread does.

        Raises:
            TimeoutError: The time was up.
        """
        if cancellable:
            result = function(*arguments)
        else:
            if self._limiter is None:
                self._limiter = anyio.CapacityLimiter(self._size)
            try:
                result = await to_thread.run_sync(function, *arguments, limiter=self._limiter)
            except asyncio.CancelledError:
                return False
            if not inspect.isawaitable(result):
                return True
            # A plain function around a coroutine function, as decorators and lambdas are.
        if timeout is None:
            await result
        else:
            with anyio.fail_after(timeout):
                await result
        return True

    def cancel(self) -> bool:
        """Cancel what can be cancelled; tells whether there was any of that."""
        for task in list(self._tasks):
            task.cancel()
        return bool(self._tasks)

    def dismiss(self) -> None:
        """There will be no more jobs."""


def is_cancellable(function: Callable[..., Any]) -> bool:
    """Whether a handler ends early when it is told to: it is a coroutine function."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - it is about what it is, not if
    )


def checked_handler(function: Callable[..., Any]) -> None:
    """Refuse what cannot be called here; both kinds of function can."""
