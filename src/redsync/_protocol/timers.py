"""What the timers say to Redis, and what the answers mean. No I/O.

Times are whole microseconds here; those that come from Redis are of the server's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from .keys import TimerKeys
from .resp import Argument, Reply, pack
from .scripts import Command, Request, Script

SLICE: Final = 12_000_000
"""The longest wait of a worker. Less than the time for which a token is left (HORIZON)."""

MOST: Final = 500
"""How many timers a call is about at most: a script holds up everybody else."""

BUDGET: Final = 1 << 20
"""Bytes of payloads in one answer, unless a single payload is larger."""

LAST_INSTANT: Final = 8_589_934_591_000_000
"""March 2242. From then on a score, which is a double, does not tell microseconds apart."""

_PAGE: Final = 1000

Mode = Literal["stay", "woken", "go"]
"""Whether a worker comes back in time, has been woken by a token, or is not to be relied on."""


class Arming(NamedTuple):
    """A timer to be set."""

    topic: str
    member: bytes
    payload: bytes
    period: int | None
    """From now, or None: at `instant`."""
    instant: int
    every: str
    """`every policy`, or empty."""


class Outcome(NamedTuple):
    """What became of a run."""

    topic: str
    member: bytes
    fence: int
    what: Literal["completed", "dead", "again", "cut", "back"]
    after: int = 0
    error: str = ""


class Claimed(NamedTuple):
    """A timer that is to be run."""

    topic: str
    member: bytes
    fence: int
    due: int
    attempt: int
    payload: bytes | None
    held: bool = False
    """It is this worker's already: nobody else has taken it when its lease was over."""


class Terms(NamedTuple):
    """What holds for a topic in this worker."""

    topic: str
    lease: int
    max_attempts: int


class Turn(NamedTuple):
    """The answer to a worker's turn."""

    now: int
    wait: int | None
    """When to come back; None: when there is something to come for."""
    unindexed: int
    """Timers in the timeline that redis-timers has armed, and nobody has adopted."""
    claimed: list[Claimed]


class Letter(NamedTuple):
    """A timer that has failed for good."""

    topic: str
    timer_id: str
    payload: bytes | None
    error: str
    attempts: int
    due: int
    died: int


class Record(NamedTuple):
    """What is noted of a timer that is not dead."""

    topic_length: int
    """Bytes."""
    runs: bool = False
    attempts: int = 0
    """How many have begun."""
    every: int | None = None


