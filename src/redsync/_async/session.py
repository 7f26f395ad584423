"""What a process keeps for one client: connections, and the worker that renews leases."""

from __future__ import annotations

import logging
import math
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, TypeVar

from .._runtime.aio import Client, Flag, Mutex, PerHome, Worker, from_anywhere
from .link import Address, Hub

_log = logging.getLogger("redsync")

_SHORTEST_SLEEP: Final = 0.0005
_LONGEST_SLEEP: Final = 3600.0
_CLOSING: Final = 5.0

_LOOK: Final = 2.0
"""Seconds between two looks who is the master, where Sentinel knows."""


class Charge(Protocol):
    """What is shared by all instances of one name, and has to be looked after."""

    @property
    def place(self) -> Address:
        """The node that it is on, as far as anybody knows."""

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

    A worker for each node, the watchdog, calls on each charge when it is due: one after the other,
    as each call is short. If the node does not answer, those on other nodes are not held up.
    """

    def __init__(self, client: Client, registry: _Registry) -> None:
        self.hub = Hub(client, self.wake, lambda: not self._charges)
        self._client = client
        self._registry = registry
        self._mutex = registry.mutex
        self._charges: dict[Hashable, Charge] = {}
        self._watchdogs: dict[Address, _Watchdog] = {}
        self._members: set[weakref.ref[object]] = set()
        self._notice = from_anywhere(partial(_wake, weakref.ref(self)))

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
            # Whoever drops an instance without closing it tells nobody.
            self._members.add(weakref.ref(member, self._notice))
            self._registry.sessions[self._client] = self
            self.attend(charge.place)
        self.wake(key)
        found: C = charge
        return found

    def attend(self, place: Address) -> None:
        """A member begins to do something: there is a watchdog, even if somebody has cancelled
        every task that there was.
        """
        watchdog = self._watchdogs.get(place)
        if watchdog is None or not watchdog.worker.alive:
            with self._mutex:
                watchdog = self._watchdogs.get(place)
                if watchdog is None or not watchdog.worker.alive:
                    self._watchdogs[place] = _Watchdog(self, place)

    def forget(self, key: Hashable, member: object) -> None:
        """A member goes; what is idle then is closed in the background."""
        with self._mutex:
            if key in self._charges:
                self._charges[key].leave(member)
        self.wake(key)

    async def leave(self, key: Hashable, member: object) -> None:
        """A member goes; the last one leaves no task, thread or connection behind."""
        with self._mutex:
            charge = self._charges.get(key)
            if charge is not None:
                self.attend(charge.place)
                charge.leave(member)
        if charge is not None:
            await charge.tend()
            await self._retire(key, charge)
            if not charge.idle():
                await charge.tend()  # something came for those who wait while it was closed
                await self._retire(key, charge)
        watchdogs = list(self._watchdogs.values())
        self.wake(key)
        if not self._charges:
            for watchdog in watchdogs:
                await watchdog.worker.join(_CLOSING)
        with self._mutex:
            if not self._charges:
                # The watchdog has closed it, but perhaps while this one was still asking it.
                self.hub.close()

    def wake(self, key: Hashable = None) -> None:
        """A charge, or with None each of them, may be due earlier than it was, or has moved."""
        for watchdog in list(self._watchdogs.values()):
            watchdog.stir(key)

    async def _retire(self, key: Hashable, charge: Charge) -> None:
        """Close what is idle; and forget it, if nobody has come to use it meanwhile."""
        if charge.idle():
            await charge.close()
            with self._mutex:
                if charge.idle() and self._charges.get(key) is charge:
                    del self._charges[key]

    async def _watch(self, place: Address, watchdog: _Watchdog) -> None:
        try:
            await self._look_after(place, watchdog)
        except BaseException:  # cancelled: most likely the loop is about to end
            self.hub.close()
            raise

    async def _look_after(self, place: Address, watchdog: _Watchdog) -> None:
        # In the background: sentinels that do not answer must not cost anybody a lease.
        looking: Worker | None = None
        look = monotonic() + _LOOK if self.hub.network.guarded else math.inf
        # To ask each of a thousand whenever something happens to one would keep a processor busy.
        dues: dict[Hashable, float] = {}
        while True:
            watchdog.flag.clear()
            if not self._note_stirred(place, watchdog, dues):
                break
            now = monotonic()
            for key in [key for key, due in dues.items() if due <= now]:
                await self._call_on(key, watchdog.flag)
                self._note_due(place, key, dues)
            if not dues:
                continue  # what there was has gone
            if now >= look:
                look = now + _LOOK
                if looking is None or not looking.alive:
                    looking = Worker(self.hub.leave_old_master, "redsync-looking")
            due = min(look, min(dues.values()))
            await watchdog.flag.wait(min(max(_SHORTEST_SLEEP, due - monotonic()), _LONGEST_SLEEP))
        if looking is not None:
            await looking.join(_CLOSING)

    def _note_stirred(
        self, place: Address, watchdog: _Watchdog, dues: dict[Hashable, float]
    ) -> bool:
        """Note when those are due that something happened to; False if there is nobody to look
        after any more.
        """
        stirred = set()
        while watchdog.stirred:
            stirred.add(watchdog.stirred.popleft())
        if dues and None not in stirred:
            for key in stirred:
                self._note_due(place, key, dues)
        if not dues or None in stirred:
            dues.clear()
            dues.update((key, charge.due()) for key, charge in self._charges_at(place, watchdog))
        return bool(dues)

    def _note_due(self, place: Address, key: Hashable, dues: dict[Hashable, float]) -> None:
        charge = self._charges.get(key)
        if charge is not None and charge.place == place:
            dues[key] = charge.due()
        else:
            dues.pop(key, None)

    def _charges_at(self, place: Address, watchdog: _Watchdog) -> list[tuple[Hashable, Charge]]:
        """What the watchdog of a node has to look after; if that is nothing, its time is over."""
        with self._mutex:
            for each in self._charges.values():
                self.attend(each.place)  # some may have moved to where there was none
            if self._watchdogs.get(place) is not watchdog:
                return []  # an interrupt came before it was noted, and then there was another one
            charges = [item for item in self._charges.items() if item[1].place == place]
            if not charges:
                del self._watchdogs[place]
            if not self._charges:
                self._registry.sessions.pop(self._client, None)
                self.hub.close()
        return charges

    async def _call_on(self, key: Hashable, flag: Flag) -> None:
        """Look after a charge, if it still is due."""
        charge = self._charges.get(key)
        if charge is None or charge.due() > monotonic():
            return
        try:
            await charge.tend()
            await self._retire(key, charge)
        except Exception:
            # A fault of ours in one semaphore must not cost the others their leases.
            _log.exception("redsync: unexpected error while renewing leases")
            await flag.wait(1.0)


def _wake(reference: weakref.ref[Session], dropped: weakref.ref[object]) -> None:
    session = reference()
    if session is not None:
        session._members.discard(dropped)
        session.wake()


class _Watchdog:
    def __init__(self, session: Session, place: Address) -> None:
        self.flag = Flag()
        self.stirred: deque[Hashable] = deque()
        """Not under a lock, which whoever collects the garbage must not take."""
        self.worker = Worker(partial(session._watch, place, self), "redsync-watchdog")

    def stir(self, key: Hashable) -> None:
        """Have it look at a charge anew; None: at all of them."""
        self.stirred.append(key)
        self.flag.set()


class _Registry:
    def __init__(self) -> None:
        self.mutex = Mutex()
        self.sessions: dict[Client, Session] = {}


_registries: PerHome[_Registry] = PerHome(_Registry)
