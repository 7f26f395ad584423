"""Events in random courses of events, step by step beside a model of what they promise."""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from redis import Redis

from redsync import RedisEventError, RedisEventTimeoutError
from redsync._protocol import scripts
from redsync._protocol.keys import EventKeys
from redsync.cli.server import Server

from .support.process import Kind
from .support.processes import KIND, PATIENCE, PAUSE, Process, ProcessesMachine
from .support.properties import NAMES, PICKS, failing, limit, own, picked, run, within
from .support.worlds import Actor, Call, World

pytestmark = pytest.mark.proof

GRACE: Final = 2000
"""Milliseconds for which a signal is kept for whoever popped it."""

_READ = """
local immortal = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then
    immortal[#immortal + 1] = key
  end
end
return {
  redis.call("LRANGE", KEYS[1], 0, -1), redis.call("ZRANGE", KEYS[2], 0, -1, "WITHSCORES"),
  immortal,
}
"""


@dataclass(frozen=True)
class State:
    """What the server holds."""

    listed: int
    astray: int
    """Signals that somebody has, or had, and has not confirmed."""


class EventView:
    """Looks at one event, and meddles with it."""

    def __init__(self, client: Redis, name: str) -> None:
        self.keys = EventKeys.of("redsync:event", name)
        self._all = (self.keys.signals, self.keys.open, self.keys.sets)
        self._client: Any = client  # redis-py's types know bytes and str alike, and awaitables
        self._read = client.register_script(_READ)
        self._ghosts = itertools.count(1)
        self._popped: list[object] = []

    def state(self) -> State:
        """What is there, which has to make sense at every instant."""
        listed, flat, immortal = self._read(self._all, client=self._client)
        known = dict(zip(flat[::2], map(float, flat[1::2]), strict=True))
        signals = {each for each, score in known.items() if score >= 0}
        assert listed == sorted(set(listed)), f"the list is not in order: {listed}"
        assert all(known.get(each) == 0 for each in listed), f"unknown signals: {listed}, {known}"
        for each, score in known.items():
            assert (score < 0) == each.startswith(b"confirmed "), f"{each!r} has {score}"
        expected = {self.keys.signals} if listed else set()
        expected |= {self.keys.open} if signals else set()
        assert set(immortal) == expected, f"live for ever: {immortal}, with {listed}, {known}"
        return State(len(listed), len(signals) - len(listed))

    def end_leases(self) -> None:
        """Have the time be over in which signals had to be confirmed."""
        for signal, end in self._client.zrange(self.keys.open, 0, -1, withscores=True):
            if end > 0:
                self._client.zadd(self.keys.open, {signal: 1}, xx=True)

    # Those who died

    def pop(self) -> bool:
        """Pop a signal, and do no more for now."""
        popped = self._client.lpop(self.keys.signals)
        if popped is not None:
            self._popped.append(popped)
        return popped is not None

    def take(self) -> bool:
        """The same, as one who found nobody in line."""
        owner = f"ghost:{next(self._ghosts)}"
        taken: bool = self._call("take", owner, GRACE, "0") == 1
        if taken:
            self._popped.append(owner)
        return taken

    def confirm(self) -> bool:
        """One of those who popped something confirms it, if it may."""
        return bool(self._popped) and self._call("confirm", self._popped.pop(0)) == 1

    def set_and_cut(self) -> None:
        """Add a signal, and close all connections before anybody hears of it."""
        with self._client.pipeline(transaction=False) as pipe:
            text = scripts._SCRIPTS["event/set"]
            pipe.eval(text, 3, *self._all, f"ghost:{next(self._ghosts)}")
            pipe.client_kill_filter(_type="normal", skipme=True)
            pipe.execute()

    def _call(self, script: str, *arguments: object) -> Any:
        return self._client.eval(scripts._SCRIPTS[f"event/{script}"], 3, *self._all, *arguments)


@dataclass(eq=False)
class Instance:
    """A RedisEvent that is open."""

    process: Process
    event: Any
    joined: bool = False


@dataclass(eq=False)
class Wait:
    """Somebody in line."""

    instance: Instance
    actor: Actor
    call: Call
    began: float
    timeout: float | None
    withdrawn: bool = False
    """Whether it was cancelled, or its instance closed: both may come too late."""
    overtaken: bool = False
    """Whether somebody was woken who came later."""


