"""An instance's part in what all instances of its name share, in one process and loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from .._runtime.aio import Client
from .session import Session
from .station import Station

S = TypeVar("S", bound=Station[Any])


class Membership(Generic[S]):
    """From the first use of an instance until it is closed.

    Args:
        what: Names the instance in an error.
        refusal: The error for a use after `end`.
    """

    def __init__(self, what: str, refusal: type[Exception]) -> None:
        self.station: S | None = None
        self._what = what
        self._refusal = refusal
        self._session: Session | None = None
        self._closed = False
        self._joining = 0
        """How many are at it right now."""

    def attended(self) -> S | None:
        """The station, looked after by a watchdog, once the instance has joined it."""
        station = self.station  # another thread may end it
        if station is not None and self._session is not None:
            self._session.attend(station.place)
        return station

    @contextmanager
    def joining(
        self, client: Client, key: Hashable, make: Callable[[Session], S], member: object
    ) -> Iterator[S]:
        """Join for the length of the body, and stay if it ends well.

        Args:
            client: The user's.
            key: Names the station among those of the client.
            make: Makes it, if there is none.
            member: The instance.
        """
        self._check_open()
        session = self._session = Session.of(client)
        station = session.join(key, make, member)
        with station.mutex:
            self._joining += 1
        try:
            yield station
            self._check_open()  # it may have been closed meanwhile
            self.station = station
        finally:
            with station.mutex:
                self._joining -= 1
                failed = self.station is None and not self._joining  # others may be at it still
            if failed:
                session.forget(key, member)

    def end(self) -> S | None:
        """Refuse whatever begins from now on; the station, if it was joined."""
        self._closed = True
        station, self.station = self.station, None
        return station

    async def leave(self, key: Hashable, member: object) -> None:
        """Leave the station, which goes with its last member."""
        if self._session is not None:
            await self._session.leave(key, member)

    def _check_open(self) -> None:
        if self._closed:
            raise self._refusal(f"this instance of {self._what} is closed; make a new one")
