"""The model's scripts and the real ones do the same: from each state, in each answer.

A state of the model is put into a real server, the real script runs there at an instant that the
test chooses, and what it leaves and answers is compared with the model.  All calls that an
exhaustive run has made are tried, and random courses that go where it does not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from redis import Redis

from redsync._protocol import scripts
from redsync._protocol.keys import SemaphoreKeys
from redsync._protocol.model.explore import Exploration
from redsync._protocol.model.processes import Call, Processes, Setting, later
from redsync._protocol.model.semaphore import (
    ANY,
    Empty,
    Facts,
    Meta,
    Record,
    Script,
    State,
    Tended,
    nothing,
)
from redsync._protocol.semaphore import (
    Contents,
    Token,
    parse_acquired,
    parse_facts,
    parse_tended,
)
from redsync.cli.server import Server

UNIT: Final = 1000
"""Milliseconds that a unit of the model's time takes here."""

START: Final = 1_800_000_000_000
"""The server's clock, in milliseconds, at which each script runs."""

BASE: Final = START * 1000
"""What the model's fences count from; a script that runs less than 1000 microseconds later mints
the same."""

FIXED: Final = ("count", "version", "fence", "grace", "ttl", "keep", "recovery")


@pytest.fixture
def redis(server: Server) -> Iterator[Any]:
    with Redis.from_url(server.url) as connected:
        yield connected


