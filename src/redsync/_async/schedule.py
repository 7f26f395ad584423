"""What a process keeps for one `Timers`: leases of what runs, what became of it, and the watch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

from .._protocol.owner import new_owner
from .._protocol.resp import Reply
from .._protocol.scripts import Command
from .._protocol.timers import (
    MOST,
    SLICE,
    Claimed,
    Mode,
    Outcome,
    Terms,
    TimerScripts,
    Turn,
    parse_turn,
)
from .._runtime.aio import Flag, Lock
from ..exceptions import RedisTimersError
from .link import Link, deadline_for
from .station import Station
from .waiting import Waiter

_MARGIN: Final = 0.01
"""Seconds by which a lease counts as over before it is, at most a tenth of it: clocks differ."""

_RETRY: Final = 0.5
_ENDLESS: Final = 1e6


class Lease:
    """A run's right to be the only one."""

    __slots__ = ("_lost", "_until", "claimed", "expires", "length", "renewal", "started")

    def __init__(self, claimed: Claimed, length: float, asked: float) -> None:
        self.claimed = claimed
        self.length = length
        self.expires: float | None = None
        """When to renew it no more: its handler, a thread, takes longer than it may."""
        self.started = False
        """Whether its handler has begun."""
        self._lost = False
        self.confirm(asked)

    def confirm(self, asked: float) -> None:
        """The server has renewed it, when it was asked to at this time of the monotonic clock."""
        self._until = asked + self.length - min(_MARGIN, self.length / 10)
        self.renewal = asked + self.length / 3

    def resume(self, asked: float) -> bool:
        """It was renewed after its end, as nobody else had taken it; False if the handler may have
        been told that it was lost, and given up, or takes longer than it may.
        """
        if not self.to_be_renewed():
            return False
        self.confirm(asked)
        return True

    def lose(self) -> None:
        """Somebody else has it, or the timer was removed, or the run has ended."""
        self._lost = True

    def remaining(self) -> float:
        """Seconds for which it is surely ours; once they are over, it is lost for good."""
        if not self._lost:
            remaining = self._until - monotonic()
            if remaining > 0:
                return remaining
            self._lost = True
        return 0.0

    def to_be_renewed(self) -> bool:
        """Whether its handler still has time."""
        return not self._lost and (self.expires is None or monotonic() < self.expires)


class _Watch(Waiter[None]):
    """A worker in line for a token. It is there while it does other things."""

    def __init__(self, owner: str, member: object, failed: Callable[[BaseException], None]) -> None:
        super().__init__(owner, member)
        self._failed = failed

    def fail(self, error: BaseException) -> None:
        """The server refuses to wake it."""
        self._failed(error)


