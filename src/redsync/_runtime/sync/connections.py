"""Connections that redis-py opens and we take over."""

from __future__ import annotations

import builtins
import contextlib
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, TimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from ..._arguments import refused_client
from ..._protocol.keys import slot_of
from ..._protocol.resp import Parser, Reply
from ..options import SENTINEL, STALLED, line_options, one_by_one, without_clients
from .concurrency import Lock, Mutex, Promise
from .forking import unforked

S = TypeVar("S", bound="_Stream")
T = TypeVar("T")

Client: TypeAlias = Redis | RedisCluster
"""What users hand in."""

_CHUNK = 65536
_SLICE = 1.0


class _Stream:
    """A connection that redis-py has opened and introduced, and we have taken over."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._slice = _SLICE
        """For how long the socket waits at a time: each change is a system call."""
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


class Line(_Stream):
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


class Wire(_Stream):
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
