"""The model of the protocol holds what is promised, and finds whatever is planted in it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from redsync._protocol.model import processes, timers, workers
from redsync._protocol.model.explore import Exploration
from redsync._protocol.model.processes import Processes
from redsync._protocol.model.semaphore import Meta, Record, Script
from redsync._protocol.model.workers import Workers

pytestmark = pytest.mark.proof

# Whatever is void is only so if nothing is wrong with the scripts.
LATE: Final = processes.Setting(clients=2, slots=1, count=1, under_way=1, void=True)

SEMAPHORES: Final = {
    "three processes": processes.Setting(under_way=0),
    "late commands": processes.Setting(clients=2),
    "late commands without effect": LATE,
    "losses": processes.Setting(under_way=0, losses=1, newcomers=1),
    "failover": processes.Setting(clients=2, slots=1, count=1, failovers=1),
    "resizes": processes.Setting(clients=2, under_way=0, resizes=1),
    "clock behind": processes.Setting(clients=2, under_way=0, behind=True),
    "longer times": processes.Setting(clients=2, ttl=4, grace=2, under_way=0),
}

TIMERS: Final = {
    "late commands": workers.Setting(workers=1, size=1, arms=1, cancels=0),
    "removals": workers.Setting(workers=1, under_way=0, arms=1),
    "armed anew": workers.Setting(workers=1, under_way=0, cancels=0),
    "two workers": workers.Setting(size=1, under_way=0, arms=1, cancels=0),
    "losses": workers.Setting(workers=1, size=1, under_way=0, arms=1, cancels=0, losses=1),
}


@pytest.mark.parametrize("name", SEMAPHORES)
def test_nothing_is_wrong_in_any_state_of_a_semaphore(name: str) -> None:
    found = Exploration(Processes(SEMAPHORES[name])).run()
    assert not found.violation, found.trace
    assert found.complete and found.states > 100


@pytest.mark.parametrize("name", TIMERS)
def test_nothing_is_wrong_in_any_state_of_timers(name: str) -> None:
    found = Exploration(Workers(TIMERS[name])).run()
    assert not found.violation, found.trace
    assert found.complete and found.states > 100


@pytest.mark.proof
def test_nothing_is_wrong_with_three_processes_two_slots_and_a_late_command() -> None:
    found = Exploration(Processes(processes.Setting())).run()
    assert not found.violation, found.trace
    assert found.complete


def named(parameter: object) -> str:
    return parameter.__name__ if isinstance(parameter, type) else ""


# Faults of the semaphore's scripts


class NoFence(Script):
    """A return names the slot and the owner."""

    def names(self, slot: int, fence: int, owner: int) -> bool:
        record = self.records[slot]
        return record is not None and record.owner in (0, owner)


class NoRefresh(Script):
    """What is free at another master keeps its fences, which may be somebody's."""

    def refresh(self) -> None:
        pass


class SameFence(Script):
    """A slot is freed with the fence that it had."""

    def push(self, slot: int) -> None:
        record = self.records[slot]
        if record is None:
            super().push(slot)
        else:
            self.records[slot] = Record(record.fence)
            self.free.append((slot, record.fence))
            self.pushed += 1


class ForgetsWhatWasSeen(Script):
    """Fences begin anew after a loss, if the clock does not keep them from it."""

    def mint(self, last: int) -> int:
        return max(last + 1, self.micros)

    def recreate(self, count: int, version: int, grace: int, ttl: int, keep: int) -> None:
        super().recreate(count, version, grace, ttl, keep)
        self.fix(fence=0)


class ReapsEarly(Script):
    """A lease is over before its end."""

    def is_over(self, end: int) -> bool:
        return end <= self.now + 1


class NeverReaps(Script):
    """`<` for `<=`, and a clock that does not get there."""

    def is_over(self, end: int) -> bool:
        return end < self.now - 9


class ForgetsRequests(Script):
    """A request that was sent before is a new one."""

    def granted_before(self, owner: int, ttl: int) -> tuple[int, int] | None:
        return None


class NoGrace(Script):
    """What is missing is free at once."""

    def longest(self, slot: int, recovery: int) -> int:
        record = self.records[slot]
        return super().longest(slot, recovery) if record and record.owner else self.now


