"""Connections that redis-py opens and we take over."""

from __future__ import annotations

import asyncio
import functools
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, TimeoutError

from ..._arguments import refused_client
from ..._protocol.keys import slot_of
from ..._protocol.resp import Parser, Reply
from ..options import SENTINEL, STALLED, line_options, one_by_one, without_clients
from .concurrency import Flag, Lock, within

S = TypeVar("S", bound="_Stream")
T = TypeVar("T")

Client: TypeAlias = Redis | RedisCluster
"""What users hand in."""


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


class _Errand(Generic[T]):
    """A call of redis-py that knows no deadline, in a task of its own.

    If it takes too long it goes on by itself, as its state is the user's client's too, and whoever
    comes next waits for the same one.
    """

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._task: asyncio.Future[T] | None = None

    async def result(self, timeout: float) -> T:
        """What it comes to, if that is in time."""
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.ensure_future(self._call())
            task.add_done_callback(_forget)
        await within(task, max(0.0, timeout))
        if not task.done():
            raise TimeoutError("nobody has told in time where the server is")
        return task.result()


class Sentinels:
    """Those who know where the master is."""

    def __init__(self, pool: Any) -> None:
        managers = one_by_one(pool.sentinel_manager)
        self._errands: list[_Errand[tuple[str, int]]] = [
            _Errand(functools.partial(each.discover_master, pool.service_name)) for each in managers
        ]

    async def master(self, timeout: float) -> tuple[str, int]:
        """Where it is, according to the one that answered last time, or else to the next one."""
        end = time.monotonic() + timeout
        trouble: Exception = TimeoutError("no sentinel has told in time where the master is")
        for each in list(self._errands):
            try:
                host, port = await each.result(min(SENTINEL, end - time.monotonic()))
            except MasterNotFoundError as error:
                trouble = without_clients(error)
                continue
            except (RedisError, OSError) as error:
                trouble = error
                continue
            self._errands = [each, *(other for other in self._errands if other is not each)]
            return host, int(port)
        raise trouble


class Node:
    """Where connections go: the class and the arguments of one of the client's own."""

    def __init__(
        self,
        address: tuple[str, int] | None,
        kind: Any,
        options: dict[str, Any],
        sentinels: Sentinels | None = None,
    ) -> None:
        self._sentinels = sentinels
        self.address = address
        self._kind = kind
        self._options = options

    async def open(self, kind: type[S], timeout: float) -> S:
        """A new connection: with Sentinel, to whom it says is the master now."""
        end = time.monotonic() + timeout
        master = await self._sentinels.master(timeout) if self._sentinels is not None else None
        timeout = end - time.monotonic()
        retry = Retry(NoBackoff(), 0)
        connection = self._kind(**line_options(self._options, None, retry))
        # Neither connecting nor the handshake has a deadline otherwise, and redis-py may swallow
        # a cancellation here: it works in a task of its own.
        connecting = connection.connect() if master is None else connection.connect_to(master)
        task = asyncio.ensure_future(connecting)
        try:
            await within(task, max(0.0, timeout))
            if not task.done():
                raise TimeoutError("no connection in time")
            task.result()
            # Nobody would tell the protocol that takes over now.
            if connection._writer.is_closing() or connection._reader.at_eof():
                raise ConnectionError("connection lost: closed by the server")
        except BaseException:
            task.cancel()
            task.add_done_callback(functools.partial(_discard, connection))
            raise
        return kind(connection)


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _discard(connection: Any, task: asyncio.Task[Any]) -> None:
    _forget(task)
    writer = connection._writer
    if writer is not None:
        writer.transport.abort()
        connection._reader = connection._writer = None


def checked_client(client: object) -> Client:
    """What users hand in as `redis_client`, if it is one."""
    if isinstance(client, (Redis, RedisCluster)) and not isinstance(client, Pipeline):
        return client
    raise refused_client(client, "redis.asyncio", "redsync.sync")


class Network:
    """The nodes that a client knows."""

    def __init__(self, client: Client) -> None:
        self._client = client  # a strong reference: Sentinel's connections hold their pool weakly
        self.clustered = isinstance(client, RedisCluster)
        """Whether keys are spread over nodes."""
        pool: Any = getattr(client, "connection_pool", None)
        self._sentinels = Sentinels(pool) if getattr(pool, "is_master", False) else None
        self._start = _Errand(self._initialize)
        self._map = _Errand(self._look)

    @property
    def guarded(self) -> bool:
        """Whether Sentinel knows who is the master."""
        return self._sentinels is not None

    async def node_of(self, key: bytes, timeout: float) -> Node:
        """The node that has the key, as far as the client knows."""
        client = self._client
        if not isinstance(client, RedisCluster):
            pool = client.connection_pool
            return Node(None, pool.connection_class, pool.connection_kwargs, self._sentinels)
        try:
            await self._start.result(timeout)
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

    async def another(
        self, node: Node | None, suspects: Container[tuple[str, int] | None]
    ) -> Node | None:
        """Any other node than this one, and than those that may hang, if there are enough; None if
        none is known, or if one is none to begin with.
        """
        assert isinstance(self._client, RedisCluster)
        here = node and node.address
        known = [(each.host, int(each.port)) for each in self._client.get_nodes()]
        others = [each for each in known if each != here]
        if node is None or not others:
            return None
        sound = [each for each in others if each not in suspects]
        return await self.node_at(random.choice(sound or others))

    async def master(self, timeout: float) -> tuple[str, int] | None:
        """Whom Sentinel calls the master; None if nobody can tell."""
        try:
            return await self._sentinels.master(timeout) if self._sentinels is not None else None
        except (RedisError, OSError):
            return None

    async def refresh(self, timeout: float) -> None:
        """Ask the cluster again who has what."""
        if isinstance(self._client, RedisCluster):
            try:
                await self._map.result(timeout)
            except RedisClusterException as error:  # not a RedisError
                raise ConnectionError(str(error)) from error

    async def _initialize(self) -> None:
        assert isinstance(self._client, RedisCluster)
        await self._client.initialize()

    async def _look(self) -> None:
        assert isinstance(self._client, RedisCluster)
        await self._client.nodes_manager.initialize()
