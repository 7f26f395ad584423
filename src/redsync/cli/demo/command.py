"""The command, and the course of the demo."""

from __future__ import annotations

import json
import sys
import time
import uuid
from contextlib import ExitStack
from typing import Final

import click
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..._protocol.keys import EventKeys, SemaphoreKeys
from ...sync import RedisSemaphore
from ..ending import ended_by_signals
from ..server import Server, ServerNotFoundError, ServerStartError
from ..urls import open_client
from . import permits, timers
from .crew import Crew
from .history import History
from .show import Lines, Show, Silence, Table, conclusion
from .summary import summary
from .timer_history import TimerHistory
from .timer_worker import LEASE
from .worker import COUNT, KEEP, PERMIT_TTL

__all__ = ["demo"]

_COMPETITORS: Final = range(1, 5)
_RUNNERS: Final = range(5, 7)

_PATIENCE: Final = 1.0


@click.command()
@click.option(
    "--url",
    envvar="REDIS_URL",
    help="Use this server instead of an embedded one; default: $REDIS_URL. The demo uses"
    " keys of its own there; a few that are left in the end expire within 2 minutes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print nothing but a summary, as JSON.")
def demo(url: str | None, as_json: bool) -> None:
    """Processes compete for 3 permits, and one that holds one is killed.

    Then others run timers: these are due, replaced, fail and are tried again, die and are revived,
    recur, and are taken over from one that is killed.

    Half of the processes are asyncio, half threads.  What they saw is checked; the exit status is 1
    if a promise was broken.
    """
    history = History(COUNT, PERMIT_TTL)
    timer_history = TimerHistory(LEASE)
    kind = Silence if as_json else Table if sys.stdout.isatty() else Lines
    began = time.monotonic()
    try:
        with ended_by_signals(), kind() as show:
            perform(history, timer_history, show, url)
    except (ServerNotFoundError, ServerStartError) as error:
        raise click.ClickException(str(error)) from error
    except redis.RedisError as error:
        raise click.ClickException(f"the server cannot be used: {error}") from error
    result = summary(history, timer_history, time.monotonic() - began)
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        conclusion(result)
    sys.exit(0 if result["ok"] else 1)


def perform(history: History, timer_history: TimerHistory, show: Show, url: str | None) -> None:
    """Start everything, let both courses run, and leave nothing behind."""
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
        setter = timers.open_timers(client, key)
        cleanup.callback(setter.close)
        competitors = Crew("worker", _COMPETITORS, key, url)
        runners = Crew("timer_worker", _RUNNERS, key, url)

        def start(crew: Crew) -> None:
            cleanup.enter_context(crew)
            for worker in crew.workers:
                show.note(f"worker {worker.name}  pid {worker.pid}")

        start(competitors)
        show.scene(lambda: permits.picture(history))
        # The second crew starts while the first one plays, as that takes a moment.
        competition = permits.Competition(history, show, competitors, lambda: start(runners))
        competition.run()
        try:
            client.ping()  # gives up sooner
            history.free = competition.wait_for_free(semaphore)
        except redis.RedisError as error:
            history.troubles.append(f"the server cannot be used any more: {error}")
        if history.troubles:
            return
        show.scene(lambda: timers.picture(timer_history))
        keys = timers.timer_keys(key)
        appointments = timers.Appointments(timer_history, show, runners, setter, keys)
        try:
            appointments.run()
            timer_history.left = appointments.count_left()
        except redis.RedisError as error:
            timer_history.troubles.append(f"the server cannot be used any more: {error}")


def connect(url: str) -> redis.Redis:
    """A client that gives up soon."""
    return open_client(
        url,
        "'--url'",
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )


def remove_keys(client: redis.Redis, key: str) -> None:
    """Remove what the demo has left in the server, which may be somebody's."""
    of_semaphore = SemaphoreKeys.of("redsync:semaphore", key)
    of_event = EventKeys.of("redsync:event", key)
    try:
        client.delete(of_semaphore.free, of_semaphore.held, of_semaphore.meta)
        client.delete(of_event.signals, of_event.open, of_event.sets)
        client.delete(*timers.timer_keys(key))
    except redis.RedisError as error:
        click.echo(f"keys of {key} could not be removed: {error}", err=True)
