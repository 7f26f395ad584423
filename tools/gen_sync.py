"""Derive each blocking ``_sync`` tree from its ``_async`` source of truth.

Without an option, brings them all up to date: of the package, of its tests and of the benchmarks.
With ``--check``, changes nothing and fails if a file would be written or removed.

unasync takes out ``async`` and ``await`` and renames identifiers.  This module adds what it leaves
to its caller: code quoted in docstrings, the refusal of what has no blocking counterpart, a proof
that the result compiles, and the removal of files whose source is gone.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import tokenize_rt
import unasync

ROOT: Final = Path(__file__).resolve().parent.parent

NAMES: Final = {
    "_async": "_sync",
    "aio": "sync",
    "aclose": "close",
}
"""Whole identifiers to rename, beside those that unasync knows (``__aenter__``, ...)."""

_LEFTOVER: Final = re.compile(
    # unasync turns an AsyncX that it does not know into a SyncX that does not exist.
    r"_?Async[A-Z]|_?Sync[A-Z]|async_"
    r"|(async|await|asyncio|anyio|aiter|anext|aclosing|Awaitable|Coroutine)$"
)
"""What has no business in blocking code: NAMES lacks an entry, or it belongs into ``_runtime``."""

_STRING_LEFTOVER: Final = re.compile(r"""[rRbB]*(?P<quote>'''|\"""|'|")(Async|Sync)[A-Z]""")
"""unasync takes a string that begins with ``AsyncX`` for a forward reference."""

_FSTRING_TRAPS: Final = frozenset(
    {*NAMES, "__aenter__", "__aexit__", "__aiter__", "__anext__", "asynccontextmanager"}
)
"""Names that Python 3.12+ would rename inside an f-string, and older ones would not."""

_PROSE: Final = (
    # Only what is surely code: the sentence "callers await this" stays as it is.
    (re.compile(r"\basync (?=(def|with|for) )"), ""),
    (re.compile(r"\bawait (?=[\w.]+\()"), ""),
    (re.compile(r"\basyncio\.run\((\w+\(\))\)"), r"\1"),
    (re.compile(r"\bredis\.asyncio\b"), "redis"),
    (re.compile(r"\bredsync\.aio\b"), "redsync.sync"),
    (re.compile(r"\baclose\b"), "close"),
    (re.compile(r"\b__a(enter|exit|iter)__"), r"__\1__"),
)
"""Code quoted in docstrings and comments."""


class Tree(NamedTuple):
    """A source of truth and what is derived from it, as paths below the project's root."""

    source: str
    target: str


PACKAGE: Final = Tree("src/redsync/_async", "src/redsync/_sync")
TESTS: Final = Tree("tests/_async", "tests/_sync")
PROGRAMS: Final = Tree("benchmarks/programs/_async", "benchmarks/programs/_sync")
TREES: Final = (PACKAGE, TESTS, PROGRAMS)


class GenerationError(Exception):
    """The source of truth has something that cannot be made blocking."""

    def __init__(self, origin: str, line: int | None, why: str) -> None:
        super().__init__(f"{origin}:{line}: {why}")


def render(tree: Tree, root: Path = ROOT) -> dict[str, str]:
    """Return the text of every file to generate, by its path within the tree."""
    source = root / tree.source
    names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*.py"))]
    for name in names:
        _check_fstrings((source / name).read_text("utf-8"), f"{tree.source}/{name}")
    with tempfile.TemporaryDirectory() as scratch:
        # Both absolute: unasync finds the source folder by replacing text in the path, and where
        # it finds nothing it overwrites the file that it has just read.
        rule = unasync.Rule(f"{source}/", f"{scratch}/", additional_replacements=NAMES)
        unasync.unasync_files([str(source / name) for name in names], [rule])
        return {
            name: _finish(Path(scratch, name).read_text("utf-8"), f"{tree.source}/{name}")
            for name in names
        }


def _check_fstrings(text: str, origin: str) -> None:
    """Refuse code inside f-strings that the generating Python's version would decide about."""
    fstrings = (node for node in ast.walk(ast.parse(text, origin)) if type(node) is ast.JoinedStr)
    for node in (inner for fstring in fstrings for inner in ast.walk(fstring)):
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(node, ast.Await) or name in _FSTRING_TRAPS:
            what = name or "await"
            line = getattr(node, "lineno", None)
            raise GenerationError(origin, line, f"{what!r} inside an f-string; take it out of it")


def _finish(text: str, origin: str) -> str:
    """Make the prose blocking too, mark the text, and prove that it is blocking code."""
    tokens = tokenize_rt.src_to_tokens(text)
    for index, token in enumerate(tokens):
        if token.name == "COMMENT" or token.src.endswith('"""'):
            tokens[index] = token._replace(src=_prose(token.src))
        elif (token.name == "NAME" and _LEFTOVER.match(token.src)) or (
            token.name == "STRING" and _STRING_LEFTOVER.match(token.src)
        ):
            raise GenerationError(
                origin,
                token.line,
                f"{token.src} would be left in the twin; list its async name in NAMES of"
                " tools/gen_sync.py, or move its use to _runtime (tests: to support)",
            )
    # Line 1, so that a traceback or an editor shows where to make the change.
    header = f"# Generated from {origin} by tools/gen_sync.py; do not edit.\n"
    result: str = header + tokenize_rt.tokens_to_src(tokens)
    compile(result, origin, "exec", dont_inherit=True)
    return result


def _prose(text: str) -> str:
    for pattern, replacement in _PROSE:
        text = pattern.sub(replacement, text)
    return text


def differing(tree: Tree, wanted: dict[str, str], root: Path = ROOT) -> list[Path]:
    """Return the files that are missing, that differ from ``wanted``, or are not in it."""
    target = root / tree.target
    present = {
        path.relative_to(target).as_posix(): path.read_text("utf-8")
        for path in target.rglob("*.py")
    }
    return [
        target / name
        for name in sorted(present.keys() | wanted.keys())
        if present.get(name) != wanted.get(name)
    ]


def generate(tree: Tree, root: Path = ROOT) -> list[Path]:
    """Bring the target up to date; return the files that were written or removed."""
    wanted = render(tree, root)
    changed = differing(tree, wanted, root)
    for path in changed:
        name = path.relative_to(root / tree.target).as_posix()
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, wanted[name])
        else:
            path.unlink()
    return changed


def _replace(path: Path, text: str) -> None:
    """Write the file in one step: someone may be importing it at this moment."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, "utf-8", newline="\n")
    scratch.replace(path)


def _outdated(checking: bool) -> Iterator[Path]:
    for tree in TREES:
        yield from differing(tree, render(tree)) if checking else generate(tree)


def main(arguments: list[str]) -> int:
    """Run the command line."""
    if arguments not in ([], ["--check"]):
        print("usage: gen_sync.py [--check]", file=sys.stderr)
        return 2
    checking = bool(arguments)
    try:
        changed = list(_outdated(checking))
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(path.relative_to(ROOT))
    return int(checking and bool(changed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
