"""The model's scripts of the timers and the real ones do the same: from each state, each answer."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from redis import Redis

from redsync._protocol import scripts
from redsync._protocol.keys import TimerKeys
from redsync._protocol.model.explore import Exploration
from redsync._protocol.model.timers import (
    Claimed,
    Outcome,
    Record,
    Script,
    State,
    Timer,
)
from redsync._protocol.model.workers import Call, Setting, Workers
from redsync._protocol.timers import BUDGET, SLICE, Terms, parse_letter, parse_turn
from redsync.cli.server import Server

UNIT: Final = 5_000_000
"""Microseconds that a unit of the model's time takes here."""

START: Final = 1_800_000_000_000_000
"""The server's clock at which each script runs."""

PACK: Final = "return redis.call('SET', KEYS[1], cmsgpack.pack(cjson.decode(ARGV[1])))"
UNPACK: Final = """
local memo = redis.call('GET', KEYS[1])
return memo and cjson.encode(cmsgpack.unpack(memo))
"""


@pytest.fixture
def redis(server: Server) -> Iterator[Any]:
    with Redis.from_url(server.url) as connected:
        yield connected


class Timelines:
    """The real scripts of the timers, run on states of the model."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.keys = TimerKeys.of("timers_timeline", None, clustered=False)
        self.due = self.keys.due + b"t"
        self._pack = redis.register_script(PACK)
        self._unpack = redis.register_script(UNPACK)
        self._scripts: dict[str, Any] = {}
        self._number = 0

    def run(
        self, state: State, name: str, arguments: tuple[Any, ...], number: int
    ) -> tuple[State, Any]:
        """What the real script leaves of a state, and answers, in the model's terms."""
        self._number = number
        self.redis.flushall()
        self._put(state)
        memo, packed = self._packed(name, arguments)
        keys = self.keys
        fixed = (keys.timeline, keys.payloads, keys.state, keys.meta, keys.dead, memo)
        script = self._script(name)
        reply = script(keys=(*fixed, self.due, keys.wake + b"t"), args=packed)
        return self._model(state), self._answer(name, reply)

    def _script(self, name: str) -> Any:
        if name not in self._scripts:
            text = scripts._SCRIPTS[f"timers/{name}"].decode()
            time = f"{{'{START // 1_000_000}', '{START % 1_000_000}'}}"
            assert "call('TIME')" in text
            self._scripts[name] = self.redis.register_script(text.replace("call('TIME')", time))
        return self._scripts[name]

    # From the model

    def _number_of(self, rank: int) -> int:
        """What was minted before has lower numbers than what is minted now."""
        return START - self._number + rank if rank else 0

    def _put(self, state: State) -> None:
        keys = self.keys
        pipe = self.redis.pipeline(transaction=False)
        if state.last:
            pipe.hset(keys.state, "", f"{self._number_of(state.last):016d}")
        for timer, (record, score, payload, dead) in enumerate(state.timers):
            if record is not None:
                pipe.hset(keys.state, member(timer), self._record(record))
            if score is not None:
                pipe.zadd(keys.timeline, {member(timer): seconds(score)})
            if payload is not None:
                pipe.hset(keys.payloads, member(timer), f"p{payload}")
            if dead is not None:
                due, attempts, kept, why = dead
                has = int(kept is not None)
                header = f"0001 {instant(due):016d} {attempts} {START:016d} {has} {len(why)}"
                body = f"p{kept}" if has else ""
                pipe.hset(keys.dead, member(timer), f"{header}\n{why}{body}")
        for at, seq, timer in state.entries:
            entry = b"%016d" % self._number_of(seq) + member(timer)
            pipe.zadd(self.due, {entry: seconds(at)})
        for name, answer in state.requests:
            text = f"{START:016d}" if answer == "armed" else answer
            pipe.set(self._request(name), text)
        pipe.execute()
        for worker, memo in enumerate(state.memos):
            if memo is not None:
                turn, taken = memo
                rows = [
                    [self.due.decode(), f"{self._number_of(fence):016d}", member(timer).decode()]
                    + [True] * own
                    for fence, timer, own in taken
                ]
                self._pack(keys=[self._claimed(worker)], args=[json.dumps([str(turn), rows])])

    def _record(self, record: Record) -> str:
        seq, fence, due, mark, attempts, holder, every = record
        numbers = f"{self._number_of(seq):016d}{self._number_of(fence):016d}"
        rest = f"{mark}{attempts:04d}0001{holder:08x}{self._every(every)}"
        return f"{numbers}{instant(due):016d}{rest}"

    def _every(self, every: str) -> str:
        length, _, policy = every.partition(" ")
        return f"{int(length) * UNIT} {policy}" if every else ""

    def _request(self, name: int) -> bytes:
        return self.keys.request + b"r%d" % name

    def _claimed(self, worker: int) -> bytes:
        return self.keys.claimed + worker_name(worker).encode()

    def _packed(self, name: str, arguments: tuple[Any, ...]) -> tuple[bytes, list[object]]:
        if name == "arm":
            request, timer, due, payload, every = (*arguments, "")[:5]
            packed = [1, "0001", f"={instant(due)}", self._every(every), member(timer)]
            return self._request(request), [*packed, f"p{payload}"]
        if name in ("cancel", "revive", "discard"):
            request, timer = arguments
            return self._request(request), [member(timer), "0001"]
        if name == "renew":
            timer, fence, lease = arguments
            number = f"{self._number_of(fence):016d}"
            return self.keys.meta, [1, number, lease * UNIT, member(timer)]
        if name == "adopt":
            return self.keys.meta, [1, "0001", member(*arguments)]
        worker, turn, again, limit, lease, attempts, outcomes = arguments
        packed = [worker_name(worker), turn, int(again), limit, BUDGET, "stay", SLICE]
        packed.append(len(outcomes))
        for timer, fence, what, after in outcomes:
            number = f"{self._number_of(fence):016d}"
            packed += [1, number, what, after * UNIT, member(timer), "the handler failed"]
        return self._claimed(worker), [*packed, "t", lease * UNIT, attempts]

    # To the model

    def _rank(self, number: int) -> int:
        return number - START + self._number if number else 0

    def _model(self, before: State) -> State:
        keys = self.keys
        pipe = self.redis.pipeline(transaction=False)
        pipe.hgetall(keys.state)
        pipe.zrange(keys.timeline, 0, -1, withscores=True)
        pipe.hgetall(keys.payloads)
        pipe.hgetall(keys.dead)
        pipe.zrange(self.due, 0, -1, withscores=True)
        pipe.keys(keys.request + b"*")
        records, scores, payloads, dead, index, names = pipe.execute()
        last = self._rank(int(records.pop(b"", b"0")))
        scores = dict(scores)
        timers = []
        for timer in range(len(before.timers)):
            name = member(timer)
            record = records.pop(name, None)
            score, payload = scores.pop(name, None), payloads.pop(name, None)
            timers.append(
                Timer(
                    None if record is None else self._read(record.decode()),
                    None if score is None else unit(round(score * 1e6)),
                    None if payload is None else int(payload[1:]),
                    self._letter(name, dead.pop(name, None)),
                )
            )
        assert not records and not scores and not payloads and not dead
        entries = tuple(
            (unit(round(at * 1e6)), self._rank(int(entry[:16])), int(entry[19:]))
            for entry, at in index
        )
        memos = [self._memo(worker) for worker in range(len(before.memos))]
        requests: list[tuple[int, str]] = []
        for key in names:
            answer = self.redis.get(key).decode()
            request = int(key.removeprefix(keys.request)[1:])
            requests.append((request, "armed" if answer.isdigit() else answer))
        return State(tuple(timers), entries, last, tuple(memos), tuple(sorted(requests)))

    def _read(self, text: str) -> Record:
        length, _, policy = text[65:].partition(" ")
        assert text[53:57] == "0001"
        return Record(
            self._rank(int(text[:16])),
            self._rank(int(text[16:32])),
            unit(int(text[32:48])),
            int(text[48]),
            int(text[49:53]),
            int(text[57:65], 16),
            f"{int(length) // UNIT} {policy}" if policy else "",
        )

    def _letter(self, name: bytes, letter: bytes | None) -> tuple[int, int, int | None, str] | None:
        if letter is None:
            return None
        found = parse_letter(name, letter, "--")
        payload = None if found.payload is None else int(found.payload[1:])
        return unit(found.due), found.attempts, payload, found.error

    def _memo(self, worker: int) -> tuple[int, tuple[tuple[int, int, bool], ...]] | None:
        text = self._unpack(keys=[self._claimed(worker)])
        if text is None:
            return None
        turn, rows = json.loads(text)
        taken = [
            (self._rank(int(fence)), int(name.removeprefix("t--")), bool(own))
            for _, fence, name, *own in rows
        ]
        return int(turn), tuple(taken)

    def _answer(self, name: str, reply: Any) -> Any:
        if name == "turn":
            turn = parse_turn(reply, [Terms("t", 0, 0)])
            assert turn.now == START
            return [
                Claimed(
                    int(each.member.removeprefix(b"t--")),
                    self._rank(each.fence),
                    unit(each.due),
                    each.attempt,
                    None if each.payload is None else int(each.payload[1:]),
                    each.held,
                )
                for each in turn.claimed
            ]
        if name == "arm":
            return reply[0] == 1
        if name == "renew":
            return reply == [1]
        return reply if name == "adopt" else reply.decode()


