"""Connections that redis-py opens and we take over."""

from __future__ import annotations

import builtins
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

from redis.exceptions import ConnectionError, TimeoutError

from ..._protocol.resp import Parser, Reply
from ..options import STALLED
from .concurrency import Lock

_CHUNK = 65536
_SLICE = 1.0


class Stream:
    """A connection that redis-py has opened and introduced, and we have taken over."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._slice = _SLICE
        """For how long the socket waits at a time: each change is a system call."""
        # Not SO_RCVTIMEO: after each signal that a handler returns from, it would begin anew.
        self._socket.settimeout(_SLICE)
        self._parser = Parser()
        self._arrived: deque[Reply] = deque()
        self._using = threading.Lock()
        self.failure: str | None = None
        """Why nothing more can be sent, if so."""
        self.address = (getattr(connection, "host", None), getattr(connection, "port", None))

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)  # an interrupt may have come before it
        if connection is not None:
            connection.disconnect()

    def close(self, error: BaseException | str = "closed") -> None:
        """Cut the connection; the outcome of what is unanswered is unknown."""
        if self.failure is None:
            self.failure = f"connection lost: {str(error) or type(error).__name__}"
            with contextlib.suppress(OSError):
                # Wakes whoever reads. The one of TLS would have whoever writes go on in plain text.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            self._dispose()
            self._on_failure()

    def _dispose(self) -> None:
        """Close the file descriptor, unless another thread is using it: then that one does it."""
        if self._using.acquire(blocking=False):
            try:
                self._connection.disconnect()
            finally:
                self._using.release()

    def _on_failure(self) -> None:
        pass

    def _check(self) -> None:
        if self.failure is not None:
            raise ConnectionError(self.failure)

    def _write(self, packed: bytes) -> None:
        end = 0.0
        try:
            with self._using:
                self._check()
                while True:
                    try:
                        sent = self._socket.send(packed)
                    except builtins.TimeoutError:
                        sent = 0
                    if sent == len(packed):
                        break
                    packed = packed[sent:]
                    end = end or time.monotonic() + STALLED
                    if time.monotonic() >= end:
                        raise builtins.TimeoutError(f"nothing can be sent for {STALLED} s")
        except BaseException as error:
            self._fail(error)
        finally:
            if self.failure is not None:
                self._dispose()  # closed meanwhile, by a thread that left the descriptor to us

    def _read(self, deadline: float) -> Reply:
        """The next reply. A timeout leaves it to come later, for the next call."""
        while not self._arrived:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("no answer in time")
            try:
                with self._using:
                    self._check()
                    if remaining < _SLICE or self._slice < _SLICE:
                        self._slice = min(remaining, _SLICE)
                        self._socket.settimeout(self._slice)
                    data = self._socket.recv(_CHUNK)
                if not data:
                    raise OSError("closed by the server")
                self._arrived.extend(self._parser.feed(data))
            except builtins.TimeoutError:
                continue
            except BaseException as error:
                self._fail(error)
            finally:
                if self.failure is not None:
                    self._dispose()
        return self._arrived.popleft()

    def _fail(self, error: BaseException) -> NoReturn:
        """An exchange was cut off, perhaps by an interrupt: nobody knows whose reply is next."""
        self.close(error)
        if isinstance(error, OSError):
            raise ConnectionError(self.failure) from None
        raise error


class Line(Stream):
    """A connection for one user at a time, who reads what comes in order."""

    def send(self, packed: bytes) -> None:
        """Send commands."""
        self._write(packed)

    def receive(self, timeout: float) -> Reply:
        """The next reply. A timeout leaves it to come later, for the next call."""
        return self._read(time.monotonic() + timeout)


class _Exchange:
    """A command of one caller, on its way."""

    __slots__ = ("gate", "leads", "left", "outcome", "packed", "since")

    def __init__(self, packed: bytes, *, left: bool = False) -> None:
        self.packed = packed
        self.since = time.monotonic()
        self.gate: threading.Lock | None = None
        """Held until there is an outcome, or this thread is the one to lead."""
        self.leads = False
        self.left = left
        self.outcome: tuple[Reply] | None = None

    def answer(self, reply: Reply) -> None:
        self.outcome = (reply,)
        self.wake()

    def wake(self) -> None:
        if self.gate is not None and self.gate.locked():
            self.gate.release()


class Wire(Stream):
    """A connection that any number of callers share: what they ask for is sent together.

    Flat combining: the first caller leads. It sends what has gathered, reads replies for everybody
    until its own has come, and then hands the lead to a caller that still waits (after Hendler,
    Incze, Shavit and Tzafrir, SPAA 2010). A caller that leaves gives up its reply, not the
    connection.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._mutex = threading.Lock()
        self._unsent: list[_Exchange] = []
        self._unanswered: deque[_Exchange] = deque()
        self._led = False
        self.transactions = Lock()
        """For those who watch something on it."""

    def call(self, packed: bytes, timeout: float) -> Reply:
        """Send one command and wait for its reply."""
        mine = _Exchange(packed)
        self._perform((), mine, timeout)
        if mine.outcome is None:
            raise ConnectionError(self.failure)
        return mine.outcome[0]

    def exchange(self, commands: Sequence[bytes], timeout: float) -> list[Reply]:
        """Send commands that follow each other, with none of another caller in between."""
        # Whoever waits for several replies waits for the last one.
        before = [_Exchange(packed, left=True) for packed in commands[:-1]]
        mine = _Exchange(commands[-1])
        self._perform(before, mine, timeout)
        if mine.outcome is None:
            raise ConnectionError(self.failure)
        outcomes = [each.outcome for each in (*before, mine)]
        return [outcome[0] for outcome in outcomes if outcome is not None]

    def stalled_for(self) -> float:
        """Seconds for which somebody has been waiting for an answer."""
        with self._mutex:
            return time.monotonic() - self._unanswered[0].since if self._unanswered else 0.0

    def _perform(self, before: Sequence[_Exchange], mine: _Exchange, timeout: float) -> None:
        deadline = mine.since + timeout
        try:
            batch: list[_Exchange] = []
            with self._mutex:
                self._check()
                self._unsent += (*before, mine)
                if self._led:
                    mine.gate = threading.Lock()
                    mine.gate.acquire()
                else:
                    self._led = mine.leads = True
                    batch = self._take()
            if mine.gate is not None:
                self._follow(mine, mine.gate, deadline)
                with self._mutex:
                    batch = self._take() if mine.leads else []
            if mine.leads:
                self._lead(mine, batch, deadline)
        except BaseException as error:
            if not (mine.left and isinstance(error, TimeoutError)):
                self.close(error)  # interrupted, perhaps with the lead in our hands
            raise

    def _follow(self, mine: _Exchange, gate: threading.Lock, deadline: float) -> None:
        """Wait for the outcome or the lead."""
        if gate.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        with self._mutex:
            if mine.outcome is not None or mine.leads:
                return
            mine.left = True
        raise TimeoutError("no answer in time")

    def _lead(self, mine: _Exchange, batch: list[_Exchange], deadline: float) -> None:
        while mine.outcome is None:
            if batch:
                self._write(b"".join([each.packed for each in batch]))
            try:
                reply = self._read(deadline)
            except TimeoutError:
                mine.left = True
                with self._mutex:
                    stalled = self._hand_on_lead()
                if stalled:
                    self.close(f"no answer for {STALLED} s")
                raise
            stalled = False
            with self._mutex:
                self._check()
                self._answer(reply)
                # No `while`: an interrupt would get past the mutex (tests/test_compiled.py).
                for _ in range(len(self._arrived)):
                    self._answer(self._arrived.popleft())
                if mine.outcome is None:
                    batch = self._take()
                else:
                    stalled = self._hand_on_lead()
            if stalled:
                self.close(f"no answer for {STALLED} s")

    def _take(self) -> list[_Exchange]:
        """What is to be sent now."""
        batch, self._unsent = self._unsent, []
        self._unanswered.extend(batch)
        return batch

    def _answer(self, reply: Reply) -> None:
        # In this order: if an interrupt comes, whoever is not in the list is woken by nobody.
        self._unanswered[0].answer(reply)
        self._unanswered.popleft()

    def _hand_on_lead(self) -> bool:
        """Under the mutex; true if nobody leads any more, as the server does not answer."""
        stalled = False
        self._led = False
        if self._unanswered or self._unsent:
            heirs = (each for each in (*self._unanswered, *self._unsent) if not each.left)
            stalled = bool(self._unanswered) and (
                time.monotonic() - self._unanswered[0].since >= STALLED
            )
            heir = None if stalled else next(heirs, None)
            if heir is not None:
                self._led = heir.leads = True
                heir.wake()
        return stalled

    def _on_failure(self) -> None:
        with self._mutex:
            for exchange in (*self._unanswered, *self._unsent):
                exchange.wake()
            self._unanswered.clear()
            self._unsent = []
