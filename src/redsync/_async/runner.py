"""A worker: it takes timers that are due, has their handlers run, and reports what became of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from redis import exceptions

from .._backoff import Backoff, Pauses
from .._instants import datetime_of
from .._protocol.timers import SLICE, Claimed, Outcome, Terms, Turn, readable
from .._protocol.trouble import is_temporary
from .._runtime.aio import Crew, Flag, Worker, current, is_cancellable
from .._types import Retry, TimerRun
from ..exceptions import RedisTimersError, RedisTimersPayloadError
from ..routing import Handler, Policy
from .adoption import Adoption
from .schedule import Lease, Schedule

_log = logging.getLogger("redsync")

_ERROR_LENGTH: Final = 2000
_WINDING_UP: Final = 1.0
"""Seconds for what was cancelled to end."""

_STALLED: Final = 0.1
"""Seconds after which a run that has not begun keeps what has ended from being told no longer."""

_TROUBLE: Final = Backoff(0.05, maximum=2.0, jitter=0.2)


class Duty(NamedTuple):
    """A handler, and what holds for its runs."""

    handler: Handler
    policy: Policy
    cancellable: bool
    """Whether it ends early when it is told to."""

    @classmethod
    def of(cls, handler: Handler, policy: Policy) -> Duty:
        """With this policy for all handlers that do not say otherwise."""
        return cls(handler, policy.applied(handler), is_cancellable(handler.handler))

    @property
    def terms(self) -> Terms:
        """What the server has to know."""
        lease = int(self.policy.lease * 1e6)
        return Terms(self.handler.topic, lease, self.policy.max_attempts)


class Runner:
    """From its start until it is stopped, and everything that it took has ended.

    Args:
        schedule: Its way to Redis.
        duties: By topic; others may be added while it runs.
        context: For handlers.
        size: How many handlers run at once.
        separator: Between topic and id.
        adoption: Finds timers of redis-timers.
    """

    def __init__(
        self,
        schedule: Schedule,
        duties: Mapping[str, Duty],
        context: object,
        size: int,
        separator: str,
        adoption: Adoption,
    ) -> None:
        self._schedule = schedule
        self._duties = duties
        self._context = context
        self._size = size
        self._separator = separator
        self._crew = Crew(size, "redsync-timer")
        self._adoption = adoption
        self._news = Flag()
        self._running: set[Lease] = set()
        self._unstarted: set[Lease] = set()
        """Those of them that a thread or the event loop is about to begin."""
        self._untold = False
        """Whether some have ended, and those that are about to begin have to tell."""
        self._inside: set[object] = set()
        """The tasks or threads that are a part of this."""
        self._stopping = False
        self._cancelling = False
        self._ended = Flag()
        self._pauses = Pauses(_TROUBLE)
        self._answered = False
        self.begun = Flag()
        """Set once the server has answered, or has not: it is worked, waited, or over."""
        self._watch_again = 0.0

    # From start to end

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            redis.exceptions.RedisError, RedisTimersError: The first turn was refused. Later
                trouble is logged, and lived with until it is over.
        """
        self._schedule.news = self._news
        self._inside.add(current())
        try:
            await self._work()
            await self._finish()
            await self._adoption.end()
        except BaseException:
            # Cancelled, interrupted, or refused: what runs is to be run by others, and soon.
            self._stopping = True
            if self._answered:
                await self._cut_off()
            raise
        finally:
            self._schedule.unwatch()
            self._crew.dismiss()
            self._ended.set()
            self.begun.set()
            self._inside.discard(current())

    async def drain(self) -> int:
        """Run each timer that is due, once, and wait for the end; returns how many there were."""
        seen: set[bytes] = set()
        kept: list[Lease] = []
        self._adoption.forget()
        try:
            while True:
                turn, asked = await self._turn(self._size, leaving=True)
                # What is due at once again, as it failed or was armed anew, would go on for ever:
                # it is kept until all others had their turn.
                fresh = [each for each in turn.claimed if each.member not in seen]
                again = [each for each in turn.claimed if each.member in seen]
                kept += [self._hold(each, asked) for each in again]
                seen.update(each.member for each in fresh)
                self._begin_all(fresh, turn.now, asked)
                await self._all_ended()
                adopted = await self._adoption.look_now(
                    self._schedule, turn.unindexed, self._duties
                )
                if not (turn.claimed or adopted or turn.wait == 0):
                    break
            self._return(kept)
            await self._finish()
        except BaseException:
            self._return(kept)
            await self._cut_off()
            raise
        finally:
            self._crew.dismiss()
        return len(seen)

    async def stop(self, timeout: float | None) -> bool:
        """Take nothing new, and wait for the end of what runs; after the timeout, cut it off, and
        tell whether there was nothing to be cut.

        Whoever is inside only gives the word: it would wait for itself.
        """
        self.leave()
        if self.is_inside():
            return False
        if await self._ended.wait(timeout):
            return True
        complete = not self._running
        if not self._cancel() or not await self._ended.wait(_WINDING_UP):
            self._abandon()
            await self._ended.wait(_WINDING_UP)
        return complete

    def is_inside(self) -> bool:
        """Whether the caller is one of its handlers, or has interrupted `run`."""
        return current() in self._inside

    def leave(self) -> None:
        """Take nothing new, and end with what runs; nobody waits for that."""
        self._stopping = True
        self._news.set()

    # Turns

    async def _work(self) -> None:
        while not self._stopping:
            await self._round()

    async def _round(self) -> None:
        """One turn, and the wait for something to do."""
        self._news.clear()
        room = self._size - len(self._running)
        try:
            turn, asked = await self._turn(room, leaving=room <= 0)
        except (exceptions.RedisError, OSError, RedisTimersError) as error:
            if not self.begun.is_set() and not is_temporary(error):
                raise
            self.begun.set()
            await self._trouble(error)
            return
        self._answered = True
        self.begun.set()
        self._pauses.reset()
        alarm = monotonic() + self._wait(turn) / 1e6
        self._begin_all(turn.claimed, turn.now, asked)
        self._adoption.look(self._schedule, turn.unindexed, self._duties)
        if len(self._running) < self._size:
            self._watch()
        await self._wait_for_news(alarm - monotonic())

    async def _wait_for_news(self, seconds: float) -> None:
        end = monotonic() + seconds
        if self._unstarted:
            told = await self._news.wait(min(seconds, _STALLED))
            # If there can be no more threads, they may take long to begin, and nobody tells.
            if told or self._unstarted:
                return
        await self._news.wait(end - monotonic())

    def _wait(self, turn: Turn) -> int:
        """How long there is nothing to look for."""
        if len(turn.claimed) + len(self._running) >= self._size:
            return SLICE
        # What somebody else has claimed since is learned of before its lease is over.
        leases = [each.terms.lease for each in list(self._duties.values())]
        return min(SLICE if turn.wait is None else turn.wait, SLICE, *leases)

    async def _turn(self, room: int, *, leaving: bool) -> tuple[Turn, float]:
        terms = [each.terms for each in list(self._duties.values())]
        return await self._schedule.turn(room, "go" if leaving else "stay", terms)

    async def _trouble(self, error: Exception) -> None:
        pause = self._pauses.next()
        _log.warning("redsync: no timers are taken at the moment, trying again: %s", error)
        await self._news.wait(pause)

    def _watch(self) -> None:
        refused, self._schedule.refused = self._schedule.refused, None
        if refused is not None:
            _log.warning("redsync: timers may be late, as the server does not wake us: %s", refused)
            self._watch_again = monotonic() + SLICE / 1e6
        if monotonic() >= self._watch_again:
            self._schedule.watch()

    async def _finish(self) -> None:
        """Wait for what runs, report it, and have somebody else come next."""
        while True:
            self._news.clear()
            try:
                turn, _ = await self._turn(0, leaving=True)
            except (exceptions.RedisError, OSError, RedisTimersError) as error:
                if not self._running:
                    _log.warning("redsync: what timers came to cannot be reported: %s", error)
                    return
            else:
                self._give_back(turn.claimed)
            if self._running:
                await self._wait_for_news(SLICE / 1e6)
            elif not self._schedule.unreported:
                return

    async def _cut_off(self) -> None:
        self._cancel()
        await Worker(self._wind_up, "redsync-timers-end").join(_WINDING_UP)

    async def _wind_up(self) -> None:
        """After a cancellation: report what can be reported, without waiting long."""
        end = monotonic() + _WINDING_UP / 2
        while self._running and monotonic() < end:
            self._news.clear()
            if self._running:
                await self._news.wait(end - monotonic())
        self._abandon()
        await self._finish()
        await self._adoption.end()

    async def _all_ended(self) -> None:
        while True:
            self._news.clear()
            if not self._running:
                return
            await self._news.wait()

    # Runs

    def _begin_all(self, timers: list[Claimed], now: int, asked: float) -> None:
        leases = [self._hold(claimed, asked) for claimed in timers]
        self._running.update(leases)
        self._unstarted.update(leases)
        for lease in leases:
            lateness = max(0, now - lease.claimed.due) / 1e6
            self._crew.start(partial(self._job, self._duties[lease.claimed.topic], lease, lateness))

    def _hold(self, claimed: Claimed, asked: float) -> Lease:
        return self._schedule.hold(claimed, self._duties[claimed.topic].policy.lease, asked)

    def _return(self, kept: list[Lease]) -> None:
        while kept:
            lease = kept.pop()
            self._schedule.finish(lease, _back(lease.claimed))

    def _give_back(self, claimed: list[Claimed]) -> None:
        for each in claimed:
            lease = self._schedule.hold(each, 1.0, monotonic())
            self._schedule.finish(lease, _back(each))

    async def _job(self, duty: Duty, lease: Lease, lateness: float) -> None:
        lease.started = True
        self._inside.add(current())
        self._begun(lease)
        outcome = None
        try:
            outcome = await self._outcome(duty, lease, lateness)
        finally:
            self._inside.discard(current())
            self._end(lease, outcome)

    async def _outcome(self, duty: Duty, lease: Lease, lateness: float) -> Outcome | None:
        claimed, handler = lease.claimed, duty.handler
        if claimed.payload is None:
            return _outcome(claimed, "dead", error="the payload is missing")
        if not lease.remaining():
            return _back(claimed)  # the answer came too late; most likely somebody else has it
        try:
            payload = handler.load(claimed.payload)
        except RedisTimersPayloadError as error:
            _log.error("redsync: %s: %s", self._described(claimed), error)
            return _outcome(claimed, "dead", error=_text(error))
        except (Exception, SystemExit) as error:  # of a validator
            return self._failed(duty, claimed, error)
        arguments = (payload, self._context)[: handler.parameters]
        if handler.parameters == 3:
            arguments += (self._seen(lease, lateness),)
        return await self._called(duty, lease, arguments)

    async def _called(
        self, duty: Duty, lease: Lease, arguments: tuple[object, ...]
    ) -> Outcome | None:
        claimed, handler, policy = lease.claimed, duty.handler, duty.policy
        began = monotonic()
        if policy.timeout is not None and not duty.cancellable:
            lease.expires = began + policy.timeout
        try:
            call = (handler.handler, arguments, policy.timeout)
            if not await self._crew.call(*call, cancellable=duty.cancellable):
                return None  # nobody else must run it beside that, until the lease has run out
        except Retry as wish:
            return self._failed(duty, claimed, wish, wish.delay)
        except BaseException as error:
            if duty.cancellable and isinstance(error, KeyboardInterrupt):
                raise  # it is for the program, not for the handler
            # A handler may cancel itself, or call sys.exit(): that is its own affair.
            if self._cancelling and not isinstance(error, Exception):
                return _outcome(claimed, "cut")
            return self._failed(duty, claimed, error)
        took = monotonic() - began
        if policy.timeout is not None and took > policy.timeout:
            # A thread, or a coroutine that would not be cancelled.
            late = TimeoutError(f"it took {took:.3f} s, and its timeout is {policy.timeout} s")
            return self._failed(duty, claimed, late)
        return _outcome(claimed, "completed")

    def _failed(
        self, duty: Duty, claimed: Claimed, error: BaseException, delay: float | None = None
    ) -> Outcome:
        most = duty.policy.max_attempts
        what = f"{self._described(claimed)}: attempt {claimed.attempt} of {most} failed"
        if claimed.attempt >= most:
            _log.error("redsync: %s; it counts as dead", what, exc_info=error)
            return _outcome(claimed, "dead", error=_text(error))
        if delay is None:
            delay = duty.policy.backoff.pause(claimed.attempt)
        if isinstance(error, Retry):
            _log.info("redsync: %s as it wished; again in %.3f s", what, delay)
        else:
            _log.warning("redsync: %s; again in %.3f s", what, delay, exc_info=error)
        return _outcome(claimed, "again", after=int(delay * 1e6))

    def _end(self, lease: Lease, outcome: Outcome | None) -> None:
        # In this order: whoever sees that there is room sees the outcome too.
        self._schedule.finish(lease, outcome)
        self._running.discard(lease)
        self._untold = True
        self._begun(lease)

    def _begun(self, lease: Lease) -> None:
        """Tell of those that have ended, unless others are about to begin: they may end as soon,
        and then one turn is for all of them.
        """
        self._unstarted.discard(lease)
        # Of two threads, one that ends here and one that begins, either sees what the other did.
        if self._untold and not self._unstarted:
            self._untold = False
            self._news.set()

    def _cancel(self) -> bool:
        self._cancelling = True
        return self._crew.cancel()

    def _abandon(self) -> None:
        """Leave those that cannot be ended to themselves: their leases run out."""
        for lease in list(self._running):
            self._end(lease, None if lease.started else _back(lease.claimed))

    def _seen(self, lease: Lease, lateness: float) -> TimerRun:
        claimed = lease.claimed
        return TimerRun(
            topic=claimed.topic,
            timer_id=self._timer_id(claimed),
            attempt=claimed.attempt,
            scheduled_for=datetime_of(claimed.due),
            lateness=lateness,
            fence=claimed.fence,
            _remaining=lease.remaining,
        )

    def _timer_id(self, claimed: Claimed) -> str:
        skipped = len((claimed.topic + self._separator).encode())
        return readable(claimed.member[skipped:])

    def _described(self, claimed: Claimed) -> str:
        return f"timer {self._timer_id(claimed)!r} of topic {claimed.topic!r}"


def _outcome(claimed: Claimed, what: Any, *, after: int = 0, error: str = "") -> Outcome:
    return Outcome(claimed.topic, claimed.member, claimed.fence, what, after, error)


def _back(claimed: Claimed) -> Outcome:
    return _outcome(claimed, "back")


def _text(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception:
        text = f"{type(error).__name__}, which does not say what it is"
    # What a str may hold and UTF-8 may not.
    return text[:_ERROR_LENGTH].encode("utf-8", "backslashreplace").decode()
