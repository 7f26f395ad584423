"""Tests that are about time, on a machine that now and then gives the process none.

    @pytest.mark.punctual
    async def test_a_wait_ends_in_time(...): ...

Such a test keeps its bounds, and is tried again, from its fixtures on, if it failed while the whole
process stood still: what it has measured then was the machine.  All others must not mind.  With
``punctual(patient=True)``, calls that are to end at once may wait for Redis for longer than 0.75 s,
as in all other tests.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
import warnings
from typing import Final

import pytest
from _pytest.runner import runtestprotocol

__all__ = ["Standstill", "attempts", "run_punctual"]

ATTEMPTS: Final = 5

TOLERABLE: Final = 0.2
"""Seconds for which a process may have to wait on any machine: no reason to try again."""

_ATTEMPTS: Final = "attempts"

LONGEST: Final = 25.0
"""Seconds after which there is no further attempt: a test has 60 in all."""


class Standstill:
    """Measures for how long the machine has kept this process waiting at most.

    A bound for how late something is makes no sense without it: others may be busy, too.
    """

    def __init__(self, interval: float = 0.002) -> None:
        self.longest = 0.0
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="standstill", daemon=True)

    def _watch(self) -> None:
        last, stopped = time.monotonic(), False
        while not stopped:  # what came just before the end is measured too
            stopped = self._stopped.wait(self._interval)
            now = time.monotonic()
            self.longest = max(self.longest, now - last - self._interval)
            last = now

    def __enter__(self) -> Standstill:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def attempts(report: pytest.TestReport) -> int:
    """How often a test was tried, as its report tells."""
    return dict(report.user_properties).get(_ATTEMPTS, 1)  # type: ignore[return-value]


def _forget_failure() -> None:
    """Let go of what an attempt has left open: nobody closes it, and the next one must not hear of
    that.
    """
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = hook


def run_punctual(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test that is marked so, in place of pytest; False if it is not."""
    if item.get_closest_marker("punctual") is None:
        return False
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    began = time.monotonic()
    attempt, again = 0, True
    while again:
        attempt += 1
        with Standstill(0.02) as standstill:
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        again = (
            any(report.failed for report in reports)
            and standstill.longest > TOLERABLE
            and attempt < ATTEMPTS
            and time.monotonic() < began + LONGEST
        )
        if again:
            reports.clear()
            _forget_failure()
    for report in reports:
        report.user_properties.append((_ATTEMPTS, attempt))
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
