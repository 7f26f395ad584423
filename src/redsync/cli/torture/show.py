"""What there is to see while it runs: a line that lives on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from .course import Progress

__all__ = ["showing"]

_FRAME: Final = 0.5
_LINE: Final = 10.0


@contextmanager
def showing(seed: int, seconds: float) -> Iterator[Callable[[Progress], None]]:
    """What to call, often, with how far it is."""
    click.echo(f"torture: {seconds:g} s, seed {seed}")
    if not sys.stdout.isatty():
        yield _Lines().tell
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, auto_refresh=False) as bar:
        task = bar.add_task("start", total=seconds)
        drawn = 0.0

        def tell(progress: Progress) -> None:
            nonlocal drawn
            if time.monotonic() - drawn < _FRAME and progress.phase != "done":
                return
            drawn = time.monotonic()
            bar.update(task, completed=progress.passed, description=_words(progress))
            bar.refresh()

        yield tell


class _Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._told = -_LINE

    def tell(self, progress: Progress) -> None:
        """Print one if it is time."""
        if time.monotonic() - self._told >= _LINE or progress.phase in ("end", "done"):
            self._told = time.monotonic()
            click.echo(f"{progress.passed:7.1f} s  {_words(progress)}")


def _words(progress: Progress) -> str:
    progress.count()
    faults = sum(progress.faults.values())
    return f"{progress.phase:<6} {faults:>5} faults {progress.operations:>8,} operations"
