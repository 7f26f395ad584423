"""The command, and the course of the demo."""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final

import click
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..._protocol.keys import EventKeys, SemaphoreKeys
from ...sync import RedisSemaphore
from ..server import Server, ServerNotFoundError, ServerStartError
from .checks import summary
from .crew import Crew, Worker
from .history import History
from .show import Lines, Show, Silence, Table, conclusion
from .worker import COUNT, KEEP, PERMIT_TTL

__all__ = ["demo"]

WORKERS: Final = 4
LIMIT: Final = 11.0
"""Seconds for the course; clearing up may take some more, most of all if the server is dead."""

_PATIENCE: Final = 1.0
_ENDING: Final = 3.0
_FRAME: Final = 0.1


@click.command()
@click.option(
    "--url",
    envvar="REDIS_URL",
    help="Use this server instead of an embedded one; default: $REDIS_URL. The demo uses"
    " keys of its own there, and removes them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print nothing but a summary, as JSON.")
def demo(url: str | None, as_json: bool) -> None:
    """Processes compete for 3 permits, and one that holds one is killed.

    Half of them are asyncio, half threads.  What they saw is checked; the exit status is 1 if a
    promise was broken.
    """
    history = History(COUNT, PERMIT_TTL)
    kind = Silence if as_json else Table if sys.stdout.isatty() else Lines
    began = time.monotonic()
    try:
        with ended_by_signals(), kind(history) as show:
            perform(history, show, url)
    except (ServerNotFoundError, ServerStartError) as error:
        raise click.ClickException(str(error)) from error
    except redis.RedisError as error:
        raise click.ClickException(f"the server cannot be used: {error}") from error
    result = summary(history, time.monotonic() - began)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        conclusion(result)
    sys.exit(0 if result["ok"] else 1)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the program as sys.exit() does, with everything cleared up."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def perform(history: History, show: Show, url: str | None) -> None:
    """Start everything, let the course run, and leave nothing behind."""
    key = f"demo-{uuid.uuid4().hex[:12]}"
    with ExitStack() as cleanup:
        if url is None:
            server = cleanup.enter_context(Server())
            url = server.url
            show.note(f"server  pid {server.pid}")
        client = connect(url)
        cleanup.callback(client.close)
        client.ping()
        semaphore = RedisSemaphore.create(
            client, key, count=COUNT, permit_ttl=PERMIT_TTL, lease_ttl=KEEP, identifier="demo"
        )
        # Last of all: whoever uses the semaphore would make the keys again.
        cleanup.callback(remove_keys, client, key)
        cleanup.callback(semaphore.close)
        crew = cleanup.enter_context(Crew(WORKERS, key, url))
        for worker in crew.workers:
            show.note(f"worker {worker.name}  pid {worker.pid}")
        course = Course(history, show, crew)
        course.run()
        try:
            client.ping()  # gives up sooner
            history.free = course.wait_for_free(semaphore)
        except redis.RedisError as error:
            history.troubles.append(f"the server cannot be used any more: {error}")


def connect(url: str) -> redis.Redis:
    """A client that gives up soon."""
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--url'") from error


def remove_keys(client: redis.Redis, key: str) -> None:
    """Remove what the demo has left in the server, which may be somebody's."""
    of_semaphore = SemaphoreKeys.of("redsync:semaphore", key)
    of_event = EventKeys.of("redsync:event", key)
    try:
        client.delete(of_semaphore.free, of_semaphore.held, of_semaphore.meta)
        client.delete(of_event.signals, of_event.open, of_event.sets)
    except redis.RedisError as error:
        click.echo(f"keys of {key} could not be removed: {error}", err=True)


class Course:
    """What happens, in order."""

    def __init__(self, history: History, show: Show, crew: Crew) -> None:
        self._history = history
        self._show = show
        self._crew = crew
        self._end = time.monotonic() + LIMIT
        self._ready: set[Worker] = set()
        self._stopped = False
        self._failed = False

    def run(self) -> None:
        """Competition, a signal, a killed holder, and an orderly end."""
        workers = self._crew.workers
        if self._await(lambda: len(self._ready) == len(workers), "all workers are ready"):
            self._watch(1.0)
            self._hand_over_signal(workers[0])
            self._kill_holder(workers[-1])
            self._watch(0.5)
        self._end_all()

    def _hand_over_signal(self, sender: Worker) -> None:
        self._show.note(f"{sender.name} sends a signal; everyone waits for it")
        sender.tell("signal")
        self._await(lambda: self._history.woken, "the signal has arrived")

    def _kill_holder(self, victim: Worker) -> None:
        self._show.note(f"{victim.name} will keep its next permit")
        victim.tell("keep")
        # Long enough for its lease to have been renewed.
        if not self._await(lambda: self._keeps(victim, PERMIT_TTL / 2), "it keeps a permit"):
            return
        self._history.killed[victim.name] = time.monotonic()
        victim.kill()
        self._show.note(f"{victim.name} is killed by SIGKILL while it holds a permit")
        self._await(lambda: victim.ended, "it is dead")
        for hold in self._history.cut_off():
            self._await(partial(self._history.next_after, hold), f"{hold} is back")
            heir = self._history.next_after(hold)
            if heir is not None:
                after = heir.granted - self._history.killed[victim.name]
                self._show.note(f"slot {hold.slot} is back after {after:.3f} s")

    def _keeps(self, worker: Worker, seconds: float) -> bool:
        return any(
            hold.worker == worker.name and hold.until - hold.granted > PERMIT_TTL + seconds
            for hold in self._history.open()
        )

    def _end_all(self) -> None:
        self._stopped, self._failed = True, False
        self._end = time.monotonic() + _ENDING
        self._crew.tell_all("stop")
        self._await(lambda: all(each.ended for each in self._crew.workers), "all workers end")
        for worker in self._crew.workers:
            status = worker.status() if worker.ended else None
            if worker.name in self._history.killed:
                continue
            if status != 0:
                self._trouble(f"{worker.name} ended with status {status}")

    def wait_for_free(self, semaphore: RedisSemaphore) -> int:
        """The number of free permits, once all are free, or after a killed one should be."""
        deadline = time.monotonic() + PERMIT_TTL + 1
        while True:
            free = semaphore.status().free
            if free == COUNT or time.monotonic() > deadline:
                return free
            self._show.refresh()
            time.sleep(_FRAME)

    def _watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._failed:
            self._step(until)

    def _await(self, condition: Callable[[], Any], what: str) -> bool:
        """Watch until something is so; False, and a trouble, if that takes too long.

        False at once if there has been a trouble before: the sooner it ends, the better.
        """
        while not condition():
            if self._failed:
                return False
            if time.monotonic() >= self._end:
                self._trouble(f"it took too long until {what}")
                return False
            self._step(self._end)
        return True

    def _step(self, deadline: float) -> None:
        """Take a report, if there is one soon."""
        report = self._crew.next_report(min(deadline, time.monotonic() + _FRAME))
        if report is not None:
            self._take(*report)
        self._show.refresh()

    def _take(self, worker: Worker, report: dict[str, Any] | None) -> None:
        if report is None:
            worker.ended = True
            if not self._stopped and worker.name not in self._history.killed:
                self._trouble(f"{worker.name} has ended too early")
        elif report["what"] == "ready":
            self._ready.add(worker)
        else:
            hold = self._history.add(worker.name, report)
            if hold is not None:
                self._show.granted(hold)
            elif report["what"] == "woken":
                self._show.note(f"{worker.name} is woken by a signal")

    def _trouble(self, text: str) -> None:
        self._failed = True
        self._history.troubles.append(text)
        self._show.note(text)
