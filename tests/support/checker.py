"""Proves of a history what the semaphore promises, whichever processes took part in it.

All times are of CLOCK_MONOTONIC, which the processes of a machine share.  Each hold is the time for
which its holder believed in the permit, and no more: from after `acquire` returned until before
`release` was called, or until the permit was lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redsync.cli.fences import doubled, fallen, overtaken

__all__ = [
    "Hold",
    "check",
    "check_fences",
    "check_overlaps",
    "check_slots",
    "most_at_once",
]


@dataclass(frozen=True)
class Hold:
    """One permit in the hands of one holder."""

    process: str
    slot: int
    fence: int
    asked: float
    """Before `acquire` was called."""
    granted: float
    """After it returned."""
    ended: float = math.inf
    """Before it was released; or when it was lost, or its holder was killed."""

    @classmethod
    def reported(cls, process: str, facts: dict[str, Any]) -> Hold:
        """What a worker process has told of a permit."""
        names = ("slot", "fence", "asked", "granted", "ended")
        return cls(process, **{name: facts[name] for name in names if name in facts})

    def __str__(self) -> str:
        return (
            f"slot {self.slot} with fence {self.fence} of {self.process}"
            f" [{self.granted:.6f}, {self.ended:.6f})"
        )


def check(holds: Sequence[Hold], count: int) -> None:
    """Raise an AssertionError unless everything holds that a semaphore promises."""
    check_overlaps(holds, count)
    check_slots(holds)
    check_fences(holds)


def most_at_once(holds: Iterable[Hold]) -> int:
    """How many permits were held at the same time."""
    return max((len(each) for each in _sets(holds)), default=0)


def check_overlaps(holds: Sequence[Hold], count: int) -> None:
    """Never more than `count` permits at once."""
    for together in _sets(holds):
        assert len(together) <= count, f"{len(together)} permits at once: {_listed(together)}"


def check_slots(holds: Sequence[Hold]) -> None:
    """No slot in the hands of two at once."""
    for slot in {hold.slot for hold in holds}:
        for together in _sets(hold for hold in holds if hold.slot == slot):
            assert len(together) <= 1, f"a slot held by two: {_listed(together)}"


def check_fences(holds: Sequence[Hold]) -> None:
    """No fence twice; rising for each slot; and a later request never gets a lower one."""
    for one, other in doubled(holds):
        raise AssertionError(f"a fence given twice: {_listed([one, other])}")
    for one, other in fallen(holds):
        raise AssertionError(f"a fence fell: {_listed([one, other])}")
    for one, other in overtaken(holds):
        raise AssertionError(f"a later request got a lower fence: {_listed([one, other])}")


def _sets(holds: Iterable[Hold]) -> Iterable[set[Hold]]:
    """Who holds a permit, after each instant at which that changes."""
    changes: list[tuple[float, int, Hold]] = []
    for hold in holds:
        if hold.granted < hold.ended:  # else it had run out before its holder came to look at it
            changes += [(hold.granted, 1, hold), (hold.ended, 0, hold)]
    now: set[Hold] = set()
    for _, begins, hold in sorted(changes, key=lambda change: change[:2]):
        if begins:
            now.add(hold)
            yield now
        else:
            now.remove(hold)


def _listed(holds: Iterable[Hold]) -> str:
    return "; ".join(str(hold) for hold in sorted(holds, key=lambda hold: hold.granted))
