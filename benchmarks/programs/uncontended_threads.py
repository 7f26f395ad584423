"""One thread that acquires and releases again and again, and nobody else."""

from __future__ import annotations

import socket
from importlib import import_module

from redis import Redis
from rounds.sync import Round, repeated, serve

COUNT = 10


def pings(url: str) -> Round:
    """Two PINGs by the client that all others stand on."""
    client = Redis.from_url(url)

    def once() -> None:
        client.ping()
        client.ping()

    return repeated(once)


def raw(url: str) -> Round:
    """Two PINGs over a bare connection: what no client can do without."""
    where = url.removeprefix("redis://").removeprefix("unix://")
    if url.startswith("unix://"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(where)
    else:
        host, _, port = where.partition(":")
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def once() -> None:
        for _ in range(2):
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            connection.recv(65536)

    return repeated(once)


def redsync(url: str) -> Round:
    """This library."""
    semaphore = import_module("redsync.sync").RedisSemaphore(Redis.from_url(url), "s", count=COUNT)

    def once() -> None:
        semaphore.acquire().release()

    return repeated(once)


def redis_lock(url: str) -> Round:
    """The Lock of redis-py, which has one permit."""
    client = Redis.from_url(url)

    def once() -> None:
        lock = client.lock("lock", timeout=30)
        lock.acquire()
        lock.release()

    return repeated(once)


def python_redis_lock(url: str) -> Round:
    """python-redis-lock, which has one permit."""
    lock = import_module("redis_lock").Lock(Redis.from_url(url), "theirs", expire=30)

    def once() -> None:
        lock.acquire()
        lock.release()

    return repeated(once)


def pottery(url: str) -> Round:
    """The Redlock of pottery, with one master."""
    lock = import_module("pottery").Redlock(
        key="pottery", masters={Redis.from_url(url)}, auto_release_time=30
    )

    def once() -> None:
        lock.acquire()
        lock.release()

    return repeated(once)


def redis_semaphore(url: str) -> Round:
    """py-redis-semaphore."""
    package = import_module("redis_semaphore")
    semaphore = package.Semaphore(
        Redis.from_url(url), package.SemaphoreConfig(name="theirs", limit=COUNT)
    )

    def once() -> None:
        semaphore.acquire()
        semaphore.release()

    return repeated(once)


if __name__ == "__main__":
    serve({
        "pings": pings,
        "raw": raw,
        "redsync": redsync,
        "redis-lock": redis_lock,
        "python-redis-lock": python_redis_lock,
        "pottery": pottery,
        "redis-semaphore": redis_semaphore,
    })  # fmt: skip
