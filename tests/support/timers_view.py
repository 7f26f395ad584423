"""What a server holds for timers, and what its clock, a dead worker or redis-timers does to it.

Read and written key by key: the tests trust no report of ours.  Times are whole microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from redis import Connection, Redis

from redsync._protocol.keys import TimerKeys
from redsync._protocol.scripts import Request
from redsync._protocol.timers import Claimed, Outcome, Terms, TimerScripts, parse_turn
from redsync.cli.server import Server

__all__ = ["LEASE", "MOST_ATTEMPTS", "Ghost", "Record", "TimersState", "TimersView", "now"]

LEASE: Final = 30_000_000
MOST_ATTEMPTS: Final = 3

_ENOUGH: Final = 100


def now() -> int:
    """The server's clock: it is that of the machine."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000


@dataclass(frozen=True)
class Record:
    """What is noted of a timer."""

    seq: int
    fence: int
    """0: it does not run."""
    due: int
    mark: str
    attempts: int
    every: str


@dataclass(frozen=True)
class TimersState:
    """All keys at one instant, by members."""

    timeline: dict[str, int]
    payloads: dict[str, bytes]
    records: dict[str, Record]
    entries: dict[str, list[tuple[str, int]]]
    """Topics in whose index it is, with this seq's entry, and when somebody has to act."""


class TimersView:
    """Looks at the timers of one timeline, and meddles with them."""

    def __init__(self, client: Redis, server: Server, timeline: str, topics: Sequence[str]) -> None:
        self.keys = TimerKeys.of(timeline, None, clustered=False)
        self.scripts = TimerScripts(self.keys)
        self._client: Any = client  # redis-py's types know bytes and str alike, and awaitables
        self._topics = topics
        self._server = server
        self._ghosts = 0

    def state(self) -> TimersState:
        """What is there."""
        keys = self.keys
        with self._client.pipeline() as pipe:
            pipe.zrange(keys.timeline, 0, -1, withscores=True)
            pipe.hgetall(keys.payloads)
            pipe.hgetall(keys.state)
            for topic in self._topics:
                pipe.zrange(self._due(topic), 0, -1, withscores=True)
            timeline, payloads, state, *indexes = pipe.execute()
        records = {_text(each): _record(line.decode()) for each, line in state.items() if each}
        entries: dict[str, list[tuple[str, int]]] = {}
        for topic, index in zip(self._topics, indexes, strict=True):
            for entry, score in index:
                member = _text(entry[16:])
                if member in records and records[member].seq == int(entry[:16]):
                    entries.setdefault(member, []).append((topic, _micros(score)))
                else:
                    entries.setdefault(member, []).append((f"stale {topic}", _micros(score)))
        return TimersState(
            timeline={_text(each): _micros(score) for each, score in timeline},
            payloads={_text(each): payload for each, payload in payloads.items()},
            records=records,
            entries=entries,
        )

    def check_lives(self) -> None:
        """Only what has to stay lives for ever."""
        keys = self.keys
        stay = {keys.timeline, keys.payloads, keys.state, keys.meta, keys.dead, keys.topics}
        stay |= {self._due(topic) for topic in self._topics}
        for key in self._client.keys("*"):
            assert key in stay or self._client.pttl(key) >= 0, f"{key!r} lives for ever"

    def pass_time(self, micros: int) -> None:
        """Have the server's clock be so much later: everything is due so much sooner."""
        keys = self.keys
        with self._client.pipeline() as pipe:
            for key in (keys.timeline, *map(self._due, self._topics)):
                for each, score in self._client.zrange(key, 0, -1, withscores=True):
                    pipe.zadd(key, {each: _seconds(max(0, _micros(score) - micros))})
            for each, line in self._client.hgetall(keys.state).items():
                if each:
                    due = max(0, int(line[32:48]) - micros)
                    pipe.hset(keys.state, each, line[:32] + b"%016d" % due + line[48:])
            for field, line in self._client.hgetall(keys.meta).items():
                if field:  # the promises of workers
                    pipe.hset(keys.meta, field, b"%016d" % (int(line[:16]) - micros) + line[16:])
            pipe.execute()

    # redis-timers

    def set_as_before(self, member: str, payload: bytes | None, instant: int) -> None:
        """What redis-timers does to set a timer; without a payload, what is left of one."""
        self._client.zadd(self.keys.timeline, {member: instant // 1_000_000})
        if payload is None:
            self._client.hdel(self.keys.payloads, member)
        else:
            self._client.hset(self.keys.payloads, member, payload)

    def remove_as_before(self, member: str) -> None:
        """What redis-timers does to remove a timer."""
        self._client.zrem(self.keys.timeline, member)
        self._client.hdel(self.keys.payloads, member)

    # Workers that die

    def claim(self, topics: Sequence[str]) -> Ghost:
        """Be a worker that takes what is due."""
        self._ghosts += 1
        ghost = Ghost(self, f"{self._ghosts:08x}00000000", topics)
        ghost.claimed = ghost.turn(_ENOUGH, [])
        return ghost

    def ask(self, request: Request) -> Any:
        """Send a script as the library would."""
        make: Any = Connection
        connection = make(host="127.0.0.1", port=self._server.port)
        try:
            connection.connect()
            connection.send_packed_command([request.packed(whole=True)])
            return connection.read_response()
        finally:
            connection.disconnect()

    def _due(self, topic: str) -> bytes:
        return self.keys.due + topic.encode()


class Ghost:
    """A worker that has taken timers, and of which nobody knows whether it still lives."""

    def __init__(self, view: TimersView, name: str, topics: Sequence[str]) -> None:
        self.claimed: list[Claimed] = []
        self._view = view
        self._name = name
        self._number = 0
        self._terms = [Terms(topic, LEASE, MOST_ATTEMPTS) for topic in topics]

    def turn(self, limit: int, outcomes: list[Outcome]) -> list[Claimed]:
        """Tell what became of timers, and take others."""
        self._number += 1
        request = self._view.scripts.turn(
            self._name, self._number, False, limit, "go", outcomes, self._terms
        )
        return parse_turn(self._view.ask(request), self._terms).claimed

    def report(self, claimed: Claimed, what: Any, after: int) -> None:
        """Tell what became of one."""
        error = "of a ghost" if what == "dead" else ""
        outcome = Outcome(claimed.topic, claimed.member, claimed.fence, what, after, error)
        self.turn(0, [outcome])

    def renew(self, claimed: Claimed) -> bool:
        """Whether its lease could be renewed."""
        run = (claimed.topic, claimed.fence, LEASE, claimed.member)
        reply: list[int] = self._view.ask(self._view.scripts.renew([run]))
        return reply == [1]


def _text(member: bytes) -> str:
    return member.decode()


def _micros(score: float) -> int:
    return round(Decimal(score) * 1_000_000)


def _seconds(micros: int) -> str:
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}"


def _record(line: str) -> Record:
    return Record(
        seq=int(line[:16]),
        fence=int(line[16:32]),
        due=int(line[32:48]),
        mark=line[48],
        attempts=int(line[49:53]),
        every=line[65:],
    )


def members(claimed: Iterable[Claimed]) -> list[str]:
    """What they are called in the timeline."""
    return [_text(each.member) for each in claimed]
