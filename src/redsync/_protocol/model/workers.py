"""Workers of timers, whoever arms and removes them, and all that can happen to them.

What a worker does follows `_async/schedule.py` and `_async/runner.py`. As with `processes`, a step
is a script with as much of its client as nobody can tell apart from it; to die is to forget all
runs and go on under another name. Beside Redis the model keeps what there should be, as somebody
sees it who knows of every command that was run and has no leases, records and indexes: a `Wish`.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Final, NamedTuple

from .timers import REARMED, Claimed, Outcome, Record, Script, State, Timer

ARM, CANCEL, TURN, RENEW = range(4)
_KINDS: Final = ("arm", "cancel", "turn", "renew")
_ARMS, _CANCELS, _LOSSES = range(3)
_ENDS: Final = ("completed", "again", "dead", "cut", "back")


class Run(NamedTuple):
    """A timer that a worker has."""

    timer: int
    fence: int
    attempt: int
    left: int
    """For how long its lease surely lasts."""
    begun: bool = False
    told: bool = False
    """Its handler knows that the lease is lost."""
    removed: bool = False
    """The timer was removed meanwhile: another run may be beside it."""


class Worker(NamedTuple):
    """A worker."""

    runs: tuple[Run, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    """To be told with the next turn."""
    turn: int = 1
    asked: int = -1
    """For how long there has been no answer to a turn; -1: none was sent."""


class Wish(NamedTuple):
    """What there should be of one timer."""

    arming: int = 0
    """The one that is to be run, also its payload; 0: none."""
    due: int = 0
    fence: int = 0
    """The run that counts; 0: none."""
    rearmed: bool = False
    """Whether that run is of an earlier arming."""
    tries: int = 0
    begun: bool = False


class Command(NamedTuple):
    """Something that is under way, and nobody waits for."""

    kind: int
    timer: int = 0
    request: int = 0
    """Or the worker."""
    number: int = 0
    """The arming, the turn, or the fence."""
    when: int = 0
    again: bool = False
    outcomes: tuple[Outcome, ...] = ()


class World(NamedTuple):
    """Redis, the workers, and what should be."""

    server: State
    workers: tuple[Worker, ...]
    under_way: tuple[Command, ...]
    wishes: tuple[Wish, ...]
    budget: tuple[int, ...]


Step = tuple[str, World, str]
Call = tuple[State, str, tuple[Any, ...], int]


@dataclass(frozen=True)
class Setting:
    """How many of what there is."""

    workers: int = 2
    timers: int = 1
    lease: int = 2
    attempts: int = 2
    size: int = 2
    """How many timers a worker runs at once."""
    under_way: int = 1
    arms: int = 2
    """How often anybody arms a timer, at once or a unit of time later."""
    cancels: int = 1
    losses: int = 0
    """How often Redis loses the records, or the index."""


class Workers:
    """The model of the timers.

    Args:
        setting: How large it is.
        script: What runs the scripts; tests plant faults here.
    """

    def __init__(self, setting: Setting, script: type[Script] = Script) -> None:
        self.setting = setting
        self.script = script
        self.calls: dict[Call, tuple[State, Any]] = {}
        """All that the scripts were asked so far."""
        self._ends: dict[State, str] = {}

    def start(self) -> World:
        """No timer is armed."""
        s = self.setting
        memos = (None,) * (s.workers + 1)  # the first one is nobody's
        state = State((Timer(),) * s.timers, (), 0, memos)
        budget = (s.arms, s.cancels, s.losses)
        return World(state, (Worker(),) * s.workers, (), (Wish(),) * s.timers, budget)

    # Steps

    def steps(self, world: World) -> Iterator[Step]:
        """All that can happen next."""
        yield self._time(world)
        for timer in range(self.setting.timers):
            yield from self._user(world, timer)
        for number, worker in enumerate(world.workers, 1):
            yield from self._turn(world, number, worker)
            for at, run in enumerate(worker.runs):
                yield from self._run(world, number, worker, at, run)
            if worker != Worker():
                yield f"w{number} dies", _without(world, number), ""
        for at, command in enumerate(world.under_way):
            yield from self._arrive(world, at, command)
        yield from self._lose(world)

    def _time(self, world: World) -> Step:
        workers = tuple(self._older(each) for each in world.workers)
        wishes = tuple(each._replace(due=max(0, each.due - 1)) for each in world.wishes)
        after = world._replace(server=later(world.server), workers=workers, wishes=wishes)
        return "time passes", after, ""

    def _older(self, worker: Worker) -> Worker:
        runs = tuple(run._replace(left=max(0, run.left - 1)) for run in worker.runs)
        asked = worker.asked if worker.asked < 0 else min(worker.asked + 1, self.setting.lease)
        return worker._replace(runs=runs, asked=asked)

    def _user(self, world: World, timer: int) -> Iterator[Step]:
        names = [each.request for each in world.under_way]
        names += [name for name, _ in world.server.requests]
        request = 1 + max(names, default=0)
        commands = []
        if world.budget[_ARMS]:
            arming = 1 + max(_armings(world), default=0)
            after = _spend(world, _ARMS)
            commands += [
                (f"t{timer} is armed for {when}", after, Command(ARM, timer, request, arming, when))
                for when in (0, 1)
            ]
        if world.budget[_CANCELS]:
            after = _spend(world, _CANCELS)
            commands.append((f"t{timer} is removed", after, Command(CANCEL, timer, request)))
        for what, spent, command in commands:
            executed, wrong = self._execute(spent, command)
            yield what, executed, wrong
            for base, how in ((spent, "does not arrive yet"), (executed, "is not answered")):
                for _, sent, _ in self._send(base, command, what):
                    yield f"{what}, which {how}", sent, wrong if base is executed else ""

    def _turn(self, world: World, number: int, worker: Worker) -> Iterator[Step]:
        room = max(0, self.setting.size - len(worker.runs))
        what = f"w{number} takes its turn"
        asked = _asked(world, number)
        server, claimed, wishes, wrong = self._taken(
            world, number, worker.turn, asked >= 0, room, worker.outcomes
        )
        executed = world._replace(server=server, wishes=wishes)
        heard = self._heard(worker, claimed, self.setting.lease - max(0, asked))
        if claimed:
            what += ", gets " + ", ".join(f"t{each.timer} ({each.attempt})" for each in claimed)
        yield what, _with(executed, number, heard), wrong
        asking = worker._replace(asked=max(0, asked))
        yield f"{what}, but does not hear it", _with(executed, number, asking), wrong
        for again in (False, True):
            command = Command(TURN, 0, number, worker.turn, room, again, worker.outcomes)
            base = _with(world, number, asking)
            yield from self._send(base, command, f"w{number} asks for its turn")

    def _heard(self, worker: Worker, claimed: list[Claimed], left: int) -> Worker:
        """What `Schedule` makes of an answer; leases count from when it asked first."""
        runs = {run.fence: run for run in worker.runs}
        outcomes: list[Outcome] = []
        for each in claimed:
            run = runs.get(each.fence)
            if run is not None and not run.told:
                runs[each.fence] = run._replace(left=left)
            elif run is None and not each.held:
                runs[each.fence] = Run(each.timer, each.fence, each.attempt, left)
            else:
                runs.pop(each.fence, None)
                outcomes.append(Outcome(each.timer, each.fence, "again"))
        return Worker(tuple(runs.values()), tuple(outcomes), worker.turn + 1)

    def _run(self, world: World, number: int, worker: Worker, at: int, run: Run) -> Iterator[Step]:
        name = f"t{run.timer} of w{number}"

        def changed(new: Run) -> World:
            runs = (*worker.runs[:at], new, *worker.runs[at + 1 :])
            return _with(world, number, worker._replace(runs=runs))

        if not run.begun:
            if run.left:
                after = changed(run._replace(begun=True))
                wishes = list(world.wishes)
                wish = wishes[run.timer]
                if wish.fence == run.fence and not wish.rearmed:
                    wishes[run.timer] = wish._replace(begun=True)
                yield f"{name} begins", after._replace(wishes=tuple(wishes)), ""
            ends: tuple[str, ...] = ("back",)
        else:
            last = run.attempt >= self.setting.attempts
            ends = ("completed", "dead" if last else "again", "cut")
        if run.fence != world.wishes[run.timer].fence:
            ends = ("completed",)  # none counts, and this one would do the most harm
        rest = worker._replace(runs=worker.runs[:at] + worker.runs[at + 1 :])
        if not worker.outcomes:
            for what in ends:
                outcome = Outcome(run.timer, run.fence, what)
                told = rest._replace(outcomes=(*worker.outcomes, outcome))
                yield f"{name} comes to: {what}", _with(world, number, told), ""
        yield f"{name} is given up", _with(world, number, rest), ""
        if not run.told:
            server, ours = self._call(world, "renew", (run.timer, run.fence, self.setting.lease))
            renewed = run._replace(left=self.setting.lease) if ours else run._replace(told=True)
            wrong = self._wrong_renewal(world, run, ours)
            yield f"{name} is renewed", changed(renewed)._replace(server=server), wrong
            yield f"{name} is renewed, unheard", world._replace(server=server), wrong
            if not run.left:
                yield f"{name} hears that it is lost", changed(run._replace(told=True)), ""
        command = Command(RENEW, run.timer, number, run.fence)
        yield from self._send(_with(world, number, rest), command, f"{name} is given up")

    def _send(self, world: World, command: Command, what: str) -> Iterator[Step]:
        if len(world.under_way) < self.setting.under_way:
            after = world._replace(under_way=(*world.under_way, command))
            yield f"{what} ({_KINDS[command.kind]} under way)", after, ""

    def _arrive(self, world: World, at: int, command: Command) -> Iterator[Step]:
        others = world.under_way[:at] + world.under_way[at + 1 :]
        what = f"a late {_KINDS[command.kind]}"
        yield f"{what} never arrives", world._replace(under_way=others), ""
        after, wrong = self._execute(world, command)
        yield f"{what} arrives", after._replace(under_way=others), wrong
        if command.kind in (ARM, CANCEL) and not self._is_known(world, command):
            yield f"{what} arrives, not for the last time", after, wrong

    def _lose(self, world: World) -> Iterator[Step]:
        if world.budget[_LOSSES]:
            spent = _spend(world, _LOSSES)
            server = world.server
            timers = tuple(each._replace(record=None) for each in server.timers)
            wishes = tuple(each._replace(fence=0, rearmed=False, tries=0) for each in world.wishes)
            if timers != server.timers:
                left = server._replace(timers=timers)
                yield "Redis loses records", spent._replace(server=left, wishes=wishes), ""
            if server.entries:
                left = server._replace(entries=())
                yield "Redis loses the index", spent._replace(server=left), ""
        if self.setting.losses:
            for timer in range(self.setting.timers):
                server, _ = self._call(world, "adopt", (timer,))
                if server != world.server:
                    yield f"t{timer} is adopted", world._replace(server=server), ""

    # What commands do, and should do

    def _call(self, world: World, name: str, arguments: tuple[Any, ...]) -> tuple[State, Any]:
        call = (world.server, name, arguments, max(_numbers(world), default=0) + 1)
        result = self.calls.get(call)
        if result is None:
            script = self.script(call[0], 0, call[3])
            answer = getattr(script, name)(*arguments)
            result = self.calls[call] = (script.state, answer)
        return result

    def _is_known(self, world: World, command: Command) -> bool:
        return command.request in dict(world.server.requests)

    def _execute(self, world: World, command: Command) -> tuple[World, str]:
        """Run a command whose answer nobody reads, or whoever reads it does nothing about it."""
        kind, timer, request, number, when, again, outcomes = command
        if kind == TURN:
            server, _, wishes, wrong = self._taken(world, request, number, again, when, outcomes)
            return world._replace(server=server, wishes=wishes), wrong
        if kind == RENEW:
            server, _ = self._call(world, "renew", (timer, number, self.setting.lease))
            return world._replace(server=server), ""
        known = self._is_known(world, command)
        if kind == ARM:
            server, answer = self._call(world, "arm", (request, timer, when, number))
        else:
            server, answer = self._call(world, "cancel", (request, timer))
        after = world._replace(server=server)
        if known:
            return after, "" if server == world.server else "a request had two effects"
        wish = world.wishes[timer]
        wrong = ""
        if kind == ARM:
            wish = Wish(number, when, wish.fence, bool(wish.fence))
        else:
            begun = not wish.rearmed and (wish.fence or wish.tries or wish.begun)
            right = "started" if begun else "cancelled" if wish.arming else "absent"
            if answer != right and not self.setting.losses:
                wrong = f"a removal answers {answer}, not {right}"
            wish = Wish()
            after = after._replace(workers=_removed(after.workers, timer))
        wishes = (*world.wishes[:timer], wish, *world.wishes[timer + 1 :])
        return after._replace(wishes=wishes), wrong

    def _taken(
        self,
        world: World,
        number: int,
        turn: int,
        again: bool,
        room: int,
        outcomes: tuple[Outcome, ...],
    ) -> tuple[State, list[Claimed], tuple[Wish, ...], str]:
        s = self.setting
        terms = (room, s.lease, s.attempts)
        arguments = (number, turn, again, *terms, outcomes)
        server, claimed = self._call(world, "turn", arguments)
        wishes = list(world.wishes)
        for outcome in outcomes:
            wishes[outcome.timer] = _settled(wishes[outcome.timer], outcome)
        before = world.server.memos[number]
        known = {each[0] for each in before[1]} if before and before[0] == turn and again else set()
        wrong = ""
        for each in claimed:
            if not each.held and each.fence not in known:
                wish = wishes[each.timer]
                wrong = wrong or self._wrong_claim(wish, each, s.losses > 0)
                wishes[each.timer] = wish._replace(
                    fence=each.fence, rearmed=False, tries=each.attempt, begun=wish.begun
                )
        for timer, wish in enumerate(wishes):
            if wish.arming and server.timers[timer].score is None:
                if wish.tries < s.attempts and not s.losses:
                    wrong = wrong or "an arming is gone that was neither run nor dead"
                wishes[timer] = Wish()
        if not wrong:
            wrong = self._wrong_effects(world, arguments, server, claimed)
        return server, claimed, tuple(wishes), wrong

    def _wrong_claim(self, wish: Wish, claimed: Claimed, lost: bool) -> str:
        if not wish.arming:
            return "a timer is run that is not armed"
        if wish.due:
            return "a timer is run before it is due"
        if claimed.attempt > self.setting.attempts:
            return "a timer is run once too often"
        if claimed.payload != wish.arming:
            return "a timer is run with another's payload"
        if lost:
            return ""
        if claimed.fence <= wish.fence:
            return "fences of runs do not rise"
        if claimed.attempt != 1 + (0 if wish.rearmed else wish.tries):
            return f"attempt {claimed.attempt} follows {wish.tries}"
        return ""

    def _wrong_effects(
        self, world: World, arguments: tuple[Any, ...], server: State, claimed: list[Claimed]
    ) -> str:
        """A stale outcome has to change nothing, and a turn that is sent again nothing more."""
        *first, outcomes = arguments
        counting = tuple(each for each in outcomes if world.wishes[each.timer].fence == each.fence)
        if counting != outcomes and not self.setting.losses:
            without, _ = self._call(world, "turn", (*first, counting))
            if without != server:
                return "the outcome of a run that does not count has changed something"
        number, turn, _, *terms = first
        if claimed:
            more, repeated = self._call(
                world._replace(server=server), "turn", (number, turn, True, *terms, outcomes)
            )
            # What was set anew is not handed out again, but when its lease is over.
            kept = [each for each in claimed if not _is_rearmed(server, each.timer)]
            if more != server or repeated != kept:
                return "the same turn, sent again, is not the same"
        return ""

    def _wrong_renewal(self, world: World, run: Run, ours: bool) -> str:
        wish = world.wishes[run.timer]
        if not self.setting.losses and ours != (wish.fence == run.fence):
            return f"a renewal was {'granted to' if ours else 'refused to'} the wrong run"
        return ""

    # What has to hold

    def check(self, world: World) -> str:
        """What is wrong with a state."""
        for timer, wish in enumerate(world.wishes):
            valid = [
                run
                for worker in world.workers
                for run in worker.runs
                if run.timer == timer and run.left and not (run.told or run.removed)
            ]
            if len(valid) > 1 and not self.setting.losses:
                return "two runs of a timer are sure of their lease"
            wrong = self._wrong_keys(world.server, timer, wish)
            if wrong:
                return wrong
        return self._check_end(world)

    def _wrong_keys(self, server: State, timer: int, wish: Wish) -> str:
        record, score, payload, _ = server.timers[timer]
        if bool(wish.arming) != (score is not None) or (wish.arming or None) != payload:
            return "the timeline does not have what it should"
        if self.setting.losses:
            return ""
        entries = [seq for _, seq, other in server.entries if other == timer]
        if record is None:
            return "a timer has no record" if wish.arming else ""
        if not wish.arming:
            return "a record is left over"
        if entries != [record.seq]:
            return "the index does not have what it should"
        if record.fence != wish.fence or (record.mark == REARMED) != wish.rearmed:
            return "the record is not of the run that counts"
        if record.attempts != wish.tries:
            return "the record has other attempts"
        if (record.due, score) != (wish.due, wish.due):
            return "the record has another due time"
        return ""

    def _check_end(self, world: World) -> str:
        known = self._ends.get(world.server)
        if known is None:
            known = self._ends[world.server] = self._end(world)
        return known

    def _end(self, world: World) -> str:
        """Whether each timer is run, or dead, if only one worker is left, who is new."""
        s = self.setting
        server, number = world.server, max(_numbers(world), default=0) + 1
        waiting = {timer for timer, each in enumerate(server.timers) if each.score is not None}
        longest = max((entry[0] for entry in server.entries), default=0)
        for at in range(1 + max(0, longest) + 4 * bool(s.losses)):
            if at:
                server = later(server)
            script = self.script(server, 0, number + 10 * at)
            for timer in waiting if s.losses else ():
                script.adopt(timer)
            claimed = script.turn(0, at + 100, False, s.timers, s.lease, s.attempts)
            server = script.state
            waiting -= {each.timer for each in claimed}
            waiting -= {timer for timer in waiting if server.timers[timer].score is None}
        return "a timer is never run" if waiting else ""

    # Names do not matter

    def pack(self, world: World) -> bytes:
        """Numbers become ranks, armings and requests get names, workers are put in order."""
        orders = permutations(range(self.setting.workers))
        return min(self._packed(world, order) for order in orders)

    def _packed(self, world: World, order: tuple[int, ...]) -> bytes:
        server, workers, under_way, wishes, budget = world
        ranks = {number: rank for rank, number in enumerate(sorted(_numbers(world) | {0}))}
        armings: dict[int | None, int] = {0: 0, None: -1}
        names = {0: 0, **{1 + old: 1 + new for new, old in enumerate(order)}}

        def arming(name: int | None) -> int:
            return armings.setdefault(name, len(armings))

        def told(outcomes: tuple[Outcome, ...]) -> tuple[Any, ...]:
            return tuple((o[0], ranks[o[1]], _ENDS.index(o[2])) for o in outcomes)

        timers: list[Any] = []
        for wish, (record, score, payload, dead) in zip(wishes, server.timers, strict=True):
            kept = None
            if record is not None:
                seq, fence, due, mark, attempts, holder, _ = record
                kept = (ranks[seq], ranks[fence], due, mark, attempts, names[holder])
            gone = None if dead is None else True
            timers.append((kept, score, arming(payload), gone))
            timers.append((arming(wish[0]), wish[1], ranks[wish[2]], *wish[3:]))
        index = tuple((at, ranks[seq], timer) for at, seq, timer in server.entries)
        staff = []
        for old in order:
            runs, outcomes, turn, _ = workers[old]
            memo = server.memos[1 + old]
            mine = None
            if memo is not None and memo[0] == turn:
                mine = tuple((ranks[f], t, own) for f, t, own in memo[1])
            have = tuple(sorted((r[0], ranks[r[1]], *r[2:]) for r in runs))
            staff.append((have, told(outcomes), _asked(world, 1 + old), mine))
        requests = {0: 0}
        sent = []
        known = dict(server.requests)
        for kind, timer, request, number, when, again, outcomes in sorted(under_way):
            if kind in (ARM, CANCEL):
                done = request in known
                name = requests.setdefault(request, len(requests))
                value = arming(number) if kind == ARM else 0
                sent.append((kind, timer, name, value, when, done, ()))
            elif kind == TURN:
                old_turn = workers[request - 1].turn - number
                row = (kind, timer, names[request], min(1, old_turn), when, again, told(outcomes))
                sent.append(row)
            else:
                sent.append((kind, timer, 0, ranks[number], when, again, ()))
        plain = (tuple(timers), index, tuple(staff), tuple(sent), budget)
        return marshal.dumps(plain, 2)

    def unpack(self, packed: bytes) -> World:
        """The world that was packed, with new names."""
        rows, index, staff, sent, budget = marshal.loads(packed)
        timers, wishes = [], []
        for (kept, score, payload, gone), wish in zip(rows[::2], rows[1::2], strict=True):
            record = None if kept is None else Record(*kept)
            dead = (0, 0, None, "") if gone else None
            timers.append(Timer(record, score, None if payload < 0 else payload, dead))
            wishes.append(Wish(*wish))
        workers: list[Worker] = []
        memos: list[Any] = [None]
        for have, told, asked, mine in staff:
            runs = tuple(Run(*run) for run in have)
            workers.append(Worker(runs, _outcomes(told), 2, asked))
            memos.append(mine and (2, mine))
        under_way, requests = [], []
        for kind, timer, name, number, when, again, told in sent:
            if kind in (ARM, CANCEL):
                if again:
                    requests.append((name, "armed" if kind == ARM else "cancelled"))
                under_way.append(Command(kind, timer, name, number, when))
            else:
                value = 2 - number if kind == TURN else number
                under_way.append(Command(kind, timer, name, value, when, again, _outcomes(told)))
        state = State(tuple(timers), index, 0, tuple(memos), tuple(requests))
        return World(state, tuple(workers), tuple(under_way), tuple(wishes), budget)

    def show(self, world: World) -> str:
        """For people."""
        parts = []
        at = {timer: when for when, _, timer in world.server.entries}
        for timer, (record, score, payload, dead) in enumerate(world.server.timers):
            text = f"t{timer}"
            if score is not None:
                text += f" #{payload} due {score}, in the index {at.get(timer)}"
            if record is not None:
                text += f", seq {record.seq} run {record.fence} attempts {record.attempts}"
                text += ", rearmed" * (record.mark == REARMED)
            parts.append(text + " dead" * (dead is not None))
        for number, worker in enumerate(world.workers, 1):
            parts += [f"w{number} runs {r.fence} for {r.left}" for r in worker.runs]
            parts += [f"w{number} tells {o.fence} {o.what}" for o in worker.outcomes]
        parts += [f"{_KINDS[each.kind]} under way" for each in world.under_way]
        return " | ".join(parts)


def later(server: State) -> State:
    """The same a unit of time later."""
    timers = []
    for record, score, payload, dead in server.timers:
        if record is not None:
            record = record._replace(due=max(0, record.due - 1))
        timers.append(Timer(record, score and max(0, score - 1), payload, dead))
    index = tuple(sorted((max(0, at - 1), seq, timer) for at, seq, timer in server.entries))
    return server._replace(timers=tuple(timers), entries=index)


def _settled(wish: Wish, outcome: Outcome) -> Wish:
    """What an outcome should make of a timer."""
    if not outcome.fence or wish.fence != outcome.fence:
        return wish
    if wish.rearmed:
        return wish._replace(fence=0, rearmed=False)
    if outcome.what in ("completed", "dead"):
        return Wish()
    if outcome.what in ("back", "cut"):
        return wish._replace(fence=0, tries=wish.tries - 1)
    return wish._replace(fence=0)


def _outcomes(told: tuple[Any, ...]) -> tuple[Outcome, ...]:
    return tuple(Outcome(timer, fence, _ENDS[what]) for timer, fence, what in told)


def _asked(world: World, number: int) -> int:
    """For how long a worker has had no answer. A turn that had no effect, and will have none, may
    as well not have been sent: that leaves more time to believe.
    """
    worker, memo = world.workers[number - 1], world.server.memos[number]
    mine = (TURN, number, worker.turn)
    if memo is not None and memo[0] == worker.turn:
        return worker.asked
    if any((each.kind, each.request, each.number) == mine for each in world.under_way):
        return worker.asked
    return -1


def _with(world: World, number: int, worker: Worker) -> World:
    workers = (*world.workers[: number - 1], worker, *world.workers[number:])
    return world._replace(workers=workers)


def _spend(world: World, what: int) -> World:
    budget = list(world.budget)
    budget[what] -= 1
    return world._replace(budget=tuple(budget))


def _without(world: World, number: int) -> World:
    """A worker has died, and another one has come. Its name will never be heard again."""
    timers = tuple(
        each._replace(record=each.record._replace(holder=0))
        if each.record is not None and each.record.holder == number
        else each
        for each in world.server.timers
    )
    memos = (*world.server.memos[:number], None, *world.server.memos[number + 1 :])
    # What it has sent arrives before it dies, which makes no difference, or never.
    sent = tuple(each for each in world.under_way if each.kind != TURN or each.request != number)
    server = world.server._replace(timers=timers, memos=memos)
    return _with(world._replace(server=server, under_way=sent), number, Worker())


def _removed(workers: tuple[Worker, ...], timer: int) -> tuple[Worker, ...]:
    return tuple(
        worker._replace(
            runs=tuple(
                run._replace(removed=True) if run.timer == timer else run for run in worker.runs
            )
        )
        for worker in workers
    )


def _is_rearmed(server: State, timer: int) -> bool:
    record = server.timers[timer].record
    return record is not None and record.mark == REARMED


def _armings(world: World) -> set[int]:
    found = {wish.arming for wish in world.wishes}
    found |= {each.payload for each in world.server.timers if each.payload is not None}
    found |= {each.number for each in world.under_way if each.kind == ARM}
    return found


def _numbers(world: World) -> set[int]:
    """All that was minted."""
    server, workers, under_way, wishes, _ = world
    found = {wish.fence for wish in wishes}
    for each in server.timers:
        if each.record is not None:
            found |= {each.record.seq, each.record.fence}
    found |= {seq for _, seq, _ in server.entries}
    for memo in server.memos:
        if memo is not None:
            found |= {fence for fence, _, _ in memo[1]}
    for worker in workers:
        found |= {run.fence for run in worker.runs}
        found |= {outcome.fence for outcome in worker.outcomes}
    for command in under_way:
        found |= {outcome.fence for outcome in command.outcomes}
        if command.kind == RENEW:
            found.add(command.number)
    found.discard(0)
    return found
