"""What is measured: programs that take turns."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .environments import OWN, EnvironmentsError

__all__ = [
    "PROGRAMS",
    "Answer",
    "Case",
    "Results",
    "Subject",
    "SubjectError",
    "of_each",
    "rate",
    "server_cpu",
    "take_turns",
]

PROGRAMS: Final = Path(__file__).parent / "programs"

_PATH: Final = str(PROGRAMS)
"""Where they find `rounds`."""

Answer = dict[str, Any]

Results = dict[str, list[Sequence[Answer]]]
"""For each case its rounds: the answers of its processes."""


class SubjectError(Exception):
    """A program has ended, or did not even begin."""


@dataclass(frozen=True)
class Case:
    """One of those that are compared."""

    name: str
    program: str
    """The module in `programs`, such as "idle_aio" or "_async/layers"."""
    what: str
    """Which of those that it has."""
    arguments: tuple[str, ...] = ()
    peer: str = OWN
    """Whose environment it needs."""
    processes: int = 1
    only: str | None = None
    """The transport that it can use; None: each."""


class Subject:
    """A program that runs.

    Args:
        python: The interpreter.
        case: What it is.
        loop: asyncio or uvloop.
        url: The server.
        core: The processor that it may use; None: any.
    """

    def __init__(self, python: Path, case: Case, loop: str, url: str, core: int | None) -> None:
        self._complaints = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            [
                str(python),
                str(PROGRAMS / f"{case.program}.py"),
                loop,
                case.what,
                url,
                *case.arguments,
            ],
            env={**os.environ, "PYTHONPATH": _PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def order(self, **order: Any) -> None:
        """Have it begin a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Answer:
        """Wait for the end of the round; the first answer only tells that it is ready."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._complaints.seek(0)
            raise SubjectError(f"it has ended: {self._complaints.read().strip()[-2000:]}")
        answer: Answer = json.loads(line)
        return answer


def take_turns(
    cases: Sequence[Case],
    start: Callable[[Case], Subject],
    rounds: int,
    order: Mapping[str, Any],
    tell: Callable[[str], None],
    meter: Callable[[], Mapping[str, float]],
    warm_up: bool = True,
) -> Results:
    """Have all of them do as many rounds, one after the other, in another order each time.

    A case with several processes has them work at the same time.  `meter` is read before and after
    each round; by how much it rose is in its first answer, as "server".  One that fails, or whose
    peer cannot be installed here, is left out, and told.  A round to warm up does not count.
    """
    results: Results = {}
    with ExitStack() as stack:
        teams = _started(cases, lambda case: stack.enter_context(start(case)), tell)
        for number in range(-1 if warm_up else 0, rounds):
            for name in _shuffled(teams, number):
                before = meter()
                try:
                    answers = _round(teams[name], order)
                except SubjectError as error:
                    tell(f"left out: {name}: {error}")
                    teams.pop(name)
                    results.pop(name, None)
                    continue
                answers[0]["server"] = {each: now - before[each] for each, now in meter().items()}
                if number >= 0:
                    results.setdefault(name, []).append(answers)
    return results


def _started(
    cases: Sequence[Case], start: Callable[[Case], Subject], tell: Callable[[str], None]
) -> dict[str, list[Subject]]:
    """The processes of each case, ready. All get ready at the same time."""
    teams: dict[str, list[Subject]] = {}
    for case in cases:
        try:
            teams[case.name] = [start(case) for _ in range(case.processes)]
        except EnvironmentsError as error:
            tell(f"left out: {case.name}: {error}")
    for name, team in list(teams.items()):
        try:
            for subject in team:
                subject.answer()
        except SubjectError as error:
            tell(f"left out: {name}: {error}")
            del teams[name]
    return teams


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    names = list(names)
    random.Random(seed).shuffle(names)
    return names


def _round(team: Sequence[Subject], order: Mapping[str, Any]) -> Sequence[Answer]:
    for subject in team:
        subject.order(**order)
    return [subject.answer() for subject in team]


def of_each(results: Results, value: Callable[[Sequence[Answer]], float]) -> dict[str, list[float]]:
    """Make a value of each round of each case."""
    return {name: [value(answers) for answers in rounds] for name, rounds in results.items()}


def rate(answers: Sequence[Answer]) -> float:
    """Operations per second, of all processes together."""
    return sum(float(each["operations"] / each["seconds"]) for each in answers)


def server_cpu(answers: Sequence[Answer]) -> float:
    """Seconds of the server's main thread for each operation of a process that is alone."""
    return float(answers[0]["server"]["cpu"] / answers[0]["operations"])
