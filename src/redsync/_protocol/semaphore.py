"""What the semaphore says to Redis, and what the answers mean. No I/O.

Times are milliseconds: lengths here, instants on the server's clock only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .._arguments import MAX_COUNT
from .keys import SemaphoreKeys
from .resp import Argument, Reply, microseconds
from .scripts import Request, Script

NOBODY: Final = ""
"""In place of the slot and the fence, to return whatever an owner was granted."""


_GRANT: Final = re.compile(r"([0-9]+) (\S+) [0-9]+ ([0-9]+) (.*)", re.DOTALL)
"""A record of a slot that somebody was granted."""

_LATEST: Final = 2.0**53
"""Milliseconds: there may be an end that never comes."""


class Token(NamedTuple):
    """A slot that was granted, and the number of the grant."""

    slot: int
    fence: int

    @classmethod
    def parse(cls, reply: bytes) -> Token:
        """Read `slot:fence`."""
        slot, _, fence = reply.partition(b":")
        if not (slot.isdigit() and fence.isdigit()):
            raise ValueError(f"{reply!r} is no token")
        return cls(int(slot), int(fence))


@dataclass(frozen=True)
class Facts:
    """What is true of a semaphore for everybody."""

    count: int
    version: int
    """The fence of the last change of the count."""
    fence: int
    """The last one that was minted."""
    grace: int
    """For how long nobody else gets a slot whose token was popped and not claimed."""
    ttl: int
    """The longest lease that anybody uses."""

    @classmethod
    def parse(cls, reply: Sequence[Reply]) -> Facts:
        """Read the end of an answer."""
        if not all(isinstance(each, (bytes, int)) for each in reply[-5:]):
            raise ValueError("a field is missing")
        count, version, fence, grace, ttl = (int(each) for each in reply[-5:])  # type: ignore[arg-type]
        return cls(checked_stored_count(count), version, fence, grace, ttl)


def checked_stored_count(count: int) -> int:
    """The number of permits, as Redis has it.

    Raises:
        ValueError: Somebody else has written it.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"the count is {count}, and not 1 to {MAX_COUNT}")
    return count


