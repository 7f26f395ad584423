"""What the instances of one name share in a process, be it a semaphore or an event."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic
from weakref import WeakSet

from redis import exceptions

from .._protocol.owner import new_owner
from .._protocol.trouble import is_garbage, passes
from .._runtime.aio import Mutex
from ..exceptions import RedsyncError
from .link import ALLOWANCE, Address, Link
from .waiting import Claim, P, Queue

_log = logging.getLogger("redsync")

TIE: Final = 0.001
"""Seconds after a lease's end at which it has surely run out by the server's milliseconds too."""

_TEND_PATIENCE: Final = 1.0
"""Seconds for one try to tend; others may be due."""

_CLOSING: Final = 5.0


class Station(Generic[P]):
    """Members that use it, a queue of those who wait, and reasons for the watchdog to come."""

    refusal: Callable[[str], Exception]
    """Makes the error for a key that holds something else."""

    def __init__(
        self,
        name: str,
        link: Link,
        keys: tuple[bytes, ...],
        wake: bytes,
        wake_watchdog: Callable[[], None],
    ) -> None:
        self.mutex = Mutex()
        self.name = name
        self._link = link
        self._keys = keys
        self._members: WeakSet[Any] = WeakSet()
        self._wake_watchdog = wake_watchdog
        self._urgent = False
        self._unblocking = False
        self._followed = link.moves
        """How many moves to other servers have been a reason to tend."""
        self._told = ""
        """What was said last of a server that refuses."""
        self._explained = _Explained(keys, self.refusal)
        """Around commands: names the keys, one of which holds something else than it should."""
        self._pid = os.getpid()
        own = wake + new_owner().encode()
        self._queue: Queue[P] = Queue(self, link, own, f"redsync-waiting-{name}")

    @property
    def place(self) -> Address:
        """The node that it is on, as far as anybody knows."""
        return self._link.place

    def here(self) -> bool:
        """Whether this is the process that it was made in, and not a fork of that."""
        return self._pid == os.getpid()

    def join(self, member: Any) -> None:
        """An instance begins to use it."""
        with self.mutex:
            self._members.add(member)

    def leave(self, member: Any) -> None:
        """An instance is closed: whoever waits through it fails."""
        error = self.refusal(
            f"the instance of {self.name!r} that this waited through was closed; make a new one"
        )
        with self.mutex:
            self._members.discard(member)
            self._queue.dismiss(member, error)

    def idle(self) -> bool:
        """Whether nobody needs it any more."""
        return not (self._members or self._queue)

    def due(self) -> float:
        """When to tend next, on the monotonic clock."""
        with self.mutex:
            urgent = self._urgent or self._followed != self._link.moves
            return 0.0 if urgent or self.idle() else self._next()

    async def tend(self) -> None:
        """Do what is due. Where the server cannot be asked, it is tried again soon."""
        with self.mutex:
            self._urgent = False
            self._followed = self._link.moves
            unblocking, self._unblocking = self._unblocking, False
            if self.idle() and not unblocking:
                return
        try:
            if unblocking:
                await self._link.run(self._queue.unblocking, monotonic() + ALLOWANCE)
            with self._explained:
                await self._tend(monotonic() + _TEND_PATIENCE)
            self._told = ""
        except (exceptions.RedisError, OSError, RedsyncError) as error:
            if not passes(error) and self._told != str(error):
                self._told = str(error)
                _log.warning("redsync: %r cannot be looked after: %s", self.name, error)
            if isinstance(error, exceptions.TimeoutError):
                # A lease may be too short to wait until the connection counts as dead.
                self._link.give_up_stalled(self._patience(), error)
            # Whoever holds something finds out by the deadline, and whoever waits by the timeout.
            with self.mutex:
                self._failed()
        except Exception:  # a fault of ours: not again at once
            with self.mutex:
                self._failed()
            raise
        except BaseException:  # cancelled: what is to be given back still is
            self._hurry()
            raise

    async def close(self) -> None:
        """End the connection that waits."""
        await self._queue.close(_CLOSING)
        self._link.close()

    def claim(self) -> Claim | None:
        """Nothing is sent before a wait."""
        return None

    @property
    def has_claim(self) -> bool:
        """Nothing is sent before a wait."""
        return False

    def unblock(self) -> None:
        """Nobody waits any more."""
        self._unblocking = True
        self._hurry()

    def reconnected(self) -> None:
        """Leases may have run out, elements may be gone."""
        self._hurry()

    def lists(self) -> tuple[bytes, ...]:
        """What to wait for: the first key."""
        return self._keys[:1]

    def slice(self) -> float:
        """For how long to block at most."""
        raise NotImplementedError

    def deliver(self, elements: list[bytes], sent: float) -> None:
        """Hand out elements."""
        raise NotImplementedError

    def _next(self) -> float:
        raise NotImplementedError

    def _patience(self) -> float:
        """After how many seconds a connection without an answer is not worth waiting for."""
        return _TEND_PATIENCE

    async def _tend(self, deadline: float) -> None:
        raise NotImplementedError

    def _failed(self) -> None:
        raise NotImplementedError

    async def _wait(self, waiter: P, end: float | None) -> bool:
        """Get in line until there is a result, which is true, or the time is up."""
        with self.mutex:
            self._queue.enter(waiter)
            first = len(self._queue) == 1
        if first:
            self._wake_watchdog()
        try:
            await waiter.wait(None if end is None else max(0.0, end - monotonic()))
        finally:
            with self.mutex:
                left = self._queue.leave(waiter.owner)
        return not left

    def _hurry(self) -> None:
        self._urgent = True
        self._wake_watchdog()


class _Explained:
    def __init__(self, keys: tuple[bytes, ...], refusal: Callable[[str], Exception]) -> None:
        self._keys = keys
        self._refusal = refusal

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and is_garbage(error):
            names = ", ".join(key.decode() for key in self._keys)
            raise self._refusal(
                f"one of the keys {names} holds something that redsync did not write: {error};"
                " delete it, or use another name"
            ) from error
