"""What must be true of the events.  Pure: a history in, violations out.

Signals have no names: what can be compared are sums, for each event by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from .history import History, Operation
from .terms import CANCELLED
from .verdict import Violation, allowance

__all__ = ["check", "exact"]

_AT_LEAST: Final = 0.75
_CONFIRMING: Final = 0.75
_BACKGROUND: Final = 10.0
"""Seconds in which a signal is given back, whatever may be in the way."""


def check(history: History) -> Iterator[Violation]:
    """Everything about events."""
    for operations in _by_name(history).values():
        yield from _too_many(operations)
        yield from _too_few(history, operations)
        yield from _timeouts(history, operations)


def exact(history: History) -> tuple[int, int]:
    """For how many events the sums leave no room for error, and how many there are."""
    names = _by_name(history).values()
    sure = [
        each
        for each in names
        if not any(
            one.how == "unknown" if one.what == "set" else not one.ok and _may_use_up(history, one)
            for one in each
        )
    ]
    return len(sure), len(names)


def _by_name(history: History) -> dict[str, list[Operation]]:
    names: dict[str, list[Operation]] = {}
    for each in history.operations:
        if each.what in ("set", "wait"):
            names.setdefault(each.of, []).append(each)
    return names


def _too_many(operations: Sequence[Operation]) -> Iterator[Violation]:
    """A wait that returned though there was no signal left for it."""
    steps = [(each.asked, 1, each) for each in operations if each.what == "set"]
    steps += [(each.ended, -1, each) for each in operations if each.what == "wait" and each.ok]
    signals = 0
    for at, change, each in sorted(steps, key=lambda step: step[:2]):
        signals += change
        if signals < 0:
            before = [one for one in operations if one.asked <= at and one.how != "fail"]
            sets = tuple(one for one in before if one.what == "set")
            waits = len(sets) + 1
            text = f"{each.of} was set {len(sets)} times at most, and {waits} waits returned"
            yield Violation("each signal wakes one", text, tuple(before), sets)
            return


def _too_few(history: History, operations: Sequence[Operation]) -> Iterator[Violation]:
    """A signal that woke nobody, though everybody had the time to be woken."""
    if not history.finds.get("events"):
        return
    sets = sum(each.what == "set" and each.ok for each in operations)
    waits = [each for each in operations if each.what == "wait" and _may_use_up(history, each)]
    if len(waits) < sets:
        name = operations[0].of
        woken = sum(each.ok for each in waits)
        text = f"{name} was set {sets} times and woke {woken}; {len(waits) - woken} are unknown"
        rest = tuple(_unpaired(operations, waits))
        yield Violation("no signal is lost", text, rest, rest)


def _unpaired(operations: Sequence[Operation], waits: Sequence[Operation]) -> list[Operation]:
    """What is left if each wait that returned is put together with the oldest set before it."""
    sets = [each for each in operations if each.what == "set"]
    for wait in sorted((each for each in waits if each.ok), key=lambda each: each.ended):
        pair = next((each for each in sets if each.asked <= wait.ended), None)
        if pair is not None:
            sets.remove(pair)
    return [*sets, *(each for each in waits if not each.ok)]


def _may_use_up(history: History, wait: Operation) -> bool:
    """Whether a signal may be gone by it.  One that was cancelled, or has raised an error, gives
    back what it was handed, confirmed or not, in the background, unless its process dies before.
    """
    if wait.ok or wait.ended == math.inf:
        return True
    if wait.how == "fail" and wait.facts["error"] != CANCELLED:
        return False
    return history.deaths.get(wait.worker, math.inf) < wait.ended + _BACKGROUND


def _timeouts(history: History, operations: Sequence[Operation]) -> Iterator[Violation]:
    """Waits that gave up too early or too late."""
    for each in operations:
        if each.what != "wait" or each.ok or each.ended == math.inf:
            continue
        if each.facts["error"] == CANCELLED:
            continue
        timeout, took = each.facts["timeout"], each.ended - each.asked
        if each.how == "fail" and took < timeout:
            yield Violation("timeouts", f"after {took:.6f} s of {timeout} s", (each,))
        bound = max(timeout, _AT_LEAST) + _CONFIRMING
        if took > bound + allowance(history, [each.worker], each.asked, each.ended):
            text = f"{each.facts['error']} after {took:.3f} s of {timeout} s"
            yield Violation("timeouts", text, (each,))