class TimerScripts:
    """The calls of the scripts, bound to the keys of one timeline."""

    def __init__(self, keys: TimerKeys) -> None:
        self.keys = keys
        self._fixed = (keys.timeline, keys.payloads, keys.state, keys.meta, keys.dead)
        names = ("adopt", "arm", "cancel", "discard", "renew", "revive", "scan", "turn")
        self._scripts = {name: Script(f"timers/{name}") for name in names}

    def arm(self, request: str, armings: Sequence[Arming]) -> Request:
        """Arm timers, `MOST` at most, each member once."""
        topics = _ordinals(each.topic for each in armings)
        arguments: list[Argument] = []
        for each in armings:
            when = f"={each.instant}" if each.period is None else f"+{each.period}"
            length = topic_length(each.topic)
            arguments += (topics[each.topic], length, when, each.every, each.member, each.payload)
        return self._call("arm", self._memo(request), topics, *arguments)

    def cancel(self, request: str, topic: str, member: bytes) -> Request:
        """Remove a timer."""
        return self._call("cancel", self._memo(request), [topic], member, topic_length(topic))

    def revive(self, request: str, topic: str, member: bytes) -> Request:
        """Arm a dead timer again."""
        return self._call("revive", self._memo(request), [topic], member, topic_length(topic))

    def discard(self, request: str, topic: str, member: bytes) -> Request:
        """Forget a dead timer."""
        return self._call("discard", self._memo(request), [topic], member, topic_length(topic))

    def renew(self, runs: Sequence[tuple[str, int, int, bytes]]) -> Request:
        """Renew leases: topic, fence, lease and member of each run."""
        topics = _ordinals(run[0] for run in runs)
        arguments: list[Argument] = []
        for topic, fence, lease, member in runs:
            arguments += (topics[topic], f"{fence:016d}", lease, member)
        return self._call("renew", self.keys.meta, topics, *arguments)

    def turn(
        self,
        worker: str,
        number: int,
        again: bool,
        limit: int,
        mode: Mode,
        outcomes: Sequence[Outcome],
        terms: Sequence[Terms],
    ) -> Request:
        """A worker's turn.

        Args:
            worker: Its name, which begins with two hexadecimal digits.
            number: Names the turn: the same one, taken again, has the same answer.
            again: Whether it may have been taken already.
            limit: How many timers to take at most.
            mode: Whether the worker comes back in time.
            outcomes: Of earlier runs; all topics are among those of `terms`.
            terms: The topics of the worker; which come first is for the caller to vary.
        """
        topics = {each.topic: number for number, each in enumerate(terms, 1)}
        rest: list[Argument] = [limit, BUDGET, mode, SLICE, len(outcomes)]
        for each in outcomes:
            rest += (topics[each.topic], f"{each.fence:016d}", each.what, each.after)
            rest += (each.member, each.error)
        for topic, lease, max_attempts in terms:
            rest += (topic, lease, max_attempts)
        first = (worker, number, int(again), *rest)
        memo = self.keys.claimed + worker.encode()
        return self._scripts["turn"].request_on(
            self._keys(memo, topics), *first, again=(worker, number, 1, *rest)
        )

    def scan(self, cursor: bytes, topics: Iterable[str]) -> Request:
        """Look through a page of the timeline for what no worker of the topics would come to."""
        names = _ordinals(topics)
        return self._call("scan", self.keys.meta, names, cursor, MOST, *names)

    def adopt(self, found: Sequence[tuple[str, bytes]]) -> Request:
        """Adopt timers, `MOST` at most: topic and member of each."""
        topics = _ordinals(topic for topic, _ in found)
        arguments: list[Argument] = []
        for topic, member in found:
            arguments += (topics[topic], topic_length(topic), member)
        return self._call("adopt", self.keys.meta, topics, *arguments)

    def wake(self, topic: str) -> bytes:
        """The list where a worker of the topic waits."""
        return self.keys.wake + topic.encode()

    def register(self, topics: Iterable[str]) -> Command:
        """Note that some worker has these topics."""
        return Command(pack("SADD", self.keys.topics, *topics))

    def topics(self) -> Command:
        """All topics that were ever noted."""
        return Command(pack("SMEMBERS", self.keys.topics))

    def ready(self, instant: str) -> Command:
        """The members that are due by an instant, in seconds."""
        return Command(pack("ZRANGEBYSCORE", self.keys.timeline, "-inf", instant))

    def scores(self, members: Sequence[bytes]) -> Command:
        """When members are due; nothing for those that are not there."""
        return Command(pack("ZMSCORE", self.keys.timeline, *members))

    def page(self, kind: Literal["timeline", "payloads", "dead"], cursor: bytes) -> Command:
        """A part of all timers with their scores, of all payloads, or of all dead timers."""
        verb = "ZSCAN" if kind == "timeline" else "HSCAN"
        return Command(pack(verb, getattr(self.keys, kind), cursor, "COUNT", _PAGE))

    def _call(self, name: str, memo: bytes, topics: Iterable[str], *arguments: Argument) -> Request:
        return self._scripts[name].request_on(self._keys(memo, topics), *arguments)

    def _keys(self, memo: bytes, topics: Iterable[str]) -> tuple[bytes, ...]:
        keys = [*self._fixed, memo]
        for topic in topics:
            keys += (self.keys.due + topic.encode(), self.keys.wake + topic.encode())
        return tuple(keys)

    def _memo(self, request: str) -> bytes:
        return self.keys.request + request.encode()


