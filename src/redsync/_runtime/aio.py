"""The seam for asyncio; `sync` offers the same names over threads.

There is one thread, so state is safe between two awaits and a `Mutex` does nothing.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import anyio
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException, TimeoutError

from .._protocol.keys import slot_of
from .._protocol.resp import Parser, Reply
from .options import STALLED, line_options

__all__ = [
    "Client",
    "Flag",
    "Line",
    "Lock",
    "Mutex",
    "Network",
    "Node",
    "PerHome",
    "Promise",
    "Wire",
    "Worker",
    "cancelled_by",
    "checked_client",
    "current",
    "finish",
    "going_on",
    "sleep",
]

sleep = asyncio.sleep

T = TypeVar("T")
S = TypeVar("S", bound="_Stream")

Client: TypeAlias = Redis | RedisCluster
"""What users hand in."""


# State


class Mutex:
    """Keeps state in one piece between threads; tasks need nothing for that. Never await inside."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class PerHome(Generic[T]):
    """A value for each event loop that asks for it, and none from before a fork."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, T] = {}
        self._pid = os.getpid()

    def get(self) -> T:
        """The value of the running loop, made at the first call."""
        loop = asyncio.get_running_loop()
        if self._pid != _pid:
            self._pid, self._values = _pid, {}
        if loop not in self._values:
            # The values refer to their loops, so weak keys would live for ever.
            self._values = {each: v for each, v in self._values.items() if not each.is_closed()}
            self._values[loop] = self._make()
        return self._values[loop]


_pid = os.getpid()


def _note_fork() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


def current() -> object:
    """The task that runs, as something to hold weakly."""
    return asyncio.current_task()


def going_on() -> bool:
    """Whether the program still runs; tasks end with their loop, so here it does."""
    return True


# Waiting


class Flag:
    """An event that can be cleared."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        """Wake whoever waits, and let whoever comes pass."""
        self._set = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def clear(self) -> None:
        """Let those who come wait."""
        self._set = False

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most so many seconds; tell whether it was."""
        if not self._set and (timeout is None or timeout > 0):
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await _within(future, timeout)
            finally:
                self._waiting.discard(future)
        return self._set


class Promise(Generic[T]):
    """One value that one task waits for."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def resolve(self, value: T) -> None:
        """Hand over the value; to somebody who has left it does nothing."""
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Hand over an error, to be raised."""
        if not self._future.done():
            self._future.set_exception(error)

    async def wait(self, timeout: float | None) -> bool:
        """Wait for it, at most so many seconds; tell whether `result` has it."""
        await _within(self._future, timeout)
        return self._future.done()

    def result(self) -> T:
        """The value, or the error raised."""
        return self._future.result()


async def _within(future: asyncio.Future[Any], timeout: float | None) -> None:
    """Wait until the future is done or the time is up; neither cancels nor raises its error."""
    if future.done():
        return
    timer = None
    waker = asyncio.get_running_loop().create_future()

    def wake(_: object = None) -> None:
        if not waker.done():
            waker.set_result(None)

    future.add_done_callback(wake)
    if timeout is not None:
        timer = asyncio.get_running_loop().call_later(timeout, wake)
    try:
        await waker
    finally:
        future.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


class Lock:
    """One at a time, for work that does I/O."""

    def __init__(self) -> None:
        self._lock = anyio.Lock()

    async def acquire(self, timeout: float) -> bool:
        """Wait for it, at most so many seconds; tell whether it is ours."""
        with anyio.move_on_after(max(0.0, timeout)) as scope:
            await self._lock.acquire()
        return not scope.cancelled_caught

    def release(self) -> None:
        """Let the next one in."""
        self._lock.release()


async def finish(call: Callable[[], Awaitable[T]]) -> T:
    """Run a call to its end whatever happens; a cancellation is raised afterwards."""
    task = asyncio.ensure_future(_awaited(call))
    cancelled = None
    while not task.done():
        try:
            # The scope keeps anyio's cancellation away; in asyncio's, wait() leaves the task alone.
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # retrieved; the cancellation counts
        raise cancelled
    return task.result()


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


