"""Semaphores in random courses of events, step by step beside a model of what they promise."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from redsync import (
    RedisSemaphoreCountMismatchError,
    RedisSemaphoreError,
    RedisSemaphoreNotAcquiredError,
    RedisSemaphoreTimeoutError,
    SemaphoreInitStrategy,
)
from redsync.cli.server import Server

from .support.process import Kind
from .support.processes import KIND, PATIENCE, PAUSE, Process, ProcessesMachine
from .support.properties import NAMES, PICKS, failing, limit, own, picked, run, within
from .support.semaphore_view import Grant, SemaphoreView, State
from .support.worlds import Actor, Call, World

pytestmark = pytest.mark.proof

MOST: Final = 4
COUNT: Final = st.integers(1, MOST)
STRATEGY: Final = st.sampled_from(list(SemaphoreInitStrategy))
# No holder may lose its permit because the machine stalls.
TTL: Final = st.sampled_from([30.0, 12.5, 20.0])
IDENTIFIER: Final = st.sampled_from([None, "me", "a b  c", "ü\n", "1 2 3 4", "\x00", " "])


@dataclass(eq=False)
class Instance:
    """A RedisSemaphore that is open."""

    process: Process
    semaphore: Any
    strategy: SemaphoreInitStrategy
    identifier: str
    ttl: float
    count: int | None
    """What it was made for."""
    joined: bool = False


@dataclass(eq=False)
class Held:
    """A permit that was granted and not given back."""

    grant: Grant
    identifier: str
    process: Process | None = None
    instance: Instance | None = None
    """Through which it came, as long as that is there."""
    actor: Actor | None = None
    permit: Any = None
    """None: nobody can give it back any more."""
    holding: Any = None
    """What `permit()` returned, if it came from there."""
    owner: str = ""
    """Of a ghost: the name of its request."""
    ttl: float = 0.0
    live: bool = False
    """It is renewed."""


@dataclass(eq=False)
class Wait:
    """Somebody in line."""

    instance: Instance
    actor: Actor
    call: Call
    floor: int
    """No fence is below."""
    began: float
    timeout: float | None
    withdrawn: bool = False
    """Whether it was cancelled, or its instance closed: both may come too late."""
    overtaken: int | None = None
    """The lowest fence that somebody got who came later."""


class SemaphoreMachine(ProcessesMachine):
    """Processes of both kinds, with both strategies, that share one semaphore."""

    def __init__(self, server: Server, worlds: Mapping[Kind, World]) -> None:
        super().__init__(server, worlds)
        self.open: list[Instance] = []
        self.lines: dict[tuple[Process, SemaphoreInitStrategy], list[Wait]] = {}
        """To redsync, each strategy is another process."""
        self.seated: list[Held] = []
        """What Redis has, and is to keep."""
        self.void: list[Held] = []
        """What is not renewed, and whose lease was ended: its holder may not know yet."""
        self.released: list[Held] = []
        self.missing = 0
        """So many slots may be nobody's."""
        self.recovers = False
        self.count = self.last_count = 0
        self.floor = 0
        """The highest fence that anybody was granted."""
        self.state: State
        self.turn = 0

    # What there is

    def waits(self) -> list[Wait]:
        return [each for line in self.lines.values() for each in line]

    def idle(self, process: Process, pick: int) -> Actor:
        return process.idle(pick, {each.actor for each in self.waits()})

    def permits(self) -> list[Held]:
        """Those that somebody can give back."""
        return [each for each in [*self.void, *self.seated] if each.permit is not None]

    def available(self) -> int:
        """How many are free, or would be if what is over was taken back."""
        state = self.state
        taken = len(state.leased) - len(state.ended) + len(state.kept) + len(state.missing)
        return 0 if self.recovers else max(0, self.count - taken)

    # Beginning and end

    @initialize(
        name=NAMES,
        count=COUNT,
        kinds=st.lists(KIND, min_size=1, max_size=2),
        strategy=STRATEGY,
        ttl=TTL,
    )
    def create(
        self,
        name: str,
        count: int,
        kinds: list[Kind],
        strategy: SemaphoreInitStrategy,
        ttl: float,
    ) -> None:
        self.name, self.count, self.last_count = own(name), count, count
        self.view = SemaphoreView(self.raw, self.name)
        for kind in kinds:
            self.process(0, kind)
        self.instance_comes(0, "create", strategy, ttl, None, False, None)

    def teardown(self) -> None:
        well = not failing()
        for wait in self.waits():
            wait.withdrawn = True
        for each in self.open:
            each.process.desk.call(each.semaphore.close)
        for wait in self.waits():
            wait.call.error(PATIENCE)
        if well:
            self.collect()
        for held in self.permits():
            assert held.process is not None
            held.process.desk.call(held.permit.release)
        self.end(well)

    # Who comes and goes

    @rule(
        process=PICKS,
        how=st.sampled_from(["count", "create", "attach", "bare"]),
        strategy=STRATEGY,
        ttl=TTL,
        identifier=IDENTIFIER,
        alias=st.booleans(),
        fresh=st.none() | KIND,
    )
    def instance_comes(
        self,
        process: int,
        how: str,
        strategy: SemaphoreInitStrategy,
        ttl: float,
        identifier: str | None,
        alias: bool,
        fresh: Kind | None,
    ) -> None:
        its = self.process(process, fresh)
        make = its.world.names.RedisSemaphore
        name = f"{{{self.name}}}" if alias and not {*"{}"} & {*self.name} else self.name
        options: dict[str, Any] = {"permit_ttl": ttl, "semaphore_init_strategy": strategy}
        if identifier is not None:
            options["identifier"] = identifier
        if how in ("count", "create"):
            options["count"] = self.count
        if how in ("create", "attach"):
            make = getattr(make, how)
        semaphore = its.desk.call(lambda: make(its.client, name, **options))
        joined = how in ("create", "attach")
        count = options.get("count")
        self.open.append(
            Instance(its, semaphore, strategy, semaphore.identifier, ttl, count, joined)
        )

    @rule(instance=PICKS, how=st.sampled_from(["closed", "dropped", "dropped with permits"]))
    def instance_goes(self, instance: int, how: str) -> None:
        holders = [each for each in self.open if any(h.instance is each for h in self.permits())]
        its = picked(instance, holders) or picked(instance, self.open)
        if its is None:
            return
        del holders
        if how == "closed":
            self.close(its)
        elif not any(wait.instance is its for wait in self.waits()):
            there = weakref.ref(its.semaphore)
            self.drop(its, how != "dropped")
            del its
            gc.collect()
            assert there() is None, "somebody refers to it"

    def close(self, its: Instance) -> None:
        self.open.remove(its)
        for wait in self.waits():
            if wait.instance is its:
                wait.withdrawn = True
        its.process.desk.call(its.semaphore.close)
        for held in self.seated:
            if held.instance is its:
                held.live = False
        refused = its.process.desk.begin(its.semaphore.acquire, 0).error()
        assert type(refused) is RedisSemaphoreError

    def drop(self, its: Instance, with_permits: bool) -> None:
        self.open.remove(its)
        for held in [*self.seated, *self.void, *self.released]:
            if held.instance is its:
                held.instance = held.holding = None  # which refers to the instance
                if with_permits and held not in self.released:
                    held.permit = None
                    held.live = False

    # Acquiring

    def joins(self, its: Instance) -> bool:
        """Whether an instance was not made for another count, which its first use tells."""
        if not its.joined and its.count not in (None, self.count):
            error = its.process.desk.begin(its.semaphore.acquire, 0).error()
            assert isinstance(error, RedisSemaphoreCountMismatchError), repr(error)
            return False
        its.joined = True
        return True

    def any_instance(self, pick: int) -> Instance:
        """One of those that are open, or a new one."""
        if not self.open:
            strategies = list(SemaphoreInitStrategy)
            self.instance_comes(pick, "bare", strategies[pick % 2], 30.0, None, False, None)
        return self.open[pick % len(self.open)]

    @rule(instance=PICKS, actor=PICKS, enter=st.booleans(), times=st.integers(1, MOST))
    def try_once(self, instance: int, actor: int, enter: bool, times: int) -> None:
        its = self.any_instance(instance)
        if not self.joins(its):
            return
        for number in range(times):
            who = self.idle(its.process, actor + number)
            holding = its.semaphore.permit(0) if enter else None
            call = who.begin(_entry(holding)) if enter else who.begin(its.semaphore.acquire, 0)
            error = call.error(PATIENCE)
            if error is None:
                possible = self.available() + len(self.state.kept) + len(self.state.missing)
                assert possible > number, f"a permit out of nowhere: {self.state}"
                self.granted(its, who, call.result(), self.floor, holding)
            else:
                assert isinstance(error, RedisSemaphoreTimeoutError), repr(error)
                assert self.available() <= number, f"one is free: {self.state}"
                return

    @rule(instance=PICKS, actor=PICKS, timeout=st.sampled_from([None, None, 0.01, 60.0]))
    def wait(self, instance: int, actor: int, timeout: float | None) -> None:
        its = self.any_instance(instance)
        who = self.idle(its.process, actor)
        if who is its.process.desk or not self.joins(its):
            return
        began = time.monotonic()
        call = who.begin(its.semaphore.acquire, timeout)
        line = self.lines.setdefault((its.process, its.strategy), [])
        line.append(Wait(its, who, call, self.floor, began, timeout))
        self.in_line(its, line, call)  # so whoever comes later, comes later

    def in_line(self, its: Instance, line: list[Wait], call: Call) -> None:
        def mismatch() -> str:
            pool = its.process.desk.call(_pool, its.semaphore)
            waiting = pool is not None and len(pool._queue) >= sum(not w.call.done() for w in line)
            return "" if call.done() or waiting else "not in line"

        within(PATIENCE, mismatch)

    @rule(wait=PICKS, permit=st.none() | PICKS, pause=PAUSE)
    def waiter_is_cancelled(self, wait: int, permit: int | None, pause: float) -> None:
        """And at the same time, perhaps, a permit is released."""
        its = picked(wait, [each for each in self.waits() if each.instance.process.cancels])
        held = None if permit is None else picked(permit, self.permits())
        if its is None:
            self.wait(wait, permit or 0, None)
            return
        release = held and held.process and held.process.desk.begin(held.permit.release)
        time.sleep(pause if release else 0)
        its.actor.cancel(its.call)
        its.withdrawn = True
        its.call.error(PATIENCE)
        if held is not None and release:
            release.result(PATIENCE)
            self.gone(held)

    # Releasing

    @rule(permit=PICKS, actor=PICKS, how=st.sampled_from(["permit", "instance", "all", "again"]))
    def release(self, permit: int, actor: int, how: str) -> None:
        if how == "again":
            self.release_again(permit)
        elif how == "all":
            self.release_all(actor)
        else:
            held = picked(permit, self.permits())
            if held is None:
                self.try_once(permit, actor, False, MOST)
            elif held.process is not None:
                self.let_go(held, self.idle(held.process, actor), through=how == "instance")

    @rule(instance=PICKS, actor=PICKS)
    def release_whichever(self, instance: int, actor: int) -> None:
        holders = [each for each in self.open if any(h.instance is each for h in self.permits())]
        its = picked(instance, holders) or picked(instance, self.open)
        if its is None:
            return
        who = self.idle(its.process, actor)
        its_own = [each for each in self.permits() if each.instance is its]
        by_fence = sorted(its_own, key=lambda each: each.grant.fence)
        latest = [each for each in by_fence if each.actor is who][-1:]
        call = who.begin(its.semaphore.release)
        if not by_fence:
            assert isinstance(call.error(), RedisSemaphoreNotAcquiredError)
            return
        call.result(PATIENCE)
        held = (latest or by_fence)[0]
        assert not who.call(lambda: held.permit.held), f"another one than {held.grant}"
        if held.holding is None:
            self.gone(held)
        else:  # its body goes on, and does nothing at its end
            who.call(_exit(held.holding))
            self.gone(held)

    def release_all(self, actor: int) -> None:
        """All at once."""
        chosen = [each for each in self.permits() if each.holding is None]
        calls = [
            self.idle(each.process, actor + number).begin(each.permit.release)
            for number, each in enumerate(chosen)
            if each.process is not None
        ]
        for call in calls:
            call.result(PATIENCE)
        for each in chosen:
            self.gone(each)

    def release_again(self, permit: int) -> None:
        held = picked(permit, self.released)
        if held is None or held.process is None:
            return
        held.process.desk.call(held.permit.release)
        assert not held.process.desk.call(lambda: held.permit.held)
        if held.instance is not None:
            release = held.process.desk.begin(held.instance.semaphore.release, held.permit)
            assert isinstance(release.error(), RedisSemaphoreNotAcquiredError)

    # The whole

    @rule(instance=PICKS, count=COUNT)
    def resize(self, instance: int, count: int) -> None:
        its = picked(instance, self.open)
        if its is None:
            return
        its.joined = True
        its.process.desk.call(its.semaphore.resize, count)
        self.count = count
        assert its.process.desk.call(its.semaphore.get_count) == count

    @rule(process=PICKS, strategy=STRATEGY, count=COUNT, resize=st.booleans())
    def instance_with_another_count_comes(
        self, process: int, strategy: SemaphoreInitStrategy, count: int, resize: bool
    ) -> None:
        if count == self.count:
            return
        its = self.process(process)
        semaphore = its.world.names.RedisSemaphore(
            its.client, self.name, count=count, semaphore_init_strategy=strategy
        )
        for use in (lambda: semaphore.acquire(0), semaphore.status, semaphore.get_count):
            assert isinstance(its.desk.begin(use).error(), RedisSemaphoreCountMismatchError)
        if resize:
            its.desk.call(semaphore.resize, count)
            self.count = count
        its.desk.call(semaphore.close)

    # What goes wrong

    @rule(ghost=PICKS, how=st.sampled_from(["takes", "takes", "pops", "is cut off"]))
    def somebody_dies(self, ghost: int, how: str) -> None:
        if how == "pops":
            self.missing += self.view.pop()
        elif how == "takes":
            taken = self.view.take()
            if taken is not None:
                grant, owner = taken
                assert grant.fence > self.floor
                self.floor = grant.fence
                self.seated.append(Held(grant, "a ghost", owner=owner))
        else:
            its = picked(ghost, [each for each in self.seated if each.owner])
            if its is not None:
                self.view.release_and_cut(its.grant, its.owner)
                self.seated.remove(its)
                self.missing += 1  # if somebody waits, or has only just ceased to

    @rule(noticed=st.booleans())
    def time_passes(self, noticed: bool) -> None:
        """The leases of the dead end, or a recovery."""
        if self.recovers:
            self.recovery_ends()
            return
        if not self.looked_after():
            return
        dead = [each for each in self.seated if not each.live]
        live = {each.grant for each in self.seated if each.live}
        self.view.end_leases(but=live)
        self.seated = [each for each in self.seated if each.live]
        self.void += [each for each in dead if each.permit is not None]
        if noticed or self.waits():
            self.watchdogs_come()  # what is missing is leased to nobody for a while
            within(PATIENCE, self.mismatch)  # and who waits gets what there is
            self.view.end_leases(but={each.grant for each in self.seated})
            self.watchdogs_come()
            self.missing = 0

    def recovery_ends(self) -> None:
        self.view.end_recovery()
        self.view.end_leases(but={each.grant for each in self.seated})
        self.watchdogs_come()
        self.recovers = False
        self.missing = 0 if self.looked_after() else MOST

    def lose_data(self) -> None:
        if not self.looked_after() or self.recovers:
            return
        self.watchdogs_come()  # all know the count
        self.raw.flushall()
        self.watchdogs_come()
        self.missing, self.recovers = 0, True
        for held in list(self.seated):
            if not held.live:
                self.seated.remove(held)
                if held.permit is not None:
                    self.void.append(held)
            elif held.grant.slot >= self.count:
                # It was granted before a shrink, and there is no such slot any more.
                assert held.process is not None
                assert held.process.desk.call(_is_lost, held.permit), held.grant
                self.seated.remove(held)
                self.void.append(held)
                held.live = False

    # How the model follows

    def granted(
        self, its: Instance, who: Actor, permit: Any, floor: int, holding: Any = None
    ) -> None:
        grant = Grant(permit.slot, permit.fence)
        assert grant.fence > floor, f"fence {grant.fence} after {floor}"
        assert grant.slot < max(self.count, self.last_count), f"{grant} of {self.count}"
        others = [each for each in self.seated if each.grant.slot == grant.slot]
        assert not others, f"slot {grant.slot} was granted twice: {others}"
        self.floor = max(self.floor, grant.fence)
        self.seated.append(
            Held(grant, its.identifier, its.process, its, who, permit, holding, "", its.ttl, True)
        )

    def let_go(self, held: Held, who: Actor | None, through: bool = False) -> None:
        assert who is not None
        if held.holding is not None:
            who.call(_exit(held.holding))
        elif through and held.instance is not None:
            who.call(held.instance.semaphore.release, held.permit)
        else:
            who.call(held.permit.release)
        assert not who.call(lambda: held.permit.held or (held.live and held.permit.lost))
        self.gone(held)

    def gone(self, held: Held) -> None:
        if held in self.seated:
            self.seated.remove(held)
        if held in self.void:
            self.void.remove(held)
        held.holding = None
        self.released.append(held)
        del self.released[:-4]

    def collect(self) -> None:
        """See what has become of those who wait."""
        for line in self.lines.values():
            for wait in [each for each in line if each.call.done()]:
                earlier = line[: line.index(wait)]
                line.remove(wait)
                error = wait.call.error()
                if error is None:
                    self.served(wait, earlier)
                else:
                    _check_end(wait, error)

    def served(self, wait: Wait, earlier: list[Wait]) -> None:
        self.granted(wait.instance, wait.actor, wait.call.result(), wait.floor)
        held = self.seated[-1]
        held.live = wait.instance in self.open  # else it was closed at that moment
        fence = held.grant.fence
        # They are served by one connection, token by token, and tokens are in order of fences.
        assert wait.overtaken is None or fence < wait.overtaken, f"{wait} came before its turn"
        for each in earlier:
            if not each.withdrawn:
                each.overtaken = min(fence, each.overtaken or fence)

    # What has to be true

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        within(PATIENCE, self.mismatch)
        self.last_count = self.count
        self.missing = len(self.state.missing) + len(self.state.kept)
        for process in self.processes:
            own = [each for each in self.seated if each.process is process and each.live]
            self.believed(process, own)
        self.told()

    def mismatch(self) -> str:
        """What is not yet as it has to be."""
        self.collect()
        for wait in self.waits():
            if wait.overtaken is not None:
                return f"{wait} waits while one who came later was served"
        state = self.state = self.view.state()
        grants = {each.grant: each.identifier for each in self.seated}
        leased = {each: who for each, who in state.leased.items() if each not in state.ended}
        nobodys = len(state.missing) + len(state.kept)
        waiting = self.waits()
        if leased != grants:
            return f"leases are {leased}, not {grants}"
        if state.count != self.count or state.recovers != self.recovers:
            return f"count {self.count}, recovers: {self.recovers}, but {state}"
        if self.recovers:
            return f"free during a recovery: {state}" if state.free else ""
        if nobodys > self.missing:
            return f"slots got lost: {state}"
        if state.circulating != max(self.count, state.circulating - len(state.free)):
            return f"as many slots as permits, not {state.circulating}: {state}"
        if waiting and (state.free or state.ended):
            return f"{len(waiting)} wait while there is something: {state}"
        return ""

    def believed(self, process: Process, own: list[Held]) -> None:
        """What is held is known to be."""

        def look() -> list[tuple[bool, bool, float]]:
            return [(each.permit.held, each.permit.lost, each.permit.remaining()) for each in own]

        for held, (is_held, is_lost, remaining) in zip(own, process.desk.call(look), strict=True):
            assert is_held and not is_lost, f"{held.grant} of {held.identifier!r} was lost"
            assert 0 < remaining <= held.ttl, f"{held.grant} has {remaining} s"

    def told(self) -> None:
        """`status` tells what is there."""
        self.turn += 1
        its = picked(self.turn, [each for each in self.open if each.joined])
        if its is None:
            return
        status = its.process.desk.call(its.semaphore.status)
        state = self.state = self.view.state()
        if self.missing or state.ended or self.recovers or self.waits():
            return  # time may have its share in that
        held = {Grant(each.slot, each.fence): each.identifier for each in status.held}
        assert (status.count, status.free, held, status.missing) == (
            self.count,
            len(state.free),
            state.leased,
            len(state.missing) + len(state.kept),
        )


def _check_end(wait: Wait, error: BaseException) -> None:
    """Whether a wait may have ended like that."""
    if isinstance(error, RedisSemaphoreTimeoutError):
        took = time.monotonic() - wait.began
        assert wait.timeout is not None and took >= wait.timeout, f"{took} s: {error!r}"
    elif isinstance(error, RedisSemaphoreError):
        assert wait.withdrawn, repr(error)
    else:
        assert wait.withdrawn and type(error).__name__ == "CancelledError", repr(error)


def _is_lost(permit: Any) -> bool:
    return bool(permit.lost)


def _pool(semaphore: Any) -> Any:
    return semaphore._homes.get().membership.station


def _entry(holding: Any) -> Callable[[], Any]:
    entry: Callable[[], Any] = getattr(holding, "__aenter__", None) or holding.__enter__
    return entry


def _exit(holding: Any) -> Callable[[], Any]:
    leave = getattr(holding, "__aexit__", None) or holding.__exit__
    return lambda: leave(None, None, None)


@pytest.mark.timeout(limit())
def test_a_semaphore_keeps_its_promises_in_random_courses(
    server: Server, worlds: Mapping[Kind, World]
) -> None:
    run(lambda: SemaphoreMachine(server, worlds), examples=90, steps=30)
