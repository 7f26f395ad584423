"""Break the package on purpose, one line at a time, and see that a test of the list notices.

Each entry of tools/mutations/*.toml names a fragment of a source file, what to put in its place,
what that breaks, and the test that has to fail. Nothing is changed in the checkout: each worker has
a copy of it in a temporary folder, breaks one thing there, in the twin too, and runs that test.
A mutation counts as killed if the named test fails: by an assertion, by an error of the package's
own, or because it does not end in time. If the sources do not even load any more, or a script does
not compile, the entry is at fault.

    python tools/mutants.py --jobs 2
    python tools/mutants.py --only semaphore/acquire.lua
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Final

import click
from gen_sync import PACKAGE as TWIN
from gen_sync import TESTS, GenerationError, generate
from redis import Redis
from redis.exceptions import ResponseError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from redsync.cli.server import Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT: Final = Path(__file__).resolve().parent.parent
LISTS: Final = ROOT / "tools" / "mutations"
PACKAGE: Final = "src/redsync"

TIMEOUT: Final = 15
"""Seconds for one test.  A killer is better if it fails at once."""

_ENDING: Final = 30
"""Seconds for a run of pytest besides: it starts servers, and ends what hangs."""

_COPIED: Final = ("src", "tests", "tools", "docs", "pyproject.toml", "README.md", "noxfile.py")

_AT_FAULT: Final = re.compile(
    r"(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|NameError|UnboundLocalError)\b"
    r"|(?![\w.]*OutOfMemory)[\s\S]*(user_script:\d|Error compiling script|Error running script)"
)
"""How a test fails because a mutation is no program any more, rather than a wrong one."""

_INCLUDE: Final = re.compile(r"^-- include (\S+)\n", re.MULTILINE)


class ListError(Exception):
    """The list does not fit the sources."""


@dataclass(frozen=True)
class Mutation:
    """One thing to break."""

    file: str
    """Below the package."""
    old: str
    new: str
    breaks: str
    killed_by: str

    @property
    def path(self) -> str:
        """Below the project's root."""
        return f"{PACKAGE}/{self.file}"

    def applied(self, text: str) -> str:
        """The broken source.

        Raises:
            ListError: The fragment is not there exactly once, or nothing would change.
        """
        count = text.count(self.old)
        if count != 1:
            raise ListError(f"{self.file}: occurs {count} times instead of once:\n{self.old}")
        if self.old == self.new:
            raise ListError(f"{self.file}: nothing would change:\n{self.old}")
        return text.replace(self.old, self.new)

    def shown(self) -> str:
        """On one line, for a table."""
        old, new = (" ".join(each.split()) for each in (self.old, self.new))
        return f"`{old}` → " + (f"`{new}`" if new else "nothing")


@dataclass(frozen=True)
class Outcome:
    """How one test ended."""

    test: str
    status: str
    """passed, failed, error (of a fixture) or skipped"""
    message: str
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation."""

    mutation: Mutation
    killed: bool
    why: str
    """Why it lives, or how the test has failed."""
    seconds: float


def load(folder: Path = LISTS) -> list[Mutation]:
    """Return all mutations of the lists in a folder."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for file, entries in tomllib.loads(path.read_text("utf-8")).items():
            for entry in entries:
                try:
                    found.append(Mutation(file=file, **entry))
                except TypeError as error:
                    raise ListError(f"{path.name}: {file}: {entry}: {error}") from None
    return found


def check(mutations: Iterable[Mutation], root: Path = ROOT) -> None:
    """See that all of them can be applied.

    Raises:
        ListError: One cannot, or is there twice.
    """
    seen: set[tuple[str, str]] = set()
    for each in mutations:
        broken = each.applied((root / each.path).read_text("utf-8"))
        if (each.file, broken) in seen:
            raise ListError(f"{each.file}: is listed twice:\n{each.old}")
        seen.add((each.file, broken))


# A copy of the checkout


def copy_of(root: Path, folder: Path) -> Path:
    """Copy what the tests need into a folder, and make the twins there."""
    ignored = shutil.ignore_patterns("__pycache__", "_sync", ".*")
    for name in _COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored, symlinks=True)
        elif source.exists():
            shutil.copy(source, folder / name)
    for tree in (TWIN, TESTS):
        generate(tree, folder)
    return folder


