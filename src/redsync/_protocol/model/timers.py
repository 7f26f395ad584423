"""What the scripts in `lua/timers` do, on a state that nobody changes in place.

Instants and numbers are whole units of any length. Left out are the tokens that wake workers, and
the promises of who comes next: they decide how soon a timer is run, and not whether. Timers have
one topic, and names that are small numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

REARMED, CUT = 1, 2

HORIZON: Final = 4
"""Stands for the 20 s after which `adopt` takes a run for dead. More than any lease here."""


class Record(NamedTuple):
    """The field of a timer in `state`."""

    seq: int
    """Which arming."""
    fence: int
    """Which run; 0: none."""
    due: int
    mark: int = 0
    """REARMED, CUT or neither."""
    attempts: int = 0
    holder: int = 0
    """The worker of the last run."""
    every: str = ""
    """`every policy`, if it recurs."""


class Timer(NamedTuple):
    """All that the keys hold of one timer."""

    record: Record | None = None
    score: int | None = None
    """In the timeline."""
    payload: int | None = None
    dead: tuple[int, int, int | None, str] | None = None
    """Due, attempts, payload, error."""


Entry = tuple[int, int, int]
"""Of the index: when, seq, timer. In the order of the index."""

Taken = tuple[int, int, bool]
"""Fence and timer, and whether the worker had it before."""


class State(NamedTuple):
    """The keys of the timers."""

    timers: tuple[Timer, ...]
    entries: tuple[Entry, ...] = ()
    """The index."""
    last: int = 0
    """The last number that was given; 0: none."""
    memos: tuple[tuple[int, tuple[Taken, ...]] | None, ...] = ()
    """For each worker: its last turn that claimed something, and what."""
    requests: tuple[tuple[int, str], ...] = ()
    """Answers to requests, by name."""


class Claimed(NamedTuple):
    """A timer that is handed out."""

    timer: int
    fence: int
    due: int
    attempt: int
    payload: int | None
    held: bool


class Outcome(NamedTuple):
    """What became of a run: completed, dead, again, back, cut."""

    timer: int
    fence: int
    what: str
    after: int = 0


class Script:
    """One run of one script, at an instant; `state` is what it leaves behind.

    Args:
        state: What it finds.
        now: The server's clock.
        number: The same as a number that armings and runs are named after.
    """

    def __init__(self, state: State, now: int = 0, number: int = 0) -> None:
        self.timers = list(state.timers)
        self.index = {(seq, timer): at for at, seq, timer in state.entries}
        self.last = state.last
        self.memos = list(state.memos)
        self.requests = dict(state.requests)
        self.now = now
        self.number = number

    @property
    def state(self) -> State:
        """What the keys hold now."""
        index = tuple(sorted((at, seq, timer) for (seq, timer), at in self.index.items()))
        requests = tuple(sorted(self.requests.items()))
        return State(tuple(self.timers), index, self.last, tuple(self.memos), requests)

    # The scripts

    def arm(self, request: int, timer: int, due: int, payload: int, every: str = "") -> bool:
        """Arm a timer for an instant; a second time for the same request it does nothing."""
        if request in self.requests:
            return True
        seq, fence, at, holder = self.mint(), 0, due, 0
        old = self.timers[timer].record
        if old is not None:
            lease = self.index.pop((old.seq, timer), None)
            if old.fence:
                fence, holder = old.fence, old.holder
                at = due if lease is None else max(due, lease)
        record = Record(seq, fence, due, REARMED if fence else 0, 0, holder, every)
        dead = self.timers[timer].dead
        self.timers[timer] = Timer(record, due, payload, dead)
        self.index[seq, timer] = at
        self.requests[request] = "armed"
        return True

    def cancel(self, request: int, timer: int) -> str:
        """Remove a timer."""
        if request in self.requests:
            return self.requests[request]
        record, score, _, dead = self.timers[timer]
        if record is not None:
            self.index.pop((record.seq, timer), None)
        self.timers[timer] = Timer(dead=dead)
        if score is None:
            answer = "absent"
        elif record is not None and self.has_begun(record):
            answer = "started"
        else:
            answer = "cancelled"
        self.requests[request] = answer
        return answer

    def turn(
        self,
        worker: int,
        turn: int,
        again: bool,
        limit: int,
        lease: int,
        attempts: int,
        outcomes: Sequence[Outcome] = (),
    ) -> list[Claimed]:
        """Tell what became of runs, and take what is due."""
        records = [self.timers[each.timer].record for each in outcomes]
        finished = []
        for outcome, record in zip(outcomes, records, strict=True):
            if record is not None and self.is_of(record, outcome.fence):
                finished += self.settle(outcome, record)
        self.remove(finished)
        if again:
            repeated = self.repeated(worker, turn)
            if repeated is not None:
                return repeated
        return self.take(worker, turn, limit, lease, attempts) if limit > 0 else []

    def renew(self, timer: int, fence: int, lease: int) -> bool:
        """Renew the lease of a run."""
        record = self.timers[timer].record
        if record is None or not self.is_of(record, fence):
            return False
        at = self.now + lease
        if record.mark == REARMED:
            at = max(at, record.due)
        self.index[record.seq, timer] = at
        return True

    def adopt(self, timer: int) -> int:
        """Index what is in the timeline and has no record, another time, or no entry."""
        record, score, *_ = self.timers[timer]
        if score is None:
            return 0
        if record is None or (not record.fence and record.due != score):
            self.rearm(timer, record, score, every="")
        elif (record.seq, timer) in self.index:
            return 0
        else:
            at = self.now + HORIZON if record.fence else record.due
            self.place(timer, record, at)
        return 1

    def revive(self, request: int, timer: int) -> str:
        """Arm a dead timer again."""
        if request in self.requests:
            return self.requests[request]
        record, score, payload, dead = self.timers[timer]
        if dead is None:
            return "absent"
        if score is not None:
            return "armed"
        self.requests[request] = "revived"
        payload = payload if dead[2] is None else dead[2]
        self.timers[timer] = Timer(record, self.now, payload, None)
        self.rearm(timer, None, self.now, every="")
        return "revived"

    def discard(self, request: int, timer: int) -> str:
        """Forget a dead timer."""
        if request in self.requests:
            return self.requests[request]
        if self.timers[timer].dead is None:
            return "absent"
        self.timers[timer] = self.timers[timer]._replace(dead=None)
        self.requests[request] = "discarded"
        return "discarded"

    # What they share

    def mint(self, count: int = 1) -> int:
        """The first of so many new numbers."""
        first = max(self.last + 1, self.number)
        self.last = first + count - 1
        return first

    def put(self, timer: int, record: Record) -> None:
        """Write a record."""
        self.timers[timer] = self.timers[timer]._replace(record=record)

    def place(self, timer: int, record: Record, at: int) -> None:
        """Have somebody look at it at an instant."""
        self.put(timer, record)
        self.index[record.seq, timer] = at

    def rearm(self, timer: int, old: Record | None, at: int, every: str | None = None) -> Record:
        """A new arming of a timer."""
        if old is not None:
            self.index.pop((old.seq, timer), None)
            every = old.every if every is None else every
        holder = old.holder if old is not None else 0
        record = Record(self.mint(), 0, at, 0, 0, holder, every or "")
        self.place(timer, record, at)
        return record

    def has_begun(self, record: Record) -> bool:
        """Whether a run of this arming has begun."""
        if record.mark == REARMED:
            return False
        return bool(record.fence or record.attempts or record.mark == CUT)

    def is_of(self, record: Record, fence: int) -> bool:
        """Whether a run is the one that counts."""
        return record.fence == fence

    # Outcomes

    def settle(self, outcome: Outcome, record: Record) -> list[int]:
        """Take note of what became of a run; returns the timer if it is to be removed."""
        timer, _, what, after = outcome
        score = self.timers[timer].score
        if score is not None and score != record.due:
            self.rearm(timer, record, score, every="")
        elif record.mark == REARMED:
            self.place(timer, record._replace(fence=0, mark=0), record.due)
        elif what == "again":
            self.place(timer, record._replace(fence=0), self.now + after)
        elif what in ("back", "cut"):
            mark = CUT if record.mark == CUT or what == "cut" else 0
            back = record._replace(fence=0, attempts=record.attempts - 1, mark=mark)
            self.place(timer, back, record.due)
        else:
            if what == "dead":
                self.bury(timer, record, "the handler failed")
            return self.finish(timer, record)
        return []

    def bury(self, timer: int, record: Record, why: str) -> None:
        """Put it among the dead."""
        payload = self.timers[timer].payload
        dead = (record.due, record.attempts, payload, why)
        self.timers[timer] = self.timers[timer]._replace(dead=dead)

    def finish(self, timer: int, record: Record) -> list[int]:
        """An arming is over: the next instant, or the end."""
        if not record.every:
            return [timer]
        instant = record.due + int(record.every.split()[0])
        self.timers[timer] = self.timers[timer]._replace(score=instant)
        self.rearm(timer, record, instant)
        return []

    def remove(self, timers: Sequence[int]) -> None:
        """Remove what is over."""
        for timer in timers:
            record = self.timers[timer].record
            assert record is not None
            self.index.pop((record.seq, timer), None)
            self.timers[timer] = Timer(dead=self.timers[timer].dead)

    # Claims

    def repeated(self, worker: int, turn: int) -> list[Claimed] | None:
        """What the same turn has handed out before; None if it has not."""
        memo = self.memos[worker]
        if memo is None or memo[0] != turn:
            return None
        given = []
        for fence, timer, own in memo[1]:
            record = self.timers[timer].record
            if record is not None and record.fence == fence and record.mark != REARMED:
                given.append(self.given(timer, record, own))
        return given

    def given(self, timer: int, record: Record, own: bool) -> Claimed:
        """As it is handed out."""
        payload = self.timers[timer].payload
        return Claimed(timer, record.fence, record.due, record.attempts, payload, own)

    def is_due(self, at: int) -> bool:
        """Whether the time has come."""
        return at <= self.now

    def take(self, worker: int, turn: int, limit: int, lease: int, attempts: int) -> list[Claimed]:
        """Hand out what is due."""
        entries = sorted((at, seq, timer) for (seq, timer), at in self.index.items())
        entries = [each for each in entries if self.is_due(each[0])][:limit]
        if not entries:
            return []
        first = self.mint(len(entries))
        found = [self.timers[timer] for _, _, timer in entries]
        given: list[Claimed] = []
        finished: list[int] = []
        for number, (entry, (record, score, *_)) in enumerate(zip(entries, found, strict=True)):
            _, seq, timer = entry
            if record is None or record.seq != seq:
                self.index.pop((seq, timer), None)
            elif record.fence and record.holder == worker:
                at = self.now + lease
                if record.mark == REARMED:
                    at = max(at, record.due)
                self.index[seq, timer] = at
                given.append(self.given(timer, record, True))
            else:
                ready = self.runnable(timer, record, score, attempts, finished)
                if ready is not None:
                    run = ready._replace(
                        fence=first + number, attempts=self.next_attempt(ready), holder=worker
                    )
                    self.place(timer, run, self.now + lease)
                    given.append(self.given(timer, run, False))
        self.remove(finished)
        if given:
            taken = tuple((each.fence, each.timer, each.held) for each in given)
            self.memos[worker] = (turn, taken)
        return given

    def next_attempt(self, record: Record) -> int:
        """How many runs have begun with this one."""
        return record.attempts + 1

    def runnable(
        self, timer: int, record: Record, score: int | None, attempts: int, finished: list[int]
    ) -> Record | None:
        """The record with which it is run now; or None, and it is where it belongs."""
        if score is None:
            finished += self.finish(timer, record._replace(every=""))
            return None
        if score != record.due:
            record = self.rearm(timer, record, score, every="")
        if record.mark == REARMED:
            record = record._replace(mark=0, attempts=0)
        if not self.is_due(record.due):
            return None
        if record.attempts >= attempts:
            self.bury(timer, record, "the lease of the last attempt ran out")
            finished += self.finish(timer, record)
            return None
        return self.caught_up(timer, record) if record.every else record

    def caught_up(self, timer: int, record: Record) -> Record | None:
        """A recurring one, moved over what was missed; None if it is in the future then."""
        length, policy = record.every.split()
        every = int(length)
        if policy == "all" or record.attempts:
            return record
        instant = record.due + (self.now - record.due) // every * every
        if policy == "skip" and self.now - instant > every / 2:
            instant += every
        if instant != record.due:
            self.timers[timer] = self.timers[timer]._replace(score=instant)
            if instant > self.now:
                record = self.rearm(timer, record, instant)
            record = record._replace(due=instant)
        return record if instant <= self.now else None