class GraceForAll(Script):
    """A lease that was lost is replaced by a grace."""

    def longest(self, slot: int, recovery: int) -> int:
        return max(self.now + self.fixed.grace, recovery)


class SeatsTheLate(Script):
    """`fence < record.fence` is forgotten."""

    def seat(self, slot: int, fence: int, owner: int, ttl: int) -> bool:
        record = self.records[slot]
        if record is not None and fence < record.fence:
            self.records[slot] = Record(fence, owner, ttl)
            self.held[slot] = self.now + ttl
            return True
        return super().seat(slot, fence, owner, ttl)


class HigherOrEqual(Script):
    """`>=` for `>` where a fence proves that data was lost."""

    def seat(self, slot: int, fence: int, owner: int, ttl: int) -> bool:
        record = self.records[slot]
        if record is not None and fence >= record.fence and record.owner:
            return False
        return super().seat(slot, fence, owner, ttl)


class LeavesTheToken(Script):
    """A seat does not take the token out of the list."""

    def unlist(self, token: tuple[int, int]) -> None:
        pass


class GrantsAtOnce(Script):
    """Whoever makes it again makes free tokens."""

    def recreate(self, count: int, version: int, grace: int, ttl: int, keep: int) -> None:
        self.clear()
        self.meta = Meta(count, version, self.seen, grace, ttl, keep, 0)
        self.fill()


class RecoversBriefly(Script):
    """The recovery takes a grace, not a lease."""

    def recreate(self, count: int, version: int, grace: int, ttl: int, keep: int) -> None:
        super().recreate(count, version, grace, grace, keep)


class FreesDuringRecovery(Script):
    """What is given back during a recovery is free at once."""

    def back(self, slot: int) -> None:
        recovery = self.fixed.recovery
        self.fix(recovery=0)
        super().back(slot)
        self.fix(recovery=recovery)


class AnyVersion(Script):
    """A resize does not compare the version."""

    def is_version(self, version: int) -> bool:
        return True


class ShrinksByNumber(Script):
    """What counts is the number of a slot, and not how many circulate."""

    def is_wanted(self, slot: int) -> bool:
        return slot < self.fixed.permits


class FillsWhatIsMissing(Script):
    """A slot whose token is on its way is pushed again."""

    def fill(self) -> None:
        listed = {slot for slot, _ in self.free}
        for slot in range(self.fixed.permits):
            if self.held[slot] is None and slot not in listed:
                self.push(slot)


LOSS: Final = processes.Setting(clients=2, slots=1, count=1, under_way=2, losses=1, void=True)
FAILOVER: Final = processes.Setting(
    clients=2, slots=1, count=1, under_way=1, failovers=1, void=True
)
RESIZES: Final = processes.Setting(clients=2, under_way=1, resizes=2, void=True)
BEHIND: Final = processes.Setting(clients=1, under_way=0, losses=1, behind=True)

PLANTED: Final[list[tuple[type[Script], processes.Setting]]] = [
    (NoFence, LATE),
    (NoRefresh, FAILOVER),
    (SameFence, LATE),
    (ForgetsWhatWasSeen, BEHIND),
    (ReapsEarly, LATE),
    (NeverReaps, LATE),
    (ForgetsRequests, processes.Setting(clients=2, under_way=0)),
    (NoGrace, LATE),
    (GraceForAll, LOSS),
    (SeatsTheLate, LATE),
    (HigherOrEqual, LATE),
    (LeavesTheToken, FAILOVER),
    (GrantsAtOnce, LOSS),
    (RecoversBriefly, LOSS),
    (FreesDuringRecovery, LOSS),
    (AnyVersion, RESIZES),
    (ShrinksByNumber, RESIZES),
    (FillsWhatIsMissing, RESIZES),
]


@pytest.mark.parametrize(("script", "setting"), PLANTED, ids=named)
def test_a_fault_of_the_semaphore_is_found(
    script: type[Script], setting: processes.Setting
) -> None:
    found = Exploration(Processes(setting, script), most=20_000).run()
    assert found.violation
    assert found.trace.endswith(f"=> {found.violation}")


class ClaimsLate(Processes):
    """A token that was popped is believed in for a whole lease before it is claimed."""

    @property
    def popped_for(self) -> int:
        return self.setting.ttl


def test_a_fault_of_a_process_is_found() -> None:
    assert Exploration(ClaimsLate(LATE)).run().violation


