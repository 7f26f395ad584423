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
    parse_facts,
    parse_tended,
)
from .link import Link


class Scripted:
    """The Backend that uses scripts; `Backend` says what each method does."""

    def __init__(self, link: Link, keys: SemaphoreKeys) -> None:
        self._link = link
        self._scripts = SemaphoreScripts(keys)

    async def acquire(
        self, owner: str, terms: Terms, seen: int, identifier: str, deadline: float
    ) -> Token | Empty | None:
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
        request = self._scripts.create(terms, count, known, seen)
        return parse_facts(await self._link.run(request, deadline))

    async def release(self, token: Token, owner: str, seen: int, deadline: float) -> None:
        await self._link.run(self._scripts.release(token, owner, seen), deadline)

    async def renew(self, seats: Sequence[Seat], deadline: float) -> list[bool]:
        return [False for _ in seats]  # a tend is one command, which nobody is in the way of

    async def tend(
        self,
        terms: Terms,
        known: Facts,
        seats: Sequence[Seat],
        returns: Sequence[Return],
        seen: int,
        lead: int,
        deadline: float,
    ) -> Tended:
        request = self._scripts.tend(terms, known, seats, returns, seen=seen, lead=lead)
        return parse_tended(await self._link.run(request, deadline))

    def claim(self, terms: Terms, known: Facts, seats: Sequence[Seat], seen: int) -> Command | None:
        # It does not reap, which would keep the next wait from beginning.
        return self._scripts.tend(terms, known, seats, (), seen=seen, reap=False)

    async def resize(
        self, terms: Terms, count: int, version: int, seen: int, deadline: float
    ) -> Facts | None:
        request = self._scripts.resize(terms, count, version, seen)
        return parse_facts(await self._link.run(request, deadline))

    async def contents(self, deadline: float) -> Contents:
        return Contents.parse(await self._link.run(self._scripts.status(), deadline))
