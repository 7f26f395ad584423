"""The commands."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from threading import main_thread
from typing import Any, NoReturn, TypeAlias

import click

from ..._arguments import checked_text, checked_timeout
from ..._types import DeadTimer
from ...exceptions import RedisTimersError
from ...routing import checked_topic
from .show import armed_row, dead_row, print_json, print_table, printable
from .target import SCHEMES, AnyTimers, Asking, given, load, open_url, reaching
from .timeline import fetch, remove
from .work import work

__all__ = ["timers"]

Command: TypeAlias = Callable[..., None]

Change: TypeAlias = Callable[[AnyTimers, str, str], Coroutine[Any, Any, str]]
"""Changes one timer; returns what to say about it.

Raises:
    RedisTimersError: It cannot be done, or there is no such timer.
"""

FEW = 50


@click.group()
def timers() -> None:
    """Run timers; show and mend what is in Redis.

    TARGET says which timers: MODULE:ATTRIBUTE, where a program has its Timers, the attribute being
    "timers" if it is left out; or, except for `run`, the URL of a server, redis://host:6379/0.
    """


def checked(check: Callable[[Any], Any]) -> Callable[..., Any]:
    """A callback for an option or argument, one value or several, that redsync itself checks."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        try:
            return tuple(map(check, value)) if parameter.nargs == -1 else check(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def with_timers(command: Command) -> Command:
    """Add TARGET, and hand in what it means."""

    @click.argument("target")
    @click.option("--timeline-key", help="With a URL: where the timers are.")
    @click.option("--payloads-key", help="With a URL: where their payloads are.")
    @click.option("--separator", help="With a URL: what stands between topic and id.")
    @wraps(command)
    def call(
        target: str,
        timeline_key: str | None,
        payloads_key: str | None,
        separator: str | None,
        **rest: Any,
    ) -> None:
        if target.startswith(SCHEMES):
            command(open_url(target, timeline_key, payloads_key, separator), **rest)
        elif (timeline_key, payloads_key, separator) == (None, None, None):
            command(load(target), **rest)
        else:
            raise click.UsageError("names of keys and the separator go with a URL only")

    return call


# Running


@timers.command()
@click.argument("target")
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    callback=checked(checked_timeout),
    help="Seconds to wait for the handlers that run, after the first signal.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
    help="Of what goes to standard error, unless the module has set up logging.",
)
def run(target: str, timeout: float | None, log_level: str) -> None:
    """Run timers until SIGTERM or SIGINT (Ctrl-C).

    The first signal: no more timers are taken, and those that run may come to their end.  A second
    one cuts them off; so does --timeout.  What is cut off is run again, here or elsewhere.  The
    exit status is 0 if nothing was cut off, else 1.
    """
    if target.startswith(SCHEMES):
        raise click.BadParameter(
            "handlers are code: give MODULE:ATTRIBUTE instead of a URL", param_hint="TARGET"
        )
    found = load(target)
    if not found.handlers_by_topics:
        raise click.ClickException(
            f"{target} has no handlers to run: include a router that has some"
        )
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=getattr(logging, log_level.upper())
    )
    with reaching():
        complete = work(found, target, timeout)
    if not complete:
        leave(1)


def leave(status: int) -> NoReturn:
    """End the program, also if there are threads for which Python would wait."""
    if any(not each.daemon for each in threading.enumerate() if each is not main_thread()):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


# Looking

_topic = click.option("--topic", help="Of this topic only.")
_json = click.option("--json", "as_json", is_flag=True, help="Print a list of objects, whole.")
_limit = click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"How many to show; default: {FEW}, and with --json all.",
)


@timers.command()
@with_timers
@_topic
@_limit
@_json
def ls(timers: AnyTimers, topic: str | None, limit: int | None, as_json: bool) -> None:
    """Show timers that are not dead, in the order in which they are due.

    A timer is armed until it is due; waiting, if nobody has taken it then; running; or retrying,
    if it has failed and will run again.
    """
    if limit is None and not as_json:
        limit = FEW
    with Asking(timers) as ask:
        found, count, now = ask(fetch(timers, topic, limit))
    if as_json:
        return print_json(found)
    rows = [armed_row(each, now) for each in found]
    print_all(("topic", "id", "due", "", "state", "payload"), rows, count, "timers")


@timers.command()
@with_timers
@_topic
@_limit
@_json
def dead(timers: AnyTimers, topic: str | None, limit: int | None, as_json: bool) -> None:
    """Show timers that have failed for good, in the order in which they did."""
    if limit is None and not as_json:
        limit = FEW
    with Asking(timers) as ask:
        found = ask(fetch_dead(timers, topic))
    if as_json:
        return print_json(found[:limit])
    rows = [dead_row(each) for each in found[:limit]]
    columns = ("topic", "id", "error", "attempts", "due", "died", "payload")
    print_all(columns, rows, len(found), "dead timers")