def member_of(topic: str, separator: str, timer_id: str) -> bytes:
    """What a timer is called in the timeline."""
    return f"{topic}{separator}{timer_id}".encode()


def topic_length(topic: str) -> str:
    """How a record tells where in its member the topic ends."""
    return f"{len(topic.encode()):04d}"


def _ordinals(topics: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for topic in topics:
        found.setdefault(topic, len(found) + 1)
    return found


def parse_armed(reply: Reply) -> tuple[int, bytes]:
    """The instant at which it was done, or 0 and the member that belongs to another topic."""
    assert isinstance(reply, list)
    armed, what = reply
    assert isinstance(what, bytes)
    return (int(what), b"") if armed == 1 else (0, what)


def parse_turn(reply: Reply, terms: Sequence[Terms]) -> Turn:
    """The answer to a turn of a worker with these topics."""
    assert isinstance(reply, list)
    now, wait, unindexed, heads, bodies = reply
    assert isinstance(now, bytes) and isinstance(wait, int) and isinstance(unindexed, int)
    assert isinstance(heads, bytes) and isinstance(bodies, bytes)
    claimed = []
    position = 0
    for line in heads.splitlines():
        ordinal, fence, due, attempt, length, size = map(int, line.split())
        end = position + length
        stop = end + max(0, size)
        payload = None if size < 0 else bodies[end:stop]
        topic = terms[ordinal - 1].topic
        member = bodies[position:end]
        held = attempt < 0
        attempt = -1 - attempt if held else attempt
        claimed.append(Claimed(topic, member, fence, due, attempt, payload, held))
        position = stop
    return Turn(int(now), None if wait < 0 else wait, unindexed, claimed)


def parse_scanned(reply: Reply) -> tuple[bytes, list[bytes], list[bytes]]:
    """The next cursor, members without a record, and those that are not indexed as they should."""
    assert isinstance(reply, list)
    cursor, unknown, wrong = reply
    assert isinstance(cursor, bytes)
    return cursor, texts(unknown), texts(wrong)


def texts(reply: Reply) -> list[bytes]:
    """A list of strings."""
    assert isinstance(reply, list)
    return [each for each in reply if isinstance(each, bytes)]


def parse_page(reply: Reply) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The cursor to go on with, b"0" at the end, and pairs."""
    assert isinstance(reply, list)
    cursor, flat = reply
    assert isinstance(cursor, bytes)
    found = texts(flat)
    return cursor, list(zip(found[::2], found[1::2], strict=True))


def parse_letter(member: bytes, letter: bytes, separator: str) -> Letter:
    """A dead timer."""
    header, _, rest = letter.partition(b"\n")
    length, due, attempts, died, has_payload, size = map(int, header.split())
    return Letter(
        topic=readable(member[:length]),
        timer_id=readable(member[length + len(separator.encode()) :]),
        payload=rest[size:] if has_payload else None,
        error=readable(rest[:size]),
        attempts=attempts,
        due=due,
        died=died,
    )


def batches(armings: Iterable[Arming]) -> Iterable[list[Arming]]:
    """As many as one call may be about, and not too many bytes."""
    batch: list[Arming] = []
    size = 0
    for each in armings:
        if batch and (len(batch) == MOST or size + len(each.payload) > BUDGET):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += len(each.payload)
    if batch:
        yield batch


def parse_record(record: bytes) -> Record:
    """What lua/timers/common.lua has written."""
    every = record[65:].split()
    return Record(
        topic_length=int(record[53:57]),
        runs=int(record[16:32]) > 0,
        attempts=int(record[49:53]),
        every=int(every[0]) if every else None,
    )


def readable(text: bytes) -> str:
    """Text from Redis, where others may have written anything."""
    return text.decode("utf-8", "surrogateescape")
