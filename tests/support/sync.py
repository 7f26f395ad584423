"""Concurrency and clients for the thread tests; `aio` offers the same names over tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TextIO, TypeVar

from redis import Redis as Redis
from redis import RedisCluster as RedisCluster
from redis.sentinel import Sentinel

from . import CLIENT, HOST, Reachable, Site, describe

T = TypeVar("T")

sleep = time.sleep


class Handle(Generic[T]):
    """A call that runs in the background; made by `spawn`."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._name = describe(call)
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        # A daemon, so that a call that hangs fails its test and not the whole run.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._error = error

    def done(self) -> bool:
        """Tell whether the call has returned or raised."""
        return not self._thread.is_alive()

    def result(self, timeout: float = 20) -> T:
        """Return what the call returns, or raise what it raises.

        The call goes on if it is still running after the timeout, an AssertionError.
        """
        self._thread.join(timeout)
        assert self.done(), f"still running after {timeout} s: {self._name}"
        if self._error is not None:
            raise self._error
        return self._results[0]


def spawn(call: Callable[[], T]) -> Handle[T]:
    """Run the call in the background."""
    return Handle(call)


def together(*calls: Callable[[], T], timeout: float = 30) -> list[T]:
    """Run the calls at once and return their results; raise the first error once all have ended."""
    deadline = time.monotonic() + timeout
    handles = [spawn(call) for call in calls]
    for handle in handles:
        handle._thread.join(max(0.0, deadline - time.monotonic()))
    return [handle.result(0) for handle in handles]


def eventually(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {describe(condition)}"
        sleep(0.002)


def connect(server: Reachable, **options: Any) -> Redis:
    """Return a client for the server; give it back to `disconnect`, or use `with`."""
    return Redis.from_url(server.url, **options)


def disconnect(client: Redis) -> None:
    """Close the client and its connections, with every version of redis-py."""
    client.close()
    client.connection_pool.disconnect()


def join(site: Site) -> Redis | RedisCluster:
    """Return a client for the servers; give it back to `part`."""
    if site.service is None:
        return RedisCluster(host=HOST, port=site.port)
    sentinel: Any = Sentinel(site.sentinels)  # type: ignore[no-untyped-call,unused-ignore]
    master: Redis = sentinel.master_for(site.service, **CLIENT)
    return master


def part(client: Redis | RedisCluster) -> None:
    """Close the client, with every version of redis-py."""
    if isinstance(client, RedisCluster):
        client.close()
    else:
        pool: Any = client.connection_pool
        for each in (*pool.sentinel_manager.sentinels, client):
            disconnect(each)


def lines(stream: TextIO) -> Iterator[bytes]:
    """Read a pipe line by line, to its end."""
    yield from stream.buffer


def run(main: Callable[[], None]) -> None:
    """Run the main function of a program."""
    main()


def background() -> int:
    """How many tasks there are beside the one that asks: threads have none."""
    return 0
