"""Write docs/compatibility.md from what runs of the tests came to.

    python tools/compatibility.py add report.xml  # what pytest --junitxml has written
    python tools/compatibility.py write           # the page again, from the figures that are there

Called by `nox -s servers clients` in the environment of the tests, so that it sees their redis-py.
The figures are kept in docs/compatibility.json: a run replaces its own row and no other.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import click

from redsync.cli.server import find_server

DOCS: Final = Path(__file__).parent.parent / "docs"

INTRODUCTION: Final = """\
# Compatibility

The whole suite of tests, run against many servers and with many versions of redis-py by
`nox -s servers clients`, which writes this page. Each row is one run: tests passed, failed,
and skipped for a reason that the test gives, and seconds. *Left out* are tests of what that version
lacks, by an expression of pytest that noxfile.py has.
"""


@dataclass(frozen=True)
class Row:
    """What one run of the tests came to."""

    server: str
    client: str
    parser: str
    python: str
    left_out: str = ""
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def surroundings(self) -> tuple[list[tuple[str, int]], ...]:
        """What the row is about, in an order for people: versions as numbers."""
        texts = (self.server, self.client, self.parser, self.python)
        return tuple([(w, int(n or 0)) for w, n in re.findall(r"([^\d]*)(\d*)", t)] for t in texts)


def server_name() -> str:
    """Name the server that the tests run against, and its version."""
    said = subprocess.run(
        [find_server(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"^(\w+) server v=(\S+)", said)
    if found is None:
        raise click.ClickException(f"the server says of itself: {said.strip()}")
    return f"{found[1]} {found[2]}"


def parser_name() -> str:
    """Name the parser that redis-py uses."""
    try:
        return f"hiredis {importlib.metadata.version('hiredis')}"
    except importlib.metadata.PackageNotFoundError:
        return "its own"


def read_report(path: Path, left_out: str) -> Row:
    """Make a row of what pytest has written, and of where this runs."""
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    cases = list(suite.iter("testcase"))
    failed = {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Row(
        server=server_name(),
        client=importlib.metadata.version("redis"),
        parser=parser_name(),
        python=platform.python_version(),
        left_out=left_out,
        passed=len(cases) - len(failed) - skipped,
        skipped=skipped,
        failed=sorted(failed),
        seconds=float(suite.get("time", 0)),
    )


def page(rows: Iterable[Row]) -> str:
    """Render the page."""
    lines = [INTRODUCTION]
    lines += ["| server | redis-py | parser | CPython | passed | failed | skipped | s | left out |"]
    lines += ["|---|---|---|---|---:|---:|---:|---:|---|"]
    notes = []
    for row in sorted(rows, key=lambda row: row.surroundings):
        left_out = f"`{row.left_out}`" if row.left_out else ""
        lines.append(
            f"| {row.server} | {row.client} | {row.parser} | {row.python} | {row.passed}"
            f" | {len(row.failed)} | {row.skipped} | {row.seconds:.0f} | {left_out} |"
        )
        notes += [f"* {row.server}, redis-py {row.client}: `{name}`" for name in row.failed]
    if notes:
        lines += ["", "Failed:", "", *notes]
    return "\n".join(lines) + "\n"


def load() -> list[Row]:
    """Read the figures."""
    path = DOCS / "compatibility.json"
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def save(rows: list[Row]) -> None:
    """Write figures and page."""
    rows.sort(key=lambda row: row.surroundings)
    figures = json.dumps([asdict(row) for row in rows], indent=1)
    (DOCS / "compatibility.json").write_text(figures + "\n")
    (DOCS / "compatibility.md").write_text(page(rows))


@click.group(help=__doc__.partition("\n")[0] if __doc__ else None)
def main() -> None:
    """Run a command."""


@main.command()
@click.argument("report", type=click.Path(exists=True, path_type=Path))
@click.option("--left-out", default="", help="The expression by which tests were left out.")
def add(report: Path, left_out: str) -> None:
    """Add what pytest --junitxml has written, in place of an earlier run in the same place."""
    new = read_report(report, left_out)
    save([row for row in load() if row.surroundings != new.surroundings] + [new])
    click.echo(
        f"{new.server}, redis-py {new.client}: {new.passed} passed, {len(new.failed)} failed"
    )


@main.command()
def write() -> None:
    """Write the page again."""
    save(load())


if __name__ == "__main__":
    main()
