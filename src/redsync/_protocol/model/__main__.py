"""python -m redsync._protocol.model: explore everything, and print what there was.

Beginnings of names may follow, to explore only the configurations that are called like this.
"""

from __future__ import annotations

import sys
from typing import Final

from . import processes, workers
from .explore import Exploration, Found
from .processes import Processes
from .workers import Workers

SEMAPHORES: Final = {
    "a command under way": processes.Setting(),
    "two commands under way": processes.Setting(under_way=2),
    "data lost": processes.Setting(losses=1),
    "data lost twice": processes.Setting(losses=2, under_way=0),
    "a newcomer after a loss": processes.Setting(losses=1, newcomers=1),
    "failover": processes.Setting(failovers=1, under_way=0),
    "failover, one slot": processes.Setting(clients=2, slots=1, count=1, failovers=1),
    "two resizes": processes.Setting(resizes=2, under_way=0),
    "the clock behind": processes.Setting(clients=2, under_way=0, behind=True),
    "the clock behind, data lost": processes.Setting(clients=1, losses=1, under_way=0, behind=True),
    "longer times": processes.Setting(clients=2, ttl=4, grace=2, under_way=0),
}

TIMERS: Final = {
    "a command under way": workers.Setting(size=1, arms=1, cancels=0),
    "a removal": workers.Setting(size=1, arms=1, under_way=0),
    "armed anew": workers.Setting(workers=1, under_way=0),
    "records or index lost": workers.Setting(size=1, arms=1, cancels=0, losses=1, under_way=0),
}


def explore(name: str) -> Found:
    """Explore one of them, and tell how far it is."""
    kind, _, what = name.partition(": ")
    terminal = sys.stderr.isatty()

    def progress(states: int, transitions: int, depth: int) -> None:
        if terminal:
            text = f"{name}: {states:,} states, {transitions:,} transitions, depth {depth}"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    if kind == "semaphore":
        found = Exploration(Processes(SEMAPHORES[what]), progress=progress).run()
    else:
        found = Exploration(Workers(TIMERS[what]), progress=progress).run()
    if terminal:
        print("\r\x1b[K", end="", file=sys.stderr)
    return found


def main(beginnings: list[str]) -> int:
    """Explore all of them, or those whose names begin like this."""
    names = [f"semaphore: {each}" for each in SEMAPHORES] + [f"timers: {each}" for each in TIMERS]
    chosen = [name for name in names if name.startswith(tuple(beginnings or [""]))]
    failed = not chosen
    for name in chosen:
        found = explore(name)
        print(f"{name:<40}{found}", flush=True)
        if found.violation:
            failed = True
            print(found.trace, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
