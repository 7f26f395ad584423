"""Two processes that want one permit: each hands it to the other, which waits for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import monotonic, sleep
from typing import Any

from redis import Redis
from rounds import Answer, Clock
from rounds.sync import Round, serve

HOLD = 0.002
"""Seconds for which it is held: the other one waits by then."""


def _hand_over(acquire: Callable[[], Any], release: Callable[[Any], Any]) -> Round:
    def round_(times: int) -> Answer:
        spans: list[tuple[float, float]] = []
        clock = Clock()
        for _ in range(times):
            permit = acquire()
            granted = monotonic()
            sleep(HOLD)
            released = monotonic()
            release(permit)
            spans.append((granted, released))
        return clock.answer(times, spans=spans)

    return round_


def lists(url: str) -> Round:
    """RPUSH and BLPOP by redis-py, with nothing around them."""
    client = Redis.from_url(url)
    if client.set("begun", 1, nx=True):
        client.rpush("token", 1)
    return _hand_over(
        lambda: client.blpop(["token"], timeout=60), lambda _: client.rpush("token", 1)
    )


def redsync(url: str) -> Round:
    """This library."""
    semaphore = import_module("redsync.sync").RedisSemaphore(Redis.from_url(url), "one", count=1)
    return _hand_over(semaphore.acquire, lambda permit: permit.release())


def python_redis_lock(url: str) -> Round:
    """python-redis-lock."""
    lock = import_module("redis_lock").Lock(Redis.from_url(url), "theirs", expire=30)
    return _hand_over(lock.acquire, lambda _: lock.release())


if __name__ == "__main__":
    serve({"lists": lists, "redsync": redsync, "python-redis-lock": python_redis_lock})
