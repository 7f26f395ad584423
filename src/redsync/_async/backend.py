"""What a pool needs of Redis; `scripted` and `optimistic` are the two ways to get it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .._protocol.scripts import Command
from .._protocol.semaphore import Contents, Empty, Facts, Return, Seat, Tended, Terms, Token


class Backend(Protocol):
    """Every change has one effect, however often it is asked for. Deadlines are monotonic."""

    async def acquire(
        self, owner: str, terms: Terms, seen: int, identifier: str, deadline: float
    ) -> Token | Empty | None:
        """Take a free permit; None if there is no such semaphore."""

    async def create(
        self,
        terms: Terms,
        count: int | None,
        known: Facts | None,
        seen: int,
        deadline: float,
    ) -> Facts | None:
        """Make the semaphore, or join it; None if there is nothing to join."""

    async def release(self, token: Token, owner: str, seen: int, deadline: float) -> None:
        """Give a permit back, if it is still this owner's."""

    async def renew(self, seats: Sequence[Seat], deadline: float) -> list[bool]:
        """Renew what can be renewed by itself, before a tend; tell which ones those are."""

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
        """Renew, give back and reap; with a lead, raise fences so far above the server's clock."""

    def claim(self, terms: Terms, known: Facts, seats: Sequence[Seat], seen: int) -> Command | None:
        """A tend to be sent on the connection that popped the tokens, if it is one command."""

    async def resize(
        self, terms: Terms, count: int, version: int, seen: int, deadline: float
    ) -> Facts | None:
        """Change the count, if the version is still this one; None: no such semaphore.

        The facts afterwards tell whether somebody else was faster.
        """

    async def contents(self, deadline: float) -> Contents:
        """Read everything."""
