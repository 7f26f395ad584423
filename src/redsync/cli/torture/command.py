"""The command."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from ..ending import ended_by_signals
from ..server import ServerNotFoundError, ServerStartError
from .checks import check
from .course import Course
from .history import read
from .plan import KINDS, Fault, make_plan
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
@click.option("--plant", default="", hidden=True, help="Faults that all workers shall have.")
@click.option(
    "--recheck",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Do nothing, but check what is in such a folder again.",
)
def torture(
    seconds: float,
    seed: int | None,
    only_plan: bool,
    json_file: Any,
    markdown_file: Any,
    folder: Path | None,
    plant: str,
    recheck: Path | None,
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
    setting = {"seed": seed, "seconds": seconds, "took": 0.0, "left_out": {}}
    if recheck is not None:
        kept = recheck
    else:
        kept = folder or Path(tempfile.mkdtemp(prefix="redsync-torture-"))
        kept.mkdir(parents=True, exist_ok=True)
        if any(kept.iterdir()):
            raise click.BadParameter(f"{kept} is not empty", param_hint="'--folder'")
        began = time.monotonic()
        setting["left_out"] = perform(plan, seconds, seed, kept, plant)
        setting["took"] = time.monotonic() - began
    result = judged(kept, setting)
    if json_file is not None:
        json.dump(result, json_file, indent=2)
    if markdown_file is not None:
        markdown_file.writelines(f"{line}\n" for line in markdown(result))
    for line in text(result):
        click.echo(line)
    if folder is None and recheck is None and result["ok"]:
        shutil.rmtree(kept)
    else:
        click.echo(f"What all have written is in {kept}")
    sys.exit(0 if result["ok"] else 1)


def perform(
    plan: list[Fault], seconds: float, seed: int, folder: Path, plant: str
) -> dict[str, int]:
    """Carry out a run; returns the faults that could not be done."""
    with ended_by_signals(), showing(seed, seconds) as tell:
        course = Course(plan, seconds, seed, folder, tell, plant)
        try:
            course.run()
        except (ServerNotFoundError, ServerStartError) as error:
            raise click.ClickException(str(error)) from error
    return course.left_out


def judged(folder: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """The result of a run, from what is in its folder."""
    history = read(folder)
    meanings = {kind.name: kind.meaning for kind in KINDS.values()}
    setting = {**setting, "meanings": meanings}
    return summary(history, check(history), recoveries(history), setting)