class Terms(NamedTuple):
    """What a process asks for."""

    ttl: int
    """The lease of a permit."""
    keep: int
    """How long the keys stay after the last use."""

    @property
    def grace(self) -> int:
        """The grace of a semaphore that this process makes."""
        return min(5000, self.ttl // 2)


class Empty(NamedTuple):
    """Nothing was free."""

    wait: int | None
    """Until the next lease ends."""
    pushed: int
    """How many tokens the call set free for those who wait."""
    facts: Facts


class Seat(NamedTuple):
    """A permit whose holder believes in it."""

    slot: int
    fence: int
    owner: str
    ttl: int
    age: int
    identifier: str


class Return(NamedTuple):
    """A permit, or a token that came for nobody, to give back."""

    slot: int | str
    fence: int | str
    owner: str

    @classmethod
    def all_of(cls, owner: str) -> Return:
        """Whatever a request was granted that got no answer."""
        return cls(NOBODY, NOBODY, owner)


class Tended(NamedTuple):
    """The outcome of a tend."""

    seated: list[bool]
    wait: int | None
    facts: Facts


class Lease(NamedTuple):
    """One row of what is granted."""

    slot: int
    fence: int
    owner: str
    since: int
    deadline: int
    identifier: str


class Contents(NamedTuple):
    """Everything that Redis holds for a semaphore at one instant."""

    now: int
    micros: int
    meta: dict[str, str]
    """Of the 7 fixed fields."""
    records: dict[int, str]
    """slot → "fence", or "fence owner ttl since identifier"."""
    free: list[str]
    held: dict[int, int]

    @classmethod
    def parse(cls, reply: Reply) -> Contents:
        """Read TIME, HGETALL meta, LRANGE free, ZRANGE held WITHSCORES."""
        assert isinstance(reply, list)
        micros = microseconds(reply[0])
        fields, free, held = (_texts(each) for each in reply[1:])
        meta = {}
        records = {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            if name[:1] == "s" and name[1:].isdecimal():
                records[int(name[1:])] = value
            else:
                meta[name] = value
        leases = {
            int(s): int(min(float(d), _LATEST))
            for s, d in zip(held[::2], held[1::2], strict=True)
            if s.isdecimal()
        }
        return cls(micros // 1000, micros, meta, records, free, leases)

    def check(self) -> None:
        """See that there is what everybody needs.

        Raises:
            ValueError, LookupError: Somebody else has written it, or taken it away.
        """
        checked_stored_count(int(self.meta["count"]))
        int(self.meta["version"])

    def leases(self) -> list[Lease]:
        """What is granted, by slot."""
        found = []
        for slot in sorted(self.records):
            record = _GRANT.match(self.records[slot])
            if record and slot in self.held:
                fence, owner, since, text = record.groups()
                identifier = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                found.append(
                    Lease(slot, int(fence), owner, int(since), self.held[slot], identifier)
                )
        return found


class SemaphoreScripts:
    """The calls of the scripts, bound to the keys of one semaphore."""

    def __init__(self, keys: SemaphoreKeys) -> None:
        self.keys = keys
        names = ("acquire", "create", "release", "resize", "status", "tend")
        scripts = {
            name: Script(f"semaphore/{name}", keys.free, keys.held, keys.meta) for name in names
        }
        self._acquire = scripts["acquire"]
        self._create = scripts["create"]
        self._release = scripts["release"]
        self._resize = scripts["resize"]
        self._status = scripts["status"]
        self._tend = scripts["tend"]

    def acquire(self, owner: str, terms: Terms, seen: int, identifier: str) -> Request:
        """Take a free permit."""
        arguments = (owner, terms.ttl, terms.keep, seen, identifier)
        request = self._acquire.request(*arguments, "0", again=(*arguments, "1"))
        request.introduces = True
        return request

    def create(self, terms: Terms, count: int | None, known: Facts | None, seen: int) -> Request:
        """Make it, or join it if `count` is None."""
        memory = (known.count, known.version) if known else ("", "")
        asked = "" if count is None else count
        grace = known.grace if known else terms.grace
        return self._create.request(seen, terms.ttl, terms.keep, grace, asked, *memory)

    def release(self, token: Token, owner: str, seen: int) -> Request:
        """Give a permit back."""
        return self._release.request(token.slot, token.fence, owner, seen)

    def tend(
        self,
        terms: Terms,
        known: Facts,
        seats: Sequence[Seat],
        returns: Sequence[Return],
        *,
        seen: int,
        reap: bool = True,
        lead: int = 0,
    ) -> Request:
        """Renew, give back and reap; with a lead, raise fences so far above the server's clock."""
        arguments: list[Argument] = [seen, terms.ttl, terms.keep, known.grace]
        arguments += [known.count, known.version, int(reap), lead, len(seats)]
        for each in (*seats, *returns):
            arguments += each
        return self._tend.request(*arguments)

    def resize(self, terms: Terms, count: int, version: int, seen: int) -> Request:
        """Change the number of permits, if the version is still this one."""
        return self._resize.request(seen, terms.ttl, terms.keep, count, version)

    def status(self) -> Request:
        """Read everything."""
        return self._status.request()


def parse_acquired(reply: Reply) -> Token | Empty | None:
    """A token, or why there is none; None if there is no such semaphore."""
    if isinstance(reply, bytes):
        return Token.parse(reply)
    if reply is None:
        return None
    assert isinstance(reply, list)
    return Empty(_wait(reply[0]), _whole(reply[1]), Facts.parse(reply))


def parse_facts(reply: Reply) -> Facts | None:
    """The facts, or None if there is no such semaphore."""
    return Facts.parse(reply) if isinstance(reply, list) else None


def parse_tended(reply: Reply) -> Tended:
    """The outcome of a tend."""
    assert isinstance(reply, list)
    seated = reply[1]
    assert isinstance(seated, bytes)
    return Tended([each == 49 for each in seated], _wait(reply[0]), Facts.parse(reply))


def _wait(reply: Reply) -> int | None:
    wait = _whole(reply)
    return None if wait < 0 else wait


def _whole(reply: Reply) -> int:
    assert isinstance(reply, int)
    return reply


def _texts(reply: Reply) -> list[str]:
    assert isinstance(reply, list)
    return [
        each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else str(each)
        for each in reply
    ]
