"""A queue of those who wait in this process, and the one connection that waits for them all."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from redis import exceptions

from .._backoff import Backoff, Pauses
from .._protocol.resp import Reply, microseconds, pack
from .._protocol.scripts import Command
from .._protocol.trouble import advised, passes, takes_fewer_arguments
from .._runtime.aio import Flag, Line, Mutex, Promise, Worker, going_on
from ..exceptions import RedsyncError
from .link import Link

_LINGER: Final = 10.0
"""Seconds for which the connection stays open when nobody waits any more."""

_OVERTIME: Final = 2.0
"""Seconds by which a server may be late with the end of a slice before the connection is given up.
A server looks for blocked clients whose time is up 10 times a second."""

_SHORTEST_SLICE: Final = 0.05
"""Redis 6.2 blocks for ever with a millisecond or less."""

_CONNECT_TIMEOUT: Final = 2.0

_TIME: Final = pack("TIME")


T = TypeVar("T")


class Waiter(Promise[T]):
    """Somebody in line."""

    __slots__ = ("member", "owner")

    def __init__(self, owner: str, member: object) -> None:
        super().__init__()
        self.owner = owner
        """The name of the request."""
        self.member = member
        """The instance that it came through."""


P = TypeVar("P", bound=Waiter[Any])


class Claim(Protocol):
    """Something to tell the server before the next wait."""

    command: Command

    def answered(self, reply: Reply) -> None:
        """Take the answer; an error is one too."""

    def failed(self) -> None:
        """There was no answer."""


class Host(Protocol):
    """Whoever knows what the elements of the list mean."""

    mutex: Mutex

    def lists(self) -> tuple[bytes, ...]:
        """The keys to wait for, the most urgent first. Called with the mutex held."""

    def slice(self) -> float:
        """For how long to block at most, in seconds."""

    def deliver(self, elements: list[bytes], sent: float) -> None:
        """Hand out elements that were asked for at `sent`. Called with the mutex held."""

    def claim(self) -> Claim | None:
        """What to send before the next wait, if anything. Called with the mutex held."""

    @property
    def has_claim(self) -> bool:
        """Whether `claim` would give something."""

    def unblock(self) -> None:
        """Have `Queue.unblocking` sent, as the last one has left. Called with the mutex held."""

    def reconnected(self) -> None:
        """The connection is a new one: much may have happened meanwhile."""


class _Shift:
    """One worker's time of service, and the connection that it alone reads."""

    def __init__(self) -> None:
        self.line: Line | None = None
        self.worker: Worker | None = None
        self.serving = False
        """Noted by the worker: an interrupt may keep whoever started it from noting anything."""
        self.blocked = False

    @property
    def goes_on(self) -> bool:
        """Whether there is a worker."""
        return self.serving or (self.worker is not None and self.worker.alive)

    def drop_line(self, why: BaseException | str) -> None:
        if self.line is not None:
            self.line.close(why)
            self.line = None