@contextmanager
def broken(mutation: Mutation, copy: Path) -> Iterator[None]:
    """Have a mutation in the copy for the length of the body."""
    path = copy / mutation.path
    text = path.read_text("utf-8")
    # Tests of the source of truth have no need of a twin that is broken like it.
    twin = mutation.file.startswith("_async/") and not mutation.killed_by.startswith(TESTS.source)
    try:
        path.write_text(mutation.applied(text), "utf-8")
        if twin:
            generate(TWIN, copy)
        yield
    finally:
        path.write_text(text, "utf-8")
        if twin:
            generate(TWIN, copy)


def _environment(copy: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {
        **kept,
        "PYTHONPATH": str(copy / "src"),
        # Compiled files are told apart by size and second, which a mutation may leave as they were.
        "PYTHONDONTWRITEBYTECODE": "1",
        # To tests/conftest.py: the twins are looked after by somebody else.
        "PYTEST_XDIST_WORKER": "mutants",
    }


def _run(command: Sequence[str], copy: Path, seconds: float) -> tuple[int | None, str]:
    """Run a command in the copy; returns its status, or None if it does not end, and its output."""
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=_environment(copy),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
        return process.returncode, printed
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


class Compiler:
    """Tells whether broken sources are programs still; scripts are asked of a server."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def fault(self, path: Path) -> str:
        """What is wrong with a source file, if anything."""
        try:
            if path.suffix == ".lua":
                for script in self._scripts(path):
                    self._client.script_load(script)
            else:
                compile(path.read_text("utf-8"), str(path), "exec", dont_inherit=True)
        except (SyntaxError, ResponseError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _scripts(self, path: Path) -> Iterator[str]:
        """The script, or those that include it."""
        top = path.parent.parent
        for each in [path] if path.stem != "common" else sorted(path.parent.glob("*.lua")):
            yield _INCLUDE.sub(lambda found: (top / found[1]).read_text("utf-8"), each.read_text())


def run_tests(copy: Path, tests: Sequence[str], *options: str) -> tuple[list[Outcome], str]:
    """Run tests in the copy; returns how each ended, and what pytest printed."""
    report = copy / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [f"--timeout={TIMEOUT}", f"--junitxml={report}", *options, *tests]
    _, printed = _run(command, copy, TIMEOUT * len(tests) + _ENDING)
    if not report.exists():
        return [], printed
    return [_outcome(each) for each in ElementTree.parse(report).iter("testcase")], printed


def _outcome(case: ElementTree.Element) -> Outcome:
    test = case.get("classname", "").replace(".", "/") + ".py::" + case.get("name", "")
    seconds = float(case.get("time", 0))
    for tag, status in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            return Outcome(test, status, found.get("message", ""), seconds)
    return Outcome(test, "passed", "", seconds)


def is_of(outcome: Outcome, test: str) -> bool:
    """Whether it is the named test, or one of its cases if no case is named."""
    return outcome.test == test or outcome.test.startswith(f"{test}[")


# One mutation after the other


def judge(mutation: Mutation, copy: Path, compiler: Compiler) -> Verdict:
    """Break one thing in the copy, and run the test that has to notice."""
    began = monotonic()
    try:
        with broken(mutation, copy):
            fault = compiler.fault(copy / mutation.path)
            if fault:
                return Verdict(mutation, False, f"it is no program: {fault}", monotonic() - began)
            outcomes, printed = run_tests(copy, [mutation.killed_by], "-x")
    except (GenerationError, SyntaxError) as error:
        return Verdict(
            mutation,
            False,
            f"it is no program: {type(error).__name__}: {error}",
            monotonic() - began,
        )
    killed, why = _judged(mutation, outcomes, printed)
    return Verdict(mutation, killed, why, monotonic() - began)


def _judged(mutation: Mutation, outcomes: list[Outcome], printed: str) -> tuple[bool, str]:
    if not outcomes:
        return False, f"the test could not be run: {printed.strip()[-2000:] or 'it does not end'}"
    failed = [each for each in outcomes if each.status in ("failed", "error")]
    if not failed:
        return False, "SURVIVED: the test passes"
    first = failed[0]
    if first.status == "error" or not is_of(first, mutation.killed_by):
        return False, f"not the test has failed, but {first.test}: {first.message}"
    if _AT_FAULT.match(first.message):
        return False, f"the mutation is no working program: {first.message}"
    return True, first.message


def baseline(mutations: Sequence[Mutation], copy: Path) -> dict[str, float]:
    """See that all named tests pass as long as nothing is broken; returns how long each took.

    Raises:
        ListError: One does not, or does not exist.
    """
    tests = sorted({each.killed_by for each in mutations})
    outcomes, printed = run_tests(copy, tests)
    seconds: dict[str, float] = {}
    for test in tests:
        own = [each for each in outcomes if is_of(each, test)]
        bad = [each for each in own if each.status in ("failed", "error")]
        if bad or all(each.status == "skipped" for each in own):
            why = bad[0].message if bad else "it was not run"
            raise ListError(f"{test} fails although nothing is broken: {why}\n{printed[-2000:]}")
        seconds[test] = sum(each.seconds for each in own)
    return seconds


def judge_all(
    mutations: Sequence[Mutation],
    jobs: int,
    told: Callable[[Verdict], None],
    root: Path = ROOT,
    begun: Callable[[str], None] = lambda _: None,
) -> list[Verdict]:
    """Judge all, some at once; in the order given.

    Args:
        mutations: What to break.
        jobs: How many at once, each in a copy of its own.
        told: Called with each verdict as it comes.
        root: The checkout.
        begun: Called with what is being done before that.
    """
    check(mutations, root)
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as scratch,
        Server() as server,
        Redis.from_url(server.url) as client,
    ):
        compiler = Compiler(client)
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(max(1, min(jobs, len(mutations)))):
            folder = Path(scratch).resolve() / str(number)
            folder.mkdir()
            copies.put(copy_of(root, folder))

        def one(mutation: Mutation) -> Verdict:
            copy = copies.get()
            try:
                verdict = judge(mutation, copy, compiler)
            finally:
                copies.put(copy)
            told(verdict)
            return verdict

        begun("the named tests, with nothing broken")
        copy = copies.get()
        baseline(mutations, copy)
        copies.put(copy)
        begun("mutations")
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutations))


# What is printed


def table(verdicts: Iterable[Verdict]) -> str:
    """All of them, in Markdown."""
    lines = [
        "| File | Mutation | What it breaks | Killed by | s |",
        "|---|---|---|---|---|",
    ]
    for each in verdicts:
        mutation = each.mutation
        by = f"`{mutation.killed_by}`" if each.killed else "**nobody**"
        cells = (mutation.file, mutation.shown(), mutation.breaks, by, f"{each.seconds:.1f}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many for each file, in Markdown."""
    total = Counter(each.mutation.file for each in verdicts)
    killed = Counter(each.mutation.file for each in verdicts if each.killed)
    lines = ["| File | Mutations | Killed |", "|---|---|---|"]
    lines += [f"| {file} | {total[file]} | {killed[file]} |" for file in sorted(total)]
    lines.append(f"| all | {len(verdicts)} | {sum(killed.values())} |")
    return "\n".join(lines)


@click.command()
@click.option("--only", metavar="TEXT", help="Those whose file, test or text contains this.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="At once.")
def main(only: str | None, jobs: int) -> None:
    """Break the package, one line at a time, and see that tests notice."""
    console = Console(stderr=True)
    chosen = [each for each in load() if only is None or only in f"{each}"]
    if not chosen:
        raise click.ClickException(f"no mutation has {only!r} in it")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            task = progress.add_task("begins", total=len(chosen))

            def told(verdict: Verdict) -> None:
                progress.advance(task)
                if not verdict.killed:
                    progress.print(f"{verdict.mutation.file}: {verdict.mutation.shown()}")
                    progress.print(f"  {verdict.why}", markup=False)

            verdicts = judge_all(
                chosen, jobs, told, begun=lambda what: progress.update(task, description=what)
            )
    except ListError as error:
        raise click.ClickException(str(error)) from None
    print(table(verdicts), summary(verdicts), sep="\n\n")
    sys.exit(0 if all(each.killed for each in verdicts) else 1)


if __name__ == "__main__":
    main()
