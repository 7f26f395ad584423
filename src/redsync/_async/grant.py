"""A permit as the process sees it: whose it is, and until when that is sure."""

from __future__ import annotations

from time import monotonic

from .._protocol.semaphore import Return, Seat, Token
from .._runtime.aio import Flag, Mutex


def margin(lease: float) -> float:
    """Seconds to stay below a lease: milliseconds are cut off, and no two clocks run alike."""
    return 0.002 + 0.01 * lease


class Grant:
    """One acquisition. Only its own process changes it, under the pool's mutex.

    `deadline` is pessimistic: it counts from before the last confirmed lease was asked for. Past
    it the permit is lost for good, even if a renewal that was on its way is confirmed later.
    """

    __slots__ = (
        "__weakref__",
        "_loss",
        "_mutex",
        "_state",
        "deadline",
        "ended",
        "identifier",
        "owner",
        "since",
        "token",
        "ttl",
    )

    def __init__(
        self,
        token: Token,
        owner: str,
        identifier: str,
        ttl: float,
        since: float,
        deadline: float,
        mutex: Mutex,
    ) -> None:
        self.token = token
        self.owner = owner
        self.identifier = identifier
        self.ttl = ttl
        self.since = since
        self.deadline = deadline
        self._mutex = mutex
        self._state = "held"
        self.ended = False
        """Whether its holder is done with it, be it held or lost by then."""
        self._loss: Flag | None = None

    @property
    def held(self) -> bool:
        """Whether it is surely ours."""
        return self._state == "held" and not self._overdue()

    @property
    def lost(self) -> bool:
        """Whether it ended without having been given back."""
        return self._state == "lost" or self._overdue()

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._state == "released"

    def remaining(self) -> float:
        """Seconds for which it is surely ours."""
        return max(0.0, self.deadline - monotonic()) if self._state == "held" else 0.0

    def confirm(self, sent: float) -> None:
        """A lease that was asked for at `sent` is there."""
        with self._mutex:
            if self.held:
                self.deadline = max(self.deadline, sent + self.ttl - margin(self.ttl))

    def lose(self) -> None:
        """Somebody else has the slot, or may have it."""
        with self._mutex:
            if self._state == "held":
                self._state = "lost"
                if self._loss is not None:
                    self._loss.set()

    def release(self) -> bool:
        """It is not ours any more; False if it was not before."""
        with self._mutex:
            if self._state != "held":
                self.ended = True
                return False
            self.ended = True
            self._state = "released"
            if self._loss is not None:
                self._loss.set()
            return True

    async def wait_lost(self, timeout: float | None) -> bool:
        """Wait until it is lost; False if the time is up before, or if it is given back."""
        end = None if timeout is None else monotonic() + timeout
        with self._mutex:
            flag = self._loss = self._loss or Flag()
        while self.held:
            now = monotonic()
            if end is not None and now >= end:
                return False
            limit = self.deadline if end is None else min(self.deadline, end)
            if await flag.wait(limit - now):
                break
        return self.lost

    def seat(self) -> Seat:
        """What to tell the server to keep the lease."""
        age = int((monotonic() - self.since) * 1000)
        ttl = int(self.ttl * 1000)
        return Seat(self.token.slot, self.token.fence, self.owner, ttl, age, self.identifier)

    def handback(self) -> Return:
        """What to tell the server to end the lease."""
        return Return(self.token.slot, self.token.fence, self.owner)

    def _overdue(self) -> bool:
        """Whether nobody has noticed yet that the lease ran out."""
        if self._state == "held" and monotonic() >= self.deadline:
            self.lose()
            return True
        return False
