"""The scene of the timers."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import redis

from ..._instants import micros_of
from ..._protocol.keys import TimerKeys
from ...sync import Timers
from .course import Course
from .crew import Crew, Worker
from .show import Show
from .timer_checks import BEATS
from .timer_history import Arming, Run, TimerHistory
from .timer_worker import TOPICS, options, router_for
from .worker import KEEP

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Appointments", "open_timers", "picture", "timer_keys"]

LIMIT: Final = 11.0
"""Seconds for the course."""

_EVERY: Final = 0.4
_PROLONG: Final = 0.2

_COLUMNS: Final = {"Timer": 7, "Runs": 4, "Attempt": 7, "Late": 9, "Worker": 20, "State": 9}


class Appointments(Course):
    """Timers that run when they are due, are replaced, fail, die, recur, and lose their worker."""

    def __init__(
        self, history: TimerHistory, show: Show, crew: Crew, timers: Timers, keys: list[bytes]
    ) -> None:
        super().__init__(history, show, crew, LIMIT)
        self._history = history
        self._timers = timers
        self._keys = keys
        self._prolonged = 0.0
        self._mended: set[Worker] = set()

    def play(self) -> None:
        """Set timers, and see what becomes of them."""
        for number in (1, 2, 3):
            self._arm("once", f"once-{number}", "payload", 0.3 * number)
        self._arm("once", "moved", "old", 0.5)
        self._arm("once", "moved", "new", 0.8)
        self._arm("flaky", "flaky", "payload", 0.1)
        self._arm("broken", "broken", "payload", 0.1)
        self._arm("beat", "beat", "payload", _EVERY, every=_EVERY)
        self._revive("broken")
        if (
            all(map(self._is_done, ("once-1", "once-2", "once-3", "moved", "flaky", "broken")))
            and self._take_over()
            and self._is_done("long")
        ):
            self._remove("beat")

    def take(self, worker: Worker, report: dict[str, Any]) -> None:
        """Take down what a worker reports."""
        if report["what"] == "mended":
            self._mended.add(worker)
            return
        run = self._history.add(worker.name, report)
        if report["what"] == "began":
            self.show.detail(
                f"{run.timer}  attempt {run.attempt}  by {run.worker}, {self._when(run)}"
            )
        elif report["what"] == "ended":
            self.show.detail(f"{run.timer}  attempt {run.attempt}  {run.how}")

    def tend(self) -> None:
        """Have the keys outlive a demo that is killed by a while, and not for good."""
        if time.monotonic() - self._prolonged > _PROLONG:
            self._prolonged = time.monotonic()
            with self._timers.redis_client.pipeline(transaction=False) as pipeline:
                for key in self._keys:
                    pipeline.expire(key, KEEP)
                pipeline.execute()

    def count_left(self) -> int:
        """How many timers are in Redis, dead or not."""
        names, payloads = self._timers.fetch_all_timers()
        return len({*names, *payloads}) + len(self._timers.fetch_dead_timers())

    def _arm(
        self, topic: str, timer: str, payload: str, seconds: float, every: float | None = None
    ) -> None:
        period = timedelta(seconds=seconds)
        recurs = None if every is None else timedelta(seconds=every)
        again = any(each.timer == timer for each in self._history.armings)
        asked = self._clock()
        due = self._timers.set_timer(topic, timer, payload, period, every=recurs)
        arming = Arming(timer, payload, asked, _micros(period), micros_of(due))
        if recurs is not None:
            arming.every = _micros(recurs)
        self._history.armings.append(arming)
        how = "set anew" if again else "set" if every is None else f"set for every {every:g} s"
        self.show.note(f"{timer} is {how}, due in {(arming.due - asked) / 1e6:.3f} s")

    def _is_done(self, timer: str) -> bool:
        return self.wait_for(lambda: self._history.completed(timer), f"{timer} is done")

    def _revive(self, timer: str) -> None:
        if not self.wait_for(lambda: self._find_dead(timer), f"{timer} is dead"):
            return
        attempts, error = self._history.dead[timer]
        self.show.note(f"{timer} is dead after {attempts} attempts, the last with {error!r}")
        self.crew.tell_all("mend")
        if self.wait_for(lambda: len(self._mended) == len(self.crew.workers), "all is mended"):
            clock = self._clock()
            if self._timers.revive_timer(timer, timer):
                self._history.revived[timer] = clock
                self.show.note(f"{timer} is mended and revived")

    def _find_dead(self, timer: str) -> bool:
        if any(run.how == "failed" for run in self._history.of(timer)):
            for dead in self._timers.fetch_dead_timers():
                self._history.dead[dead.timer_id] = dead.attempts, dead.error
        return timer in self._history.dead

    def _take_over(self) -> bool:
        # The recurring timer goes on meanwhile.  Else nobody but its worker might have looked at
        # Redis since the long one was taken, and would do so only after some seconds.
        self._arm("long", "long", "payload", 0)
        if not self.wait_for(self._renewed, "somebody keeps a lease"):
            return False
        run = self._renewed()
        assert run is not None
        victim = next(each for each in self.crew.workers if each.name == run.worker)
        self.show.note(f"{victim.name} is killed by SIGKILL while it runs {run.timer}")
        self.kill(victim)
        self.crew.tell_all("finish")
        return all(map(self._is_taken_over, self._history.cut_off()))

    def _is_taken_over(self, run: Run) -> bool:
        self.wait_for(lambda: self._history.next_after(run), f"somebody takes {run.timer} over")
        heir = self._history.next_after(run)
        if heir is None:
            return False
        after = heir.began - self._history.killed[run.worker]
        self.show.note(f"{heir.worker} has taken {run.timer} over after {after:.3f} s")
        return True

    def _remove(self, timer: str) -> None:
        if self.wait_for(
            lambda: self._history.completed(timer) >= BEATS, f"{timer} is done {BEATS} times"
        ):
            self._timers.remove_timer(timer, timer)  # False if it runs at the moment
            self._history.removed[timer] = self._clock()
            self.show.note(f"{timer} is removed after {len(self._history.of(timer))} runs")

    def _renewed(self) -> Run | None:
        """The run whose worker is to be killed: it goes on, and its lease has been renewed."""
        runs = self._history.of("long")
        lease = self._history.lease
        if runs and runs[-1].how is None and runs[-1].until - runs[-1].began > lease * 1.2:
            return runs[-1]
        return None

    def _when(self, run: Run) -> str:
        before = self._history.before(run)
        if run.attempt == 1 or before is None:
            return f"{run.lateness * 1e3:.1f} ms after it was due"
        return f"{(run.clock - before.clock) / 1e6:.3f} s after attempt {before.attempt}"

    def _clock(self) -> int:
        seconds, micros = self._timers.redis_client.time()
        return int(seconds) * 1_000_000 + int(micros)


def open_timers(client: redis.Redis, key: str) -> Timers:
    """The timers of the demo, for one who only sets them."""
    return Timers(redis_client=client, routers=[router_for(lambda payload: None)], **options(key))


def timer_keys(key: str) -> list[bytes]:
    """What has to be removed in the end; other keys expire by themselves."""
    names = options(key)
    keys = TimerKeys.of(names["timeline_key"], names["payloads_key"], clustered=False)
    fixed = [keys.timeline, keys.payloads, keys.state, keys.meta, keys.dead, keys.topics]
    topics = [topic.encode() for topic in TOPICS]
    return fixed + [stem + topic for stem in (keys.due, keys.wake) for topic in topics]


def picture(history: TimerHistory) -> Table:
    """The timers, and their latest runs."""
    from rich.table import Table

    table = Table(title=f"{len(history.runs)} runs of timers")
    for name, width in _COLUMNS.items():
        table.add_column(name, width=width)
    for timer in dict.fromkeys(arming.timer for arming in history.armings):
        runs = history.of(timer)
        table.add_row(timer, str(len(runs)), *_latest(history, timer, runs))
    return table


def _latest(history: TimerHistory, timer: str, runs: list[Run]) -> tuple[str, ...]:
    if not runs:
        return "", "", "", "waits"
    run = runs[-1]
    worker, state = run.worker, run.how or "runs"
    if run.how is None and worker in history.killed:
        worker = f"[red]{worker} (killed)[/red]"
    if run.how == "failed" and timer in history.dead:
        state = "[red]dead[/red]"
    elif run.how == "completed" and timer in history.removed:
        state = "removed"
    lateness = f"{run.lateness * 1e3:.1f} ms" if run.attempt == 1 else ""
    return str(run.attempt), lateness, worker, state


def _micros(period: timedelta) -> int:
    return period // timedelta(microseconds=1)
