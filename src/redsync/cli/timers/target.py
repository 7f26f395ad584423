"""What the commands are about: the timers of a program, or those of a server."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Awaitable, Coroutine
from functools import reduce
from typing import Any, Final, TypeAlias, TypeVar

import click
import redis

from ... import aio, sync
from ...exceptions import RedsyncError
from ..urls import open_client

__all__ = ["AnyTimers", "Asking", "given", "load", "open_url", "reaching"]

AnyTimers: TypeAlias = aio.Timers | sync.Timers

SCHEMES: Final = ("redis://", "rediss://", "unix://")

T = TypeVar("T")


def load(target: str) -> AnyTimers:
    """Import ``module:attribute``; the attribute is ``timers`` if there is none.

    The current folder comes first on the path, as for other servers of Python programs.

    Raises:
        click.UsageError: It is not there, or something else.  What the module itself raises
            passes through.
    """
    module_name, _, attribute = target.partition(":")
    attribute = attribute or "timers"
    names = f"{module_name}.{attribute}".split(".")
    if not all(each.isidentifier() for each in names if each):
        # It may be a URL with a slip of the pen, and a password: nothing of it is told.
        raise click.BadParameter(
            f"it must be MODULE:ATTRIBUTE, or a URL that begins with {', '.join(SCHEMES)}",
            param_hint="TARGET",
        )
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        name = getattr(error, "name", None) or module_name
        if isinstance(error, ModuleNotFoundError) and not f"{module_name}.".startswith(f"{name}."):
            raise  # it is there, and imports something that is not
        raise click.BadParameter(
            f"there is no module {module_name!r} in {folder} or among the installed ones: {error}",
            param_hint="TARGET",
        ) from error
    try:
        found = reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise click.BadParameter(
            f"the module {module_name!r} has no {attribute!r}; say which attribute its timers are:"
            f" {module_name}:ATTRIBUTE",
            param_hint="TARGET",
        ) from error
    if not isinstance(found, (aio.Timers, sync.Timers)):
        raise click.BadParameter(
            f"{module_name}:{attribute} must be Timers of redsync.aio or redsync.sync,"
            f" not {found!r}",
            param_hint="TARGET",
        )
    return found


def open_url(
    url: str, timeline_key: str | None, payloads_key: str | None, separator: str | None
) -> sync.Timers:
    """The timers of a server, of which no handler is known.

    Raises:
        click.UsageError: The URL or a name makes no sense.
    """
    client = open_client(url, "TARGET")
    try:
        return sync.Timers(
            redis_client=client,
            timeline_key=timeline_key,
            payloads_key=payloads_key,
            separator=separator,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


class Asking:
    """Runs coroutines on timers of either kind, and closes these at the end of the ``with`` block.

    A loop of its own, as asyncio.run() would take Ctrl-C from what does not wait for a loop: a
    prompt, and timers for threads.
    """

    def __init__(self, timers: AnyTimers) -> None:
        self._timers = timers
        self._loop = asyncio.new_event_loop()

    def __call__(self, ask: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns; what the server refuses is told in a line."""
        with reaching():
            return self._loop.run_until_complete(ask)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self(given(self._timers.close()))
        left = asyncio.all_tasks(self._loop)  # interrupted
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()


class reaching:
    """Tell what the server, or redsync, refuses in a line instead of a traceback."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (redis.RedisError, OSError)):
            raise click.ClickException(f"the server cannot be used: {error}") from error
        if isinstance(error, RedsyncError):
            raise click.ClickException(str(error)) from error


async def given(value: Awaitable[T] | T) -> T:
    """What a method returns, of one that has to be awaited or of one that has not."""
    return await value if isinstance(value, Awaitable) else value
