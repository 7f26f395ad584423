"""What a process keeps for one client: connections, and the worker that renews leases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from .._runtime.aio import Client, Flag, Mutex, PerHome, Worker
from .link import Hub

_log = logging.getLogger("redsync")

_SHORTEST_SLEEP: Final = 0.0005
_LONGEST_SLEEP: Final = 3600.0
_CLOSING: Final = 5.0


class Charge(Protocol):
    """What is shared by all instances of one name, and has to be looked after."""

    def join(self, member: Any) -> None:
        """An instance begins to use it."""

    def leave(self, member: Any) -> None:
        """An instance is closed."""

    def idle(self) -> bool:
        """Whether nobody needs it any more."""

    def due(self) -> float:
        """When to look after it next, on the monotonic clock."""

    async def tend(self) -> None:
        """Look after it. Errors of the server are its own business."""

    async def close(self) -> None:
        """Let go of everything."""


C = TypeVar("C", bound=Charge)


class Session:
    """One for each client, process and loop.

    Its worker, the watchdog, calls on each charge when it is due: one after the other, as each call
    is short.
    """

    def __init__(self, client: Client, registry: _Registry) -> None:
        self.hub = Hub(client)
        self._client = client
        self._registry = registry
        self._mutex = registry.mutex
        self._charges: dict[Hashable, Charge] = {}
        self._flag = Flag()
        self._worker: Worker | None = None

    @classmethod
    def of(cls, client: Client) -> Session:
        """The session of this client, here."""
        registry = _registries.get()
        with registry.mutex:
            session = registry.sessions.get(client)
            if session is None:
                session = registry.sessions[client] = Session(client, registry)
        return session

    def join(self, key: Hashable, make: Callable[[Session], C], member: object) -> C:
        """The charge with this key, made if there is none, with one member more."""
        with self._mutex:
            charge: Any = self._charges.get(key)
            if charge is None:
                charge = self._charges[key] = make(self)
            charge.join(member)
            self._registry.sessions[self._client] = self
            self.attend()
        self._flag.set()
        found: C = charge
        return found

    def attend(self) -> None:
        """A member begins to do something: there is a watchdog, even if somebody has cancelled
        every task that there was.
        """
        if self._worker is None or not self._worker.alive:
            with self._mutex:
                if self._worker is None or not self._worker.alive:
                    self._worker = Worker(self._watch, "redsync-watchdog")

    def forget(self, key: Hashable, member: object) -> None:
        """A member goes; what is idle then is closed in the background."""
        with self._mutex:
            if key in self._charges:
                self._charges[key].leave(member)
        self._flag.set()

    async def leave(self, key: Hashable, member: object) -> None:
        """A member goes; the last one leaves no task, thread or connection behind."""
        if self._charges:
            self.attend()
        with self._mutex:
            charge = self._charges.get(key)
            if charge is not None:
                charge.leave(member)
        if charge is not None:
            await charge.tend()
            await self._retire(key, charge)
            if not charge.idle():
                await charge.tend()  # something came for those who wait while it was closed
                await self._retire(key, charge)
        worker = self._worker
        self._flag.set()
        if worker is not None and not self._charges:
            await worker.join(_CLOSING)

    def wake(self) -> None:
        """A charge may be due earlier than it was."""
        self._flag.set()
        if not self._charges:
            # A permit was released after the end of its instance: nobody else will close this.
            self.hub.close()

    async def _retire(self, key: Hashable, charge: Charge) -> None:
        """Close what is idle; and forget it, if nobody has come to use it meanwhile."""
        if charge.idle():
            await charge.close()
            with self._mutex:
                if charge.idle() and self._charges.get(key) is charge:
                    del self._charges[key]

    async def _watch(self) -> None:
        try:
            await self._look_after()
        except BaseException:  # cancelled: most likely the loop is about to end
            self.hub.close()
            raise

    async def _look_after(self) -> None:
        while True:
            self._flag.clear()
            with self._mutex:
                charges = list(self._charges.items())
                if not charges:
                    self._worker = None
                    self._registry.sessions.pop(self._client, None)
                    self.hub.close()
                    return
            now = monotonic()
            for key, charge in charges:
                if charge.due() <= now:
                    await self._call_on(key, charge)
            due = min(charge.due() for _, charge in charges)
            await self._flag.wait(min(max(_SHORTEST_SLEEP, due - monotonic()), _LONGEST_SLEEP))

    async def _call_on(self, key: Hashable, charge: Charge) -> None:
        try:
            await charge.tend()
            await self._retire(key, charge)
        except Exception:
            # A fault of ours in one semaphore must not cost the others their leases.
            _log.exception("redsync: unexpected error while renewing leases")
            await self._flag.wait(1.0)


class _Registry:
    def __init__(self) -> None:
        self.mutex = Mutex()
        self.sessions: dict[Client, Session] = {}


_registries: PerHome[_Registry] = PerHome(_Registry)
