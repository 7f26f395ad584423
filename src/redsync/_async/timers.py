"""The timers as their users hold them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal

from redis import exceptions

from .. import _environment
from .._arguments import checked_text, checked_timeout
from .._backoff import Backoff
from .._instants import checked_every, checked_instant, checked_when, datetime_of, micros_of
from .._protocol.keys import TimerKeys
from .._protocol.owner import new_owner
from .._protocol.resp import Reply
from .._protocol.scripts import Command
from .._protocol.timers import (
    Arming,
    TimerScripts,
    batches,
    member_of,
    parse_armed,
    readable,
)
from .._runtime.aio import (
    DEFAULT_SIZE,
    Client,
    Network,
    PerHome,
    Worker,
    checked_client,
    checked_handler,
)
from .._types import DeadTimer, MissedRuns, Timer
from ..exceptions import (
    RedisTimersConflictError,
    RedisTimersError,
    RedisTimersHandlerNotFoundError,
)
from ..routing import Handler, Policy, Router, checked_topic
from . import listing
from .adoption import Adoption
from .link import Link
from .membership import Membership
from .runner import Duty, Runner
from .schedule import Schedule
from .session import Session

_log = logging.getLogger("redsync")

_STOPPING: Final = 30.0
_ENDING: Final = 3.0
_LARGEST_ID: Final = 100_000


class Timers:
    """Calls a handler at a given time, in one of the processes that run for its topic.

        timers = Timers(redis_client=client, context={"mailer": mailer}, routers=[router])
        await timers.set_timer("reminders", "order-17", {"order": 17}, timedelta(hours=1))
        await timers.run_forever()          # in the workers

    A timer is never early by the server's clock, and runs at least once: a worker that dies in the
    middle is replaced after `lease` seconds, so a handler may run again, and should be idempotent.
    While the workers are well and the handler does not fail, it runs once.

    Args:
        redis_client: A client of redis-py, of the same kind as the namespace, asyncio or blocking.
            It is never closed, and its connections are not used.
        context: Handed to every handler; None: an empty dict.
        routers: Where the handlers are.
        concurrency: How many handlers run at once in this process. None: the environment's
            TIMERS_CONCURRENT_PROCESSING_LIMIT, else 100 for asyncio, and the usual size of a thread
            pool for threads.
        max_attempts, backoff, lease, timeout: As in `Router.handler`, for handlers that say nothing
            of it.
        timeline_key, payloads_key, separator: The names of the keys, and what stands between topic
            and id. None: the environment's TIMERS_TIMELINE_KEY, TIMERS_PAYLOADS_KEY and
            TIMERS_SEPARATOR, else `timers_timeline`, `timers_payloads` and `--`, as in
            redis-timers. Beside another `timeline_key`, and on a cluster, the usual name of the
            payloads is `{timeline_key}:payloads`, or `timeline_key:timers:payloads` if that has a
            `{tag}`.

    Raises:
        TypeError, ValueError: An argument makes no sense; nothing was sent.
    """

    def __init__(
        self,
        *,
        redis_client: Client,
        context: object = None,
        routers: Iterable[Router] | None = None,
        concurrency: int | None = None,
        max_attempts: int = 10,
        backoff: Backoff = Backoff(),  # noqa: B008 - it is frozen
        lease: float = 30.0,
        timeout: float | None = None,
        timeline_key: str | None = None,
        payloads_key: str | None = None,
        separator: str | None = None,
    ) -> None:
        self.redis_client = checked_client(redis_client)
        self.context = {} if context is None else context
        self.handlers_by_topics: dict[str, Handler] = {}
        self._policy = Policy(max_attempts, backoff, lease, timeout)
        self._concurrency = _environment.concurrency(concurrency, DEFAULT_SIZE)
        self._separator = _environment.separator(separator)
        _environment.warn_of_meaningless()
        clustered = Network(redis_client).clustered
        self._name, payloads = _environment.keys(timeline_key, payloads_key, clustered=clustered)
        keys = TimerKeys.of(self._name, payloads, clustered=clustered)
        self._scripts = TimerScripts(keys)
        self._duties: dict[str, Duty] = {}
        self._key = ("timers", keys.timeline, new_owner())
        self._homes: PerHome[_Home] = PerHome(partial(_Home, self._name, self._separator))
        self.include_routers(*(routers or ()))

    def __repr__(self) -> str:
        return f"<Timers {self._name!r} of {', '.join(self._duties) or 'no topic'}>"

    # Handlers

    def include_router(self, router: Router) -> None:
        """Add the handlers of a router; one for a topic that has one already replaces it.

        Raises:
            TypeError: For threads, a handler is a coroutine function.
        """
        if not isinstance(router, Router):
            raise TypeError(f"a router must be a redsync.Router, not {router!r}")
        for handler in router.handlers:
            checked_handler(handler.handler)
        for handler in router.handlers:
            self.handlers_by_topics[handler.topic] = handler
            self._duties[handler.topic] = Duty.of(handler, self._policy)
        home = self._homes.peek()
        if home is not None and home.membership.station is not None:
            home.membership.station.topics_changed()

    def include_routers(self, *routers: Router) -> None:
        """Add the handlers of several routers."""
        for each in routers:
            self.include_router(each)

    # Setting and removing

    async def set_timer(
        self,
        topic: str,
        timer_id: str,
        payload: object,
        activation_period: timedelta | None = None,
        *,
        activate_at: datetime | None = None,
        every: timedelta | None = None,
        missed: MissedRuns = MissedRuns.ONCE,
    ) -> datetime:
        """Have the topic's handler called with the payload.

        A timer of this topic that has the same id is replaced. If it runs at the moment, that run
        goes on to its end, and the new one begins then, or later, when it is due.

        Args:
            topic: Which handler.
            timer_id: A name for the timer.
            payload: What the handler's schema asks for.
            activation_period: How long from now, by the server's clock; zero or less: at once.
            activate_at: When, instead of `activation_period`: an aware datetime.
            every: Call it again and again, at fixed distances from the first time, until the timer
                is removed or replaced. Alone, the first time is one period from now.
            missed: For a recurring timer, what is made up for if nobody could run it in time.

        Returns:
            When it is due, in UTC.

        Raises:
            RedisTimersHandlerNotFoundError: There is no handler for the topic here.
            RedisTimersPayloadError: The payload does not fit the schema.
            RedisTimersConflictError: Another topic has a timer that would have the same name.
            TypeError, ValueError: Another argument makes no sense.
            redis.exceptions.RedisError: Redis refuses, or gave no answer: then the timer may have
                been set or not.
        """
        timer = Timer(topic, timer_id, payload, activation_period, activate_at, every, missed)
        return (await self.set_timers([timer]))[0]

    async def set_timers(self, timers: Iterable[Timer]) -> list[datetime]:
        """Set many timers, with few commands. Of those with the same topic and id the last counts.

        All are checked before the first one is set. Should Redis refuse later, or another topic
        have one of the names, those before it may have been set, and those after it not.

        Returns:
            When they are due, in the order given.

        Raises:
            As `set_timer`.
        """
        armings = [self._arming(each) for each in timers]
        latest: dict[bytes, Arming] = {}
        for each in armings:
            if latest.setdefault(each.member, each).topic != each.topic:
                raise _conflict(each.member)
            latest[each.member] = each
        instants: dict[bytes, int] = {}
        for batch in batches(latest.values()):
            instants.update(await self._arm(batch))
        return [datetime_of(instants[each.member]) for each in armings]

    async def remove_timer(self, topic: str, timer_id: str) -> bool:
        """Remove a timer.

        Returns:
            True only if no run has begun since it was set, or since the last instant of a recurring
            one, and none will. False: one has, it may be going on at this moment, but there will be
            no other; or there is no such timer.

        Raises:
            RedisTimersHandlerNotFoundError: There is no handler for the topic here.
            redis.exceptions.RedisError: Redis refuses, or gave no answer.
        """
        self._find_handler(topic)
        return await self._cancel(topic, timer_id) == b"cancelled"

    # Working

    async def handle_ready_timers(self) -> int:
        """Run each timer that is due, once, and wait for the end of it. What fails or is set anew
        is a matter for the next call, or for a worker.

        Returns:
            How many there were.
        """
        if not self._duties:
            return 0
        return await self._new_runner(self._homes.get()).drain()

    async def run_forever(self) -> None:
        """Run timers as they become due, until `stop`.

        A server that is away, also at the start, is logged and waited for. One that refuses at the
        start is told, as most likely something about the client is wrong; later that is logged. If
        this call is cancelled or interrupted, what runs is cancelled too where that can be, and
        given to others at once.

        Raises:
            RedisTimersError: It runs already, or has no handlers.
            redis.exceptions.RedisError: Redis refuses the first time.
        """
        home = self._homes.get()
        runner = self._begin(home)
        try:
            await runner.run()
        finally:
            home.runner = None

    async def stop(self, timeout: float | None = _STOPPING) -> bool:
        """End `run_forever`: take no more timers, and wait for the handlers that run.

        To be called in the event loop or process that runs them. It does nothing if they are not
        run, or not yet. Called by a handler, or in the handler of a signal that interrupts
        `run_forever`, it cannot wait, as that would be for itself: then it returns at once.

        Args:
            timeout: Seconds to wait; None: as long as it takes. What runs then is cancelled, if it
                is a coroutine, and given to others at once; the lease of a thread runs out.

        Returns:
            Whether all that ran came to its end; False also if it could not wait for it.
        """
        timeout = checked_timeout(timeout)
        runner = self._homes.get().runner
        return runner is None or await runner.stop(timeout)

    async def close(self) -> None:
        """Stop, and leave no connection behind. Timers stay in Redis; this instance is of no use
        any more.

        Raises:
            RedisTimersError: A handler of its own, or the handler of a signal that interrupts
                `run_forever`, wants to close it; nothing was done.
        """
        home = self._homes.get()
        if home.runner is not None and home.runner.is_inside():
            raise RedisTimersError(
                "close() would wait for its caller: use stop() here, and close()"
                " after the end of run_forever()"
            )
        await self._close(_STOPPING)

    async def _close(self, timeout: float) -> None:
        await self.stop(timeout)
        membership = self._homes.get().membership
        membership.end()
        await membership.leave(self._key, self)

    async def __aenter__(self) -> Timers:
        """Run timers in the background until the end of the body, and `close` then.

        Raises:
            RedisTimersError, redis.exceptions.RedisError: As `run_forever`.
        """
        home = self._homes.get()
        runner = self._begin(home)
        home.worker = Worker(partial(self._run_quietly, home, runner), "redsync-timers")
        try:
            await runner.begun.wait()
        except BaseException:
            runner.leave()
            raise
        if home.refused is not None:
            await self.close()
            raise home.refused
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            await self.close()
        else:
            # Cancelled or interrupted: as with run_forever, and nobody is kept waiting.
            await Worker(partial(self._close, 0.0), "redsync-timers-end").join(_ENDING)

    # Looking

    async def fetch_all_timers(self) -> tuple[list[str], dict[str, str]]:
        """All timers of all topics, in the order in which they are due, and their payloads: by the
        names that they have in Redis, `topic--id`. Those that run are among them.
        """
        return await listing.names_and_payloads(self._schedule())

    async def fetch_ready_timers(self, timestamp: datetime) -> list[str]:
        """The names of the timers, of all topics, that are due by that time.

        Raises:
            ValueError: The datetime is not aware.
        """
        micros = micros_of(checked_instant("timestamp", timestamp))
        return await listing.names_due_by(self._schedule(), micros)

    async def fetch_dead_timers(self) -> list[DeadTimer]:
        """The timers, of all topics, that have failed for good, in the order in which they did."""
        return await listing.dead_timers(self._schedule(), self._separator)

    async def revive_timer(self, topic: str, timer_id: str) -> bool:
        """Have a dead timer run again, now, with all its attempts, and once only if it was a
        recurring one.

        Returns:
            False if there is no such dead timer.

        Raises:
            RedisTimersError: The id is in use by a timer that is not dead, as is that of a series
                that goes on; nothing was changed.
        """
        member = self._member(checked_topic(topic), timer_id)
        reply = await self._ask(self._scripts.revive(new_owner(), topic, member))
        if reply == b"armed":
            raise RedisTimersError(
                f"the dead timer {timer_id!r} of topic {topic!r} cannot be revived, as one that is"
                " not dead has this id: remove that one, or discard the dead one"
            )
        return reply == b"revived"

    async def discard_timer(self, topic: str, timer_id: str) -> bool:
        """Forget a dead timer; False if there is no such one."""
        member = self._member(checked_topic(topic), timer_id)
        reply = await self._ask(self._scripts.discard(new_owner(), topic, member))
        return reply == b"discarded"

    # How it is done

    async def _cancel(self, topic: str, timer_id: str) -> Reply:
        member = self._member(topic, timer_id)
        return await self._ask(self._scripts.cancel(new_owner(), topic, member))

    def _find_handler(self, topic: str) -> Handler:
        handler = self.handlers_by_topics.get(topic) if isinstance(topic, str) else None
        if handler is None:
            raise RedisTimersHandlerNotFoundError(
                f"Handler is not found, topic={topic!r}; include a router that has it. Known"
                f" topics: {', '.join(map(repr, self.handlers_by_topics)) or 'none'}"
            )
        return handler

    def _member(self, topic: str, timer_id: str) -> bytes:
        if len(checked_text("timer_id", timer_id)) > _LARGEST_ID:
            raise ValueError(f"timer_id must be at most {_LARGEST_ID} characters")
        return member_of(topic, self._separator, timer_id)

    def _arming(self, timer: Timer) -> Arming:
        if not isinstance(timer, Timer):
            raise TypeError(f"timers must be of redsync.Timer, not {timer!r}")
        handler = self._find_handler(timer.topic)
        member = self._member(timer.topic, timer.timer_id)
        every = checked_every(timer.every, timer.missed)
        period, instant = checked_when(timer)
        return Arming(timer.topic, member, handler.dump(timer.payload), period, instant, every)

    async def _arm(self, batch: list[Arming]) -> dict[bytes, int]:
        now, other = parse_armed(await self._ask(self._scripts.arm(new_owner(), batch)))
        if other:
            raise _conflict(other)
        return {
            each.member: each.instant if each.period is None else now + each.period
            for each in batch
        }

    async def _ask(self, command: Command) -> Reply:
        return await self._schedule().ask(command)

    async def _pages(self, kind: Literal["timeline", "payloads", "dead"]) -> dict[bytes, bytes]:
        return await listing.pages(self._schedule(), kind)

    def _begin(self, home: _Home) -> Runner:
        if home.runner is not None:
            raise RedisTimersError("these timers are being run already; stop() ends that")
        if not self._duties:
            raise RedisTimersError("there are no handlers to run: include a router that has some")
        home.runner = self._new_runner(home)
        return home.runner

    def _new_runner(self, home: _Home) -> Runner:
        return Runner(
            self._schedule(),
            self._duties,
            self.context,
            self._concurrency,
            self._separator,
            home.adoption,
        )

    async def _run_quietly(self, home: _Home, runner: Runner) -> None:
        home.refused = None
        try:
            await runner.run()
        except (exceptions.RedisError, OSError, RedisTimersError) as error:
            home.refused = error
        except Exception:
            _log.exception("redsync: timers are not run any more; this is a fault of redsync")
        finally:
            home.runner = None

    def _schedule(self) -> Schedule:
        membership = self._homes.get().membership
        schedule = membership.attended()
        if schedule is None:
            with membership.joining(
                self.redis_client, self._key, self._make_schedule, self
            ) as schedule:
                pass  # there is nothing to be made
        return schedule

    def _make_schedule(self, session: Session) -> Schedule:
        link = Link(session.hub, self._scripts.keys.timeline)
        # Nothing that holds this instance: if it is forgotten, the schedule has to go too.
        wake = partial(session.wake, self._key)
        return Schedule(self._name, link, self._scripts, partial(list, self._duties), wake)


class _Home:
    """What an instance has in one process and loop."""

    def __init__(self, name: str, separator: str) -> None:
        self.membership: Membership[Schedule] = Membership(f"the timers {name!r}", RedisTimersError)
        self.adoption = Adoption(separator)
        self.runner: Runner | None = None
        self.worker: Worker | None = None
        self.refused: Exception | None = None
        """What Redis said to the worker in the background, if it would not have it."""


def _conflict(member: bytes) -> RedisTimersConflictError:
    return RedisTimersConflictError(
        f"timers of two topics are called {readable(member)!r}: choose another id, or a separator"
        " that no topic and no id contains"
    )
