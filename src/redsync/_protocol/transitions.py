"""The transitions of `lua/semaphore`, for servers that forbid scripts.

A `Draft` makes them on a copy of what Redis holds and collects the commands that make them there.
The caller sends these in a transaction that fails if `meta` was changed meanwhile. Every
transition changes `meta`, but for a renewal, which harms nobody, and a pop: so a token that the
copy shows as free may be gone by then, and only a Draft that says so in `watches_free` minds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from .._arguments import MAX_COUNT
from .keys import SemaphoreKeys
from .resp import Argument
from .semaphore import NOBODY, Contents, Facts, Return, Seat, Terms, Token, checked_stored_count

_GRANTED: Final = re.compile(r"([0-9]+) (\S+) ([0-9]+)")
_SLOT: Final = re.compile(r"[0-9]+")


class Draft:
    """What Redis holds for a semaphore, and the commands that change it."""

    def __init__(self, keys: SemaphoreKeys, contents: Contents, seen: int) -> None:
        self._keys = keys
        self._now = contents.now
        self._micros = contents.micros
        self._meta = dict(contents.meta)
        self._records = dict(contents.records)
        self._free = list(contents.free)
        self._held = dict(contents.held)
        self._seen = seen
        self.commands: list[tuple[Argument, ...]] = []
        self.pushed = 0
        self.watches_free = False
        """Whether the transaction has to fail if a token was popped meanwhile."""

    @property
    def exists(self) -> bool:
        """Whether there is such a semaphore."""
        return bool(self._meta)

    @property
    def facts(self) -> Facts:
        """What is true for everybody."""
        names = ("version", "fence", "grace", "ttl")
        return Facts(self._count, *(self._number(name) for name in names))

    @property
    def wait(self) -> int | None:
        """Milliseconds until the next lease ends."""
        return max(0, min(self._held.values()) - self._now) if self._held else None

    # One grant

    def refresh(self) -> None:
        """Give what is free new fences, in the same order: another server may have granted it
        already, and this one, its replica, not have heard of it.
        """
        tokens, self._free = self._free, []
        self.watches_free = self.watches_free or bool(tokens)
        if tokens:
            self._change("DEL", self._keys.free)
        for token in tokens:
            slot = _slot_of(token)
            if token == f"{slot}:{self._records.get(slot)}":
                self._push(slot)
        self.pushed = 0

    def grant(self, token: Token, seat: Seat) -> bool:
        """A token that was popped goes to its popper, if it is no left-over of lost data."""
        if token.slot not in self._records:
            return False
        known, holder, _ = _parse(self._records[token.slot])
        return known == token.fence and holder in (None, seat.owner) and self.seat(seat)

    def seat(self, seat: Seat) -> bool:
        """A permit that its holder believes in gets its lease, unless another claim is better."""
        if seat.slot not in self._records:
            return False
        known, holder, _ = _parse(self._records[seat.slot])
        if seat.fence < known or (seat.fence == known and holder not in (None, seat.owner)):
            return False
        if seat.fence > known:
            # A fence that this server never gave: its data went back in time. Of two grants the
            # later one is in the right; the other holder finds out.
            if seat.fence > self._number("fence"):
                self._set("fence", seat.fence)
        if seat.slot not in self._held:
            self._unlist(f"{seat.slot}:{known}")
        if seat.fence > known or holder is None:
            since = self._now - seat.age
            self._record(
                seat.slot, f"{seat.fence} {seat.owner} {seat.ttl} {since} {seat.identifier}"
            )
        self._lease(seat.slot, self._now + seat.ttl)
        return True

    def give_back(self, handback: Return) -> bool:
        """Return what (slot, fence, owner) names, if it still names it."""
        if handback.slot == NOBODY:
            return self._give_back_all_of(handback.owner)
        slot, fence = int(handback.slot), int(handback.fence)
        if slot not in self._records:
            return False
        known, holder, _ = _parse(self._records[slot])
        if known != fence or holder not in (None, handback.owner):
            return False
        if not self._unlease(slot):
            self._unlist(f"{slot}:{fence}")
        self._back(slot)
        return True

    def _give_back_all_of(self, owner: str) -> bool:
        owned = [slot for slot, record in self._records.items() if _parse(record)[1] == owner]
        for slot in owned:
            self.give_back(Return(slot, _parse(self._records[slot])[0], owner))
        return bool(owned)

    # The whole

    def create(self, count: int, terms: Terms) -> None:
        """Make the semaphore, all of it free."""
        self._begin()
        version = self._mint()
        fixed = {
            "count": count,
            "version": version,
            "fence": version,
            "grace": terms.grace,
            "ttl": terms.ttl,
            "keep": terms.keep,
            "recovery": 0,
        }
        for name, value in fixed.items():
            self._set(name, value)
        self._fill()

    def recreate(self, known: Facts, terms: Terms) -> None:
        """After the data was lost: every slot leased to nobody for the longest lease."""
        self._begin()
        recovery = self._now + terms.ttl
        fixed = {
            "count": known.count,
            "version": known.version,
            "fence": self._seen,
            "grace": known.grace,
            "ttl": terms.ttl,
            "keep": terms.keep,
            "recovery": recovery,
        }
        for name, value in fixed.items():
            self._set(name, value)
        for slot in range(known.count):
            self._record(slot, "0")
            self._lease(slot, recovery)

    def resize(self, count: int, version: int | None = None) -> None:
        """Change the number of permits; with a version, as somebody else did before."""
        if version is None:
            version = self._mint()
            self._set("fence", version)
        self._set("count", count)
        self._set("version", version)
        surplus = len(self._records) - count
        beyond = [token for token in reversed(self._free) if _slot_of(token) >= count]
        below = [token for token in reversed(self._free) if _slot_of(token) < count]
        for token in [*beyond, *below[: max(0, surplus - len(beyond))]]:
            self.watches_free = True
            self._unlist(token)
            self._unrecord(_slot_of(token))
        if self._now >= self._number("recovery"):
            self._fill()

    def keep_alive(self, terms: Terms, left: int) -> None:
        """Keep the keys for as long as the most patient client wants.

        Args:
            terms: What this client wants.
            left: Milliseconds that `meta` has left. Telling the server anew each time would
                make the transactions of others fail.
        """
        for name, wanted in (("ttl", terms.ttl), ("keep", terms.keep)):
            if wanted > self._number(name):
                self._set(name, wanted)
        keep = self._number("keep")
        if left < keep // 2:
            for key in (self._keys.meta, self._keys.held, self._keys.free):
                self._change("PEXPIRE", key, keep)

    def lead(self, micros: int) -> None:
        """Raise fences above those of a server that may still grant, ahead of the clock."""
        self._set("fence", max(self._mint(), self._micros + micros + 1))

    def reap(self) -> None:
        """Take back what ran out, and find what is missing."""
        for slot in [slot for slot, deadline in self._held.items() if deadline <= self._now]:
            self._unlease(slot)
            self._back(slot)
        self._pull_in_deadlines()
        free = {_slot_of(token) for token in self._free}
        for slot in self._records.keys() - free - self._held.keys():
            self._lease(slot, self._latest(slot))
            self._record(slot, self._records[slot])  # no change, but one that everybody sees
        if self._now >= self._number("recovery"):
            self._fill()

    def finish(self) -> None:
        """Let no key live for ever that is perhaps made anew."""
        for key, maker in ((self._keys.held, "ZADD"), (self._keys.free, "RPUSH")):
            if any(command[0] == maker for command in self.commands):
                self._change("PEXPIRE", key, self._number("keep"))

    def _pull_in_deadlines(self) -> None:
        """Deadlines further away than a lease is long: the clock was set back."""
        ttl, recovery = self._number("ttl"), self._number("recovery")
        furthest = max(self._held.values(), default=0)
        if furthest <= self._now + max(ttl, self._number("grace")) and recovery <= self._now + ttl:
            return
        self._set("recovery", min(recovery, self._now + ttl))
        for slot, deadline in list(self._held.items()):
            if deadline > self._latest(slot):
                self._lease(slot, self._latest(slot))

    def _latest(self, slot: int) -> int:
        """When the lease of a slot ends at the latest."""
        _, owner, ttl = _parse(self._records.get(slot, "0"))
        if owner is not None:
            return self._now + ttl
        return max(self._now + self._number("grace"), self._number("recovery"))

    def _back(self, slot: int) -> None:
        """Free a slot whose lease is removed."""
        recovery = self._number("recovery")
        if self._now < recovery:
            # Earlier holders may still believe in any slot: nothing is pushed before its end.
            self._record(slot, str(_parse(self._records.get(slot, "0"))[0]))
            self._lease(slot, recovery)
        elif slot < self._count and len(self._records) <= self._count:
            self._push(slot)
        else:
            self._unrecord(slot)
            self._fill()

    def _fill(self) -> None:
        """Put slots into circulation until there are as many as permits."""
        for slot in self._unused(self._count - len(self._records)):
            self._push(slot)

    def _unused(self, lacking: int) -> Iterator[int]:
        slots = (slot for slot in range(self._count) if slot not in self._records)
        return iter([slot for slot, _ in zip(slots, range(lacking), strict=False)])

    def _push(self, slot: int) -> None:
        fence = self._mint()
        self._set("fence", fence)
        self._record(slot, str(fence))
        self._free.append(f"{slot}:{fence}")
        self._change("RPUSH", self._keys.free, f"{slot}:{fence}")
        self.pushed += 1

    def _mint(self) -> int:
        return max(int(self._meta.get("fence", 0)) + 1, self._micros, self._seen + 1)

    # The smallest changes

    def _begin(self) -> None:
        self._meta, self._records, self._free, self._held = {}, {}, [], {}
        self._change("DEL", self._keys.free, self._keys.held, self._keys.meta)

    @property
    def _count(self) -> int:
        return checked_stored_count(self._number("count"))

    def _number(self, name: str) -> int:
        return int(self._meta[name])

    def _set(self, name: str, value: int) -> None:
        self._meta[name] = str(value)
        self._change("HSET", self._keys.meta, name, value)

    def _record(self, slot: int, record: str) -> None:
        self._records[slot] = record
        data = record.encode("utf-8", "surrogateescape")
        self._change("HSET", self._keys.meta, f"s{slot}", data)

    def _unrecord(self, slot: int) -> None:
        self._records.pop(slot, None)
        self._change("HDEL", self._keys.meta, f"s{slot}")

    def _lease(self, slot: int, deadline: int) -> None:
        self._held[slot] = deadline
        self._change("ZADD", self._keys.held, deadline, slot)

    def _unlease(self, slot: int) -> bool:
        self._change("ZREM", self._keys.held, slot)
        return self._held.pop(slot, None) is not None

    def _unlist(self, token: str) -> None:
        if token in self._free:
            self._free.remove(token)
            self._change("LREM", self._keys.free, 0, token)

    def _change(self, *command: Argument) -> None:
        self.commands.append(command)


def has(record: str, seat: Seat) -> bool:
    """Whether a record says that this slot is theirs."""
    fence, owner, _ = _parse(record)
    return fence == seat.fence and owner == seat.owner


def renewal(
    keys: SemaphoreKeys, seats: Sequence[Seat], now: int
) -> tuple[tuple[Argument, ...], ...]:
    """Commands that renew leases and tell whose they are.

    They need no WATCH, under which a far client would starve: to lengthen the lease of somebody
    else by mistake harms nobody.
    """
    fields = [f"s{seat.slot}" for seat in seats]
    leases: list[Argument] = []
    for seat in seats:
        leases += [now + seat.ttl, seat.slot]
    return (
        ("ZADD", keys.held, "XX", "GT", *leases),
        ("HMGET", keys.meta, *fields),
        ("ZRANGE", keys.held, 0, -1),
    )


def _parse(record: str) -> tuple[int, str | None, int]:
    """The fence, and the owner and the lease if it is granted."""
    granted = _GRANTED.match(record)
    if granted:
        return int(granted[1]), granted[2], int(granted[3])
    return int(record) if record.isdecimal() else 0, None, 0


def _slot_of(token: str) -> int:
    """Beyond all others, if it is no token: those go first."""
    found = _SLOT.match(token)
    return int(found[0]) if found else MAX_COUNT
