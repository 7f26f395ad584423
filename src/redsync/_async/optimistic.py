"""The semaphore's transitions as transactions, for servers that forbid scripts.

WATCH meta, read, decide here, MULTI, change, EXEC; and all over again if somebody else was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Final, Protocol, TypeVar

from redis import exceptions

from .._backoff import Backoff, Pauses
from .._protocol.keys import SemaphoreKeys
from .._protocol.resp import Reply, microseconds, pack
from .._protocol.scripts import Command
from .._protocol.semaphore import Contents, Empty, Facts, Return, Seat, Tended, Terms, Token
from .._protocol.transitions import Draft, has, renewal
from .._protocol.trouble import advised, passes
from .._runtime.aio import Wire, sleep
from .link import Link

_MULTI: Final = pack("MULTI")
_EXEC: Final = pack("EXEC")
_UNWATCH: Final = pack("UNWATCH")

T = TypeVar("T")
R = TypeVar("R", covariant=True)


class Attempt(Protocol[R]):
    """Something that may have to be tried several times."""

    async def __call__(self, wire: Wire, deadline: float) -> R:
        """Try it once."""


class Optimistic:
    """The Backend that uses transactions; `Backend` says what each method does."""

    def __init__(self, link: Link, keys: SemaphoreKeys) -> None:
        self._link = link
        self._keys = keys
        self._pop = Command(pack("LPOP", keys.free))
        self._moves = -1
        """How many moves to other servers had been when what is free was given new fences."""
        self._reads = (
            pack("PTTL", keys.meta),
            pack("HGETALL", keys.meta),
            pack("LRANGE", keys.free, 0, -1),
            pack("ZRANGE", keys.held, 0, -1, "WITHSCORES"),
            # Last, so that nothing is read after it: a lease counted from an earlier instant would
            # be too short.
            pack("TIME"),
        )

    async def acquire(
        self, owner: str, terms: Terms, seen: int, identifier: str, deadline: float
    ) -> Token | Empty | None:
        # If the answer to LPOP is lost, so is the token, until somebody misses it.
        while True:
            moves = self._link.moves
            if moves != self._moves:
                await self._transact(_refreshing, seen, deadline)
            popped = await self._link.run(self._pop, deadline)
            moved = self._link.moves != moves
            self._moves = -1 if moved else moves
            if not isinstance(popped, bytes):
                break
            token = Token.parse(popped)
            if moved:  # it has come from another server than the one that was refreshed
                handback = Return(token.slot, token.fence, owner)
                await self._transact(partial(_returning, handback), seen, deadline)
                continue
            seat = Seat(token.slot, token.fence, owner, terms.ttl, 0, identifier)
            exists, granted = await self._transact(partial(_granting, token, seat), seen, deadline)
            if granted:
                return token
            if not exists:
                break

        def look(draft: Draft, left: int) -> Empty | None:
            if not draft.exists:
                return None
            draft.keep_alive(terms, left)
            draft.reap()
            return Empty(draft.wait, draft.pushed, draft.facts)

        return await self._transact(look, seen, deadline)

    async def create(
        self,
        terms: Terms,
        count: int | None,
        known: Facts | None,
        seen: int,
        deadline: float,
    ) -> Facts | None:

        def change(draft: Draft, left: int) -> Facts | None:
            if draft.exists:
                if count in (None, draft.facts.count):
                    draft.keep_alive(terms, left)
                return draft.facts
            if known is not None:
                draft.recreate(known, terms)
            elif count is not None:
                draft.create(count, terms)
            else:
                return None
            draft.keep_alive(terms, 0)
            return draft.facts

        return await self._transact(change, seen, deadline)

    async def release(self, token: Token, owner: str, seen: int, deadline: float) -> None:
        handback = Return(token.slot, token.fence, owner)
        await self._transact(
            lambda draft, _: draft.exists and draft.give_back(handback), seen, deadline
        )

    async def renew(self, seats: Sequence[Seat], deadline: float) -> list[bool]:
        # By itself and beside the transactions of others, which a far client would wait for too
        # long. A grant that is on record now was so all the time since it was made: the lease that
        # was lengthened before is its own.
        if not seats:
            return []

        async def attempt(wire: Wire, deadline: float) -> list[bool]:
            [time] = await wire.exchange((pack("TIME"),), deadline - monotonic())
            commands = renewal(self._keys, seats, microseconds(time) // 1000)
            packed = [pack(*command) for command in commands]
            _, records, held = _checked(await wire.exchange(packed, deadline - monotonic()))
            slots = {slot for slot in _answers(held) if isinstance(slot, bytes)}
            return [
                b"%d" % seat.slot in slots
                and isinstance(record, bytes)
                and has(record.decode("utf-8", "surrogateescape"), seat)
                for seat, record in zip(seats, _answers(records), strict=True)
            ]

        return await self._retried(attempt, deadline)

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
        def change(draft: Draft, left: int) -> Tended:
            if not draft.exists:
                draft.recreate(known, terms)
                left = 0
            elif known.version > draft.facts.version:
                draft.resize(known.count, known.version)  # the data is from before a resize
            draft.keep_alive(terms, left)
            if lead:
                draft.lead(lead)
            seated = [draft.seat(seat) for seat in seats]
            for handback in returns:
                draft.give_back(handback)
            draft.reap()
            return Tended(seated, draft.wait, draft.facts)

        # Most often there is nothing to change, and so nothing to watch.
        draft, left = await self._look(seen, deadline)
        tended = change(draft, left)
        return await self._transact(change, seen, deadline) if draft.commands else tended

    def claim(self, terms: Terms, known: Facts, seats: Sequence[Seat], seen: int) -> Command | None:
        return None  # a transaction takes several round trips: it has no place before a wait

    async def resize(
        self, terms: Terms, count: int, version: int, seen: int, deadline: float
    ) -> Facts | None:

        def change(draft: Draft, left: int) -> Facts | None:
            if not draft.exists:
                return None
            draft.keep_alive(terms, left)
            if draft.facts.version == version:
                draft.resize(count)
            return draft.facts

        return await self._transact(change, seen, deadline)

    async def contents(self, deadline: float) -> Contents:
        async def attempt(wire: Wire, deadline: float) -> Contents:
            commands = (_UNWATCH, _MULTI, *self._reads, _EXEC)
            replies = await wire.exchange(commands, deadline - monotonic())
            return _contents(_answers(_checked(replies)[-1]))[0]

        return await self._retried(partial(self._alone, attempt), deadline)

    async def _look(self, seen: int, deadline: float) -> tuple[Draft, int]:
        """A draft to see whether there is anything to change, and what `meta` has left to live."""

        async def attempt(wire: Wire, deadline: float) -> tuple[Draft, int]:
            replies = await wire.exchange(self._reads, deadline - monotonic())
            contents, left = _contents(_checked(replies))
            return Draft(self._keys, contents, seen), left

        return await self._retried(attempt, deadline)

    async def _transact(self, change: Callable[[Draft, int], T], seen: int, deadline: float) -> T:
        """Make a change, once it can be made without anybody else in between."""
        watched = [self._keys.meta]

        async def attempt(wire: Wire, deadline: float) -> T:
            reads = (_UNWATCH, pack("WATCH", *watched), *self._reads)
            replies = await wire.exchange(reads, deadline - monotonic())
            contents, left = _contents(_checked(replies)[2:])
            draft = Draft(self._keys, contents, seen)
            result = change(draft, left)
            draft.finish()
            if draft.watches_free and self._keys.free not in watched:
                watched.append(self._keys.free)
                raise exceptions.WatchError("once more, with the list watched")
            if draft.commands:
                packed = [pack(*command) for command in draft.commands]
                replies = await wire.exchange((_MULTI, *packed, _EXEC), deadline - monotonic())
                if _checked(replies)[-1] is None:
                    raise exceptions.WatchError("others change this semaphore all the time")
                _answers(replies[-1])
            return result

        return await self._retried(partial(self._alone, attempt), deadline)

    async def _retried(self, attempt: Attempt[T], deadline: float) -> T:
        """Try until it is done; every transition has one effect, however often it is tried."""
        try:
            return await self._tried(attempt, deadline)
        except BaseException:
            # An interrupt may have left a lock in the hands of the running thread.
            self._link.unlock()
            raise
        finally:
            self._link.settle()

    async def _tried(self, attempt: Attempt[T], deadline: float) -> T:
        # Spread wide: those who were in each other's way must not meet again.
        pauses = Pauses(Backoff(0.001, maximum=0.055, jitter=0.8))
        told: Exception | None = None
        while True:
            wire: Wire | None = None
            try:
                wire = await self._link.connected(deadline)
                result = await attempt(wire, deadline)
            except exceptions.WatchError as failure:
                error: Exception = failure
            except (exceptions.RedisError, OSError) as failure:
                if isinstance(failure, exceptions.AskError) and not self._link.clustered:
                    raise advised(failure) from None
                if wire is not None:
                    await self._link.look_again(failure, wire, deadline)
                if not (passes(failure) or isinstance(failure, exceptions.MovedError)):
                    raise advised(failure) from None
                error = failure
                if type(failure) not in (exceptions.ConnectionError, exceptions.TimeoutError):
                    told = failure
            else:
                self._link.confirm(wire)
                return result
            pause = pauses.next()
            if monotonic() + pause >= deadline:
                # A last try that ran out of time tells less than what the server said before.
                raise advised(told or error)
            await sleep(pause)

    async def _alone(self, attempt: Attempt[T], wire: Wire, deadline: float) -> T:
        """Keep other transactions off the connection meanwhile: what one caller watches is
        forgotten at the end of another's.
        """
        try:
            if not await wire.transactions.acquire(deadline - monotonic()):
                raise exceptions.WatchError("others in this process change semaphores all the time")
            return await attempt(wire, deadline)
        finally:
            wire.transactions.release()


def _refreshing(draft: Draft, left: int) -> None:
    if draft.exists:
        draft.refresh()


def _returning(handback: Return, draft: Draft, left: int) -> None:
    if draft.exists:
        draft.give_back(handback)


def _granting(token: Token, seat: Seat, draft: Draft, left: int) -> tuple[bool, bool]:
    """Whether there is such a semaphore, and whether the permit is theirs."""
    return draft.exists, draft.exists and draft.grant(token, seat)


def _checked(replies: Sequence[Reply]) -> Sequence[Reply]:
    for reply in replies:
        if isinstance(reply, exceptions.RedisError):
            raise reply
    return replies


def _answers(reply: Reply) -> list[Reply]:
    """The elements of an answer, none of which is an error."""
    if isinstance(reply, exceptions.RedisError):
        raise reply
    assert isinstance(reply, list)
    _checked(reply)
    return reply


def _contents(replies: Sequence[Reply]) -> tuple[Contents, int]:
    left, meta, free, held, time = replies
    assert isinstance(left, int)
    return Contents.parse([time, meta, free, held]), left


def _text(reply: Reply) -> str:
    assert isinstance(reply, bytes)
    return reply.decode()
