"""Where the servers are, as far as the user's client knows, and the way there."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable, Container
from typing import Any, Generic, TypeAlias, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, TimeoutError

from ..._arguments import refused_client
from ..._protocol.keys import slot_of
from ..options import SENTINEL, line_options, one_by_one, without_clients
from .concurrency import within
from .connections import Stream

S = TypeVar("S", bound=Stream)
T = TypeVar("T")

Client: TypeAlias = Redis | RedisCluster
"""What users hand in."""


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