class Semaphores:
    """The real scripts of the semaphore, run on states of the model."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.keys = SemaphoreKeys.of("model", "x")
        self._digests: dict[tuple[str, int], str] = {}

    def run(
        self, state: State, name: str, arguments: tuple[Any, ...], micros: int, seen: int
    ) -> tuple[State, Any]:
        """What the real script leaves of a state, and answers, in the model's terms."""
        keys = self.keys
        digest = self._digest(name, micros)
        pipe = self.redis.pipeline(transaction=False)
        pipe.flushall()
        self._put(pipe, state)
        packed = self._packed(name, arguments, seen)
        pipe.evalsha(digest, 3, keys.free, keys.held, keys.meta, *packed)
        pipe.hgetall(keys.meta)
        pipe.lrange(keys.free, 0, -1)
        pipe.zrange(keys.held, 0, -1, withscores=True)
        for key in (keys.free, keys.held, keys.meta):
            pipe.pttl(key)
        *_, reply, meta, free, held, one, two, three = pipe.execute()
        assert -1 not in (one, two, three), "a key that lives for ever"
        flat = [each for pair in meta.items() for each in pair]
        leases = [each for slot, end in held for each in (slot, b"%d" % end)]
        contents = Contents.parse([[b"0", b"0"], flat, free, leases])
        return self._model(contents, len(state.records)), self._answer(name, reply)

    def _digest(self, name: str, micros: int) -> str:
        digest = self._digests.get((name, micros))
        if digest is None:
            at = BASE + micros
            text = scripts._SCRIPTS[f"semaphore/{name}"].decode()
            assert "call('TIME')" in text
            time = f"{{'{at // 1_000_000}', '{at % 1_000_000}'}}"
            text = text.replace("call('TIME')", time)
            digest = self._digests[name, micros] = self.redis.script_load(text)
        return digest

    def _put(self, pipe: Any, state: State) -> None:
        keys, meta = self.keys, state.meta
        fields: dict[str, object] = {}
        if meta is not None:
            fields = dict(zip(FIXED, (meta.permits, fence(meta.version), fence(meta.fence),
                UNIT * meta.grace, UNIT * meta.ttl, UNIT * meta.keep, instant(meta.recovery)),
                strict=True))  # fmt: skip
        for slot, record in enumerate(state.records):
            if record is not None:
                fields[f"s{slot}"] = self._record(record)
        if fields:
            pipe.hset(keys.meta, mapping=fields)
        if state.free:
            pipe.rpush(keys.free, *(f"{slot}:{fence(number)}" for slot, number in state.free))
        leases = {slot: instant(end) for slot, end in enumerate(state.held) if end is not None}
        if leases:
            pipe.zadd(keys.held, leases)
        for key in (keys.free, keys.held, keys.meta):
            pipe.pexpire(key, 60_000)

    def _record(self, record: Record) -> str:
        number = fence(record.fence)
        if not record.owner:
            return str(number)
        return f"{number} o{record.owner} {UNIT * record.ttl} {START} some one"

    def _packed(self, name: str, arguments: tuple[Any, ...], seen: int) -> list[object]:
        highest = fence(seen)
        if name == "acquire":
            owner, ttl, keep, again = arguments
            return [f"o{owner}", UNIT * ttl, UNIT * keep, highest, "some one", int(again)]
        if name == "create":
            ttl, keep, grace, count, known = arguments
            memory = (known[0], fence(known[1])) if known else ("", "")
            asked = "" if count is None else count
            return [highest, UNIT * ttl, UNIT * keep, UNIT * grace, asked, *memory]
        if name == "release":
            slot, number, owner = arguments
            return [slot, fence(number), f"o{owner}", highest]
        if name == "resize":
            ttl, keep, count, version = arguments
            return [highest, UNIT * ttl, UNIT * keep, count, fence(version)]
        ttl, keep, grace, (count, version), reap, *more = arguments
        rest: list[Any] = [*more, *((), (), 0)[len(more) :]]
        seats, returns, lead = rest
        packed = [highest, UNIT * ttl, UNIT * keep, UNIT * grace, count, fence(version)]
        packed += [int(reap), lead, len(seats)]
        for slot, number, owner, lease in seats:
            packed += [slot, fence(number), f"o{owner}", UNIT * lease, 0, "some one"]
        for slot, number, owner in returns:
            at = ("", "") if slot == ANY else (slot, fence(number))
            packed += [*at, f"o{owner}"]
        return packed

    def _model(self, contents: Contents, slots: int) -> State:
        fixed = {name: int(value) for name, value in contents.meta.items()}
        meta = None
        if fixed:
            assert set(fixed) == set(FIXED)
            grace, ttl, keep = (fixed[name] // UNIT for name in ("grace", "ttl", "keep"))
            recovery = unit(fixed["recovery"])
            version, highest = rank(fixed["version"]), rank(fixed["fence"])
            meta = Meta(fixed["count"], version, highest, grace, ttl, keep, recovery)
        records: list[Record | None] = [None] * slots
        for slot, text in contents.records.items():
            number, *rest = text.split(" ")
            owner, ttl = (int(rest[0][1:]), int(rest[1]) // UNIT) if rest else (0, 0)
            records[slot] = Record(rank(int(number)), owner, ttl)
        free = [token.split(":") for token in contents.free]
        held: list[int | None] = [None] * slots
        for slot, end in contents.held.items():
            held[slot] = unit(end)
        tokens = tuple((int(slot), rank(int(number))) for slot, number in free)
        return State(meta, tuple(records), tokens, tuple(held))

    def _answer(self, name: str, reply: Any) -> Any:
        if name == "release":
            return bool(reply)
        if name == "tend":
            tended = parse_tended(reply)
            return Tended(wait(tended.wait), tuple(tended.seated), self._facts(tended.facts))
        if name == "acquire":
            found = parse_acquired(reply)
            if found is None or isinstance(found, Token):
                return found and (found[0], rank(found[1]))
            return Empty(wait(found.wait), found.pushed, self._facts(found.facts))
        facts = parse_facts(reply)
        return facts and self._facts(facts)

    def _facts(self, facts: Any) -> Facts:
        version, highest = rank(facts.version), rank(facts.fence)
        return (facts.count, version, highest, facts.grace // UNIT, facts.ttl // UNIT)


def fence(number: int) -> int:
    """A fence of the model as one of the server; 0 is the same in both."""
    return BASE + number if number else 0


def rank(number: int) -> int:
    return number - BASE if number else 0


def instant(at: int) -> int:
    return START + UNIT * at


def unit(at: int) -> int:
    """The model's time of an instant; what is long over is over."""
    return (at - START) // UNIT if at else 0


def wait(milliseconds: int | None) -> int:
    return -1 if milliseconds is None else milliseconds // UNIT


def compare(real: Semaphores, call: Call) -> tuple[State, Any]:
    """Run a call in both, and have them agree."""
    state, name, arguments, micros, seen = call
    script = Script(state, 0, micros, seen)
    answer = getattr(script, name)(*arguments)
    assert real.run(*call) == (script.state, answer), call
    return script.state, answer


SETTINGS: Final = {
    "undamaged": Setting(clients=2, under_way=1),
    "losses": Setting(clients=2, under_way=0, losses=1, newcomers=1),
    "failover": Setting(clients=2, slots=1, count=1, under_way=0, failovers=1),
    "resizes": Setting(clients=2, under_way=0, resizes=1),
    "clock behind": Setting(clients=1, under_way=0, losses=1, behind=True),
}


@pytest.mark.proof
@pytest.mark.parametrize("name", SETTINGS)
def test_every_script_that_an_exploration_runs_does_what_the_real_one_does(
    redis: Any, name: str
) -> None:
    model = Processes(SETTINGS[name])
    assert Exploration(model, most=2000).run().violation == ""
    calls = list(model.calls)
    assert len(calls) > 50
    real = Semaphores(redis)
    for call in random.Random(1).sample(calls, min(len(calls), 800)):
        compare(real, call)


class Course:
    """Random steps on a semaphore of up to five slots, with several leases and any order."""

    def __init__(self, real: Semaphores, seed: int) -> None:
        self.real = real
        self.dice = random.Random(seed)
        self.state = nothing(6)
        self.micros = 1
        self.grants: list[tuple[int, int, int]] = []
        self.known: tuple[int, int] | None = None
        self.seen = 0
        self.owners = 0
        self.copy = self.state

    def call(self, name: str, *arguments: Any) -> Any:
        self.micros += self.dice.choice((0, 1, 1, 7))
        call = (self.state, name, arguments, self.micros, self.seen)
        self.state, answer = compare(self.real, call)
        return answer

    def lease(self) -> int:
        return self.dice.choice((1, 2, 4))

    def note(self, facts: tuple[int, ...] | None) -> None:
        if facts:
            self.known = (facts[0], facts[1])
            self.seen = max(self.seen, facts[2])

    def create(self) -> None:
        count = self.dice.choice((None, 1, 3, 3))
        self.note(self.call("create", self.lease(), 9, 1, count, self.known))

    def acquire(self) -> None:
        again = bool(self.grants) and self.dice.random() < 0.3
        if not again:
            self.owners += 1
        owner = self.dice.choice(self.grants)[2] if again else self.owners
        answer = self.call("acquire", owner, self.lease(), 9, again)
        if answer is not None and len(answer) == 2:
            self.grants.append((*answer, owner))

    def release(self) -> None:
        if self.grants:
            self.call("release", *self.dice.choice(self.grants))

    def tend(self) -> None:
        if self.known is not None:
            dice = self.dice
            seats = [(*each, self.lease()) for each in self.grants if dice.random() < 0.4]
            returns = [each for each in self.grants if dice.random() < 0.2]
            returns += [(ANY, 0, each[2]) for each in self.grants if dice.random() < 0.1]
            reap = dice.random() < 0.7
            known = self.known
            rest = (tuple(seats), tuple(returns), dice.choice((0, 0, 0, 5)))
            answer = self.call("tend", 2, 9, 1, known, reap, *rest)
            self.note(answer.facts)

    def resize(self) -> None:
        if self.known is not None:
            version = self.known[1]
            self.note(self.call("resize", 2, 9, self.dice.randint(1, 5), version))

    def pop(self) -> None:
        if self.state.free:
            token, *rest = self.state.free
            self.state = self.state._replace(free=tuple(rest))
            self.owners += 1
            self.grants.append((*token, self.owners))

    def pass_time(self) -> None:
        self.state = later(self.state)

    def lose(self) -> None:
        state, none = self.state, nothing(6)
        part = self.dice.choice(("all", "free", "held", "meta"))
        self.state = State(
            None if part in ("all", "meta") else state.meta,
            none.records if part in ("all", "meta") else state.records,
            () if part in ("all", "free") else state.free,
            none.held if part in ("all", "held") else state.held,
        )

    def set_back(self) -> None:
        """The clock: deadlines are further away, and it does not tell new from old."""
        held = tuple(None if end is None else end + 3 for end in self.state.held)
        meta = self.state.meta
        if meta is not None and meta.recovery:
            meta = meta._replace(recovery=meta.recovery + 3)
        self.state = self.state._replace(held=held, meta=meta)
        self.micros = max(1, self.micros - 20)

    def rewind(self) -> None:
        self.state, self.copy = self.copy, self.state


USUAL: Final = ("acquire", "acquire", "release", "tend", "pass_time", "pass_time", "pop", "resize")
RARE: Final = ("create", "lose", "set_back", "rewind")


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(5))
def test_random_courses_of_the_semaphore_leave_what_the_real_scripts_leave(
    redis: Any, seed: int
) -> None:
    real = Semaphores(redis)
    for each in range(15):
        course = Course(real, 1000 * seed + each)
        course.create()
        for _ in range(30):
            step = course.dice.choice(USUAL if course.dice.random() < 0.85 else RARE)
            getattr(course, step)()
