"""python -m redsync._protocol.model: explore everything, and print what there was.

Names of configurations may follow; those that are large are marked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from .explore import Exploration, Found
from .processes import Processes, Setting

CONFIGURATIONS: Final[dict[str, Callable[[], Any]]] = {
    "semaphore": lambda: Processes(Setting()),
    "semaphore, two commands under way": lambda: Processes(Setting(under_way=2)),
    "semaphore, all data or one key lost": lambda: Processes(Setting(losses=1)),
    "semaphore, data lost twice": lambda: Processes(Setting(losses=2, under_way=0)),
    "semaphore, failover": lambda: Processes(Setting(failovers=1)),
    "semaphore, a newcomer after a loss": lambda: Processes(Setting(losses=1, newcomers=1)),
    "semaphore, the clock behind": lambda: Processes(
        Setting(clients=2, losses=1, behind=True, under_way=0)
    ),
    "semaphore, two resizes": lambda: Processes(Setting(resizes=2)),
    "semaphore, resize and loss": lambda: Processes(
        Setting(clients=2, resizes=1, losses=1)
    ),
    "semaphore, longer times": lambda: Processes(Setting(ttl=4, grace=2)),
}


def explore(name: str) -> Found:
    """Explore one of them, and tell how far it is."""

    def progress(states: int, transitions: int, depth: int) -> None:
        if sys.stderr.isatty():
            text = f"{name}: {states:,} states, {transitions:,} transitions, depth {depth}"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    found = Exploration(CONFIGURATIONS[name](), progress=progress).run()
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return found


def main(names: list[str]) -> int:
    """Explore all of them, or those that are named."""
    failed = False
    for name in names or CONFIGURATIONS:
        found = explore(name)
        print(f"{name:<44}{found}", flush=True)
        if found.violation:
            failed = True
            print(found.trace, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
