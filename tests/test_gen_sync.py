"""The generator: what it turns into what, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from gen_sync import GenerationError, Tree, differing, generate, render

TREE = Tree("src/_async", "src/_sync")

SOURCE = '''\
"""A module.

    async with thing as held:  # await thing.enter()
        await held.use()

Callers may await this.
"""
from .._runtime.aio import sleep


class Thing:
    async def __aenter__(self) -> "Thing":
        await sleep(0)
        return self

    async def aclose(self) -> None:
        async for _ in self.each():
            pass
'''

TWIN = '''\
# Generated from src/_async/thing.py by tools/gen_sync.py; do not edit.
"""A module.

    with thing as held:  # thing.enter()
        held.use()

Callers may await this.
"""
from .._runtime.sync import sleep


class Thing:
    def __enter__(self) -> "Thing":
        sleep(0)
        return self

    def close(self) -> None:
        for _ in self.each():
            pass
'''


def source(root: Path, name: str, text: str) -> Path:
    path = root / TREE.source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_code_and_quoted_code_are_made_blocking(tmp_path: Path) -> None:
    source(tmp_path, "thing.py", SOURCE)
    assert render(TREE, tmp_path) == {"thing.py": TWIN}


def test_the_source_is_left_alone(tmp_path: Path) -> None:
    path = source(tmp_path, "thing.py", SOURCE)
    generate(TREE, tmp_path)
    assert path.read_text() == SOURCE


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    source(tmp_path, "inner/thing.py", SOURCE)
    target = tmp_path / TREE.target / "inner/thing.py"
    assert generate(TREE, tmp_path) == [target]
    assert generate(TREE, tmp_path) == []
    target.write_text("edited")
    assert differing(TREE, render(TREE, tmp_path), tmp_path) == [target]


def test_a_file_without_a_source_is_removed(tmp_path: Path) -> None:
    old = source(tmp_path, "old.py", "")
    generate(TREE, tmp_path)
    old.unlink()
    assert generate(TREE, tmp_path) == [tmp_path / TREE.target / "old.py"]
    assert not list((tmp_path / TREE.target).iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio",
        "from unittest.mock import AsyncMock",
        "from contextlib import AsyncExitStack",
        "def f(x: 'AsyncThing') -> None: ...",
        "x = 'AsyncThing failed'",
        "from collections.abc import Awaitable",
        "async def f(x): return await anext(x)",
        "async def f(x): return f'{await x}'",
        "def f(x): return f'{x.aclose}'",
    ],
)
def test_what_has_no_blocking_counterpart_is_refused(tmp_path: Path, text: str) -> None:
    source(tmp_path, "thing.py", text)
    with pytest.raises(GenerationError, match=r"src/_async/thing\.py:1: "):
        generate(TREE, tmp_path)
    assert not (tmp_path / TREE.target).exists()