class Schedule(Station[Waiter[None]]):
    """The part of a worker that talks to Redis. Arms and removes timers for those who do not work.

    Args:
        name: Of the timeline.
        link: The way to its node.
        scripts: Bound to its keys.
        topics: Tells the worker's topics.
        wake_watchdog: Has `tend` called, if it is due.
    """

    refusal = RedisTimersError

    def __init__(
        self,
        name: str,
        link: Link,
        scripts: TimerScripts,
        topics: Callable[[], Sequence[str]],
        wake_watchdog: Callable[[], None],
    ) -> None:
        keys = scripts.keys
        fixed = (keys.timeline, keys.payloads, keys.state, keys.meta, keys.dead, keys.topics)
        all_keys = (*fixed, keys.due + b"*", keys.wake + b"*")
        super().__init__(name, link, all_keys, keys.unblock, wake_watchdog)
        self.scripts = scripts
        self.news = Flag()
        """Set when whoever works should look; a worker puts its own here."""
        self.refused: BaseException | None = None
        """Why the server does not wake this worker, if so."""
        self._topics = topics
        self._worker = os.urandom(8).hex()
        self._turns = Lock()
        self._number = 0
        self._asked: float | None = None
        """When the turn that has no answer yet was taken first."""
        self._woken = False
        self._watch = _Watch(new_owner(), None, self._refuse)
        self._watching = False
        self._leases: dict[int, Lease] = {}
        self._outcomes: list[Outcome] = []
        self._renewal = math.inf
        self._retry = 0.0

    async def ask(self, command: Command, patience: float | None = None) -> Reply:
        """Have a command run, for so many seconds at most, or the usual time."""
        deadline = deadline_for(None) if patience is None else monotonic() + patience
        with self._explained:
            return await self._link.run(command, deadline)

    # A worker's turns

    async def turn(self, limit: int, mode: Mode, terms: Sequence[Terms]) -> tuple[Turn, float]:
        """Tell what became of timers, and take others.

        Args:
            limit: How many at most.
            mode: Whether this worker comes back in time.
            terms: Its topics.

        Returns:
            The answer, and when it was asked for. If there is none, which raises, the next turn
            has it.
        """
        try:
            await self._turns.acquire(_ENDLESS)
            return await self._turn(limit, mode, terms)
        finally:
            self._turns.release()

    async def _turn(self, limit: int, mode: Mode, terms: Sequence[Terms]) -> tuple[Turn, float]:
        with self.mutex:
            outcomes = self._outcomes[:MOST]
            again = self._asked is not None
            if mode == "stay" and self._woken:
                mode = "woken"
            self._woken = False
        # None of them is always the first to be looked at.
        first = self._number % len(terms)
        terms = [*terms[first:], *terms[:first]]
        request = self.scripts.turn(
            self._worker, self._number, again, min(limit, MOST), mode, outcomes, terms
        )
        if self._asked is None:
            self._asked = monotonic()
        turn = parse_turn(await self.ask(request), terms)
        asked, self._asked = self._asked, None
        self._number += 1
        with self.mutex:
            del self._outcomes[: len(outcomes)]
            fresh = [each for each in turn.claimed if not self._goes_on(each, asked)]
            if self._outcomes:
                self.news.set()  # among them may be what was given up just now
        return turn._replace(claimed=fresh), asked

    def _goes_on(self, claimed: Claimed, asked: float) -> bool:
        """Whether it is no new run: this process was held up or without a server for longer than
        the lease, and nobody else has taken it meanwhile.
        """
        lease = self._leases.get(claimed.fence)
        if lease is not None and lease.resume(asked):
            return True
        reported = any(each.fence == claimed.fence for each in self._outcomes)
        if lease is None and (reported or not claimed.held):
            return reported
        # Its handler may have heard that it is lost, or takes longer than it may, or it was given
        # up by a stop: another run has to begin.
        self._leases.pop(claimed.fence, None)
        self._outcomes.append(Outcome(claimed.topic, claimed.member, claimed.fence, "again"))
        return True

    def hold(self, claimed: Claimed, length: float, asked: float) -> Lease:
        """Look after the lease of a timer that was claimed, until `finish`."""
        lease = Lease(claimed, length, asked)
        with self.mutex:
            self._leases[claimed.fence] = lease
            sooner = lease.renewal < self._renewal
            if sooner:
                self._renewal = lease.renewal
        if sooner:
            self._wake_watchdog()
        return lease

    def finish(self, lease: Lease, outcome: Outcome | None) -> None:
        """A run has ended, or is given up; the next turn tells Redis the outcome, if any."""
        lease.lose()
        with self.mutex:
            held = self._leases.pop(lease.claimed.fence, None)
            if held is not None and outcome is not None:
                self._outcomes.append(outcome)

    @property
    def unreported(self) -> bool:
        """Whether there are outcomes that Redis does not know of yet."""
        return bool(self._outcomes)

    # What wakes it

    def watch(self) -> None:
        """Be woken if a timer is armed that is due sooner than the others."""
        with self.mutex:
            if not self._watching:
                self._watching = True
                self._queue.enter(self._watch)

    def unwatch(self) -> None:
        """Leave tokens to others."""
        with self.mutex:
            self._watching = False
            self._queue.leave(self._watch.owner)

    def topics_changed(self) -> None:
        """Wait for tokens of other topics from now on."""
        with self.mutex:
            if self._watching:
                self.unblock()
        self.news.set()

    def _refuse(self, error: BaseException) -> None:
        self.refused = error
        self._watching = False
        self.news.set()

    # What the connection that waits asks for

    def lists(self) -> tuple[bytes, ...]:
        """Where tokens are left."""
        return tuple(self.scripts.wake(topic) for topic in self._topics())

    def slice(self) -> float:
        """As long as the worker itself waits."""
        return SLICE / 1e6

    def deliver(self, elements: list[bytes], sent: float) -> None:
        """A token has come."""
        # Out of line until it has looked: a worker without room must not get its own token back.
        if self._watching:
            self._watching = False
            self._queue.pop()
        self._woken = True
        self.news.set()

    def reconnected(self) -> None:
        """A token may have been lost."""
        self._woken = True
        self.news.set()

    # What the watchdog asks for

    def idle(self) -> bool:
        """Whether nobody needs it any more."""
        return super().idle() and not self._leases

    def _next(self) -> float:
        return max(self._renewal, self._retry)

    async def _tend(self, deadline: float) -> None:
        """Renew what is half-way to being due too: so it is one command for many."""
        now = monotonic()
        with self.mutex:
            leases = [
                each
                for each in self._leases.values()
                if each.to_be_renewed() and each.renewal <= now + each.length / 6
            ]
        for first in range(0, len(leases), MOST):
            await self._renew(leases[first : first + MOST], deadline)
        with self.mutex:
            renewals = (each.renewal for each in self._leases.values() if each.to_be_renewed())
            self._renewal = min(renewals, default=math.inf)

    async def _renew(self, leases: list[Lease], deadline: float) -> None:
        runs = [
            (each.claimed.topic, each.claimed.fence, int(each.length * 1e6), each.claimed.member)
            for each in leases
        ]
        asked = monotonic()
        reply: Any = await self._link.run(self.scripts.renew(runs), deadline)
        for lease, ours in zip(leases, reply, strict=True):
            if ours:
                lease.confirm(asked)
            else:
                lease.lose()

    def _failed(self) -> None:
        self._retry = monotonic() + _RETRY
