"""What a process and its server have in use, to be compared before and after."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis import Redis

__all__ = ["Resources", "instances", "lasting_keys", "measure", "open_files", "resident", "workers"]

_FILES: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


@dataclass(frozen=True)
class Resources:
    """How many there are of what has to be given back."""

    files: int
    threads: int
    connections: int


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir(_FILES))


def measure(admin: Redis) -> Resources:
    """Count now; `admin` is a client with one connection, which is among them."""
    connections: Any = admin.client_list()
    alive = [each for each in threading.enumerate() if each.is_alive()]
    return Resources(open_files(), len(alive), len(connections))


def workers() -> list[threading.Thread]:
    """Threads of redsync that have not come to their end."""
    return [each for each in threading.enumerate() if each.name.startswith("redsync")]


def instances() -> Counter[str]:
    """Objects of redsync's classes that are still there, but for those of modules."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        if kind.__module__.startswith(("redsync._async", "redsync._sync", "redsync._runtime")):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return found


def lasting_keys(admin: Redis) -> set[bytes]:
    """Keys without a time to live, which stay for good."""
    keys: Any = admin.keys()
    with admin.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
        lives = pipe.execute()
    return {key for key, life in zip(keys, lives, strict=True) if life == -1}


def resident() -> int:
    """Bytes of memory that this process has, where the system tells."""
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        yield from path.read_text().splitlines()
