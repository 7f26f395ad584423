"""The transactions of OPTIMISTIC_LOCKING and the scripts of LUA do the same, step by step.

Both run on a real server, on keys of their own, at the instants that the test chooses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from redsync._protocol import scripts
from redsync._protocol.keys import SemaphoreKeys
from redsync._protocol.resp import Reply
from redsync._protocol.semaphore import Contents, Empty, Facts, Return, Seat, Terms, Token
from redsync._protocol.transitions import Draft
from redsync.cli.server import Server

pytestmark = pytest.mark.faults

TERMS: Final = Terms(ttl=1000, keep=5000)
START: Final = 1_800_000_000_000_000


@dataclass
class Grant:
    """What somebody believes to hold."""

    token: Token
    owner: str
    ttl: int

    def seat(self) -> Seat:
        return Seat(self.token.slot, self.token.fence, self.owner, self.ttl, 5, "some one")

    def handback(self) -> Return:
        return Return(self.token.slot, self.token.fence, self.owner)


@dataclass
class Both:
    """The semaphore twice: once changed by scripts, once by transactions."""

    redis: Any  # redis-py's types know bytes and str alike, and awaitables
    lua: SemaphoreKeys = field(default_factory=lambda: SemaphoreKeys.of("lua", "x"))
    drafts: SemaphoreKeys = field(default_factory=lambda: SemaphoreKeys.of("drafts", "x"))
    micros: int = START
    seen: int = 0
    known: Facts | None = None
    grants: list[Grant] = field(default_factory=list)
    snapshot: dict[str, Any] = field(default_factory=dict)
    owners: int = 0
    damaged: bool = False

    # The two ways

    def script(self, name: str, *arguments: object) -> Any:
        text = scripts._SCRIPTS[f"semaphore/{name}"].decode()
        time = f"{{'{self.micros // 1_000_000}', '{self.micros % 1_000_000}'}}"
        assert "call('TIME')" in text
        keys = (self.lua.free, self.lua.held, self.lua.meta)
        return self.redis.eval(text.replace("call('TIME')", time), 3, *keys, *map(str, arguments))

    def draft(self) -> Draft:
        return Draft(self.drafts, self.contents(self.drafts), self.seen)

    def apply(self, draft: Draft) -> None:
        draft.finish()
        for command in draft.commands:
            self.redis.execute_command(*command)

    def contents(self, keys: SemaphoreKeys) -> Contents:
        time: list[Reply] = [b"%d" % (self.micros // 1_000_000), b"%d" % (self.micros % 1_000_000)]
        fields = self.redis.execute_command("HGETALL", keys.meta)
        meta: list[Reply] = [each for pair in fields.items() for each in pair]
        free = self.redis.lrange(keys.free, 0, -1)
        held = self.redis.zrange(keys.held, 0, -1, withscores=True)
        leases: list[Reply] = [
            each for slot, score in held for each in (slot, str(int(score)).encode())
        ]
        return Contents.parse([time, meta, list(free), leases])

    def check(self) -> None:
        """Both hold the same; and while no data was lost, no slot is in two places."""
        left, right = self.contents(self.lua), self.contents(self.drafts)
        assert left == right
        for keys in (self.lua, self.drafts):
            for key in (keys.free, keys.held, keys.meta):
                assert self.redis.ttl(key) != -1, key
        if self.damaged:
            return
        slots = [int(token.split(":")[0]) for token in left.free]
        assert len({*slots, *left.held}) == len(slots) + len(left.held)
        for token in left.free:
            slot, fence = token.split(":")
            assert left.records[int(slot)] == fence

    def note(self, facts: Facts) -> None:
        self.seen = max(self.seen, facts.fence)
        if self.known is None or facts.version >= self.known.version:
            self.known = facts

    # The steps

    def create(self, count: int) -> None:
        known = self.known
        memory = (known.count, known.version) if known else ("", "")
        asked = self.script("create", self.seen, *TERMS, TERMS.grace, count, *memory)
        draft = self.draft()
        if not draft.exists:
            if known:
                draft.recreate(known, TERMS)
            else:
                draft.create(count, TERMS)
            draft.keep_alive(TERMS, 0)
        elif draft.facts.count == count:
            draft.keep_alive(TERMS, 0)
        self.apply(draft)
        assert draft.facts == Facts.parse(asked)
        self.note(draft.facts)

    def acquire(self, ttl: int, moved: bool = False) -> Grant | None:
        self.owners += 1
        owner = f"me:{self.owners}"
        terms = Terms(ttl, TERMS.keep)
        answer = self.script("acquire", owner, *terms, self.seen, "some one", str(int(moved)))
        if moved:
            draft = self.draft()
            if not draft.exists:
                assert answer is None
                return None
            draft.keep_alive(terms, 0)
            draft.refresh()
            self.apply(draft)
        while True:
            popped = self.redis.lpop(self.drafts.free)
            if not isinstance(popped, bytes):
                break
            token = Token.parse(popped)
            draft = self.draft()
            if not draft.exists:
                break
            if draft.grant(token, Seat(*token, owner, ttl, 0, "some one")):
                self.apply(draft)
                assert Token.parse(answer) == token
                self.grants.append(Grant(token, owner, ttl))
                self.seen = max(self.seen, token.fence)
                return self.grants[-1]
        draft = self.draft()
        if not draft.exists:
            assert answer is None
            return None
        draft.keep_alive(terms, 0)
        draft.reap()
        self.apply(draft)
        wait = None if answer[0] < 0 else answer[0]
        assert Empty(wait, answer[1], Facts.parse(answer)) == Empty(
            draft.wait, draft.pushed, draft.facts
        )
        self.note(draft.facts)
        return None

    def release(self, chosen: random.Random) -> None:
        if self.grants:
            self.give_back(chosen.choice(self.grants).handback())

    def give_back(self, handback: Return) -> bool:
        answer = self.script("release", *handback, self.seen)
        draft = self.draft()
        assert answer == (draft.exists and draft.give_back(handback))
        self.apply(draft)
        return bool(answer)

    def tend(self, chosen: random.Random) -> None:
        seats = [grant.seat() for grant in self.grants if chosen.random() < 0.5]
        returns = [grant.handback() for grant in self.grants if chosen.random() < 0.1]
        returns += [Return.all_of(grant.owner) for grant in self.grants if chosen.random() < 0.1]
        self.seat(seats, returns, lead=chosen.choice((0, 0, 0, 5_000_000)))

    def seat(
        self,
        seats: Sequence[Seat],
        returns: Sequence[Return] = (),
        terms: Terms = TERMS,
        lead: int = 0,
    ) -> list[bool]:
        if self.known is None:
            return []
        known = self.known
        arguments: list[object] = [self.seen, *terms, known.grace, known.count, known.version]
        arguments += [1, lead, len(seats)]
        for each in (*seats, *returns):
            arguments += each
        answer = self.script("tend", *arguments)
        draft = self.draft()
        if not draft.exists:
            draft.recreate(known, terms)
        elif known.version > draft.facts.version:
            draft.resize(known.count, known.version)
        draft.keep_alive(terms, 0)
        if lead:
            draft.lead(lead)
        seated = [draft.seat(seat) for seat in seats]
        for handback in returns:
            draft.give_back(handback)
        draft.reap()
        self.apply(draft)
        assert answer[1] == b"".join(b"1" if each else b"0" for each in seated)
        assert (None if answer[0] < 0 else answer[0]) == draft.wait
        assert Facts.parse(answer) == draft.facts
        self.note(draft.facts)
        return seated

    def resize(self, count: int) -> None:
        if self.known is None:
            return
        answer = self.script("resize", self.seen, *TERMS, count, self.known.version)
        draft = self.draft()
        if not draft.exists:
            assert answer is None
            return
        draft.keep_alive(TERMS, 0)
        if draft.facts.version == self.known.version:
            draft.resize(count)
        self.apply(draft)
        assert Facts.parse(answer) == draft.facts
        self.note(draft.facts)

    def pop(self) -> None:
        """Somebody pops a token and dies."""
        assert self.redis.lpop(self.lua.free) == self.redis.lpop(self.drafts.free)

    def lose(self, part: str) -> None:
        self.damaged = True
        for keys in (self.lua, self.drafts):
            for name in ("free", "held", "meta"):
                if part in ("all", name):
                    self.redis.delete(getattr(keys, name))

    def save(self) -> None:
        self.snapshot = {
            f"{kind}:{name}": self.redis.dump(getattr(getattr(self, kind), name))
            for kind in ("lua", "drafts")
            for name in ("free", "held", "meta")
        }

    def rewind(self) -> None:
        """A failover to a replica that had not got the latest writes."""
        self.damaged = True
        for place, data in self.snapshot.items():
            kind, name = place.split(":")
            key = getattr(getattr(self, kind), name)
            self.redis.delete(key)
            if data is not None:
                self.redis.restore(key, 60_000, data)


STEPS: Final[dict[str, Callable[[Both, random.Random], object]]] = {
    "create": lambda both, chosen: both.create(chosen.choice((1, 3, 3, 3))),
    "acquire": lambda both, chosen: both.acquire(
        chosen.choice((300, 1000, 2500)), moved=chosen.random() < 0.3
    ),
    "release": lambda both, chosen: both.release(chosen),
    "tend": lambda both, chosen: both.tend(chosen),
    "resize": lambda both, chosen: both.resize(chosen.randint(1, 5)),
    "pop": lambda both, chosen: both.pop(),
    "lose": lambda both, chosen: both.lose(chosen.choice(("all", "free", "held", "meta"))),
    "save": lambda both, chosen: both.save(),
    "rewind": lambda both, chosen: both.rewind(),
    "wait": lambda both, chosen: setattr(
        both, "micros", both.micros + chosen.choice((7, 1000, 100_000, 600_000, 3_000_000))
    ),
    "set the clock back": lambda both, chosen: setattr(both, "micros", both.micros - 2_000_000),
}

USUAL: Final = ["acquire", "acquire", "release", "tend", "wait", "wait", "pop", "resize"]


@pytest.fixture
def both(server: Server) -> Iterator[Both]:
    with Redis.from_url(server.url) as redis:
        yield Both(redis)


@pytest.mark.timeout(200)
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=st.lists(st.sampled_from([*USUAL, *STEPS]), min_size=3, max_size=40),
    seed=st.integers(0, 2**32),
)
def test_transactions_and_scripts_do_the_same(both: Both, steps: list[str], seed: int) -> None:
    both.redis.flushall()
    both = Both(both.redis)
    chosen = random.Random(seed)
    both.create(3)
    for step in steps:
        both.micros += 3
        STEPS[step](both, chosen)
        both.check()
