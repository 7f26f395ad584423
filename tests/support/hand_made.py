"""Histories that are made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from redsync.cli.torture.checks_semaphores import MARGIN
from redsync.cli.torture.history import History, Look, Operation
from redsync.cli.torture.terms import PERMIT_TTL, SEMAPHORES
from redsync.cli.torture.verdict import Violation

__all__ = ["HandMade"]

SECOND = 1_000_000


class HandMade:
    """A history, and short words to write it.  The time of day is 1000 s when the time is 0."""

    def __init__(self) -> None:
        self.history = History()
        self.history.finds = {
            "rested": 0.0,
            "semaphores": {
                each.name: {"granted": each.count, "held": [0, each.count, 0],
                            "free": [each.count, 0, 0]}
                for each in SEMAPHORES
            },
            "events": 1,
            "timers": {"left": [], "dead": []},
        }  # fmt: skip
        self._numbers = count()

    def add(
        self,
        worker: str,
        what: str,
        of: str,
        asked: float,
        ended: float | None,
        how: str = "ok",
        **facts: Any,
    ) -> Operation:
        """An operation; one without an end was cut off."""
        operation = Operation(worker, next(self._numbers), what, of, asked, facts)
        if ended is None:
            operation.how = "unknown"
        else:
            operation.how, operation.ended = how, ended
        self.history.operations.append(operation)
        return operation

    def hold(
        self,
        worker: str,
        begin: float,
        end: float | None,
        *,
        slot: int = 0,
        fence: int,
        of: str = "scripts",
        asked: float | None = None,
        renewals: tuple[float, ...] = (),
    ) -> Operation:
        """A permit; one without an end was never released.

        Args:
            renewals: When it was renewed, and looked at.
        """
        asked = begin - 0.01 if asked is None else asked
        acquired = self.add(
            worker, "acquire", of, asked, begin, timeout=None, slot=slot, fence=fence
        )
        for sent in (begin, *renewals):
            acquired.looks.append(Look(sent, sent + PERMIT_TTL - MARGIN))
        if end is not None:
            acquired.looks.append(Look(end, acquired.looks[-1].until))
            number = acquired.number
            self.add(worker, "release", of, end, end + 0.01, acquired=number, lost=False)
        return acquired

    def arm(
        self, worker: str, at: float, period: float, timer: str = "quick:t", **facts: Any
    ) -> Operation:
        """A timer is set; its due time is as it should be."""
        now = self.clock(at + 0.01)
        due = now + int(period * SECOND)
        terms = {"period": period, "every": None, "wall": self.clock(at), "told": now, "due": due}
        return self.add(worker, "arm", timer, at, at + 0.01, **{**terms, **facts})

    def run(
        self,
        worker: str,
        arming: Operation,
        begin: float,
        end: float | None,
        how: str = "ok",
        *,
        attempt: int = 1,
        fence: int | None = None,
        until: float | None = None,
        **facts: Any,
    ) -> Operation:
        """A run; one without an end was killed."""
        run = self.add(
            worker,
            "run",
            arming.of,
            begin,
            end,
            how,
            **{
                "arming": f"{arming.worker}:{arming.number}",
                "attempt": attempt,
                "fence": int(begin * SECOND) if fence is None else fence,
                "due": arming.facts.get("due", 0),
                "wall": self.clock(begin),
                "lost": False,
                **facts,
            },
        )
        until = begin + 2 if until is None else until
        run.looks = [Look(begin, until)]
        if end is not None:
            run.looks.append(Look(end, until))
        return run

    @staticmethod
    def clock(at: float) -> int:
        """The time of day."""
        return 1000 * SECOND + int(at * SECOND)

    def promises(self, check: Callable[[History], Iterator[Violation]]) -> list[str]:
        """Which promises were broken, and the texts are to be read if a test fails."""
        found = list(check(self.history))
        for each in found:
            print(each.text)
        return sorted({each.promise for each in found})
