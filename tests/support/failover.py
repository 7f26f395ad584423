"""What those saw who used a server that was replaced, and what is to be thought of it.

A new master may lack the last writes of the old one, grants among them: then it grants the same
slots once more.  That is all that may go wrong, so it is what is measured here, and nothing else is
forgiven.  All times are of the monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from time import monotonic
from typing import Protocol

from redsync.cli.fences import doubled

from .checker import Hold, check_fences, check_overlaps, check_slots

__all__ = ["Double", "Held", "Journal", "Switch", "doubles", "judge"]


class Losable(Protocol):
    """A permit."""

    @property
    def lost(self) -> bool: ...


@dataclass(eq=False)
class Held:
    """A permit in the hands of one who looks at it again and again."""

    semaphore: str
    who: str
    asked: float
    slot: int = -1
    fence: int = -1
    granted: float = math.inf
    ended: float = -math.inf
    """When its holder last looked, and it was not lost."""
    told: float | None = None
    """When its holder found that it was lost."""

    def take(self, slot: int, fence: int) -> None:
        """It was granted."""
        self.slot, self.fence = slot, fence
        self.granted = self.ended = monotonic()

    def look(self, permit: Losable) -> bool:
        """Whether it may be relied on."""
        now = monotonic()
        if permit.lost:
            self.told = monotonic()
            return False
        self.ended = now
        return True

    @property
    def hold(self) -> Hold:
        """As the checker wants it."""
        return Hold(self.who, self.slot, self.fence, self.asked, self.granted, self.ended)

    def __str__(self) -> str:
        told = "" if self.told is None else f", told at {self.told:.6f}"
        return f"{self.semaphore}: {self.hold}{told}"


@dataclass
class Journal:
    """What came to pass, in whichever order."""

    held: list[Held] = field(default_factory=list)
    sets: list[float] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    armed: dict[str, float] = field(default_factory=dict)
    """Timers whose arming was acknowledged, and when."""
    runs: list[tuple[float, str]] = field(default_factory=list)
    errors: list[tuple[float, str, Exception]] = field(default_factory=list)


@dataclass(frozen=True)
class Double:
    """A slot in the hands of two."""

    loser: Held
    keeper: Held

    @property
    def believed(self) -> float:
        """For how long both relied on it, in seconds."""
        begun = max(self.loser.granted, self.keeper.granted)
        return min(self.loser.ended, self.keeper.ended) - begun


def doubles(held: Iterable[Held]) -> Iterator[Double]:
    """The slots that two believed in at once."""
    slots: dict[tuple[str, int], list[Held]] = {}
    for each in held:
        slots.setdefault((each.semaphore, each.slot), []).append(each)
    for holders in slots.values():
        for one, other in combinations(sorted(holders, key=lambda each: each.granted), 2):
            if other.granted < one.ended:
                # Whoever is told has lost it. If neither is, as both were rid of it before, it is
                # the one with the lower fence, whose writes are refused; if both are, the earlier.
                if one.told is None and other.told is None:
                    later_lost = other.fence < one.fence
                else:
                    later_lost = one.told is None
                yield Double(other, one) if later_lost else Double(one, other)


@dataclass(frozen=True)
class Switch:
    """How one master followed another."""

    broken: float
    """When the old one was killed, or whatever else was done to it."""
    promoted: float
    """When the new one called itself master."""


@dataclass(frozen=True)
class Verdict:
    """What there is to tell of a switch, in seconds."""

    promotion: float
    """From the fault to the promotion."""
    first_grant: float
    """From the promotion to the first grant."""
    last_waiter: float
    """From the promotion until the last one of those who waited at that time had a permit."""
    over_granted: int
    """Slots that were granted twice."""
    believed: float
    """For how long at most two believed in one."""
    lower: int
    """How many of those who lost one had the lower fence."""

    def __str__(self) -> str:
        return (
            f"promoted after {self.promotion:.2f} s, first grant {self.first_grant:.2f} s and last"
            f" waiter {self.last_waiter:.2f} s later, {self.over_granted} over-granted,"
            f" both believed {self.believed:.2f} s, {self.lower} with the lower fence"
        )


def latecomers(held: Sequence[Held], switch: Switch) -> list[Held]:
    """Those whom an old master that lived on granted something beside the new one.

    Their fences are lower than those of the new one, which may have granted earlier.
    """
    between = [each for each in held if switch.broken < each.granted < switch.promoted]
    return [
        each
        for each in between
        if any(other.granted <= each.granted and other.fence > each.fence for other in between)
    ]


def judge(held: Sequence[Held], count: int, switch: Switch, ttl: float) -> Verdict:
    """Tell of a switch; raise an AssertionError if anything is wrong that it does not excuse.

    Args:
        held: All permits that anybody had.
        count: How many there are of each semaphore.
        switch: What happened to the master.
        ttl: Their lease. Whoever is rid of a permit before it is to be renewed is not told that
            somebody else had it too.
    """
    renewal = 0.4 * ttl + 1
    found = list(doubles(held))
    for each in found:
        names = f"{each.loser} lost to {each.keeper}"
        assert each.loser.granted < switch.promoted, f"two of the same master: {names}"
        if each.loser.told is not None:
            assert each.loser.fence < each.keeper.fence, f"the higher fence lost: {names}"
        else:
            assert each.believed < renewal, f"nobody was told: {names}"
    losers = {each.loser for each in found}
    for name in {each.semaphore for each in held}:
        of_it = [each for each in held if each.semaphore == name]
        late = latecomers(of_it, switch)
        check_fences([each.hold for each in of_it if each not in late])
        check_fences([each.hold for each in late])
        assert not list(doubled([each.hold for each in of_it])), "a fence given twice"
        kept = [each.hold for each in of_it if each not in losers]
        check_overlaps(kept, count)
        check_slots(kept)
    after = [each.granted for each in held if each.granted > switch.promoted]
    waited = [
        each.granted for each in held if each.asked < switch.promoted < each.granted < math.inf
    ]
    return Verdict(
        promotion=switch.promoted - switch.broken,
        first_grant=min(after) - switch.promoted,
        last_waiter=max(waited, default=switch.promoted) - switch.promoted,
        over_granted=len(losers),
        believed=max((each.believed for each in found), default=0.0),
        lower=sum(each.loser.fence < each.keeper.fence for each in found),
    )
