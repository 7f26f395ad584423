"""Many threads that want the same few permits all the time."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter

from redis import Redis
from rounds import Answer, Clock
from rounds.sync import Round, in_threads, serve

Take = Callable[[], Callable[[], object]]
"""Acquires a permit, and returns what releases it."""


def _contend(make: Callable[[], Take]) -> Round:
    """Rounds in which each thread acquires and releases until the time is up."""

    def round_(threads: int, seconds: float) -> Answer:
        counts: list[int] = []
        clock = Clock()
        end = clock.began + seconds

        def work() -> None:
            take, count = make(), 0
            while perf_counter() < end:
                take()()
                count += 1
            counts.append(count)

        in_threads(threads, work)
        return clock.answer(sum(counts), counts=counts)

    return round_


def redsync(url: str, count: str) -> Round:
    """This library: one instance for all."""
    name = f"of {count}"
    semaphore = import_module("redsync.sync").RedisSemaphore(
        Redis.from_url(url), name, count=int(count)
    )

    def take() -> Callable[[], object]:
        release: Callable[[], object] = semaphore.acquire().release
        return release

    return _contend(lambda: take)


def python_redis_lock(url: str) -> Round:
    """python-redis-lock, which has one permit, with a lock for each thread."""
    package = import_module("redis_lock")
    client = Redis.from_url(url, max_connections=10_000)

    def make() -> Take:
        lock = package.Lock(client, "theirs", expire=30)

        def take() -> Callable[[], object]:
            lock.acquire()
            release: Callable[[], object] = lock.release
            return release

        return take

    return _contend(make)


if __name__ == "__main__":
    serve({"redsync": redsync, "python-redis-lock": python_redis_lock})
