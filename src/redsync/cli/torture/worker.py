"""What a worker runs: ``python -m redsync.cli.torture.worker SEAT NAME SEED PARENT``.

It writes what it does into a file of its own in the working directory.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

from ..orders import Orders, die_with
from .heart import Heart
from .history import Journal
from .load_events import Events
from .load_semaphores import Contender, open_semaphores
from .load_timers import Setter
from .terms import kind_of
from .world import Load, Tasks, Threads, World

__all__ = ["main"]

_CONTENDERS: Final = 3
_WAITERS: Final = 2
_STEP: Final = 0.02


class Bench:
    """All that a worker does."""

    def __init__(self, world: World, seat: int, name: str, seed: str, plant: str) -> None:
        self._world = world
        self._seat = seat
        self._name = name
        self._seed = seed
        self._plant = plant
        self._journal = Journal(Path(f"{name}.jsonl"))
        self._orders = Orders()

    async def run(self) -> None:
        """Until told to stop."""
        self._orders.follow()
        client = self._world.connect(os.environ["REDIS_URL"])
        semaphores = open_semaphores(self._world, client, self._seat, self._name)
        events = Events(
            self._world, client, self._journal, self._orders, self._seat, echo=self._is("echo")
        )
        setter = Setter(
            self._world,
            client,
            self._journal,
            self._orders,
            self._rng("setter"),
            self._name,
            thief=self._is("thief"),
        )
        loads: list[Load] = [self._contender(n, semaphores).run for n in range(_CONTENDERS)]
        loads += [partial(events.wait, self._rng(f"waiter {n}")) for n in range(_WAITERS)]
        loads += [partial(events.set, self._rng("signals")), setter.run]
        loads.append(self._contender(_CONTENDERS, semaphores).resize)
        with Heart(self._journal):
            async with setter.working():
                await self._world.together(loads)
                while not self._orders.given("stop"):
                    await self._world.sleep(_STEP)
            for semaphore in semaphores.values():
                await self._world.call(semaphore.close)
            await events.close()
        self._journal.write(done=monotonic())

    def _is(self, plant: str) -> bool:
        return plant in self._plant.split(",")

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{self._seed} {self._name} {what}")

    def _contender(self, number: int, semaphores: dict[str, Any]) -> Contender:
        return Contender(
            self._world,
            self._journal,
            self._orders,
            self._rng(f"contender {number}"),
            semaphores,
            deaf=self._is("deaf"),
        )


def _fail_as_a_whole() -> Callable[[threading.ExceptHookArgs], None]:
    """A thread that raises ends the process."""

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            sys.__excepthook__(args.exc_type, args.exc_value, args.exc_traceback)
        os._exit(1)

    return hook


def main() -> None:
    """Work at the seat that the command line names."""
    seat, name, seed, parent = sys.argv[1:]
    die_with(int(parent))
    threading.excepthook = _fail_as_a_whole()
    logging.getLogger("redsync").setLevel(logging.CRITICAL)  # trouble is what this is about
    world: World = Tasks() if kind_of(int(seat)) == "asyncio" else Threads()
    plant = os.environ.get("REDSYNC_TORTURE_PLANT", "")
    world.run(Bench(world, int(seat), name, seed, plant).run)


if __name__ == "__main__":
    main()
