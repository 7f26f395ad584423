"""What a process keeps for one semaphore: its permits, their leases, and those who wait."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol
from weakref import WeakValueDictionary

from redis import exceptions

from .._protocol.keys import SemaphoreKeys
from .._protocol.owner import new_owner
from .._protocol.resp import Reply
from .._protocol.scripts import Command
from .._protocol.semaphore import (
    Contents,
    Empty,
    Facts,
    Return,
    Tended,
    Terms,
    Token,
    parse_tended,
)
from .._protocol.trouble import passes
from ..exceptions import RedisSemaphoreError, RedisSemaphoreTimeoutError
from .backend import Backend
from .grant import Grant, margin
from .link import PATIENCE, Link
from .station import TIE, Station
from .waiting import Waiter

_SHORTEST_PATIENCE: Final = 0.25
"""Seconds for one try to tend at least, however short the lease: the server may be far."""

_MEMORY: Final = 256
"""How many returns are remembered, as a failover may forget them."""

_DOUBT: Final = 2.0
"""Seconds after a release at which a process that has nothing else to do looks whether the node is
still there: in a cluster nobody else tells it that another one has taken over.
"""

_LEAD: Final = 60_000_000
"""Microseconds by which fences rise above the clock when there is another server than before: for
as long the old one may go on granting permits, and will not have the higher fences.
"""


class Member(Protocol):
    """An open RedisSemaphore."""

    @property
    def terms(self) -> Terms: ...

    @property
    def identifier(self) -> str: ...


class PermitWaiter(Waiter[Grant]):
    """Somebody in line for a permit."""

    __slots__ = ("identifier", "ttl")

    def __init__(self, owner: str, member: Member) -> None:
        super().__init__(owner, member)
        self.ttl = member.terms.ttl / 1000
        self.identifier = member.identifier


class Pool(Station[PermitWaiter]):
    """Shared by all instances of one semaphore in one process and loop.

    Local state changes first and without I/O in between; what the server still has to learn waits
    in `_returns` and `_claims` until it has answered.
    """

    refusal = RedisSemaphoreError

    def __init__(
        self,
        name: str,
        link: Link,
        backend: Backend,
        keys: SemaphoreKeys,
        wake_watchdog: Callable[[], None],
    ) -> None:
        super().__init__(name, link, (keys.free, keys.held, keys.meta), keys.wake, wake_watchdog)
        self._backend = backend
        # Weakly: a permit that nobody can give back any more is not renewed for ever.
        self._grants: WeakValueDictionary[str, Grant] = WeakValueDictionary()
        self._unsettled: set[str] = set()
        """Requests that were sent, and whose answer is not known."""
        self._claims: list[Grant] = []
        self._exchanged: dict[int, int] = {}
        """For which connection each slot's token was given back as outdated."""
        self._returns: dict[Return, float] = {}
        """What to give back, and since when."""
        self._settled: deque[tuple[Return, float]] = deque(maxlen=_MEMORY)
        """What was given back last, and when."""
        self._facts: Facts | None = None
        self._seen = 0
        self._terms = Terms(30_000, 300_000)
        self._renewal = 0.0
        self._moves = link.moves
        """How many moves to other servers the fences account for."""
        self._expiry: float | None = None
        """When the next lease of anybody ends."""

    # Members

    def join(self, member: Member) -> None:
        """An instance begins to use it."""
        with self.mutex:
            super().join(member)
            self._terms = self._all_terms()

    def leave(self, member: Member) -> None:
        """An instance is closed."""
        with self.mutex:
            super().leave(member)
            self._terms = self._all_terms()

    def idle(self) -> bool:
        """Whether nobody needs it any more."""
        with self.mutex:
            return super().idle() and not (self._returns or self._held())

    def _all_terms(self) -> Terms:
        terms = [member.terms for member in self._members] or [self._terms]
        # Of anybody: after a loss of data, each earlier holder needs the time to come back.
        longest = self._facts.ttl if self._facts else 0
        ttl = max(longest, *(each.ttl for each in terms))
        return Terms(ttl, max(each.keep for each in terms))

    # The semaphore as a whole

    async def create(self, terms: Terms, count: int | None, deadline: float) -> Facts | None:
        """Make the semaphore, or join it; None if there is nothing to join."""
        if self._facts is not None:
            terms = self._terms
        with self._explained:
            facts = await self._backend.create(terms, count, self._facts, self._seen, deadline)
        if facts is not None:
            self._note(facts)
            self._wake_watchdog()  # it sleeps for as long as there is nothing to look after
        return facts

    async def contents(self, deadline: float) -> Contents:
        """Everything that Redis holds for it."""
        with self._explained:
            contents = await self._backend.contents(deadline)
            if not contents.meta:  # lost
                await self._tend(deadline)
                contents = await self._backend.contents(deadline)
            contents.check()
        return contents

    async def resize(self, terms: Terms, count: int, deadline: float) -> Facts:
        """Change the number of permits; the facts afterwards tell whether somebody else won."""
        version = int((await self.contents(deadline)).meta["version"])
        with self._explained:
            resized = await self._backend.resize(terms, count, version, self._seen, deadline)
        if resized is None:
            raise RedisSemaphoreError(f"the semaphore {self.name!r} has just vanished; try again")
        self._note(resized)
        return resized

    # One permit

    async def acquire(
        self, owner: str, member: Member, timeout: float | None, began: float, deadline: float
    ) -> Grant:
        """Wait for a permit.

        If this raises, or is cancelled, `abandon` the owner: a permit may be on its way.

        Args:
            owner: A name for this request.
            member: The instance that it comes through.
            timeout: How long to wait, in seconds.
            began: Since when.
            deadline: Until when to try to ask the server.
        """
        end = None if timeout is None else began + timeout
        if not self._queue:  # those who came first come first
            found = await self._try(owner, member, deadline)
            if timeout == 0 and isinstance(found, Empty) and found.pushed:
                # What the first try has set free was for those who wait. There may be none.
                found = await self._try(owner, member, deadline)
            if isinstance(found, Grant):
                return found
        while timeout != 0:
            waiter = PermitWaiter(owner, member)
            with self.mutex:
                sooner = self._renew_within(waiter.ttl)
            if sooner:
                self._wake_watchdog()
            if not await self._wait(waiter, end):
                break
            with self._explained:
                grant = waiter.result()
            if grant.held:
                return grant
            self.give_back(grant)  # this process was held up for too long
        trouble = self._queue.trouble
        when = f"came free within {timeout:g} s" if timeout else "is free"
        raise RedisSemaphoreTimeoutError(
            f"no permit of the semaphore {self.name!r} {when}"
        ) from trouble

    async def _try(self, owner: str, member: Member, deadline: float) -> Grant | Empty | None:
        terms, identifier = member.terms, member.identifier
        began = monotonic()
        self._unsettled.add(owner)
        with self._explained:
            try:
                found = await self._backend.acquire(owner, terms, self._seen, identifier, deadline)
            except exceptions.RedisError as error:
                if not passes(error):  # it was refused: there is nothing to be given back
                    self._unsettled.discard(owner)
                raise
            if found is None:  # lost
                await self._tend(deadline)
        if not isinstance(found, Token):
            self._unsettled.discard(owner)
        if found is None:
            return None
        if isinstance(found, Empty):
            self._note(found.facts, found.wait)
            return found
        ttl = terms.ttl / 1000
        with self.mutex:
            self._seen = max(self._seen, found.fence)
            end = began + ttl - margin(ttl)
            grant = self._grant(found, owner, identifier, ttl, began, end)
            self._unsettled.discard(owner)
        if grant.held:
            return grant
        self.give_back(grant)  # it took too long to get here
        return None

    def abandon(self, owner: str) -> None:
        """A request has ended without its caller getting to know: give back what it was granted."""
        with self.mutex:
            self._queue.leave(owner)  # an interrupt may have come before it could
            grant = self._grants.get(owner)
            if grant is not None:
                self.give_back(grant)
            elif owner in self._unsettled:
                self._unsettled.discard(owner)
                self._return(Return.all_of(owner))

    def give_back(self, grant: Grant) -> None:
        """End a permit here, and on the server in the background."""
        with self.mutex:
            grant.release()
            self._return(grant.handback())

    async def release(self, grant: Grant) -> None:
        """End a permit here, then on the server; if that fails, in the background."""
        try:
            with self.mutex:
                if not grant.release():
                    return
                handback = grant.handback()
                self._returns[handback] = monotonic()
            deadline = monotonic() + PATIENCE
            with self._explained:
                await self._backend.release(grant.token, grant.owner, self._seen, deadline)
        except BaseException:
            self._hurry()
            raise
        with self.mutex:
            self._settle(handback)
            self._grants.pop(grant.owner, None)
            sooner = self._link.clustered and monotonic() + _DOUBT < self._renewal
            if sooner:
                self._renewal = monotonic() + _DOUBT
        if sooner or self.idle():
            self._wake_watchdog()  # which goes with the last permit of the last instance

    def leave_alone(self, grants: list[Grant]) -> None:
        """These are not renewed any more; they can still be released."""
        with self.mutex:
            for grant in grants:
                self._grants.pop(grant.owner, None)

    def _grant(
        self,
        token: Token,
        owner: str,
        identifier: str,
        ttl: float,
        since: float,
        deadline: float,
    ) -> Grant:
        grant = Grant(token, owner, identifier, ttl, since, deadline, self.mutex)
        self._grants[owner] = grant
        if self._renew_within(ttl):
            self._wake_watchdog()
        return grant

    def _settle(self, handback: Return) -> None:
        """The server has taken it back."""
        self._returns.pop(handback, None)
        self._settled.append((handback, monotonic()))

    def _doubt_returns(self) -> None:
        """The server may be another one, which does not know what was given back last; or of which
        grants that was.
        """
        oldest = monotonic() - self._terms.ttl / 1000  # what is older has come back by itself
        for handback, since in self._settled:
            if since > oldest:
                self._returns.setdefault(handback, since)
        self._settled.clear()

    def _return(self, handback: Return) -> None:
        self._returns[handback] = monotonic()
        self._hurry()

    def _held(self) -> list[Grant]:
        return [grant for grant in list(self._grants.values()) if grant.held]

    # What the connection that waits asks for

    def slice(self) -> float:
        """So short that whatever comes can be handed out before it is claimed, and be claimed then
        with time to spare: a permit that is lost as soon as it is there helps nobody.
        """
        return min(self._grace(), self._shortest_ttl()) / 2

    def deliver(self, elements: list[bytes], sent: float) -> None:
        """Hand tokens to those who wait, before they are claimed.

        Nobody else gets these slots for `grace` after the pop, which came after `sent`, or for the
        lease once it is claimed, which may be shorter. A token that comes too late for that, or for
        nobody, or may be from before a failover, goes back.
        """
        for element in elements:
            try:
                token = Token.parse(element)
            except ValueError:
                continue  # somebody else's
            self._seen = max(self._seen, token.fence)
            now = monotonic()
            waiter = self._queue.first
            sure = min(self._grace(), waiter.ttl) if waiter else 0.0
            late = now >= sent + 0.75 * sure - margin(sure)
            if waiter is None or late or self._is_outdated(token):
                self._return(Return(token.slot, token.fence, new_owner()))
                continue
            self._queue.pop()
            deadline = sent + sure - margin(sure)
            grant = self._grant(token, waiter.owner, waiter.identifier, waiter.ttl, now, deadline)
            self._claims.append(grant)
            waiter.resolve(grant)

    def _is_outdated(self, token: Token) -> bool:
        """Whether a token was pushed before we came to this server.

        Another server may have granted it then, and this one, its replica, not have heard of it:
        the fence is perhaps somebody's. Given back, the slot gets a new one. Once for each slot and
        connection is enough: fences are below the time as long as a clock that was set back is.
        """
        opened = self._queue.opened
        if token.fence >= opened or self._exchanged.get(token.slot) == opened:
            return False
        self._exchanged[token.slot] = opened
        return True

    @property
    def has_claim(self) -> bool:
        """Whether there are tokens to claim."""
        return bool(self._claims)

    def claim(self) -> _Claim | None:
        """The lease for what was handed out.

        What is to be given back is not sent along: nearly always a release is on its way with it,
        and the watchdog sends the rest.
        """
        grants = [grant for grant in self._claims if grant.held]
        self._claims = []
        if not grants or self._facts is None:
            return None
        seats = [grant.seat() for grant in grants]
        command = self._backend.claim(self._terms, self._facts, seats, self._seen)
        if command is None:
            self._hurry()
            return None
        return _Claim(self, command, grants)

    def _grace(self) -> float:
        assert self._facts is not None, "nobody waits before the semaphore is known"
        return self._facts.grace / 1000

    # What the watchdog asks for

    def _next(self) -> float:
        if self._facts is None:
            return math.inf
        if self._queue and self._expiry is not None:
            return min(self._renewal, self._expiry)
        return self._renewal

    def _failed(self) -> None:
        # What could not be given back for longer than its lease has come back by itself.
        oldest = monotonic() - 2 * self._terms.ttl / 1000
        self._returns = {each: since for each, since in self._returns.items() if since > oldest}
        self._expiry = None
        self._renewal = monotonic() + min(1.0, self._shortest_ttl() / 10)

    def _patience(self) -> float:
        return min(super()._patience(), max(_SHORTEST_PATIENCE, self._shortest_ttl() / 3))

    async def _tend(self, deadline: float) -> None:
        with self.mutex:
            if self._facts is None:
                return
            moves = self._link.moves
            lead = _LEAD if moves != self._moves else 0
            if lead:
                self._doubt_returns()
            grants = self._held()
            returns = list(self._returns)
        sent = monotonic()
        seats = [grant.seat() for grant in grants]
        renewed = await self._backend.renew(seats, deadline)
        for grant, done in zip(grants, renewed, strict=True):
            if done:
                self._confirm(grant, sent)
        # What else there is to do must not keep from renewing again in time.
        deadline = min(deadline, monotonic() + self._patience())
        grants = [grant for grant, done in zip(grants, renewed, strict=True) if not done]
        seats = [grant.seat() for grant in grants]
        tended = await self._backend.tend(
            self._terms, self._facts, seats, returns, self._seen, lead, deadline
        )
        self._moves = moves
        self._apply(tended, grants, returns, sent)
        with self.mutex:
            self._expiry = None if tended.wait is None else monotonic() + tended.wait / 1000 + TIE
            self._renewal = sent + self._interval() * random.uniform(0.8, 1.2)

    def _interval(self) -> float:
        """Seconds to the next tend."""
        ttl = self._shortest_ttl()
        if self._held():
            return ttl / 3
        if self._queue:
            # A token that somebody popped who died is missed then, and back after the grace: in
            # all within a lease.
            return (ttl - min(self._grace(), ttl / 2)) * 2 / 3
        return self._terms.keep / 3000  # for the keys alone

    def _apply(
        self, tended: Tended, grants: list[Grant], returns: list[Return], sent: float
    ) -> None:
        with self.mutex:
            for grant, seated in zip(grants, tended.seated, strict=True):
                if seated:
                    self._confirm(grant, sent)
                else:
                    grant.lose()
            for handback in returns:
                self._settle(handback)
            self._note(tended.facts)

    def _confirm(self, grant: Grant, sent: float) -> None:
        with self.mutex:
            grant.confirm(sent)
            if grant.lost:
                self._return(grant.handback())  # too late for its holder

    def _note(self, facts: Facts, wait: int | None = None) -> None:
        with self.mutex:
            self._seen = max(self._seen, facts.fence)
            if self._facts is None or facts.version >= self._facts.version:
                self._facts = facts
                if facts.ttl > self._terms.ttl:
                    self._terms = self._all_terms()
            if wait is not None:
                self._expiry = monotonic() + wait / 1000 + TIE

    def _renew_within(self, ttl: float) -> bool:
        """Have the next tend come before a lease of this length is half over."""
        now = monotonic()
        # Even the earliest one would hardly be earlier.
        if now + ttl * (0.8 / 3 + 0.1) >= self._renewal:
            return False
        latest = now + ttl / 3 * random.uniform(0.8, 1.2)
        if latest + ttl / 10 >= self._renewal:
            return False
        self._renewal = latest
        return True

    def _shortest_ttl(self) -> float:
        ttls = [grant.ttl for grant in self._held()]
        ttls += [member.terms.ttl / 1000 for member in self._members]
        return min(ttls, default=self._terms.ttl / 1000)


class _Claim:
    """A tend on its way along the connection that waits."""

    def __init__(self, pool: Pool, command: Command, grants: list[Grant]) -> None:
        self.command = command
        self._pool = pool
        self._grants = grants
        self._sent = monotonic()

    def answered(self, reply: Reply) -> None:
        if isinstance(reply, list):
            self._pool._apply(parse_tended(reply), self._grants, [], self._sent)
        else:
            self.failed()  # say, a server that does not know the script yet

    def failed(self) -> None:
        self._pool._hurry()
