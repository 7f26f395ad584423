"""What the state machines share: how long they run, how they choose, how they wait."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

__all__ = [
    "NAMES",
    "PICKS",
    "failing",
    "limit",
    "own",
    "picked",
    "register_profiles",
    "run",
    "search",
    "thorough",
    "within",
]

T = TypeVar("T")

PICKS: Final = st.integers(0, 11)
"""Which of those that there are.  How many, the server's pace may decide; that must not change what
Hypothesis draws, or it could not repeat a course."""

NAMES: Final = st.sampled_from(
    ["n", "a b", "{}", "{", "x}y{", "{tag}n", "ключ\n", "\x00%s$1", "é:"]
)

CI, LONG = "ci", "long"

_numbers = itertools.count()


def register_profiles() -> None:
    """Make both known, and load the one that HYPOTHESIS_PROFILE names, or that of CI."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    settings.register_profile(
        CI,
        # The same courses each time.  To shrink one would take longer than a test may.
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        report_multiple_bugs=False,
        deadline=None,
        suppress_health_check=checks,
    )
    settings.register_profile(
        LONG,
        max_examples=10_000,
        stateful_step_count=60,
        report_multiple_bugs=False,
        deadline=None,
        print_blob=True,
        suppress_health_check=checks,
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", CI))


def thorough() -> bool:
    """Whether there is time for more than CI has."""
    return Phase.shrink in settings().phases


def limit() -> int:
    """Seconds after which a test is given up, 0: never."""
    return 0 if thorough() else 180


def run(machine: Callable[[], RuleBasedStateMachine], examples: int, steps: int) -> None:
    """Have a machine run so many courses of so many steps, or as the long profile says."""
    chosen = settings()
    if not thorough():
        chosen = settings(chosen, max_examples=examples, stateful_step_count=steps)
    _run(machine, chosen)


def search(machine: Callable[[], RuleBasedStateMachine]) -> None:
    """Have a machine run until a course fails; to shorten that is not worth the time."""
    chosen = settings(settings.get_profile(CI), max_examples=300, stateful_step_count=30)
    _run(machine, chosen)


def _run(machine: Callable[[], RuleBasedStateMachine], chosen: settings) -> None:
    run_it: Any = run_state_machine_as_test  # it has types in some versions of Hypothesis only
    run_it(machine, settings=chosen)


def picked(pick: int, choice: Sequence[T]) -> T | None:
    """One of these, if there are any."""
    return choice[pick % len(choice)] if choice else None


def own(name: str) -> str:
    """A name that no other course has, not even one that failed and left something running."""
    return f"{name}{next(_numbers)}"


def within(seconds: float, mismatch: Callable[[], Any]) -> None:
    """Wait until there is no mismatch any more; what it is is told otherwise."""
    deadline = time.monotonic() + seconds
    while found := mismatch():
        assert time.monotonic() < deadline, f"after {seconds} s: {found}"
        time.sleep(0.001)


def failing() -> bool:
    """Whether an error is on its way: what comes after it, is of no interest."""
    return sys.exc_info()[0] is not None