def member(timer: int) -> bytes:
    return b"t--%d" % timer


def worker_name(worker: int) -> str:
    return f"{worker:08x}{worker:08x}"


def instant(at: int) -> int:
    return START + UNIT * at


def unit(at: int) -> int:
    return (at - START) // UNIT


def seconds(at: int) -> float:
    return instant(at) / 1e6


def compare(real: Timelines, call: Call) -> tuple[State, Any]:
    """Run a call in both, and have them agree."""
    state, name, arguments, number = call
    script = Script(state, 0, number)
    answer = getattr(script, name)(*arguments)
    left, answered = real.run(*call)
    assert (left, answered) == (script.state, answer), call
    return script.state, answer


SETTINGS: Final = {
    "undamaged": Setting(size=1, under_way=1, arms=1, cancels=1),
    "armed anew": Setting(workers=1, under_way=0),
    "losses": Setting(size=1, under_way=0, arms=1, cancels=0, losses=1),
    "two timers": Setting(workers=1, timers=2, under_way=0, arms=2, cancels=0),
}


@pytest.mark.proof
@pytest.mark.parametrize("name", SETTINGS)
def test_every_script_of_the_timers_that_an_exploration_runs_does_what_the_real_one_does(
    redis: Any, name: str
) -> None:
    model = Workers(SETTINGS[name])
    assert Exploration(model, most=2000).run().violation == ""
    calls = list(model.calls)
    assert len(calls) > 100
    real = Timelines(redis)
    for call in random.Random(1).sample(calls, min(len(calls), 400)):
        compare(real, call)


