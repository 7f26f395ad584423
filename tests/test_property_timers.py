"""Timers in random courses of events, step by step beside a model of what they promise."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from redsync import (
    Backoff,
    MissedRuns,
    RedisTimersConflictError,
    RedisTimersError,
    RedisTimersHandlerNotFoundError,
    RedisTimersPayloadError,
    Retry,
)
from redsync import Timer as Wish
from redsync._instants import datetime_of, micros_of
from redsync._protocol.timers import Claimed
from redsync.cli.server import Server

from .support.process import Kind
from .support.processes import KIND, Process, ProcessesMachine
from .support.properties import PICKS, failing, limit, own, picked, run
from .support.timers_model import Dead, Timer, TimersModel, What
from .support.timers_view import LEASE, MOST_ATTEMPTS, Ghost, TimersState, TimersView, now
from .support.worlds import World

pytestmark = pytest.mark.proof

MINUTE: Final = 60_000_000
PAUSE: Final = MINUTE
RETRY: Final = 2 * MINUTE

TOPICS: Final = ("a", "a--b", "n", "ü\n")
IDS: Final = ("1", "b--1", "ключ", "--", "\x00 ")
NUMBERS: Final = "n"
"""The topic whose payloads are whole numbers."""
PLAIN: Final = "ü\n"
"""The topic whose handlers are plain functions, in asyncio too."""

TOPIC: Final = st.sampled_from(TOPICS)
ID: Final = st.sampled_from(IDS)
PAYLOAD: Final = st.sampled_from([7, None, "x", {"ü": [1, None]}, -1, 2.5])
MINUTES: Final = st.sampled_from([0, 0, -1, 1, 2, 3, 10])
"""From now.  Whole minutes pass, and far less than one by themselves: so nothing is nearly due."""
PASSED: Final = st.sampled_from([0, 1, 1, 2, 3, 5, 1000])
EVERY: Final = st.none() | st.tuples(
    st.sampled_from([1, 2, 3]), st.sampled_from(["once", "all", "skip"])
)
DEEDS: Final = st.lists(
    st.sampled_from(
        [
            "return",
            "raise",
            "retry",
            "retry now",
            "exit",
            "set",
            "set now and raise",
            "remove",
            "remove and raise",
            "set and remove",
        ]
    ),
    min_size=1,
    max_size=MOST_ATTEMPTS,
)
"""What a handler does in each attempt, and in those after the last of these."""


@dataclass(eq=False)
class Run:
    """What a handler has seen, and done."""

    topic: str
    timer_id: str
    payload: object
    attempt: int
    due: int
    lateness: float
    fence: int
    remaining: float
    at: int
    deed: str
    results: list[tuple[str, Any]] = field(default_factory=list)
    """What came of its calls."""


@dataclass(eq=False)
class Instance:
    """A Timers that is open."""

    process: Process
    timers: Any
    topics: list[str]
    size: int


class TimersMachine(ProcessesMachine):
    """Processes of both kinds that set and run timers of one timeline, and redis-timers."""

    def __init__(self, server: Server, worlds: Mapping[Kind, World]) -> None:
        super().__init__(server, worlds)
        self.name = own("t")
        self.view = TimersView(self.raw, server, self.name, TOPICS)
        self.model = TimersModel()
        self.state: TimersState = self.view.state()
        self.open: list[Instance] = []
        self.ghosts: list[tuple[Ghost, Claimed]] = []
        self.deeds: dict[tuple[str, str], list[str]] = {}
        self.runs: list[Run] = []
        self.fence = 0
        """The highest one of a run."""
        self.turn = 0

    # Beginning and end

    @initialize(kinds=st.lists(KIND, min_size=1, max_size=2), size=st.sampled_from([100, 1]))
    def begin(self, kinds: list[Kind], size: int) -> None:
        for number, kind in enumerate(kinds):
            self.instance_comes(number, list(TOPICS), size, kind)

    def teardown(self) -> None:
        for each in self.open:
            each.process.desk.call(each.timers.close)
        self.end(not failing())

    @rule(
        process=PICKS,
        topics=st.lists(TOPIC, min_size=1, unique=True),
        size=st.sampled_from([100, 1, 2]),
        fresh=st.none() | KIND,
    )
    def instance_comes(
        self, process: int, topics: list[str], size: int, fresh: Kind | None
    ) -> None:
        its = self.process(process, fresh)
        timers = its.world.names.Timers(
            redis_client=its.client,
            concurrency=size,
            max_attempts=MOST_ATTEMPTS,
            backoff=Backoff(base=PAUSE / 1e6, factor=1, maximum=1e6, jitter=0),
            lease=LEASE / 1e6,
            timeline_key=self.name,
        )
        instance = Instance(its, timers, [], size)
        self.open.append(instance)
        for topic in topics:
            self.learn(instance, topic)

    @rule(instance=PICKS, topic=st.none() | TOPIC)
    def instance_changes(self, instance: int, topic: str | None) -> None:
        """It gets another handler, or is closed."""
        its = self.any_instance(instance)
        if topic is None:
            self.open.remove(its)
            its.process.desk.call(its.timers.close)
            refused = its.process.desk.begin(its.timers.handle_ready_timers).error()
            assert isinstance(refused, RedisTimersError)
        elif topic not in its.topics:
            self.learn(its, topic)

    def any_instance(self, pick: int) -> Instance:
        """One of those that are open, or a new one."""
        if not self.open:
            self.instance_comes(pick, list(TOPICS), 100, None)
        return self.open[pick % len(self.open)]

    def learn(self, its: Instance, topic: str) -> None:
        router = its.process.world.names.Router()
        schema = int if topic == NUMBERS else None
        handle = self.handler(its, topic)
        router.handler(topic=topic, schema=schema)(handle)
        its.timers.include_router(router)
        its.topics.append(topic)

    # Handlers

    def handler(self, its: Instance, topic: str) -> Callable[..., Any]:
        calls = topic != PLAIN or not its.process.cancels  # a thread cannot await

        def plain(data: object, context: object, run: Any) -> None:
            for call in self.handle(its, data, run, calls):
                call()

        async def coroutine(data: object, context: object, run: Any) -> None:
            for call in self.handle(its, data, run, calls):
                result = call()
                assert inspect.isawaitable(result)
                await result

        return coroutine if its.process.cancels and topic != PLAIN else plain

    def handle(
        self, its: Instance, data: object, run: Any, calls: bool
    ) -> Iterator[Callable[[], Any]]:
        """The calls of a handler, who then returns or raises."""
        deeds = self.deeds.get((run.topic, run.timer_id), ["return"])
        deed = deeds[min(run.attempt, len(deeds)) - 1]
        entry = Run(
            run.topic,
            run.timer_id,
            data,
            run.attempt,
            micros_of(run.scheduled_for),
            run.lateness,
            run.fence,
            run.remaining(),
            now(),
            deed,
        )
        self.runs.append(entry)
        timers = its.timers
        if calls and deed.startswith("set"):
            period = timedelta(0) if "now" in deed else timedelta(minutes=1)
            yield _noted(
                entry, "set", lambda: timers.set_timer(run.topic, run.timer_id, data, period)
            )
        if calls and "remove" in deed:
            yield _noted(entry, "removed", lambda: timers.remove_timer(run.topic, run.timer_id))
        if "raise" in deed:
            raise ValueError(deed)
        if deed == "exit":
            raise SystemExit(deed)
        if deed == "retry":
            raise Retry(timedelta(microseconds=RETRY))
        if deed == "retry now":
            raise Retry(0)

    # Setting and removing

    @rule(
        instance=PICKS,
        topic=TOPIC,
        timer_id=ID,
        payload=PAYLOAD,
        minutes=MINUTES,
        at=st.booleans(),
        every=EVERY,
        deeds=DEEDS,
    )
    def set(
        self,
        instance: int,
        topic: str,
        timer_id: str,
        payload: object,
        minutes: int,
        at: bool,
        every: tuple[int, str] | None,
        deeds: list[str],
    ) -> None:
        wish = _wish(topic, timer_id, payload, minutes, at, every)
        self.set_them(self.any_instance(instance), [wish])
        self.deeds[topic, timer_id] = deeds

    @rule(
        instance=PICKS,
        wishes=st.lists(st.tuples(TOPIC, ID, MINUTES, EVERY), min_size=2, max_size=4),
        deeds=DEEDS,
    )
    def set_several(
        self,
        instance: int,
        wishes: list[tuple[str, str, int, tuple[int, str] | None]],
        deeds: list[str],
    ) -> None:
        its = self.any_instance(instance)
        self.set_them(
            its,
            [
                _wish(topic, timer_id, number, minutes, False, every)
                for number, (topic, timer_id, minutes, every) in enumerate(wishes)
            ],
        )
        for topic, timer_id, _, _ in wishes:
            self.deeds[topic, timer_id] = deeds

    def set_them(self, its: Instance, wishes: list[Wish]) -> None:
        begun = now()
        call = its.process.desk.begin(its.timers.set_timers, wishes)
        error = call.error()
        ended = now()
        topics = {_member(each.topic, each.timer_id): each.topic for each in wishes}
        if any(each.topic not in its.topics for each in wishes):
            assert isinstance(error, RedisTimersHandlerNotFoundError), repr(error)
        elif any(each.topic == NUMBERS and type(each.payload) is not int for each in wishes):
            assert isinstance(error, RedisTimersPayloadError), repr(error)
        elif any(
            topics[_member(each.topic, each.timer_id)] != each.topic for each in wishes
        ) or any(
            member in self.model.timers
            and self.model.timers[member].known
            and self.model.timers[member].topic != topic
            for member, topic in topics.items()
        ):
            assert isinstance(error, RedisTimersConflictError), repr(error)
        else:
            # Of those with the same name the last counts, and its time is told for all of them.
            last = {_member(each.topic, each.timer_id): each for each in wishes}
            for wish, due in zip(wishes, call.result(), strict=True):
                wish = last[_member(wish.topic, wish.timer_id)]
                self.has_set(wish, micros_of(due), begun, ended)

    def has_set(self, wish: Wish, due: int, begun: int, ended: int) -> None:
        period = wish.activation_period
        if wish.activate_at is not None:
            assert due == micros_of(wish.activate_at)
        elif period is not None:
            micros = max(0, period // timedelta(microseconds=1))
            assert begun + micros <= due <= ended + micros
        every = None if wish.every is None else wish.every // timedelta(microseconds=1)
        payload = _dumped(wish.payload)
        new = Timer(wish.topic, wish.timer_id, payload, due, every, wish.missed.value)
        self.model.set(_member(wish.topic, wish.timer_id), new)

    @rule(instance=PICKS, topic=TOPIC, timer_id=ID, which=st.none() | PICKS)
    def remove(self, instance: int, topic: str, timer_id: str, which: int | None) -> None:
        timer = None if which is None else picked(which, self.armed())
        if timer is not None:
            topic, timer_id = timer.topic, timer.timer_id
        its = self.any_instance(instance)
        call = its.process.desk.begin(its.timers.remove_timer, topic, timer_id)
        error = call.error()
        if topic in its.topics:
            assert call.result() == self.model.remove(_member(topic, timer_id), topic)
        else:
            assert isinstance(error, RedisTimersHandlerNotFoundError), repr(error)

    def armed(self) -> list[Timer]:
        return [timer for _, timer in sorted(self.model.timers.items())]

    # Working

    @rule(instance=PICKS, minutes=PASSED)
    def handle_ready(self, instance: int, minutes: int) -> None:
        self.time_passes(minutes)
        its = self.any_instance(instance)
        self.runs = []
        begun = now()
        count = its.process.desk.call(its.timers.handle_ready_timers)
        Handled(self, its, begun, now()).check(count)
        self.fence = max([self.fence, *(each.fence for each in self.runs)])

    @rule(topics=st.lists(TOPIC, min_size=1, unique=True), minutes=PASSED)
    def somebody_takes_timers_and_dies(self, topics: list[str], minutes: int) -> None:
        self.time_passes(minutes)
        begun = now()
        ghost = self.view.claim(topics)
        ended = now()
        claimed = {each.member.decode(): each for each in ghost.claimed}
        for member in [*self.model.timers]:
            timer = self.model.timers[member]
            is_due = timer.topic in topics and timer.known and timer.latest <= begun
            if is_due and self.model.claim(member, begun, ended) == "run":
                each = claimed.pop(member)
                assert (each.due, each.attempt, each.payload, each.held) == (
                    timer.due,
                    timer.attempts,
                    timer.payload,
                    False,
                )
                assert each.fence > self.fence
                self.model.begin(member, each.fence, begun, ended)
                self.ghosts.append((ghost, each))
        assert not claimed, f"too early, or another's: {claimed}"
        self.fence = max([self.fence, *(each.fence for each in ghost.claimed)])
        del self.ghosts[:-8]

    @rule(ghost=PICKS, what=st.sampled_from(["completed", "again", "back", "cut", "dead", "renew"]))
    def the_dead_come_back(self, ghost: int, what: Any) -> None:
        found = picked(ghost, self.ghosts)
        if found is None:
            self.somebody_takes_timers_and_dies(list(TOPICS), 1)
            return
        its, claimed = found
        member, begun = claimed.member.decode(), now()
        if what == "renew":
            renewed = its.renew(claimed)
            assert renewed == self.model.renew(member, claimed.fence, begun, now())
        else:
            its.report(claimed, what, PAUSE)
            until = now() + PAUSE
            error = "of a ghost"
            self.model.settle(member, claimed.fence, what, begun + PAUSE, until, error)

    # Dead timers

    @rule(instance=PICKS, dead=PICKS, topic=st.none() | TOPIC, revive=st.booleans())
    def a_dead_one_is_called(
        self, instance: int, dead: int, topic: str | None, revive: bool
    ) -> None:
        its = self.any_instance(instance)
        found = picked(dead, [self.model.dead[each] for each in sorted(self.model.dead)])
        if found is None:
            self.handle_ready(instance, 3)
            return
        topic = topic or found.topic
        member = _member(topic, found.timer_id)
        there = self.model.dead.get(member)
        there = there if there is not None and there.topic == topic else None
        begun = now()
        if not revive:
            answer = its.process.desk.call(its.timers.discard_timer, topic, found.timer_id)
        else:
            call = its.process.desk.begin(its.timers.revive_timer, topic, found.timer_id)
            error = call.error()
            if there is not None and member in self.model.timers:
                assert isinstance(error, RedisTimersError), repr(error)
                return
            answer = call.result()
        assert answer == (there is not None)
        if there is not None:
            del self.model.dead[member]
        if revive and there is not None:
            due = self.view.state().timeline[member]
            assert begun <= due <= now()
            self.model.set(member, Timer(topic, there.timer_id, there.payload, due))

    # What goes on elsewhere

    def time_passes(self, minutes: int) -> None:
        self.view.pass_time(minutes * MINUTE)
        self.model.pass_time(minutes * MINUTE)

    def lose_data(self) -> None:
        self.raw.flushall()
        self.model = TimersModel()

    @rule(
        topic=st.sampled_from(["a", "n", "ü\n"]),
        timer_id=st.sampled_from(["1", "old", "ключ"]),
        payload=st.sampled_from([b"8", b" 9", b'"x"', b"{", b"", None]),
        minutes=MINUTES,
        removed=st.none() | PICKS,
    )
    def redis_timers_sets_or_removes(
        self,
        topic: str,
        timer_id: str,
        payload: bytes | None,
        minutes: int,
        removed: int | None,
    ) -> None:
        if removed is not None:
            self.redis_timers_removes(removed)
            return
        member = _member(topic, timer_id)
        if member in self.model.left:
            return  # what is left of it may be come across first, or not
        due = (now() + minutes * MINUTE) // 1_000_000 * 1_000_000
        timer = self.model.timers.get(member)
        if timer is None:
            timer = Timer(topic, timer_id, payload, due, known=False)
            self.model.timers[member] = timer
        elif timer.known and due <= timer.due:
            return  # it is noticed after an hour
        elif timer.known:
            timer.moved = due
        timer.payload = payload
        if not timer.known:
            timer.due = due
            timer.act(due)
        self.view.set_as_before(member, payload, due)

    def redis_timers_removes(self, which: int) -> None:
        choice = [each for each in self.armed() if each.timer_id in ("1", "old", "ключ")]
        timer = picked(which, [each for each in choice if each.run is None])
        if timer is not None and timer.topic != "a--b":
            member = _member(timer.topic, timer.timer_id)
            self.view.remove_as_before(member)
            del self.model.timers[member]
            if timer.known:
                self.model.left.add(member)

    # What has to be true

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        self.view.check_lives()
        state = self.state = self.view.state()
        timers = self.model.timers
        for member, timer in timers.items():
            self.follow(timer, state, member)
        due = {member: t.due if t.moved is None else t.moved for member, t in timers.items()}
        assert state.timeline == due, f"{state.timeline} is not {due}"
        payloads = {member: t.payload for member, t in timers.items() if t.payload is not None}
        assert state.payloads == payloads, f"{state.payloads} are not {payloads}"
        known = {member for member, timer in timers.items() if timer.known}
        assert known <= state.records.keys() <= known | self.model.left, state.records
        self.told(state)

    def follow(self, timer: Timer, state: TimersState, member: str) -> None:
        record = state.records.get(member)
        if record is None:
            assert not timer.known, f"{member!r} has no record"
            return
        if not timer.known and member not in self.model.left:
            timer.known = True  # somebody has come across it
        if timer.moved is not None and record.due == timer.moved:
            timer.arm(timer.moved)
            timer.every = timer.moved = None
        if not timer.known:
            return
        assert record.due == timer.due, f"{member!r}: {record}"
        assert record.attempts == timer.attempts, f"{member!r}: {record}, {timer}"
        assert record.fence == (timer.run or 0), f"{member!r}: {record}, {timer}"
        mark = "1" if timer.rearmed else "2" if timer.cut else "0"
        assert record.mark == mark, f"{member!r}: {record}, {timer}"
        every = "" if timer.every is None else f"{timer.every} {timer.missed}"
        assert record.every == every, f"{member!r}: {record}, {timer}"
        [(topic, at)] = state.entries[member]
        assert topic == timer.topic, f"{member!r} is in the index of {topic!r}"
        assert timer.earliest <= at <= timer.latest, f"{member!r}: {at}, {timer}"
        timer.act(at)
        timer.seq = record.seq

    def told(self, state: TimersState) -> None:
        """What the lists say."""
        self.turn += 1
        its = picked(self.turn, self.open)
        if its is None:
            return
        names, payloads = its.process.desk.call(its.timers.fetch_all_timers)
        in_order = sorted(state.timeline, key=lambda each: (state.timeline[each], each.encode()))
        assert (names, payloads) == (
            in_order,
            {member: payload.decode() for member, payload in state.payloads.items()},
        )
        instant = datetime_of(now() + MINUTE // 2)
        ready = its.process.desk.call(its.timers.fetch_ready_timers, instant)
        assert ready == [each for each in in_order if state.timeline[each] <= micros_of(instant)]
        dead = its.process.desk.call(its.timers.fetch_dead_timers)
        found = {_member(each.topic, each.timer_id): each for each in dead}
        assert found.keys() == self.model.dead.keys(), f"dead are {found}"
        for member, each in self.model.dead.items():
            _check_dead(each, found[member])


class Handled:
    """Follows what a call of handle_ready_timers has done."""

    def __init__(self, machine: TimersMachine, its: Instance, begun: int, ended: int) -> None:
        self.model = machine.model
        self.fence = machine.fence
        self.its = its
        self.begun = begun
        self.ended = ended
        self.runs = {_member(each.topic, each.timer_id): each for each in machine.runs}
        assert len(self.runs) == len(machine.runs), f"some ran twice: {machine.runs}"
        self.in_order = machine.runs
        self.there = machine.view.state().timeline
        self.count = 0
        self.keys = {
            member: (timer.latest, timer.seq)
            for member, timer in self.model.timers.items()
            if timer.known and timer.attempts == 0 and timer.moved is None
        }

    def check(self, count: int) -> None:
        if self.its.size == 1:
            self.check_order()
        for member in [*self.model.timers]:
            self.follow(member)
        assert not self.runs, f"they should not have run: {self.runs}"
        assert count == self.count, f"{count}, not {self.count}"

    def check_order(self) -> None:
        """Of one topic, timers are handed out in the order of their times, then of their arming."""
        for topic in self.its.topics:
            members = [
                _member(topic, each.timer_id) for each in self.in_order if each.topic == topic
            ]
            keys = [self.keys[member] for member in members if member in self.keys]
            assert keys == sorted(keys), f"not in order: {members}, {keys}"

    def follow(self, member: str) -> None:
        """What became of one timer, which may first have died, or have missed some instants."""
        while member in self.model.timers:
            timer = self.model.timers[member]
            if timer.topic not in self.its.topics or timer.earliest > self.ended:
                return
            surely = timer.latest <= self.begun and (timer.known or not self.model.left)
            if not surely and member not in self.runs and member in self.there:
                return
            result = self.model.claim(member, self.begun, self.ended)
            if result == "later":
                return
            if result == "run":
                self.count += 1
                self.ran(member, timer)
                return

    def ran(self, member: str, timer: Timer) -> None:
        problem = _problem(timer)
        if problem is not None:
            self.model.begin(member, 1, self.begun, self.ended)
            self.model.settle(member, 1, "dead", 0, 0, problem)
            return
        assert member in self.runs, f"{member!r} is due, and did not run"
        run = self.runs.pop(member)
        assert timer.payload is not None
        assert run.payload == json.loads(timer.payload)
        assert (run.topic, run.attempt, run.due) == (timer.topic, timer.attempts, timer.due)
        assert run.due <= run.at, f"{run.due - run.at} us early"
        assert self.begun - run.due <= run.lateness * 1e6 + 1 and run.lateness >= 0
        assert run.fence > self.fence
        assert 0 < run.remaining <= LEASE / 1e6
        self.model.begin(member, run.fence, self.begun, self.ended)
        for what, result in run.results:
            if what == "set":
                payload = _dumped(run.payload)
                new = Timer(timer.topic, timer.timer_id, payload, micros_of(result))
                self.model.set(member, new)
            else:
                assert result == self.model.remove(member, timer.topic), run
        self.settle(member, run)

    def settle(self, member: str, run: Run) -> None:
        fails = "raise" in run.deed or run.deed == "exit" or run.deed.startswith("retry")
        what: What = "completed"
        if fails:
            what = "dead" if run.attempt == MOST_ATTEMPTS else "again"
        pause = {"retry": RETRY, "retry now": 0}.get(run.deed, PAUSE)
        self.model.settle(
            member, run.fence, what, run.at + pause, self.ended + pause, run.deed.split()[0]
        )
        timer = self.model.timers.get(member)
        if (
            timer is not None
            and timer.run is None
            and timer.earliest <= self.ended
            and self.model.claim(member, self.begun, self.ended) == "run"
        ):
            timer.attempts -= 1  # it may have been taken again at once, and given back
            timer.act(timer.due, self.ended)


def _noted(entry: Run, what: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """A call whose result is noted."""

    def noted() -> Any:
        result = call()
        if not inspect.isawaitable(result):
            entry.results.append((what, result))
            return result

        async def awaited() -> Any:
            found = await result
            entry.results.append((what, found))
            return found

        return awaited()

    return noted


def _wish(
    topic: str,
    timer_id: str,
    payload: object,
    minutes: int,
    at: bool,
    every: tuple[int, str] | None,
) -> Wish:
    period = timedelta(minutes=minutes)
    return Wish(
        topic,
        timer_id,
        payload,
        None if at else period,
        datetime.now(timezone.utc) + period if at else None,
        None if every is None else timedelta(minutes=every[0]),
        MissedRuns.ONCE if every is None else MissedRuns(every[1]),
    )


def _dumped(payload: object) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode()


def _member(topic: str, timer_id: str) -> str:
    return f"{topic}--{timer_id}"


def _problem(timer: Timer) -> str | None:
    """Why it dies without a run, if so."""
    if timer.payload is None:
        return "missing"
    try:
        payload = json.loads(timer.payload)
    except ValueError:
        return ""
    return "" if timer.topic == NUMBERS and type(payload) is not int else None


def _check_dead(expected: Dead, found: Any) -> None:
    assert (found.payload, found.attempts, micros_of(found.scheduled_for)) == (
        expected.payload,
        expected.attempts,
        expected.due,
    )
    assert expected.error.lower() in found.error.lower(), f"{found} is not {expected}"


@pytest.mark.timeout(limit())
def test_timers_keep_their_promises_in_random_courses(
    server: Server, worlds: Mapping[Kind, World], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "redsync")  # handlers fail again and again
    run(lambda: TimersMachine(server, worlds), examples=80, steps=30)
