"""The command."""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ..server import ServerNotFoundError, ServerStartError
from .checks import check
from .course import Course
from .history import read
from .plan import KINDS, make_plan
from .recovery import recoveries
from .report import markdown, summary, text
from .show import showing

__all__ = ["torture"]


@click.command()
@click.option("--seconds", type=click.FloatRange(5), default=60.0, show_default=True)
@click.option("--seed", type=int, help="For the schedule of faults; default: one of chance.")
@click.option("--plan", "only_plan", is_flag=True, help="Print the schedule, and do nothing.")
@click.option("--json", "json_file", type=click.File("w"), help="Write the result there as JSON.")
@click.option("--markdown", "markdown_file", type=click.File("w"), help="The same as tables.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep what all processes have written there; else it is kept if a promise was broken.",
)
@click.option("--plant", default="", hidden=True, help="A fault that all workers shall have.")
def torture(
    seconds: float,
    seed: int | None,
    only_plan: bool,
    json_file: Any,
    markdown_file: Any,
    folder: Path | None,
    plant: str,
) -> None:
    """Work under faults, and see whether all that is promised holds.

    Workers of both kinds, asyncio and threads, use semaphores, events and timers on a server of
    their own. Meanwhile workers are killed and stopped, connections cut, replies lost and delayed,
    the server is paused, killed and started again, and its clock set. Everything that was done is
    written down and checked in the end. The exit status is 1 if a promise was broken.

    The schedule of faults is the same for the same seed and length.
    """
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    plan = make_plan(seconds, seed)
    if only_plan:
        for fault in plan:
            click.echo(fault)
        return
    began = time.monotonic()
    with ExitStack() as cleanup:
        kept = folder or Path(tempfile.mkdtemp(prefix="redsync-torture-"))
        kept.mkdir(parents=True, exist_ok=True)
        if any(kept.iterdir()):
            raise click.BadParameter(f"{kept} is not empty", param_hint="'--folder'")
        tell = cleanup.enter_context(showing(seed, seconds))
        course = Course(plan, seconds, seed, kept, tell, plant)
        try:
            course.run()
        except (ServerNotFoundError, ServerStartError) as error:
            raise click.ClickException(str(error)) from error
    history = read(kept)
    result = summary(
        history,
        check(history),
        recoveries(history),
        {
            "seed": seed,
            "seconds": seconds,
            "took": time.monotonic() - began,
            "left_out": course.left_out,
            "meanings": {kind.name: kind.meaning for kind in KINDS.values()},
        },
    )
    if json_file is not None:
        json.dump(result, json_file, indent=2)
    if markdown_file is not None:
        markdown_file.writelines(f"{line}\n" for line in markdown(result))
    for line in text(result):
        click.echo(line)
    sys.exit(0 if result["ok"] else 1)
