"""Connections that redis-py opens and we take over."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from ..._protocol.resp import Parser, Reply
from ..options import STALLED
from .concurrency import Flag, Lock


class Stream(asyncio.Protocol):
    """A connection that redis-py has opened and introduced, and we have taken over.

    Its own reader costs several times as much as this one (docs/architecture.md).
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport
        self._transport.set_protocol(self)
        self._parser = Parser()
        self.failure: str | None = None
        """Why nothing more can be sent, if so."""
        self.address = (getattr(connection, "host", None), getattr(connection, "port", None))

    def data_received(self, data: bytes) -> None:
        try:
            for reply in self._parser.feed(data):
                self._on_reply(reply)
        except Exception as error:  # not RESP: whatever comes now belongs to nobody
            self.close(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.close(error or "closed by the server")

    def close(self, error: BaseException | str = "closed") -> None:
        """Cut the connection; the outcome of what is unanswered is unknown."""
        if self.failure is None:
            self.failure = f"connection lost: {str(error) or type(error).__name__}"
            self._transport.abort()
            self._connection._reader = self._connection._writer = None  # nothing left to close
            self._on_failure()

    def _check(self) -> None:
        if self.failure is not None:
            raise ConnectionError(self.failure)

    def _on_reply(self, reply: Reply) -> None:
        raise NotImplementedError

    def _on_failure(self) -> None:
        raise NotImplementedError


class Line(Stream):
    """A connection for one user at a time, who reads what comes in order."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._replies: deque[Reply] = deque()
        self._arrival = Flag()

    async def send(self, packed: bytes) -> None:
        """Send commands."""
        self._check()
        self._transport.write(packed)

    async def receive(self, timeout: float) -> Reply:
        """The next reply. A timeout leaves it to come later, for the next call."""
        if not self._replies:
            self._arrival.clear()
            self._check()
            await self._arrival.wait(timeout)
            if not self._replies:
                self._check()
                raise TimeoutError("no answer in time")
        return self._replies.popleft()

    def _on_reply(self, reply: Reply) -> None:
        self._replies.append(reply)
        self._arrival.set()

    def _on_failure(self) -> None:
        self._arrival.set()


class Wire(Stream):
    """A connection that any number of callers share: what they ask for is sent together.

    A caller alone writes at once. While an exchange is under way, the rest of a tick goes out in
    one write. A caller that leaves gives up its reply, not the connection.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Reply], float, float]] = deque()
        self._outbox: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.transactions = Lock()
        """For those who watch something on it."""

    async def call(self, packed: bytes, timeout: float) -> Reply:
        """Send one command and wait for its reply."""
        self._check()
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._send(packed, [future], timeout)
        return await future

    async def exchange(self, commands: Sequence[bytes], timeout: float) -> list[Reply]:
        """Send commands that follow each other, with none of another caller in between."""
        self._check()
        futures = [self._loop.create_future() for _ in commands]
        self._send(b"".join(commands), futures, timeout)
        await futures[-1]
        return [future.result() for future in futures]

    def stalled_for(self) -> float:
        """Seconds for which somebody has been waiting for an answer."""
        return self._loop.time() - self._waiting[0][1] if self._waiting else 0.0

    def _send(self, packed: bytes, futures: list[asyncio.Future[Reply]], timeout: float) -> None:
        if self._outbox:
            self._outbox.append(packed)
        elif not self._waiting:
            self._transport.write(packed)
        else:
            self._outbox.append(packed)
            self._loop.call_soon(self._flush)
        now = self._loop.time()
        # Whoever waits for several replies waits for the last one.
        self._waiting.extend([(future, now, math.inf) for future in futures[:-1]])
        self._waiting.append((futures[-1], now, now + timeout))
        if self._timer is None or self._timer.when() > now + timeout:
            self._arm(now + timeout)

    def _flush(self) -> None:
        packed, self._outbox = b"".join(self._outbox), []
        if self.failure is None:
            self._transport.write(packed)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        """Let those go whose time is up; one timer serves all, as one for each would cost more."""
        self._timer = None
        now = self._loop.time()
        if self._waiting and now - self._waiting[0][1] >= STALLED:
            self.close(f"no answer for {STALLED} s")
            return
        pending = []
        for future, _, deadline in self._waiting:
            if future.done() or deadline == math.inf:
                continue
            if deadline <= now:
                future.set_exception(TimeoutError("no answer in time"))
            else:
                pending.append(deadline)
        if pending:
            self._arm(min(pending))

    def _on_reply(self, reply: Reply) -> None:
        future = self._waiting.popleft()[0]
        if not future.done():
            future.set_result(reply)

    def _on_failure(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for future, _, deadline in self._waiting:
            if deadline == math.inf:
                future.cancel()
            elif not future.done():
                future.set_exception(ConnectionError(self.failure))
        self._waiting.clear()
