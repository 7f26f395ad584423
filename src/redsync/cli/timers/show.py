"""Timers for people, as tables, and for programs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..._types import DeadTimer
from .timeline import Armed

__all__ = ["armed_row", "dead_row", "print_json", "print_table", "printable"]

_LONGEST: Final = 60
_ENDLESS: Final = 100_000


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: as wide as the terminal, or, for pipes, with a line for each row."""
    console = Console(highlight=False)
    piped = not console.is_terminal
    if piped:
        console.width = _ENDLESS
    table = Table(box=None if piped else SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        wraps = not piped and column in ("topic", "id", "error", "payload")
        table.add_column(column, no_wrap=not wraps, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def armed_row(timer: Armed, now: datetime) -> tuple[str, ...]:
    """What a table says of a timer that is not dead."""
    state: str = timer.state
    if timer.state == "retrying":
        state += f", {timer.attempts} failed"
    elif timer.attempts > 1:
        state += f", attempt {timer.attempts}"
    if timer.every is not None:
        state += f", every {timer.every}"
    return (
        printable(timer.topic),
        printable(timer.timer_id),
        _local(timer.due),
        _relative(timer.due - now),
        state,
        _shortened(_text(timer.payload)),
    )


def dead_row(timer: DeadTimer) -> tuple[str, ...]:
    """What a table says of a dead timer."""
    return (
        printable(timer.topic),
        printable(timer.timer_id),
        _shortened(timer.error),
        str(timer.attempts),
        _local(timer.scheduled_for),
        _local(timer.died_at),
        _shortened(_text(timer.payload)),
    )


def print_json(timers: Iterable[Armed | DeadTimer]) -> None:
    """Print a list of objects."""
    click.echo(json.dumps([_object(each) for each in timers], indent=2))


def _object(timer: Armed | DeadTimer) -> dict[str, Any]:
    common = {"topic": timer.topic, "id": timer.timer_id}
    if isinstance(timer, DeadTimer):
        return {
            **common,
            "error": timer.error,
            "attempts": timer.attempts,
            "due": timer.scheduled_for.isoformat(),
            "died": timer.died_at.isoformat(),
            "payload": _value(timer.payload),
        }
    return {
        **common,
        "due": timer.due.isoformat(),
        "state": timer.state,
        "attempts": timer.attempts,
        "every": None if timer.every is None else timer.every.total_seconds(),
        "payload": _value(timer.payload),
    }


def _value(payload: bytes | None) -> Any:
    """What the JSON says; text that is none as it is."""
    if payload is None:
        return None
    try:
        return json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _text(payload)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _text(payload: bytes | None) -> str:
    return "" if payload is None else payload.decode("utf-8", "backslashreplace")


def _shortened(text: str) -> str:
    return printable(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def printable(text: str) -> str:
    """Without what would command a terminal, or end a line."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _local(instant: datetime) -> str:
    return f"{instant.astimezone():%Y-%m-%d %H:%M:%S}"


def _relative(distance: timedelta) -> str:
    seconds = timedelta(seconds=round(abs(distance).total_seconds()))
    return f"{seconds} ago" if distance < timedelta(0) else f"in {seconds}"
