"""Where the servers are, as far as the user's client knows, and the way there."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Container
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, TimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from ..._arguments import refused_client
from ..._protocol.keys import slot_of
from ..options import SENTINEL, line_options, one_by_one, without_clients
from .concurrency import Mutex, Promise
from .connections import Stream
from .forking import unforked

S = TypeVar("S", bound=Stream)
T = TypeVar("T")

Client: TypeAlias = Redis | RedisCluster
"""What users hand in."""


class _Errand(Generic[T]):
    """A call of redis-py that knows no deadline, in a thread of its own.

    If it takes too long it goes on by itself, and whoever comes next waits for the same one.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._mutex = Mutex()
        self._promise: Promise[T] | None = None

    def result(self, timeout: float) -> T:
        """What it comes to, if that is in time."""
        with self._mutex:
            promise = self._promise
            if promise is None or promise.wait(0):
                promise = Promise()
                work = threading.Thread(target=self._run, args=(promise,), daemon=True)
                work.name = "redsync-looking"
                work.start()
                # Only now: an interrupt before leaves nothing that others would wait for in vain.
                self._promise = promise
        if not promise.wait(max(0.0, timeout)):
            raise TimeoutError("nobody has told in time where the server is")
        return promise.result()

    def _run(self, promise: Promise[T]) -> None:
        try:
            with unforked():
                value = self._call()
        except BaseException as error:
            promise.fail(error)
        else:
            promise.resolve(value)


class Sentinels:
    """Those who know where the master is."""

    def __init__(self, pool: Any) -> None:
        managers = one_by_one(pool.sentinel_manager)
        self._errands: list[_Errand[tuple[str, int]]] = [
            _Errand(partial(each.discover_master, pool.service_name)) for each in managers
        ]

    def master(self, timeout: float) -> tuple[str, int]:
        """Where it is, according to the one that answered last time, or else to the next one."""
        end = time.monotonic() + timeout
        trouble: Exception = TimeoutError("no sentinel has told in time where the master is")
        for each in list(self._errands):
            try:
                host, port = each.result(min(SENTINEL, end - time.monotonic()))
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

    def open(self, kind: type[S], timeout: float) -> S:
        """A new connection: with Sentinel, to whom it says is the master now."""
        end = time.monotonic() + timeout
        master = self._sentinels.master(timeout) if self._sentinels is not None else None
        timeout = end - time.monotonic()
        retry = Retry(NoBackoff(), 0)
        with unforked():
            connection = self._kind(**line_options(self._options, max(0.05, timeout), retry))
            if master is None:
                connection.connect()
            else:
                connection.connect_to(master)
        return kind(connection)


def checked_client(client: object) -> Client:
    """What users hand in as `redis_client`, if it is one."""
    if isinstance(client, (Redis, RedisCluster)) and not isinstance(client, Pipeline):
        return client
    raise refused_client(client, "redis", "redsync.aio")


class Network:
    """The nodes that a client knows."""

    def __init__(self, client: Client) -> None:
        self._client = client  # a strong reference: Sentinel's connections hold their pool weakly
        self.clustered = isinstance(client, RedisCluster)
        """Whether keys are spread over nodes."""
        pool: Any = getattr(client, "connection_pool", None)
        self._sentinels = Sentinels(pool) if getattr(pool, "is_master", False) else None
        self._map = _Errand(self._look)

    @property
    def guarded(self) -> bool:
        """Whether Sentinel knows who is the master."""
        return self._sentinels is not None

    def node_of(self, key: bytes, timeout: float) -> Node:
        """The node that has the key, as far as the client knows."""
        client = self._client
        if not isinstance(client, RedisCluster):
            pool = client.connection_pool
            return Node(None, pool.connection_class, pool.connection_kwargs, self._sentinels)
        try:
            node = client.nodes_manager.get_node_from_slot(slot_of(key))
        except RedisClusterException as error:
            raise ConnectionError(str(error)) from error
        pool = client.get_redis_connection(node).connection_pool
        return Node((node.host, int(node.port)), pool.connection_class, pool.connection_kwargs)

    def node_at(self, address: tuple[str, int]) -> Node:
        """The node with this address, which a redirection has named."""
        assert isinstance(self._client, RedisCluster)
        client: Any = self._client
        known = client.get_nodes()
        pool = client.get_redis_connection(known[0]).connection_pool
        options = {**pool.connection_kwargs, "host": address[0], "port": address[1]}
        return Node(address, pool.connection_class, options)

    def another(
        self, node: Node | None, suspects: Container[tuple[str, int] | None]
    ) -> Node | None:
        """Any other node than this one, and than those that may hang, if there are enough; None if
        none is known, or if one is none to begin with.
        """
        client: Any = self._client
        here = node and node.address
        known = [(each.host, int(each.port)) for each in client.get_nodes()]
        others = [each for each in known if each != here]
        if node is None or not others:
            return None
        sound = [each for each in others if each not in suspects]
        return self.node_at(random.choice(sound or others))

    def master(self, timeout: float) -> tuple[str, int] | None:
        """Whom Sentinel calls the master; None if nobody can tell."""
        try:
            return self._sentinels.master(timeout) if self._sentinels is not None else None
        except (RedisError, OSError):
            return None

    def refresh(self, timeout: float) -> None:
        """Ask the cluster again who has what."""
        if isinstance(self._client, RedisCluster):
            try:
                self._map.result(timeout)
            except RedisClusterException as error:  # not a RedisError
                raise ConnectionError(str(error)) from error

    def _look(self) -> None:
        assert isinstance(self._client, RedisCluster)
        self._client.nodes_manager.initialize()