class Course:
    """Random steps on three timers, recurring ones and redis-timers among them."""

    def __init__(self, real: Timelines, seed: int) -> None:
        self.real = real
        self.dice = random.Random(seed)
        self.state = State((Timer(),) * 3, memos=(None,) * 3)
        self.number = 1
        self.request = 0
        self.turns = [0, 1, 1]
        self.runs: list[tuple[int, int]] = []

    def call(self, name: str, *arguments: Any) -> Any:
        self.number += 10
        self.state, answer = compare(self.real, (self.state, name, arguments, self.number))
        return answer

    def timer(self) -> int:
        return self.dice.randrange(3)

    def asked(self) -> int:
        """A new request, or the last one again."""
        self.request += self.dice.random() < 0.8
        return self.request

    def arm(self) -> None:
        every = self.dice.choice(("", "", "2 all", "2 once", "2 skip", "3 skip"))
        due = self.dice.choice((-3, 0, 0, 1))
        self.call("arm", self.asked(), self.timer(), due, self.dice.randrange(9), every)

    def cancel(self) -> None:
        request = 1000 + self.asked()
        self.call("cancel", request, self.timer())

    def turn(self) -> None:
        worker = self.dice.choice((1, 2))
        again = self.dice.random() < 0.3
        self.turns[worker] += not again
        outcomes: dict[int, Outcome] = {}
        for timer, fence in self.runs:
            if self.dice.random() < 0.4:
                what = self.dice.choice(("completed", "again", "dead", "back", "cut"))
                outcomes[fence] = Outcome(timer, fence, what, self.dice.choice((0, 1)))
        limit, attempts = self.dice.choice((0, 1, 3, 3)), self.dice.choice((1, 2, 2))
        told = tuple(outcomes.values())
        turn = self.turns[worker]
        for each in self.call("turn", worker, turn, again, limit, 2, attempts, told):
            self.runs.append((each.timer, each.fence))

    def renew(self) -> None:
        if self.runs:
            self.call("renew", *self.dice.choice(self.runs), 2)

    def adopt(self) -> None:
        self.call("adopt", self.timer())

    def revive(self) -> None:
        self.call("revive", 2000 + self.asked(), self.timer())

    def discard(self) -> None:
        self.call("discard", 3000 + self.asked(), self.timer())

    def pass_time(self) -> None:
        """Unlike in an exploration, what is past goes on to be told apart."""
        timers = []
        for record, score, payload, dead in self.state.timers:
            if record is not None:
                record = record._replace(due=record.due - 1)
            if dead is not None:
                dead = (dead[0] - 1, *dead[1:])
            timers.append(Timer(record, score if score is None else score - 1, payload, dead))
        index = tuple((at - 1, seq, timer) for at, seq, timer in self.state.entries)
        self.state = self.state._replace(timers=tuple(timers), entries=index)

    def change(self, timer: int, **fields: Any) -> None:
        timers = list(self.state.timers)
        timers[timer] = timers[timer]._replace(**fields)
        self.state = self.state._replace(timers=tuple(timers))

    def legacy(self) -> None:
        """redis-timers arms or removes one."""
        if self.dice.random() < 0.7:
            self.change(self.timer(), score=self.dice.choice((-1, 0, 1)), payload=8)
        else:
            self.change(self.timer(), score=None, payload=None)

    def lose(self) -> None:
        part = self.dice.choice(("record", "payload", "index"))
        if part == "index":
            self.state = self.state._replace(entries=self.state.entries[1:])
        else:
            self.change(self.timer(), **{part: None})


USUAL: Final = ("arm", "turn", "turn", "turn", "pass_time", "pass_time", "renew", "cancel")
RARE: Final = ("adopt", "revive", "discard", "legacy", "lose")


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(4))
def test_random_courses_of_the_timers_leave_what_the_real_scripts_leave(
    redis: Any, seed: int
) -> None:
    real = Timelines(redis)
    for each in range(6):
        course = Course(real, 1000 * seed + each)
        for _ in range(40):
            step = course.dice.choice(USUAL if course.dice.random() < 0.8 else RARE)
            getattr(course, step)()
