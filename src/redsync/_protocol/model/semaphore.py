"""What the scripts in `lua/semaphore` do, on a state that nobody changes in place.

Times are whole units of any length. What nothing depends on is left out of a record: since when a
permit is held, and the identifier. So is the life of the keys: a state has them, or has lost them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

ANY: Final = -1
"""As the slot of a return: whatever the owner was granted."""

Token = tuple[int, int]
"""Slot and fence."""

Seat = tuple[int, int, int, int]
"""Slot, fence, owner and lease of a permit whose holder believes in it."""

Return = tuple[int, int, int]
"""Slot, fence and owner of what is given back."""


class Meta(NamedTuple):
    """The fixed fields of `meta`."""

    permits: int
    """`count`, which tuples have already."""
    version: int
    fence: int
    grace: int
    ttl: int
    keep: int
    recovery: int

    @property
    def facts(self) -> Facts:
        """The end of an answer."""
        return self[:5]


Facts = tuple[int, int, int, int, int]
"""count, version, fence, grace, ttl."""


class Record(NamedTuple):
    """The field of a slot in `meta`."""

    fence: int
    owner: int = 0
    """0: nobody was granted it since the fence was minted."""
    ttl: int = 0


class State(NamedTuple):
    """The three keys."""

    meta: Meta | None
    records: tuple[Record | None, ...]
    """By slot; None: it does not circulate."""
    free: tuple[Token, ...]
    held: tuple[int | None, ...]
    """By slot, when the lease ends."""

    @property
    def circulating(self) -> int:
        """How many slots have a record."""
        return len(self.records) - self.records.count(None)


def nothing(slots: int) -> State:
    """No key at all, with room for so many slots."""
    return State(None, (None,) * slots, (), (None,) * slots)


class Empty(NamedTuple):
    """The answer of acquire with nothing free."""

    wait: int
    pushed: int
    facts: Facts


class Tended(NamedTuple):
    """The answer of tend."""

    wait: int
    seated: tuple[bool, ...]
    facts: Facts


class Script:
    """One run of one script, at an instant; `state` is what it leaves behind.

    Args:
        state: What it finds.
        now: The server's clock.
        micros: The same as a number that fences are minted from.
        seen: The highest fence that the caller knows.
    """

    def __init__(self, state: State, now: int = 0, micros: int = 0, seen: int = 0) -> None:
        self.meta = state.meta
        self.records = list(state.records)
        self.free = list(state.free)
        self.held = list(state.held)
        self.now = now
        self.micros = micros
        self.seen = seen
        self.pushed = 0

    @property
    def state(self) -> State:
        """What the keys hold now."""
        return State(self.meta, tuple(self.records), tuple(self.free), tuple(self.held))

    # The scripts

    def acquire(self, owner: int, ttl: int, keep: int, again: bool) -> Token | Empty | None:
        """Take a free permit."""
        if not again and self.free:
            token = self.free.pop(0)
            if self.grant(token, owner, ttl):
                return token
        if self.meta is None:
            return None
        self.keep_alive(ttl, keep)
        if again:
            found = self.granted_before(owner, ttl)
            if found is not None:
                return found
            self.refresh()
        while self.free:
            token = self.free.pop(0)
            if self.grant(token, owner, ttl):
                return token
        self.reap()
        return Empty(self.nearest(), self.pushed, self.facts())

    def create(
        self, ttl: int, keep: int, grace: int, count: int | None, known: tuple[int, int] | None
    ) -> Facts | None:
        """Make the semaphore, or join it; `known` is the count and its version, if ever known."""
        if self.meta is None:
            if known is not None:
                self.recreate(*known, grace, ttl, keep)
            elif count is not None:
                self.begin(count, grace, ttl, keep)
            else:
                return None
        elif count is not None and count != self.meta.permits:
            return self.facts()
        self.keep_alive(ttl, keep)
        return self.facts()

    def release(self, slot: int, fence: int, owner: int) -> bool:
        """Give a permit back."""
        return self.give_back(slot, fence, owner)

    def tend(
        self,
        ttl: int,
        keep: int,
        grace: int,
        known: tuple[int, int],
        reap: bool,
        seats: Sequence[Seat] = (),
        returns: Sequence[Return] = (),
        lead: int = 0,
    ) -> Tended:
        """Renew leases, give back, and reap; a lead raises the fences above the clock."""
        count, version = known
        if self.meta is None:
            self.recreate(count, version, grace, ttl, keep)
        elif version > self.meta.version:
            self.set_count(count, version)
        self.keep_alive(ttl, keep)
        if lead:
            self.fix(fence=self.mint(max(self.fixed.fence, self.micros + lead)))
        seated = tuple(self.seat(*seat) for seat in seats)
        for slot, fence, owner in returns:
            if slot == ANY:
                self.return_all_of(owner)
            else:
                self.give_back(slot, fence, owner)
        if reap:
            self.reap()
        return Tended(self.nearest(), seated, self.facts())

    def resize(self, ttl: int, keep: int, count: int, version: int) -> Facts | None:
        """Change the number of permits, if the version is still this one."""
        if self.meta is None:
            return None
        self.keep_alive(ttl, keep)
        if self.is_version(version):
            minted = self.mint(self.fixed.fence)
            self.fix(fence=minted)
            self.set_count(count, minted)
        return self.facts()

    # What they share

    @property
    def fixed(self) -> Meta:
        """The fixed fields, which are there."""
        assert self.meta is not None
        return self.meta

    def fix(self, **fields: int) -> None:
        """Set fixed fields."""
        self.meta = self.fixed._replace(**fields)

    def facts(self) -> Facts:
        """The end of an answer."""
        return self.fixed.facts

    def circulating(self) -> int:
        """How many slots have a record."""
        return len(self.records) - self.records.count(None)

    def nearest(self) -> int:
        """Until the next lease ends; -1 if there is none."""
        ends = [end for end in self.held if end is not None]
        return max(0, min(ends) - self.now) if ends else -1

    def grant(self, token: Token, owner: int, ttl: int) -> bool:
        """Give a token to whoever popped it; False if it is a left-over."""
        slot, fence = token
        record = self.records[slot]
        # Compared as text: a record with an owner is not a bare fence.
        if record is None or record.owner or record.fence != fence:
            return False
        self.records[slot] = Record(fence, owner, ttl)
        self.held[slot] = self.now + ttl
        return True

    def granted_before(self, owner: int, ttl: int) -> Token | None:
        """What the same request was granted when it was sent before, with a new lease."""
        for slot, record in enumerate(self.records):
            if record is not None and record.owner == owner and self.held[slot] is not None:
                self.held[slot] = self.now + ttl
                return slot, record.fence
        return None

    def refresh(self) -> None:
        """Give what is free new fences, in the same order."""
        tokens, self.free = self.free, []
        for slot, fence in tokens:
            record = self.records[slot]
            if record is not None and not record.owner and record.fence == fence:
                self.push(slot)
        self.pushed = 0

    def mint(self, last: int) -> int:
        """A fence above all that anybody knows."""
        return max(last + 1, self.micros, self.seen + 1)

    def push(self, slot: int) -> None:
        """Make a slot free, with a new fence."""
        fence = self.mint(self.fixed.fence)
        self.fix(fence=fence)
        self.records[slot] = Record(fence)
        self.free.append((slot, fence))
        self.pushed += 1

    def fill(self) -> None:
        """Put slots into circulation until there are as many as permits."""
        lacking = self.fixed.permits - self.circulating()
        slot = 0
        while lacking > 0:
            if self.records[slot] is None:
                self.push(slot)
                lacking -= 1
            slot += 1

    def back(self, slot: int) -> None:
        """Free a slot whose lease was removed."""
        record = self.records[slot]
        assert record is not None, "the script would fail"
        if self.now < self.fixed.recovery:
            self.records[slot] = Record(record.fence)
            self.held[slot] = self.fixed.recovery
        elif self.is_wanted(slot):
            self.push(slot)
        else:
            self.records[slot] = None
            self.fill()

    def is_wanted(self, slot: int) -> bool:
        """Whether a slot that comes back goes on circulating."""
        return slot < self.fixed.permits and self.circulating() <= self.fixed.permits

    def names(self, slot: int, fence: int, owner: int) -> bool:
        """Whether (slot, fence, owner) is what the slot was granted as, or may be claimed as."""
        record = self.records[slot]
        return record is not None and record.fence == fence and record.owner in (0, owner)

    def give_back(self, slot: int, fence: int, owner: int) -> bool:
        """Return what (slot, fence, owner) names, if it still names it."""
        if not self.names(slot, fence, owner):
            return False
        if self.held[slot] is None:
            self.unlist((slot, fence))
        self.held[slot] = None
        self.back(slot)
        return True

    def return_all_of(self, owner: int) -> None:
        """Give back whatever an owner was granted."""
        for slot, record in enumerate(self.records):
            if record is not None and record.owner == owner:
                self.give_back(slot, record.fence, owner)

    def unlist(self, token: Token) -> None:
        """Take a token out of the list, wherever it is."""
        self.free = [each for each in self.free if each != token]

    def is_version(self, version: int) -> bool:
        """Whether a resize replaces what it was meant to replace."""
        return self.fixed.version == version

    def is_over(self, end: int) -> bool:
        """Whether a lease has ended."""
        return end <= self.now

    def longest(self, slot: int, recovery: int) -> int:
        """When a lease that begins now ends at the latest."""
        record = self.records[slot]
        if record is not None and record.owner:
            return self.now + record.ttl
        return max(self.now + self.fixed.grace, recovery)

    def reap(self) -> None:
        """Take back what ran out, and find what is missing."""
        recovery = self.fixed.recovery
        over = [(end, slot) for slot, end in enumerate(self.held) if end is not None]
        for _, slot in sorted((end, slot) for end, slot in over if self.is_over(end)):
            self.held[slot] = None
            self.back(slot)
        ends = [end for end in self.held if end is not None]
        longest = self.now + max(self.fixed.ttl, self.fixed.grace)
        if (ends and max(ends) > longest) or recovery > self.now + self.fixed.ttl:
            recovery = self.pull_in_deadlines()
        if len(self.free) + len(ends) != self.circulating():
            self.lease_missing(recovery)
        if self.now >= recovery:
            self.fill()

    def pull_in_deadlines(self) -> int:
        """The clock was set back: no deadline is further away than a lease is long."""
        recovery = min(self.fixed.recovery, self.now + self.fixed.ttl)
        self.fix(recovery=recovery)
        for slot, end in enumerate(self.held):
            if end is not None:
                self.held[slot] = min(end, self.longest(slot, recovery))
        return recovery

    def lease_missing(self, recovery: int) -> None:
        """Lease what was popped and not claimed yet, or has lost its lease."""
        listed = {slot for slot, _ in self.free}
        for slot, record in enumerate(self.records):
            if record is not None and slot not in listed and self.held[slot] is None:
                self.held[slot] = self.longest(slot, recovery)

    def begin(self, count: int, grace: int, ttl: int, keep: int) -> None:
        """Make it, all slots free."""
        self.clear()
        version = self.mint(0)
        self.meta = Meta(count, version, version, grace, ttl, keep, 0)
        self.fill()

    def recreate(self, count: int, version: int, grace: int, ttl: int, keep: int) -> None:
        """Make it again: every slot leased to nobody for the longest lease."""
        self.clear()
        recovery = self.now + ttl
        self.meta = Meta(count, version, self.seen, grace, ttl, keep, recovery)
        for slot in range(count):
            self.records[slot] = Record(0)
            self.held[slot] = recovery

    def clear(self) -> None:
        """Remove all keys."""
        self.meta = None
        self.records = [None] * len(self.records)
        self.free = []
        self.held = [None] * len(self.held)

    def keep_alive(self, ttl: int, keep: int) -> None:
        """Note the longest lease and the longest life that anybody wants."""
        self.fix(ttl=max(ttl, self.fixed.ttl), keep=max(keep, self.fixed.keep))

    def set_count(self, count: int, version: int) -> None:
        """Have as many slots circulate as there are permits."""
        self.fix(permits=count, version=version)
        surplus = self.circulating() - count
        tokens = list(reversed(self.free))
        beyond = [token for token in tokens if token[0] >= count]
        below = [token for token in tokens if token[0] < count]
        for token in [*beyond, *below[: max(0, surplus - len(beyond))]]:
            self.free.remove(token)
            self.records[token[0]] = None
        if self.now >= self.fixed.recovery:
            self.fill()

    def seat(self, slot: int, fence: int, owner: int, ttl: int) -> bool:
        """Lease a permit to its holder, unless somebody else has the better claim."""
        record = self.records[slot]
        if record is None or fence < record.fence:
            return False
        if fence == record.fence and not self.names(slot, fence, owner):
            return False
        if fence > record.fence:
            self.fix(fence=max(fence, self.fixed.fence))
        if self.held[slot] is None:
            self.unlist((slot, record.fence))
        if fence > record.fence or not record.owner:
            self.records[slot] = Record(fence, owner, ttl)
        self.held[slot] = self.now + ttl
        return True


def is_whole(state: State) -> bool:
    """Whether all permits are free, each of them once."""
    if state.meta is None:
        return False
    slots = sorted(slot for slot, _ in state.free)
    return slots == list(range(state.meta.permits)) and not any_lease(state.held)


def any_lease(held: Iterable[int | None]) -> bool:
    """Whether any slot is leased."""
    return any(end is not None for end in held)
