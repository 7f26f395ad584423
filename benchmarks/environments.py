"""A virtual environment for each CPython and each peer: redsync 2.0.0 has our name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["OWN", "PEERS", "ROOT", "Environments", "EnvironmentsError"]

ROOT: Final = Path(__file__).parent.parent

OWN: Final = "redsync"

PEERS: Final[Mapping[str, tuple[str, ...]]] = {
    OWN: (f"{ROOT}[timers]", "uvloop"),
    "redsync 2.0.0": ("redsync==2.0.0", "uvloop"),
    "python-redis-lock": ("python-redis-lock",),
    "pottery": ("pottery",),
    "py-redis-semaphore": ("py-redis-semaphore",),
    "self-limiters": ("self-limiters",),
    "faststream-redis-timers": ("faststream-redis-timers",),
    "arq": ("arq",),
    "APScheduler": ("APScheduler<4",),
    "huey": ("huey",),
}
"""What is installed for each, beside redis-py 8 as far as the peer allows it."""

_VERSIONS: Final = """
import importlib.metadata, json, platform
found = {each.name.lower(): each.version for each in importlib.metadata.distributions()}
print(json.dumps(found | {"python": platform.python_version()}))
"""


class EnvironmentsError(Exception):
    """An environment cannot be made."""


class Environments:
    """Made when they are asked for, and kept.

    Args:
        folder: Where.
        pythons: CPython by version, such as "3.13".
    """

    def __init__(self, folder: Path, pythons: Mapping[str, str]) -> None:
        self.pythons = pythons
        self._folder = folder
        self._ready: dict[tuple[str, str], Path] = {}

    def python(self, version: str, peer: str) -> Path:
        """The interpreter that has this peer.

        Raises:
            EnvironmentsError: It cannot be installed.
        """
        key = version, peer
        if key not in self._ready:
            self._ready[key] = self._make(*key)
        return self._ready[key]

    def versions(self, version: str, peer: str) -> dict[str, str]:
        """What is installed there."""
        said = subprocess.run(
            [self.python(version, peer), "-c", _VERSIONS],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        versions: dict[str, str] = json.loads(said)
        return versions

    def _make(self, version: str, peer: str) -> Path:
        folder = self._folder / f"{version}-{peer.replace(' ', '-')}"
        python = folder / "bin" / "python"
        done = folder / "done"
        if peer != OWN and done.exists():
            return python
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _quietly(self.pythons[version], "-m", "venv", folder)
        # Ours is installed anew each time, and as users have it: not as a link to the sources.
        again = ["--force-reinstall", "--no-deps"] if done.exists() else []
        _quietly(python, "-m", "pip", "install", *again, "redis", *PEERS[peer])
        done.touch()
        return python


def _quietly(*command: str | os.PathLike[str]) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise EnvironmentsError(f"{' '.join(map(str, command))} failed: {done.stderr[-2000:]}")
