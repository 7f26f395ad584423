"""Goes through all states of a model, breadth first, so that a violation has the shortest trace."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

S = TypeVar("S")

_NEWS: Final = 0.5


class Model(Protocol[S]):
    """What can be explored."""

    def start(self) -> S:
        """The first state."""

    def steps(self, state: S) -> Iterator[tuple[str, S, str]]:
        """All that can happen next: what it is, where it leads, and what is wrong with it."""

    def check(self, state: S) -> str:
        """What is wrong with a state, or nothing."""

    def pack(self, state: S) -> bytes:
        """The same for all states that differ by names only."""

    def unpack(self, packed: bytes) -> S:
        """One of the states that are packed like this."""

    def show(self, state: S) -> str:
        """For people."""


@dataclass
class Found:
    """What an exploration came to."""

    states: int
    transitions: int
    depth: int
    seconds: float
    complete: bool
    """Whether there is nothing else, or it was cut short."""
    violation: str = ""
    trace: str = ""

    def __str__(self) -> str:
        extent = "all of it" if self.complete else "cut short"
        if self.violation:
            extent = f"VIOLATION: {self.violation}"
        return (
            f"{self.states:>10,} states {self.transitions:>12,} transitions "
            f"depth {self.depth:>3} {self.seconds:>7.1f} s  {extent}"
        )


Progress = Callable[[int, int, int], None]
"""Takes states, transitions and depth, now and then."""


class Exploration(Generic[S]):
    """One run.

    Args:
        model: What to explore.
        most: After how many states to stop.
        progress: Is told how far it is.
    """

    def __init__(
        self, model: Model[S], most: int | None = None, progress: Progress | None = None
    ) -> None:
        self._model = model
        self._most = most
        self._progress = progress
        self._order: list[bytes] = []
        self._parents = array("q")
        self._transitions = 0
        self._depth = 0
        self._complete = False

    def run(self) -> Found:
        """Go through it until there is nothing new, or something is wrong."""
        began = monotonic()
        wrong = ""
        for wrong in self._visit(began):
            if wrong or (self._most is not None and len(self._order) >= self._most):
                break
        else:
            self._complete = True
        return Found(
            states=len(self._order),
            transitions=self._transitions,
            depth=self._depth,
            seconds=monotonic() - began,
            complete=self._complete,
            violation=wrong,
            trace=self._told(wrong) if wrong else "",
        )

    def _visit(self, began: float) -> Iterator[str]:
        """Take the steps of one state after the other; yields what is wrong."""
        model, order, parents = self._model, self._order, self._parents
        pack, check = model.pack, model.check
        first = pack(model.start())
        seen = {first}
        order.append(first)
        parents.append(-1)
        at, layer, news = 0, 1, began + _NEWS
        while at < len(order):
            if at == layer:
                self._depth += 1
                layer = len(order)
            for _, state, wrong in model.steps(model.unpack(order[at])):
                self._transitions += 1
                packed = pack(state)
                if packed not in seen or wrong:
                    seen.add(packed)
                    order.append(packed)
                    parents.append(at)
                    wrong = wrong or check(state)
                    if wrong:
                        yield wrong
            if self._progress is not None and not at % 256 and monotonic() > news:
                news = monotonic() + _NEWS
                self._progress(len(order), self._transitions, self._depth)
            yield ""
            at += 1

    def _told(self, wrong: str) -> str:
        """The way to the last state.  Packing may give each client and slot another's name, so the
        way is gone again from the start, with the names that it begins with.
        """
        way = []
        at = len(self._order) - 1
        while at > 0:
            way.append(self._order[at])
            at = self._parents[at]
        state = self._model.start()
        lines = [f"     {self._model.show(state)}"]
        for number, packed in enumerate(reversed(way), 1):
            name, state = self._step_to(state, packed, wrong if number == len(way) else "")
            lines += [f"{number:>3}. {name}", f"     {self._model.show(state)}"]
        lines.append(f"     => {wrong}")
        return "\n".join(lines)

    def _step_to(self, state: S, packed: bytes, wrong: str) -> tuple[str, S]:
        for name, following, what in self._model.steps(state):
            if self._model.pack(following) == packed and (
                not wrong or what or self._model.check(following)
            ):
                return name, following
        raise AssertionError("the way to a state cannot be gone again")
