"""The command; see the package."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from redsync.cli.server import find_server

from .bench import Bench
from .environments import OWN, ROOT, Environments
from .figures import Figure
from .plots import draw
from .report import FIGURES, TITLES, load, publish, save, short
from .rows import ROWS

PUBLISHED: Final = ROOT / "docs" / "benchmarks"

_VERSIONS: Final = ("3.11", "3.13")


@click.command()
@click.option("--quick", is_flag=True, help="Only have a look: one CPython, few and short rounds.")
@click.option("--rows", default="", help="Which rows, such as 1,2,5; by default all.")
@click.option("--python", "versions", multiple=True, help="Which CPython; by default 3.11, 3.13.")
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Where to write what was measured; rows that were not measured stay as they are there.",
)  # fmt: skip
@click.option(
    "--environments", type=click.Path(path_type=Path), default=ROOT / ".bench", show_default=True,
    help="Where to keep the environments of peers.",
)  # fmt: skip
def main(
    quick: bool, rows: str, versions: Sequence[str], out: Path | None, environments: Path
) -> None:
    """Measure how fast redsync is, beside its peers."""
    console = Console()
    pythons = {each: found for each in versions or _VERSIONS if (found := _find_python(each))}
    if not pythons:
        raise click.ClickException(f"no CPython of {', '.join(versions or _VERSIONS)} was found")
    numbers = [int(each) for each in rows.split(",")] if rows else list(ROWS)
    made = Environments(environments, pythons)
    figures: list[Figure] = []
    with console.status("") as status:
        for number in numbers:
            tell = partial(_tell, console, status, number)
            bench = Bench(made, list(pythons), quick, tell)
            row = ROWS[number](bench)
            figures += row
            console.print(_table(number, row))
    if out is not None:
        if (out / FIGURES).exists():
            figures += [each for each in load(out)[0] if each.row not in numbers]
            figures.sort(key=lambda each: each.row)
        save(out, figures, _surroundings(made), draw(out, figures))
        if out.resolve() == PUBLISHED:
            publish(ROOT / "README.md", figures)


def _tell(console: Console, status: Status, number: int, text: str) -> None:
    status.update(f"row {number}: {text}")
    if text.startswith("left out"):
        console.print(f"{number}. {escape(text)}")


def _table(number: int, figures: Sequence[Figure]) -> Table:
    table = Table("", "", "", title=f"{number}. {TITLES[number]}", title_justify="left")
    table.add_column("median", justify="right")
    table.add_column("least to greatest", justify="right")
    table.add_column("target")
    for each in figures:
        spread = each.spread
        table.add_row(
            each.subject, each.measure, each.where,
            f"{short(spread.median)} {each.unit}",
            f"{short(spread.low)} to {short(spread.high)}",
            {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[each.met],
        )  # fmt: skip
    return table


def _find_python(version: str) -> str | None:
    """An interpreter of this version that runs; a shim of pyenv may not."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}")]
    candidates += [str(each) for each in sorted(home.glob(f"versions/{version}.*/bin/python3"))]
    for each in candidates:
        if (
            each
            and subprocess.run([each, "-c", "import venv"], capture_output=True).returncode == 0
        ):
            return each
    return None


def _surroundings(environments: Environments) -> dict[str, Any]:
    newest = list(environments.pythons)[-1]
    versions = environments.versions(newest, OWN)
    server = subprocess.run(
        [find_server(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "server": server.strip(),
        "redis-py": versions["redis"],
        "hiredis": versions.get("hiredis", "none"),
        "CPython": ", ".join(
            environments.versions(each, OWN)["python"] for each in environments.pythons
        ),
        "processors": os.cpu_count(),
        "system": platform.platform(),
    }


if __name__ == "__main__":
    main()