class Queue(Generic[P]):
    """First come, first served within the process; the server does the same between processes.

    One connection blocks in BLPOP for all who wait, in slices. What comes is handed to the host,
    which pops waiters. The connection is read by one worker that nobody cancels, so nothing that
    the server has popped gets lost between a reply and a waiter that has just left.
    """

    def __init__(self, host: Host, link: Link, wake: bytes, name: str) -> None:
        self._host = host
        self._link = link
        self._wake = wake
        self._name = name
        self._waiting: OrderedDict[str, P] = OrderedDict()
        self._wanted = Flag()
        self._shift: _Shift | None = None
        self._closing = False
        self.opened = 0
        """When the connection was opened, in microseconds of the server's clock."""
        self._flowing = True
        """Whether the last wait ended with something; if not, there is hardly more of it."""
        self._counting = True
        """Whether LPOP takes a number, as from Redis 6.2 on."""
        self.trouble: Exception | None = None
        """Why the server cannot be asked at the moment, if so."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unblocking(self) -> Command:
        """What ends a wait. The key is of this worker alone; if it comes late, it wakes it once for
        nothing. (CLIENT UNBLOCK would need a permission that many users have not.)

        Not a transaction: it would end the WATCH of another one on the same connection.
        """
        push, expire = pack("RPUSH", self._wake, "1"), pack("PEXPIRE", self._wake, 60_000)
        return Command(expire, before=(push,))

    def enter(self, waiter: P) -> None:
        """Get in line, at the end. Called with the mutex held."""
        self._waiting[waiter.owner] = waiter
        self._closing = False
        if self._shift is None or not self._shift.goes_on:
            shift = self._shift = _Shift()
            shift.worker = Worker(partial(self._serve, shift), self._name)
        self._wanted.set()

    def leave(self, owner: str) -> bool:
        """Get out of line; False if it was not in it. Called with the mutex held."""
        if self._waiting.pop(owner, None) is None:
            return False
        if not self._waiting and self._shift is not None and self._shift.blocked:
            self._host.unblock()
        return True

    @property
    def first(self) -> P | None:
        """The first one in line. Called with the mutex held."""
        return next(iter(self._waiting.values()), None)

    def pop(self) -> P:
        """Take the first one out of line. Called with the mutex held."""
        return self._waiting.popitem(last=False)[1]

    def dismiss(self, member: object, error: Exception) -> None:
        """Have those fail who came through an instance. Called with the mutex held."""
        for waiter in [each for each in self._waiting.values() if each.member is member]:
            self.leave(waiter.owner)
            waiter.fail(error)

    async def close(self, timeout: float) -> None:
        """End the worker and its connection, once nobody waits."""
        with self._host.mutex:
            shift = self._shift
            self._closing = True
            self._wanted.set()
        if shift is None:
            return
        if shift.blocked:
            with suppress(exceptions.RedisError, OSError):
                await self._link.run(self.unblocking, monotonic() + timeout)
        ended = shift.worker is not None and await shift.worker.join(timeout)
        if not ended and self._closing:
            shift.drop_line("closed")

    async def _serve(self, shift: _Shift) -> None:
        shift.serving = True
        try:
            await self._work(shift)
        except BaseException as error:
            # Somebody has cancelled every task that there is: whose turn the next reply is, a
            # successor could not know.
            shift.drop_line(error)
            raise
        finally:
            shift.serving = False

    async def _work(self, shift: _Shift) -> None:
        pauses = Pauses(Backoff(0.02, maximum=1.0, jitter=0.2))
        while await self._is_wanted(shift):
            try:
                await self._wait_once(shift)
            except (exceptions.RedisError, OSError) as error:
                line = shift.line
                shift.drop_line(error)
                if shift is not self._shift:
                    return
                if passes(error) or isinstance(error, exceptions.MovedError):
                    self.trouble = error
                    await self._pause(pauses.next())
                    if line is not None:
                        with suppress(exceptions.RedisError, OSError):
                            await self._link.leave_line(error)
                else:
                    self._fail_all(advised(error))
            except Exception as error:  # a fault of ours: better told than waited for
                shift.drop_line(error)
                self._fail_all(error)
            else:
                pauses.reset()
            if not going_on():
                self._fail_all(RedsyncError("the program is ending"))

    async def _is_wanted(self, shift: _Shift) -> bool:
        """Wait until there is something to do; False after a while of idleness."""
        while True:
            with self._host.mutex:
                if shift is not self._shift:
                    shift.drop_line("somebody else has taken over")
                    return False
                self._wanted.clear()
                if self._waiting or self._host.has_claim:
                    return True
                closing = self._closing
            if closing or not await self._wanted.wait(_LINGER):
                with self._host.mutex:
                    if shift is self._shift and (closing or not self._wanted.is_set()):
                        self._shift = None
                        shift.drop_line("nobody waits any more")
                        return False

    async def _pause(self, delay: float) -> None:
        """Let a server that is away come back."""
        self._wanted.clear()
        if not self._closing:
            await self._wanted.wait(delay)

    async def _open(self, shift: _Shift) -> Line:
        shift.line = None  # the one before has nothing to do with what may go wrong now
        line = shift.line = await self._link.open_line(_CONNECT_TIMEOUT)
        await line.send(_TIME)
        self.opened = microseconds(await line.receive(_OVERTIME))
        if self.trouble is not None:
            self._host.reconnected()
        return line

    async def _wait_once(self, shift: _Shift) -> None:
        line = shift.line
        if line is None or line.failure is not None:
            line = await self._open(shift)
        with self._host.mutex:
            if shift is not self._shift:
                return
            claim = self._host.claim()
            waiting = len(self._waiting)
            packed = [claim.command.packed()] if claim else []
            if waiting:
                lists, slice_ = self._host.lists(), max(_SHORTEST_SLICE, self._host.slice())
                packed.append(pack("BLPOP", *lists, self._wake, f"{slice_:.3f}"))
            shift.blocked = waiting > 0
        more = waiting - 1 if self._flowing and self._counting else 0
        if more > 0:
            # One token for each round trip would be no faster than a connection for each waiter.
            packed.append(pack("LPOP", lists[0], more))
        sent = monotonic()
        found = False
        try:
            await line.send(b"".join(packed))
            if claim is not None:
                reply = await line.receive(_OVERTIME)
                claim.answered(reply)
                claim = None
            if waiting:
                found = self._hand_out(await line.receive(slice_ + _OVERTIME), True, sent)
            if more > 0:
                reply = await line.receive(_OVERTIME)
                if takes_fewer_arguments(reply):
                    self._counting = False
                else:
                    found |= self._hand_out(reply, False, sent)
        finally:
            shift.blocked = False
            if claim is not None:
                claim.failed()
        self.trouble = None
        self._flowing = found

    def _hand_out(self, reply: Reply, keyed: bool, sent: float) -> bool:
        """Deliver what was popped, if anything: by BLPOP, which tells the key too, or by LPOP."""
        if isinstance(reply, exceptions.RedisError):
            raise reply
        if not isinstance(reply, list) or (keyed and reply[0] == self._wake):
            return False
        elements = reply[1:] if keyed else reply
        with self._host.mutex:
            self._host.deliver([each for each in elements if isinstance(each, bytes)], sent)
        return True

    def _fail_all(self, error: Exception) -> None:
        with self._host.mutex:
            for _ in range(len(self._waiting)):
                self.pop().fail(error)