# Faults of the timers' scripts


class NoRunFence(timers.Script):
    """What is told of any run counts."""

    def is_of(self, record: timers.Record, fence: int) -> bool:
        return True


class Early(timers.Script):
    """The time has come before it has."""

    def is_due(self, at: int) -> bool:
        return at <= self.now + 1


class NoLease(timers.Script):
    """A claim lasts for no time."""

    def take(self, *arguments: Any) -> list[timers.Claimed]:
        worker, turn, limit, _, attempts = arguments
        return super().take(worker, turn, limit, 0, attempts)


class SkipsAttempts(timers.Script):
    """A run that was cut off by a death counts twice."""

    def next_attempt(self, record: timers.Record) -> int:
        return record.attempts + (2 if record.fence else 1)


class CountsNothing(timers.Script):
    """Attempts stay what they are."""

    def next_attempt(self, record: timers.Record) -> int:
        return max(1, record.attempts)


class NotMarked(timers.Script):
    """An arming during a run is not noted as such."""

    def arm(self, request: int, timer: int, due: int, payload: int, every: str = "") -> bool:
        done = super().arm(request, timer, due, payload, every)
        record = self.timers[timer].record
        assert record is not None
        self.put(timer, record._replace(mark=0))
        return done


class AnyRequest(timers.Script):
    """An arming that is sent again is another one."""

    def arm(self, request: int, timer: int, due: int, payload: int, every: str = "") -> bool:
        self.requests.pop(request, None)
        return super().arm(request, timer, due, payload, every)


class BesideTheRun(timers.Script):
    """An arming during a run does not wait for its end."""

    def arm(self, request: int, timer: int, due: int, payload: int, every: str = "") -> bool:
        done = super().arm(request, timer, due, payload, every)
        record = self.timers[timer].record
        assert record is not None
        self.index[record.seq, timer] = due
        return done


class ForgetsTurns(timers.Script):
    """A turn that is sent again is another one."""

    def repeated(self, worker: int, turn: int) -> list[timers.Claimed] | None:
        return None


class OnceTooOften(timers.Script):
    """`>` for `>=`."""

    def take(self, *arguments: Any) -> list[timers.Claimed]:
        worker, turn, limit, lease, attempts = arguments
        return super().take(worker, turn, limit, lease, attempts + 1)


class CountsReturns(timers.Script):
    """What was not begun is an attempt all the same."""

    def settle(self, outcome: timers.Outcome, record: timers.Record) -> list[int]:
        if outcome.what == "back":
            outcome = outcome._replace(what="again")
        return super().settle(outcome, record)


class AlwaysCancelled(timers.Script):
    """A removal does not mind that a run has begun."""

    def has_begun(self, record: timers.Record) -> bool:
        return False


class LosesRetries(timers.Script):
    """What is to be tried again is not put back."""

    def settle(self, outcome: timers.Outcome, record: timers.Record) -> list[int]:
        if outcome.what == "again":
            return self.finish(outcome.timer, record)
        return super().settle(outcome, record)


TWO: Final = workers.Setting(size=1, under_way=0, arms=1, cancels=0)
ANEW: Final = workers.Setting(workers=1, under_way=1, arms=2, cancels=0)
REMOVED: Final = workers.Setting(workers=1, under_way=0, arms=1, cancels=1)

PLANTED_IN_TIMERS: Final[list[tuple[type[timers.Script], workers.Setting]]] = [
    (NoRunFence, TWO),
    (Early, TWO),
    (NoLease, TWO),
    (SkipsAttempts, TWO),
    (CountsNothing, TWO),
    (OnceTooOften, TWO),
    (CountsReturns, TWO),
    (LosesRetries, TWO),
    (ForgetsTurns, TWO),
    (NotMarked, ANEW),
    (AnyRequest, ANEW),
    (BesideTheRun, ANEW),
    (AlwaysCancelled, REMOVED),
]


@pytest.mark.parametrize(("script", "setting"), PLANTED_IN_TIMERS, ids=named)
def test_a_fault_of_the_timers_is_found(
    script: type[timers.Script], setting: workers.Setting
) -> None:
    found = Exploration(Workers(setting, script), most=20_000).run()
    assert found.violation
    assert found.trace.endswith(f"=> {found.violation}")
