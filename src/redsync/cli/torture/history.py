"""What was done, and what came of it: lines of JSON, one file for each process.

A line is written before an operation and after it, and is in the file before the process goes on;
so a process that is killed leaves an operation without an end, and whether that had an effect is
unknown.  All times are of CLOCK_MONOTONIC, which the processes of a machine share.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

__all__ = ["Entry", "History", "Journal", "Jump", "Look", "Operation", "Window", "read"]


class Journal:
    """A file of a process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._numbers = itertools.count()

    def write(self, **facts: Any) -> None:
        """Add a line, in one write, so that threads do not mix up theirs."""
        os.write(self._file, json.dumps(facts).encode() + b"\n")

    def begin(self, what: str, of: str, **facts: Any) -> Entry:
        """Something is about to be done.

        Args:
            what: The kind of operation.
            of: The name of the semaphore, event or timer.
            facts: How.
        """
        number = next(self._numbers)
        self.write(op=number, what=what, of=of, at=monotonic(), **facts)
        return Entry(self, number)


class Entry:
    """An operation that is under way."""

    def __init__(self, journal: Journal, number: int) -> None:
        self.number = number
        self._journal = journal

    def look(self, at: float, until: float) -> None:
        """It is held at this time, and surely until that one if nothing is heard any more."""
        self._journal.write(op=self.number, look=at, until=until)

    def end(self, how: str, *, at: float | None = None, **facts: Any) -> None:
        """It has ended: ok, fail (it surely had no effect), or unknown."""
        self._journal.write(
            op=self.number, how=how, ended=monotonic() if at is None else at, **facts
        )


@dataclass(frozen=True, slots=True)
class Look:
    """A holder's look at its lease."""

    at: float
    until: float


@dataclass(slots=True)
class Operation:
    """Something that a process did."""

    worker: str
    number: int
    what: str
    of: str
    asked: float
    facts: dict[str, Any] = field(default_factory=dict)
    """How it was asked, and what came of it."""
    how: str = "unknown"
    ended: float = math.inf
    """Infinite: it was killed before it could tell."""
    looks: list[Look] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it surely had its effect."""
        return self.how == "ok"

    def add(self, line: dict[str, Any]) -> None:
        """Take down a further line."""
        if "look" in line:
            self.looks.append(Look(line["look"], line["until"]))
        else:
            self.how, self.ended = line["how"], line["ended"]
            names = line.keys() - {"op", "how", "ended"}
            self.facts.update({name: line[name] for name in names})

    def told(self, zero: float = 0.0) -> str:
        """In words."""
        end = f"{self.ended - zero:.6f}" if self.ended < math.inf else "-"
        facts = " ".join(f"{name}={value}" for name, value in self.facts.items())
        span = f"[{self.asked - zero:.6f}, {end}]"
        words = f"{span:<26} {self.worker:<8} {self.what:<9} {self.of} {self.how}  {facts}"
        if self.looks:
            last = self.looks[-1]
            words += f"  (last look {last.at - zero:.6f}, sure until {last.until - zero:.6f})"
        return words


@dataclass(frozen=True)
class Window:
    """A fault that was done."""

    kind: str
    target: str
    """A worker, the server or everybody."""
    began: float
    """Just before."""
    ended: float
    """Just after all was as before again."""
    detail: dict[str, Any] = field(default_factory=dict)

    def meets(self, begin: float, end: float) -> bool:
        """Whether it was in force at some instant between."""
        return self.began <= end and self.ended >= begin

    def concerns(self, worker: str) -> bool:
        """Whether this worker noticed something of it."""
        return self.target in (worker, "server", "everybody")


@dataclass(frozen=True)
class Jump:
    """The server's clock was set."""

    began: float
    """It showed the old time until then, at least."""
    ended: float
    """It showed the new time from then on."""
    seconds: float
    """How far forward."""


@dataclass
class History:
    """A run."""

    began: float = 0.0
    operations: list[Operation] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    deaths: dict[str, float] = field(default_factory=dict)
    """When workers were surely dead."""
    gaps: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """When processes did not get to run though they wanted to, stopped ones included."""
    finds: dict[str, Any] = field(default_factory=dict)
    """What was found when all was over."""
    troubles: list[str] = field(default_factory=list)
    """Workers that ended by themselves, and the like."""
    _begins: list[float] = field(default_factory=list, init=False)
    _longest: float = field(default=0.0, init=False)

    def of(self, what: str) -> list[Operation]:
        """All operations of a kind, in order."""
        return sorted((each for each in self.operations if each.what == what), key=_asked)

    def end_of(self, operation: Operation) -> float:
        """When it was over: it had ended, or its worker was dead."""
        return min(operation.ended, self.deaths.get(operation.worker, math.inf))

    def held_up(self, worker: str, begin: float, end: float) -> float:
        """Seconds between these times in which the process, or all, did not get to run."""
        spans = [*self.gaps.get(worker, ()), *self.gaps.get("nemesis", ())]
        clipped = [(max(begin, one), min(end, other)) for one, other in spans]
        return sum((other - one for one, other in clipped if other > one), 0.0)

    def windows_in(self, begin: float, end: float) -> Iterator[Window]:
        """The faults that were in force at some instant between, in order."""
        if len(self._begins) != len(self.windows):
            self.windows.sort(key=lambda each: each.began)
            self._begins = [each.began for each in self.windows]
            self._longest = max((each.ended - each.began for each in self.windows), default=0.0)
        first = bisect_left(self._begins, begin - self._longest)
        last = bisect_right(self._begins, end)
        return (each for each in self.windows[first:last] if each.meets(begin, end))

    def faults_of(self, worker: str, begin: float, end: float) -> Iterator[Window]:
        """What befell a worker between these times."""
        return (each for each in self.windows_in(begin, end) if each.concerns(worker))


def _asked(operation: Operation) -> float:
    return operation.asked


def read(folder: Path) -> History:
    """Put together what the processes have written."""
    history = History()
    for path in sorted(folder.glob("*.jsonl")):
        _take(history, path.stem, _lines(path))
    history.operations.sort(key=_asked)
    return history


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path) as lines:
        for line in lines:
            if line.endswith("\n"):  # else it was killed in the middle of it
                yield json.loads(line)


def _take(history: History, name: str, lines: Iterable[dict[str, Any]]) -> None:
    operations: dict[int, Operation] = {}
    for line in lines:
        if "what" in line:
            names = line.keys() - {"op", "what", "of", "at"}
            facts = {each: line[each] for each in sorted(names)}
            operation = Operation(name, line["op"], line["what"], line["of"], line["at"], facts)
            operations[operation.number] = operation
        elif "op" in line:
            operations[line["op"]].add(line)
        elif "gap" in line:
            history.gaps.setdefault(name, []).append(tuple(line["gap"]))
        elif "window" in line:
            history.windows.append(Window(**line["window"]))
        elif "jump" in line:
            history.jumps.append(Jump(**line["jump"]))
        elif "died" in line:
            history.deaths[line["died"]] = line["at"]
        elif "began" in line:
            history.began = line["began"]
        elif "finds" in line:
            history.finds.update(line["finds"])
        elif "trouble" in line:
            history.troubles.append(line["trouble"])
    history.operations.extend(operations.values())