class Worker:
    """A task in the background. Its target never raises; it ends when it has nothing to do."""

    def __init__(self, target: Callable[[], Awaitable[None]], name: str) -> None:
        self._task = asyncio.get_running_loop().create_task(_awaited(target), name=name)

    async def join(self, timeout: float) -> bool:
        """Wait for its end, at most so many seconds; tell whether it came."""
        await _within(self._task, timeout)
        return self._task.done()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._task.done()


class cancelled_by:
    """Cancel the body when a call returns true."""

    def __init__(self, wait: Callable[[], Awaitable[object]]) -> None:
        self._wait = wait
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> cancelled_by:
        self._scope.__enter__()
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def _watch(self) -> None:
        if await self._wait():
            self._scope.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._task is not None:
            self._task.cancel()
        return bool(self._scope.__exit__(kind, error, traceback))


# Connections


class _Stream(asyncio.Protocol):
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
            self.failure = f"connection lost: {error or type(error).__name__}"
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


class Line(_Stream):
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


class Wire(_Stream):
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


class Node:
    """Where connections go: the class and the arguments of one of the client's own."""

    def __init__(self, address: tuple[str, int] | None, kind: Any, options: dict[str, Any]) -> None:
        self.address = address
        self._kind = kind
        self._options = options

    async def open(self, kind: type[S], timeout: float) -> S:
        """A new connection: with Sentinel, to whom it says is the master now."""
        retry = Retry(NoBackoff(), 0)
        connection = self._kind(**line_options(self._options, None, retry))
        # Neither connecting nor the handshake has a deadline otherwise, and redis-py may swallow
        # a cancellation here: it works in a task of its own.
        task = asyncio.ensure_future(connection.connect())
        try:
            await _within(task, max(0.0, timeout))
            if not task.done():
                raise TimeoutError(f"no connection within {timeout:.3g} s")
            task.result()
        except BaseException:
            task.cancel()
            task.add_done_callback(functools.partial(_discard, connection))
            raise
        return kind(connection)


def _discard(connection: Any, task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
    writer = connection._writer
    if writer is not None:
        writer.transport.abort()
        connection._reader = connection._writer = None


def checked_client(client: object) -> Client:
    """What users hand in as `redis_client`, if it is one."""
    if isinstance(client, (Redis, RedisCluster)):
        return client
    raise TypeError(
        f"redis_client must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, not {client!r};"
        " redsync.sync is for the blocking ones"
    )


class Network:
    """The nodes that a client knows."""

    def __init__(self, client: Client) -> None:
        self._client = client  # a strong reference: Sentinel's connections hold their pool weakly

    @property
    def clustered(self) -> bool:
        """Whether keys are spread over nodes."""
        return isinstance(self._client, RedisCluster)

    async def node_of(self, key: bytes) -> Node:
        """The node that has the key, as far as the client knows."""
        client = self._client
        if not isinstance(client, RedisCluster):
            pool = client.connection_pool
            return Node(None, pool.connection_class, pool.connection_kwargs)
        await client.initialize()
        try:
            node = client.nodes_manager.get_node_from_slot(slot_of(key))
        except RedisClusterException as error:
            raise ConnectionError(str(error)) from error
        return Node((node.host, int(node.port)), node.connection_class, node.connection_kwargs)

    async def node_at(self, address: tuple[str, int]) -> Node:
        """The node with this address, which a redirection has named."""
        assert isinstance(self._client, RedisCluster)
        known: Any = self._client.get_nodes()
        options = {**known[0].connection_kwargs, "host": address[0], "port": address[1]}
        return Node(address, known[0].connection_class, options)

    async def master_moved(self, line: Line) -> bool:
        """Whether Sentinel names another master than the one that this connection goes to.

        An old master may stay alive, and call itself master, for many seconds after a failover.
        """
        pool: Any = getattr(self._client, "connection_pool", None)
        if not hasattr(pool, "get_master_address"):
            return False
        return tuple(await pool.get_master_address()) != line.address

    async def refresh(self) -> None:
        """Ask the cluster again who has what."""
        if isinstance(self._client, RedisCluster):
            await self._client.nodes_manager.initialize()
