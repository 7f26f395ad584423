"""The watchdog: one worker for each process and client that renews leases and reaps."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Protocol

from .._runtime.aio import Flag, Mutex, Worker, going_on

_log = logging.getLogger("redsync")


class Charge(Protocol):
    """What the keeper looks after."""

    def due(self) -> float:
        """When to look after it next, on the monotonic clock."""

    async def tend(self) -> None:
        """Look after it. Errors of the server are its own business."""

    def idle(self) -> bool:
        """Whether nobody needs it any more."""

    async def close(self) -> None:
        """Let go of everything."""


class Keeper:
    """Calls on its charges when they are due, one after the other, as each call is short."""

    def __init__(self) -> None:
        self.mutex = Mutex()
        self._charges: set[Charge] = set()
        self._flag = Flag()
        self._worker: Worker | None = None

    def __len__(self) -> int:
        return len(self._charges)

    def add(self, charge: Charge) -> None:
        """Look after something, from now on until it is idle."""
        with self.mutex:
            self._charges.add(charge)
            if self._worker is None:
                self._worker = Worker(self._run, "redsync-keeper")
        self._flag.set()

    def remove(self, charge: Charge) -> None:
        """Forget it."""
        with self.mutex:
            self._charges.discard(charge)
        self._flag.set()

    def wake(self) -> None:
        """Something may be due earlier than it was."""
        self._flag.set()

    async def join(self, timeout: float) -> None:
        """Wait for the worker's end, when nothing is left to look after."""
        worker = self._worker
        if worker is not None and not self._charges:
            await worker.join(timeout)

    async def _run(self) -> None:
        while going_on():
            self._flag.clear()
            with self.mutex:
                charges = list(self._charges)
                if not charges:
                    self._worker = None
                    return
            now = monotonic()
            for charge in charges:
                if charge.due() <= now:
                    await self._call_on(charge)
            due = min((charge.due() for charge in charges), default=now)
            if due > monotonic():
                await self._flag.wait(due - monotonic())

    async def _call_on(self, charge: Charge) -> None:
        try:
            if charge.idle():
                self.remove(charge)
                await charge.close()
            else:
                await charge.tend()
        except Exception:
            # A fault of ours in one semaphore must not cost the others their leases.
            _log.exception("redsync: unexpected error while renewing leases")