class EventMachine(ProcessesMachine):
    """Processes of both kinds that share one event."""

    def __init__(self, server: Server, worlds: Mapping[Kind, World]) -> None:
        super().__init__(server, worlds)
        self.open: list[Instance] = []
        self.lines: dict[Process, list[Wait]] = {}
        self.signals = 0
        """Those that were set, and have woken nobody yet."""
        self.astray = 0
        """So many of them may have been popped by somebody who died."""
        self.state = State(0, 0)

    def waits(self) -> list[Wait]:
        return [each for line in self.lines.values() for each in line]

    def any_instance(self, pick: int) -> Instance:
        """One of those that are open, or a new one."""
        if not self.open:
            self.instance_comes(pick, False, None)
        return self.open[pick % len(self.open)]

    # Beginning and end

    @initialize(name=NAMES, kinds=st.lists(KIND, min_size=1, max_size=2))
    def begin(self, name: str, kinds: list[Kind]) -> None:
        self.name = own(name)
        self.view = EventView(self.raw, self.name)
        for kind in kinds:
            self.process(0, kind)

    def teardown(self) -> None:
        well = not failing()
        for wait in self.waits():
            wait.withdrawn = True
        for each in self.open:
            each.process.desk.call(each.event.close)
        for wait in self.waits():
            wait.call.error(PATIENCE)
        self.end(well)

    @rule(process=PICKS, alias=st.booleans(), fresh=st.none() | KIND)
    def instance_comes(self, process: int, alias: bool, fresh: Kind | None) -> None:
        its = self.process(process, fresh)
        name = f"{{{self.name}}}" if alias and not {*"{}"} & {*self.name} else self.name
        self.open.append(Instance(its, its.world.names.RedisEvent(its.client, name)))

    @rule(instance=PICKS, closed=st.booleans())
    def instance_goes(self, instance: int, closed: bool) -> None:
        its = picked(instance, self.open)
        if its is None:
            return
        waits = [wait for wait in self.waits() if wait.instance is its]
        if closed:
            self.open.remove(its)
            for wait in waits:
                wait.withdrawn = True
            its.process.desk.call(its.event.close)
            refused = its.process.desk.begin(its.event.wait, 0).error()
            assert type(refused) is RedisEventError
        elif not waits:
            self.open.remove(its)
            there = weakref.ref(its.event)
            del its
            gc.collect()
            assert there() is None, "somebody refers to it"

    # Signals

    @rule(instance=PICKS, times=st.integers(1, 3))
    def set(self, instance: int, times: int) -> None:
        its = self.any_instance(instance)
        for _ in range(times):
            its.process.desk.call(its.event.set)
        self.signals += times

    @rule(instances=st.lists(PICKS, min_size=2, max_size=4))
    def set_all_at_once(self, instances: list[int]) -> None:
        calls = []
        for number in instances:
            its = self.any_instance(number)
            actor = its.process.idle(number, {each.actor for each in self.waits()})
            calls.append(actor.begin(its.event.set))
        for call in calls:
            call.result(PATIENCE)
        self.signals += len(calls)

    @rule(instance=PICKS)
    def clear(self, instance: int) -> None:
        its = self.any_instance(instance)
        its.process.desk.call(its.event.clear)
        self.signals = self.astray = 0

    @rule(instance=PICKS, times=st.integers(1, 3))
    def try_once(self, instance: int, times: int) -> None:
        its = self.any_instance(instance)
        for number in range(times):
            error = its.process.desk.begin(its.event.wait, 0).error(PATIENCE)
            if error is None:
                assert self.state.listed > number, f"a signal out of nowhere: {self.state}"
                self.signals -= 1
            else:
                assert isinstance(error, RedisEventTimeoutError), repr(error)
                assert self.state.listed <= number, f"there is one: {self.state}"

    # Waiting

    @rule(instance=PICKS, actor=PICKS, timeout=st.sampled_from([None, None, 0.01, 60.0]))
    def wait(self, instance: int, actor: int, timeout: float | None) -> None:
        its = self.any_instance(instance)
        who = its.process.idle(actor, {each.actor for each in self.waits()})
        if who is its.process.desk:
            return
        began = time.monotonic()
        call = who.begin(its.event.wait, timeout)
        line = self.lines.setdefault(its.process, [])
        line.append(Wait(its, who, call, began, timeout))

        def mismatch() -> str:
            signals = its.process.desk.call(_signals, its.event)
            waiting = sum(not each.call.done() for each in line)
            in_line = signals is not None and len(signals._queue) >= waiting
            return "" if call.done() or in_line else "not in line"

        within(PATIENCE, mismatch)  # so whoever comes later, comes later

    @rule(wait=PICKS, instance=st.none() | PICKS, pause=PAUSE)
    def waiter_is_cancelled(self, wait: int, instance: int | None, pause: float) -> None:
        """And at the same time, perhaps, there is a signal."""
        its = picked(wait, [each for each in self.waits() if each.instance.process.cancels])
        if its is None:
            self.wait(wait, instance or 0, None)
            return
        other = None if instance is None else self.any_instance(instance)
        setting = other and other.process.desk.begin(other.event.set)
        time.sleep(pause if setting else 0)
        its.actor.cancel(its.call)
        its.withdrawn = True
        its.call.error(PATIENCE)
        if setting:
            setting.result(PATIENCE)
            self.signals += 1

    # What goes wrong

    @rule(how=st.sampled_from(["pops", "takes", "is cut off", "confirms"]), times=st.integers(1, 2))
    def somebody_dies(self, how: str, times: int) -> None:
        for _ in range(times):
            if how == "pops":
                self.astray += self.view.pop()
            elif how == "takes":
                self.astray += self.view.take()
            elif how == "confirms":  # and dies then
                self.signals -= self.view.confirm()
            else:
                self.view.set_and_cut()
                self.signals += 1
                self.astray += 1  # if somebody waits, or has only just ceased to

    @rule()
    def time_is_over(self) -> None:
        """What those had who died, goes to others, if somebody waits."""
        self.view.end_leases()
        if self.waits():
            self.watchdogs_come()  # what is missing gets a lease
            within(PATIENCE, self.mismatch)  # and who waits gets what there is
            self.view.end_leases()
            if any(each.timeout != 0.01 for each in self.waits()):
                self.astray = 0  # else nobody may be there who would look
            self.watchdogs_come()

    def lose_data(self) -> None:
        self.raw.flushall()
        self.signals = self.astray = 0

    # What has to be true

    def collect(self) -> None:
        """See what has become of those who wait."""
        for line in self.lines.values():
            for wait in [each for each in line if each.call.done()]:
                earlier = line[: line.index(wait)]
                line.remove(wait)
                error = wait.call.error()
                if error is None:
                    self.signals -= 1
                    for each in earlier:
                        each.overtaken = True
                else:
                    _check_end(wait, error)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        within(PATIENCE, self.mismatch)
        self.astray = self.state.astray
        # Time may put back what is astray, and who waits gets it then.
        for each in self.open[-1:] if not self.astray else []:
            is_set = each.process.desk.call(each.event.is_set)
            assert is_set == (self.view.state().listed > 0), self.state

    def mismatch(self) -> str:
        """What is not yet as it has to be."""
        state = self.view.state()
        self.collect()
        self.state = state
        waits = self.waits()
        if any(each.overtaken and not each.withdrawn for each in waits):
            return f"one who came later was woken: {waits}"
        if state.listed + state.astray != self.signals:
            return f"{self.signals} signals were set that have woken nobody, but there are {state}"
        if state.astray > self.astray:
            return f"signals are astray: {state}"
        if waits and state.listed:
            return f"{len(waits)} wait while there is something: {state}"
        return ""


def _check_end(wait: Wait, error: BaseException) -> None:
    """Whether a wait may have ended like that."""
    if isinstance(error, RedisEventTimeoutError):
        took = time.monotonic() - wait.began
        assert wait.timeout is not None and took >= wait.timeout, f"{took} s: {error!r}"
    elif isinstance(error, RedisEventError):
        assert wait.withdrawn, repr(error)
    else:
        assert wait.withdrawn and type(error).__name__ == "CancelledError", repr(error)


def _signals(event: Any) -> Any:
    return event._homes.get().station


@pytest.mark.timeout(limit())
def test_an_event_keeps_its_promises_in_random_courses(
    server: Server, worlds: Mapping[Kind, World]
) -> None:
    run(lambda: EventMachine(server, worlds), examples=80, steps=30)
