"""What must be true of a history of timers.  Pure functions: a history in, faults in words out.

A handler looks at the server's clock after its timer was claimed.  So a slow machine makes it look
later than it was, and never earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from .checks import ALLOWANCE, Check
from .timer_history import Arming, Run, TimerHistory
from .timer_worker import ATTEMPTS, FAILURES, PAUSE, REASON

__all__ = ["BEATS", "check_timers"]

BEATS = 3
"""How often the recurring timer runs at least before it is removed."""


def check_timers(history: TimerHistory) -> list[Check]:
    """Compare what was seen with what is promised."""
    pauses = " and ".join(f"{PAUSE * 2**number:g} s" for number in range(FAILURES))
    bound = f"{history.lease:g} s + {ALLOWANCE:g} s"
    return [
        Check("timers_on_time", "no timer runs early by the server's clock", list(early(history))),
        Check("timers_once", "every timer is done once, and a replaced one never",
              list(miscounted(history))),
        Check("timers_retried", f"what fails is tried again after {pauses}",
              list(retry_faults(history))),
        Check("timers_dead", f"a timer is dead after {ATTEMPTS} attempts, and runs when revived",
              list(dead_faults(history))),
        Check("timers_recurring", "a recurring timer keeps its beat until it is removed",
              list(beat_faults(history))),
        Check("timers_taken_over", f"another process takes over from a killed one within {bound}",
              list(abandoned(history))),
        Check("timers_left", "no timer is left at the end", list(leftovers(history))),
        Check("timers_workers", "every worker of timers but the killed one ends in order",
              list(history.troubles)),
    ]  # fmt: skip


def early(history: TimerHistory) -> Iterator[str]:
    """Runs before their time, or at a time that nobody has set."""
    for arming in history.armings:
        if arming.due < arming.asked + arming.period:
            yield f"{arming.timer} was set for an earlier time than it was asked for"
    for run in history.runs:
        if run.clock < run.due:
            yield f"{run} began {-run.lateness:.6f} s early"
        armings = [each for each in history.armings if each.timer == run.timer]
        if not any(_is_instant_of(each, run.due) for each in armings) and not (
            run.timer in history.revived and run.due >= history.revived[run.timer]
        ):
            yield f"{run} was due at a time for which it was not set"


def miscounted(history: TimerHistory) -> Iterator[str]:
    """Timers that were done too often or not at all, and replaced ones that ran."""
    if not history.armings:
        yield "no timer was set"
    for number, arming in enumerate(history.armings):
        runs = [run for run in history.of(arming.timer) if run.payload == arming.payload]
        heirs = [each for each in history.armings[number + 1 :] if each.timer == arming.timer]
        if heirs:
            # On a slow machine it may have run before the other one was set.
            if runs and heirs[0].due - heirs[0].period < arming.due:
                yield f"{runs[0]} ran, though another one had taken its place"
        elif arming.every is None:
            done = sum(run.how == "completed" for run in runs)
            if done != 1:
                yield f"{arming.timer} was done {done} times"


def retry_faults(history: TimerHistory) -> Iterator[str]:
    """Attempts of the flaky timer other than they should be."""
    runs = history.of("flaky")
    yield from _other_ends(runs, ["failed"] * FAILURES + ["completed"])
    for number, (before, after) in enumerate(pairwise(runs)):
        pause, least = (after.clock - before.clock) / 1e6, PAUSE * 2**number
        if pause < least:
            yield f"{after} came after {pause:.6f} s"


def dead_faults(history: TimerHistory) -> Iterator[str]:
    """Attempts of the broken timer other than they should be, and a death that was not noted."""
    if "broken" not in history.dead:
        yield "it was not found among the dead"
    else:
        attempts, error = history.dead["broken"]
        if attempts != ATTEMPTS or not error.endswith(REASON):
            yield f"it was found dead after {attempts} attempts, of {error}"
    if "broken" not in history.revived:
        yield "it was not revived"
    runs = history.of("broken")
    yield from _other_ends(runs[:ATTEMPTS], ["failed"] * ATTEMPTS)
    yield from _other_ends(runs[ATTEMPTS:], ["completed"])


def beat_faults(history: TimerHistory) -> Iterator[str]:
    """Runs of the recurring timer that came twice, too late, or not at all."""
    runs = history.of("beat")
    if len(runs) < BEATS:
        yield f"it ran {len(runs)} times"
    for before, after in pairwise(runs):
        taken_over = before.how in (None, "lost") and after.attempt > before.attempt
        if after.due < before.due or (after.due == before.due and not taken_over):
            yield f"{after} was due no later than the one before"
    if "beat" not in history.removed:
        yield "it was not removed"
    elif runs and runs[-1].due > history.removed["beat"]:
        yield f"{runs[-1]} was due after it had been removed"


def abandoned(history: TimerHistory) -> Iterator[str]:
    """A killed worker's run that nobody took over in time, or too soon."""
    cut_off = history.cut_off()
    if not cut_off:
        yield "nobody was killed while running a timer"
    for run in cut_off:
        heir = history.next_after(run)
        if heir is None:
            yield f"nobody took over from {run}"
            continue
        after = heir.began - history.killed[run.worker]
        if heir.worker == run.worker:
            yield f"{run} was followed by one of the same process"
        if heir.attempt <= run.attempt:
            yield f"{heir} does not count {run}"
        if heir.began < run.until:
            yield f"{heir} began {run.until - heir.began:.3f} s before the lease of {run} ended"
        if after > history.lease + ALLOWANCE:
            yield f"{heir} began only after {after:.3f} s"


def leftovers(history: TimerHistory) -> Iterator[str]:
    """Timers that are in Redis still."""
    if history.left is None:
        yield "it could not be found out what is left at the end"
    elif history.left:
        yield f"{history.left} timers are left at the end"


def _is_instant_of(arming: Arming, due: int) -> bool:
    if arming.every is None or due < arming.due:
        return due == arming.due
    return (due - arming.due) % arming.every == 0


def _other_ends(runs: list[Run], ends: list[str]) -> Iterator[str]:
    """Whether the attempts are those from the first on, with these ends."""
    seen = [(run.attempt, run.how) for run in runs]
    if seen != list(enumerate(ends, 1)):
        told = ", ".join(f"attempt {attempt} {how or 'did not end'}" for attempt, how in seen)
        yield f"expected {', '.join(ends)}, but {told or 'it did not run'}"
