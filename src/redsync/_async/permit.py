"""A permit as its holder sees it."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import Final, Protocol

from .._arguments import checked_timeout
from .._runtime.aio import Mutex, cancelled_by, current
from ..exceptions import RedisSemaphoreNotAcquiredError, RedisSemaphorePermitLostError
from .grant import Grant
from .pool import Pool

_FULL: Final = 16
"""How many entries a ledger has before it looks for those that have ended."""


class Permit:
    """One acquisition; what `RedisSemaphore.acquire` returns.

    It may be released by any task of the event loop, or any thread of the process, that acquired
    it. While it is held its lease is renewed in the background. If that does not succeed in time -
    Redis cannot be reached, its data is lost, this process was stopped - the permit is *lost*:
    somebody else may have it from then on, and nothing brings it back.
    """

    def __init__(self, name: str, pool: Pool, grant: Grant) -> None:
        self.name = name
        """The semaphore's name."""
        self.slot: int = grant.token.slot
        """0 ... count-1; nobody else holds this slot now. Pick a GPU, a port or a shard with it."""
        self.fence: int = grant.token.fence
        """A number that rises with every grant of this semaphore, also after Redis lost its data.

        Send it along with every write that the permit protects, and have the receiver refuse a
        lower one than it has seen: then even a holder that was stopped and does not know that it
        lost its permit does no harm. (Kleppmann, "How to do distributed locking", 2016.)
        """
        self._pool = pool
        self._grant = grant

    def __repr__(self) -> str:
        state = "held" if self.held else "lost" if self.lost else "released"
        return f"<Permit of {self.name!r}, slot {self.slot}, fence {self.fence}, {state}>"

    @property
    def held(self) -> bool:
        """Whether it is surely ours at this instant."""
        return self._pool.here() and self._grant.held

    @property
    def lost(self) -> bool:
        """Whether it ended without having been released: nobody may rely on it any more."""
        return self._pool.here() and self._grant.lost

    def remaining(self) -> float:
        """Seconds for which it is surely ours even if no renewal succeeds; never optimistic."""
        return self._grant.remaining() if self._pool.here() else 0.0

    async def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until it is lost.

        Args:
            timeout: Seconds; None: until it is lost or released.

        Returns:
            True if it is lost, False if it was released, or is held after `timeout` seconds.
        """
        timeout = checked_timeout(timeout)
        return self._pool.here() and await self._grant.wait_lost(timeout)

    async def release(self) -> None:
        """Give it back. Once it is released or lost this does nothing.

        Raises:
            redis.exceptions.RedisError: Redis cannot be told now. The permit is not held any more
                all the same, and is given back in the background as soon as that is possible; at
                the latest it is free again when its lease ends.
        """
        if self._pool.here():
            await self._pool.release(self._grant)


class Ledger:
    """Which task holds what."""

    def __init__(self) -> None:
        self._permits: dict[Permit, weakref.ref[object]] = {}
        self._full = _FULL
        # Those of a `with` statement are its own: if an interrupt keeps it from releasing one,
        # there is nobody left who could, and the permit must not be renewed for ever.
        self._lent: weakref.WeakKeyDictionary[Permit, weakref.ref[object]]
        self._lent = weakref.WeakKeyDictionary()
        self._mutex = Mutex()

    def add(self, permit: Permit) -> None:
        """The running task has acquired it."""
        holder = current()
        with self._mutex:
            if len(self._permits) >= self._full:
                self.forget_ended()
                self._full = max(_FULL, 2 * len(self._permits))
            self._permits[permit] = weakref.ref(holder)

    def lend(self, permit: Permit) -> None:
        """Somebody else keeps it in mind."""
        with self._mutex:
            holder = self._permits.get(permit)
            if holder is not None:
                self._lent[permit] = holder
                self._permits.pop(permit, None)

    def take(self, permit: Permit | None = None) -> Permit | None:
        """Strike out a permit: this one; or else the latest of the running task, or the oldest."""
        with self._mutex:
            if permit is None:
                task = current()
                permits = self._all()
                own = [each for each, holder in permits if holder() is task]
                permit = max(own, key=_rank, default=None)
                if permit is None:
                    permit = min((each for each, _ in permits), key=_rank, default=None)
            if permit is None:
                return None
            known = self._permits.pop(permit, None) or self._lent.pop(permit, None)
            return permit if known is not None else None

    def grants(self) -> list[Grant]:
        """What is in it, as the pool knows it."""
        return [permit._grant for permit, _ in self._all()]

    def forget_ended(self) -> None:
        """Drop what is neither held nor to be released any more."""
        for permit, _ in self._all():
            if permit._grant.ended:
                self.take(permit)

    def _all(self) -> list[tuple[Permit, weakref.ref[object]]]:
        """Permits and tasks; a copy, as other threads may come in."""
        with self._mutex:
            own = list(self._permits.items())
            return [*own, *self._lent.items()] if self._lent else own


def _rank(permit: Permit) -> int:
    """Later grants have higher fences."""
    return permit.fence


class Source(Protocol):
    """A semaphore."""

    async def acquire(self, timeout: float | None = None) -> Permit:
        """Wait for a permit."""

    def lend(self, permit: Permit) -> None:
        """The caller keeps the permit in mind, and lets it go."""

    async def let_go(self, permit: Permit, error: BaseException | None) -> None:
        """Release a permit at the end of a body, which may have raised an error."""


class Holding:
    """What `RedisSemaphore.permit` returns: acquires on entry, releases on exit."""

    def __init__(self, source: Source, timeout: float | None, cancel_on_loss: bool) -> None:
        self._source = source
        self._timeout = timeout
        self._cancel_on_loss = cancel_on_loss
        self._permits: list[tuple[weakref.ref[object], Permit, cancelled_by | None]] = []

    async def __aenter__(self) -> Permit:
        permit = None
        try:
            permit = await self._source.acquire(self._timeout)
            self._source.lend(permit)
            guard = cancelled_by(permit.wait_lost).__enter__() if self._cancel_on_loss else None
            self._permits.append((weakref.ref(current()), permit, guard))
            return permit
        except BaseException:
            # An interrupt after it was acquired: nobody else could give it back.
            if permit is not None:
                permit._pool.give_back(permit._grant)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        permit = None
        try:
            # Several tasks may be in it at once, and leave in any order.
            task = current()
            own = [each for each in self._permits if each[0]() is task] or self._permits
            if not own:
                raise RedisSemaphoreNotAcquiredError(
                    "permit() was left without having been entered; use it in a with statement"
                )
            entry = own[-1]
            _, permit, guard = entry
            self._permits.remove(entry)
            lost = permit.lost
            cancelled = guard is not None and guard.__exit__(kind, error, traceback)
            await self._source.let_go(permit, error)
        except BaseException:
            # An interrupt: the body is over, whatever was done by then.
            if permit is not None:
                permit._pool.give_back(permit._grant)
            raise
        if guard is not None and lost and (error is None or cancelled):
            raise RedisSemaphorePermitLostError(
                f"the permit of {permit.name!r} for slot {permit.slot} with fence {permit.fence}"
                " was lost while it was in use; somebody else may have had the slot"
            )
