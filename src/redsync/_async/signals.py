"""What a process keeps for one event: those who wait, and the signals that they were given."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import Final

from redis import exceptions

from .._protocol.event import EventScripts, parse_done, parse_tended
from .._protocol.keys import EventKeys
from .._protocol.trouble import passes
from ..exceptions import RedisEventError, RedisEventTimeoutError
from .link import Link, deadline_for
from .station import TIE, Station
from .waiting import Waiter

_SLICE: Final = 5.0

_INTERVAL: Final = 4.0
"""Seconds between looks for signals whose waiter died, while somebody waits."""

_RETRY: Final = 0.5
_MEMORY: Final = 60.0
_UNUSED: Final = 3600.0


class Signals(Station[Waiter[str]]):
    """Shared by all instances of one event in one process and loop."""

    refusal = RedisEventError

    def __init__(
        self, name: str, link: Link, keys: EventKeys, wake_watchdog: Callable[[], None]
    ) -> None:
        all_keys = (keys.signals, keys.open, keys.sets)
        super().__init__(name, link, all_keys, keys.wake, wake_watchdog)
        self._scripts = EventScripts(keys)
        self._given: dict[str, str] = {}
        """Requests and the signals that they have not confirmed yet."""
        self._returns: dict[str, float] = {}
        """What to give back, and since when."""
        self._look = 0.0

    async def set(self, request: str) -> None:
        """Add a signal."""
        with self._explained:
            await self._link.run(self._scripts.set(request), deadline_for(None))

    async def clear(self, request: str) -> None:
        """Remove all signals."""
        with self._explained:
            await self._link.run(self._scripts.clear(request), deadline_for(None))

    async def is_set(self) -> bool:
        """Whether a signal waits to be taken."""
        with self._explained:
            return await self._link.run(self._scripts.count, deadline_for(None)) != 0

    async def wait(self, owner: str, member: object, timeout: float | None) -> None:
        """Wait for a signal. If this raises, or is cancelled, `abandon` the owner.

        Args:
            owner: A name for this request.
            member: The instance that it comes through.
            timeout: How long to wait, in seconds.
        """
        end = None if timeout is None else monotonic() + timeout
        deadline = deadline_for(timeout)
        if not self._queue and await self._take(owner, deadline):
            return
        while timeout != 0:
            waiter: Waiter[str] = Waiter(owner, member)
            if not await self._wait(waiter, end):
                break
            with self._explained:
                signal = waiter.result()
            remaining = None if end is None else max(0.0, end - monotonic())
            if await self._confirm(owner, signal, deadline_for(remaining)):
                return
        when = f"came within {timeout:g} s" if timeout else "is there"
        raise RedisEventTimeoutError(
            f"no signal of the event {self.name!r} {when}"
        ) from self._queue.trouble

    def abandon(self, owner: str) -> None:
        """A wait has ended without its caller getting to know: give back what it was given."""
        with self.mutex:
            self._queue.leave(owner)  # an interrupt may have come before it could
            signal = self._given.pop(owner, None)
            if signal is not None:
                self._returns[signal] = monotonic()
                self._hurry()

    async def _take(self, owner: str, deadline: float) -> bool:
        # What is taken has its taker's name.
        self._given[owner] = owner
        with self._explained:
            try:
                taken = parse_done(await self._link.run(self._scripts.take(owner), deadline))
            except exceptions.RedisError as error:
                if not passes(error):  # it was refused: there is nothing to be given back
                    del self._given[owner]
                raise
        if taken:
            return await self._confirm(owner, owner, deadline)
        del self._given[owner]
        return False

    async def _confirm(self, owner: str, signal: str, deadline: float) -> bool:
        """Tell the server that somebody is woken; False if it was too late for that."""
        confirmed = parse_done(await self._link.run(self._scripts.confirm(signal), deadline))
        del self._given[owner]
        return confirmed

    # What the connection that waits asks for

    def slice(self) -> float:
        """Nothing depends on it."""
        return _SLICE

    def deliver(self, elements: list[bytes], sent: float) -> None:
        """Hand signals to those who wait, who confirm them."""
        for element in elements:
            if not element.isdigit():
                continue  # somebody else's
            signal = element.decode()
            if self._queue:
                waiter = self._queue.pop()
                self._given[waiter.owner] = signal
                waiter.resolve(signal)
            else:
                self._returns[signal] = monotonic()
                self._hurry()

    # What the watchdog asks for

    def idle(self) -> bool:
        """Whether nobody needs it any more."""
        return super().idle() and not self._returns

    def _next(self) -> float:
        busy = self._queue or self._returns
        return self._look if busy else monotonic() + _UNUSED

    async def _tend(self, deadline: float) -> None:
        with self.mutex:
            returns = list(self._returns)
            if not (returns or self._queue):
                return
        wait = parse_tended(await self._link.run(self._scripts.tend(returns), deadline))
        with self.mutex:
            for signal in returns:
                self._returns.pop(signal, None)
            self._look = monotonic() + _INTERVAL * random.uniform(0.8, 1.2)
            if wait is not None:
                self._look = min(self._look, monotonic() + wait / 1000 + TIE)

    def _failed(self) -> None:
        self._look = monotonic() + _RETRY
        # The server forgets after a minute what was confirmed.
        oldest = monotonic() - _MEMORY
        self._returns = {each: since for each, since in self._returns.items() if since > oldest}