async def fetch_dead(timers: AnyTimers, topic: str | None) -> list[DeadTimer]:
    """The dead timers of a topic, or of all."""
    found = await given(timers.fetch_dead_timers())
    return [each for each in found if topic in (None, each.topic)]


def print_all(columns: tuple[str, ...], rows: list[tuple[str, ...]], count: int, what: str) -> None:
    """Print a table, and on standard error what it does not show."""
    if rows:
        print_table(columns, rows)
    if not rows:
        click.echo(f"there are no {what}", err=True)
    elif len(rows) < count:
        click.echo(f"{len(rows)} of {count} {what}; --limit shows more", err=True)


# Changing

_one_topic = click.argument("topic", callback=checked(checked_topic))
_ids = click.argument(
    "ids", metavar="[ID]...", nargs=-1, callback=checked(partial(checked_text, "ID"))
)
_all = click.option("--all", "whole", is_flag=True, help="All of the topic; asks first.")
_yes = click.option("-y", "--yes", is_flag=True, help="With --all: do not ask.")


@timers.command()
@with_timers
@_one_topic
@_ids
@_all
@_yes
def revive(timers: AnyTimers, topic: str, ids: tuple[str, ...], whole: bool, yes: bool) -> None:
    """Have dead timers run again, now, with all their attempts.

    The exit status is 1 if one of them is not there, or its id is in use again.
    """
    change_dead(timers, topic, ids, whole, yes, "Revive", revive_one)


@timers.command()
@with_timers
@_one_topic
@_ids
@_all
@_yes
def discard(timers: AnyTimers, topic: str, ids: tuple[str, ...], whole: bool, yes: bool) -> None:
    """Forget dead timers.

    The exit status is 1 if one of them is not there.
    """
    change_dead(timers, topic, ids, whole, yes, "Discard", discard_one)


@timers.command()
@with_timers
@_one_topic
@click.argument(
    "ids",
    metavar="ID...",
    nargs=-1,
    required=True,
    callback=checked(partial(checked_text, "ID")),
)
def rm(timers: AnyTimers, topic: str, ids: tuple[str, ...]) -> None:
    """Remove timers that are not dead.

    A run that has begun goes on to its end.  The exit status is 1 if one of them is not there.
    """
    with Asking(timers) as ask:
        status = ask(change_each(timers, topic, ids, remove_one))
    sys.exit(status)


async def revive_one(timers: AnyTimers, topic: str, timer_id: str) -> str:
    """Revive a timer."""
    if not await given(timers.revive_timer(topic, timer_id)):
        raise RedisTimersError(f"there is no dead timer {timer_id!r} of topic {topic!r}")
    return "revived"


async def discard_one(timers: AnyTimers, topic: str, timer_id: str) -> str:
    """Discard a timer."""
    if not await given(timers.discard_timer(topic, timer_id)):
        raise RedisTimersError(f"there is no dead timer {timer_id!r} of topic {topic!r}")
    return "discarded"


async def remove_one(timers: AnyTimers, topic: str, timer_id: str) -> str:
    """Remove a timer."""
    became = await remove(timers, topic, timer_id)
    if became == "absent":
        raise RedisTimersError(f"there is no timer {timer_id!r} of topic {topic!r}")
    return "removed, after a run had begun" if became == "started" else "removed"


def change_dead(
    timers: AnyTimers,
    topic: str,
    ids: tuple[str, ...],
    whole: bool,
    yes: bool,
    verb: str,
    change: Change,
) -> None:
    """Change dead timers by their ids, or all of a topic once that is confirmed."""
    if whole == bool(ids):
        raise click.UsageError("give the ids of timers, or --all")
    with Asking(timers) as ask:
        if whole:
            ids = tuple(each.timer_id for each in ask(fetch_dead(timers, topic)))
            if not ids:
                raise click.ClickException(f"there are no dead timers of topic {topic!r}")
            if not yes:
                question = f"{verb} {len(ids)} dead timers of topic {topic!r}?"
                click.confirm(question, abort=True, err=True)
        status = ask(change_each(timers, topic, ids, change))
    sys.exit(status)


async def change_each(timers: AnyTimers, topic: str, ids: tuple[str, ...], change: Change) -> int:
    """Change timers, and tell what becomes of each; returns the exit status."""
    status = 0
    for timer_id in ids:
        try:
            click.echo(f"{printable(timer_id)}: {await change(timers, topic, timer_id)}")
        except (RedisTimersError, ValueError) as error:
            click.echo(f"Error: {printable(str(error))}", err=True)
            status = 1
    return status
