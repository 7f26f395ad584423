"""The smallest part of a history in which a promise is still broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from .history import History, Operation
from .verdict import Violation

__all__ = ["shrink"]

Check = Callable[[History], Iterator[Violation]]


def shrink(history: History, violation: Violation, check: Check) -> list[Operation]:
    """Drop one operation after the other, as long as the same promise stays broken without it.

    Args:
        history: All of it.
        violation: What was found in it.
        check: What has found it.
    """
    needed = list(violation.operations)
    for operation in violation.operations:
        if any(operation is each for each in violation.needed):
            continue
        fewer = [each for each in needed if each is not operation]
        if _broken(history, fewer, violation.promise, check):
            needed = fewer
    return sorted(needed, key=lambda each: each.asked)


def _broken(history: History, operations: Sequence[Operation], promise: str, check: Check) -> bool:
    part = replace(history, operations=list(operations))
    return any(each.promise == promise and each.operations for each in check(part))
