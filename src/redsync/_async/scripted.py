"""The semaphore's transitions as scripts, each of them one round trip."""

from __future__ import annotations

from collections.abc import Sequence

from .._protocol.keys import SemaphoreKeys
from .._protocol.scripts import Command
from .._protocol.semaphore import (
    Contents,
    Empty,
    Facts,
    Return,
    Seat,
    SemaphoreScripts,
    Tended,
    Terms,
    Token,
    parse_acquired,
    parse_joined,
    parse_resized,
    parse_tended,
)
from .link import Link


class Scripted:
    """What `optimistic` does with transactions."""

    def __init__(self, link: Link, keys: SemaphoreKeys) -> None:
        self._link = link
        self._scripts = SemaphoreScripts(keys)

    async def acquire(
        self, owner: str, terms: Terms, seen: int, identifier: str, deadline: float
    ) -> Token | Empty | None:
        """Take a free permit; None if there is no such semaphore."""
        request = self._scripts.acquire(owner, terms, seen, identifier)
        return parse_acquired(await self._link.run(request, deadline))

    async def create(
        self,
        terms: Terms,
        count: int | None,
        known: Facts | None,
        seen: int,
        deadline: float,
    ) -> Facts | None:
        """Make the semaphore, or join it; None if there is nothing to join."""
        request = self._scripts.create(terms, count, known, seen)
        return parse_joined(await self._link.run(request, deadline))

    async def release(self, token: Token, owner: str, seen: int, deadline: float) -> None:
        """Give a permit back, if it is still this owner's."""
        await self._link.run(self._scripts.release(token, owner, seen), deadline)

    async def tend(
        self,
        terms: Terms,
        known: Facts,
        seats: Sequence[Seat],
        returns: Sequence[Return],
        seen: int,
        deadline: float,
    ) -> Tended:
        """Renew, give back and reap."""
        request = self._scripts.tend(terms, known, seats, returns, seen=seen)
        return parse_tended(await self._link.run(request, deadline))

    def claim(
        self,
        terms: Terms,
        known: Facts,
        seats: Sequence[Seat],
        returns: Sequence[Return],
        seen: int,
    ) -> Command | None:
        """A tend that does not reap, to be sent on the connection that popped the tokens."""
        return self._scripts.tend(terms, known, seats, returns, seen=seen, reap=False)

    async def resize(
        self, terms: Terms, count: int, version: int, seen: int, deadline: float
    ) -> tuple[bool, Facts] | None:
        """Change the count, if the version is still this one; None: no such semaphore."""
        request = self._scripts.resize(terms, count, version, seen)
        return parse_resized(await self._link.run(request, deadline))

    async def contents(self, deadline: float) -> Contents:
        """Read everything."""
        return Contents.parse(await self._link.run(self._scripts.status(), deadline))
