"""What must be true of fences, whoever has written down who was granted what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Protocol, TypeVar

__all__ = ["Grant", "doubled", "fallen", "neighbours", "overtaken"]


class Grant(Protocol):
    """A permit that somebody got."""

    @property
    def slot(self) -> int:
        """Which one."""

    @property
    def fence(self) -> int:
        """Its fence."""

    @property
    def asked(self) -> float:
        """Before `acquire` was called."""

    @property
    def granted(self) -> float:
        """After it returned."""


G = TypeVar("G", bound=Grant)


def doubled(grants: Iterable[G]) -> Iterator[tuple[G, G]]:
    """Those with the same fence."""
    for one, other in pairwise(sorted(grants, key=_fence)):
        if one.fence == other.fence:
            yield one, other


def neighbours(grants: Iterable[G]) -> Iterator[tuple[G, G]]:
    """For each slot, each grant and the next one."""
    slots: dict[int, list[G]] = {}
    for each in sorted(grants, key=_granted):
        slots.setdefault(each.slot, []).append(each)
    for in_turn in slots.values():
        yield from pairwise(in_turn)


def fallen(grants: Iterable[G]) -> Iterator[tuple[G, G]]:
    """Those that had a slot one after the other, the later one with a lower fence."""
    for one, other in neighbours(grants):
        if one.fence > other.fence:
            yield one, other


def overtaken(grants: Iterable[G]) -> Iterator[tuple[G, G]]:
    """Those with a higher fence, and others that were asked for after that was there.

    Between slots only such have to be higher: a process may be slow to notice what it was granted.
    So each request is compared with the earliest answer among all that have a higher fence.
    """
    earliest: G | None = None
    for each in sorted(grants, key=_fence, reverse=True):
        if earliest is not None and each.asked > earliest.granted:
            yield earliest, each
        if earliest is None or each.granted < earliest.granted:
            earliest = each


def _fence(grant: Grant) -> int:
    return grant.fence


def _granted(grant: Grant) -> float:
    return grant.granted
