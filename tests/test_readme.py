"""What the documents say can be followed: examples run, links lead somewhere, names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from redsync.cli.server import Server

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "redsync"

DOCUMENTS: Final = [
    ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
] + sorted((ROOT / "docs").glob("*.md"))

_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A piece of code in a document."""

    document: str
    number: int
    language: str
    code: str


def blocks(*languages: str) -> list[Block]:
    """All pieces of code in these languages."""
    return [
        Block(path.name, number, *found)
        for path in DOCUMENTS
        for number, found in enumerate(_BLOCK.findall(path.read_text("utf-8")), 1)
        if found[0] in languages
    ]


def prose(path: Path) -> str:
    """A document without its pieces of code."""
    return _BLOCK.sub("", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """What links may name in a document, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def label(value: object) -> str:
    """Name a case."""
    return f"{value.document}-{value.number}" if isinstance(value, Block) else ""


@pytest.mark.parametrize("block", blocks("python", "py"), ids=label)
def test_an_example_runs_as_it_stands(block: Block, server: Server, tmp_path: Path) -> None:
    # A program of its own: it has to end too.
    client = "Redis()"
    assert client in block.code, "an example uses the server at its usual place"
    here = f"Redis(unix_socket_path={server.unix_socket!r})"
    program = tmp_path / "example.py"
    program.write_text(block.code.replace(client, here), "utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_both_worlds_have_an_example_of_each_primitive() -> None:
    shown = {
        (world, name)
        for block in blocks("python")
        if block.document == "README.md"
        for world, names in re.findall(r"^from redsync\.(\w+) import (.+)$", block.code, re.M)
        for name in names.split(", ")
    }
    primitives = ("RedisSemaphore", "RedisEvent", "Timers")
    assert shown >= {(world, name) for world in ("aio", "sync") for name in primitives}


@pytest.mark.parametrize("end", ["redsync demo", "nox -s test"])
def test_a_command_that_does_everything_is_one_line(end: str) -> None:
    commands = [block.code for block in blocks("sh") if block.code.rstrip().endswith(end)]
    readme = [block for block in blocks("sh") if block.document == "README.md"]
    assert len(readme) == 2
    assert len(commands) == 1
    assert commands[0].count("\n") == 1
    assert commands[0].startswith("python3 -m venv .venv && ")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(prose(path)):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert ROOT in (target, *target.parents), f"{link} leads out of the project"
        assert not anchor or anchor in anchors(target), link


def test_no_document_is_out_of_reach_of_the_readme() -> None:
    linked = {link.partition("#")[0] for link in _LINK.findall(prose(ROOT / "README.md"))}
    assert linked >= {str(path.relative_to(ROOT)) for path in DOCUMENTS[1:]}


def test_the_architecture_tells_of_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    modules = [
        path.relative_to(SOURCE)
        for path in SOURCE.rglob("*.py")
        if not {"_sync", "cli", "model"} & set(path.parts) and path.name != "__init__.py"
    ]
    assert modules
    assert not [str(path) for path in modules if f"`{path.as_posix()}`" not in text]


def test_the_protocol_tells_of_every_script() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    lua = SOURCE / "_protocol" / "lua"
    scripts = [path.relative_to(lua).with_suffix("").as_posix() for path in lua.rglob("*.lua")]
    assert scripts
    assert not [name for name in scripts if f"`{name}`" not in text]


def test_paths_that_are_named_exist() -> None:
    named = re.compile(r"`((?:src|tests|tools|docs)/[\w./]+)`")
    generated = {"src/redsync/_sync", "tests/_sync"}  # not in every checkout
    for document in DOCUMENTS:
        for name in named.findall(prose(document)):
            assert name.rstrip("/") in generated or (ROOT / name).exists(), (document.name, name)


def test_tests_that_are_named_exist() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in sources for name in re.findall(r"def (test_\w+)", text)}
    for document in DOCUMENTS:
        named = set(re.findall(r"`(test_\w+)`", prose(document)))
        assert named <= there, (document.name, named - there)
