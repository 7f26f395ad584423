"""What programs that were interrupted look at: whether all works on, and nothing was left."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from redis import Redis

from redsync._sync import link
from redsync.sync import RedisSemaphore, RedisSemaphoreNotAcquiredError, SemaphoreInitStrategy

COUNT = 2

link.ALLOWANCE = link.PATIENCE  # type: ignore[misc]  # a machine may stand still for 0.75 s


def make(
    client: Redis, strategy: SemaphoreInitStrategy, name: str, permit_ttl: float
) -> RedisSemaphore:
    if strategy is SemaphoreInitStrategy.OPTIMISTIC_LOCKING:
        permit_ttl = 1  # what is popped and not claimed comes back after half of it
    return RedisSemaphore(
        client, name, count=COUNT, permit_ttl=permit_ttl, semaphore_init_strategy=strategy
    )


def cut_off(client: Redis) -> None:
    """Have the server close all connections but this one."""
    client.client_kill_filter(_type="normal", skipme=True)


def release_all(semaphore: RedisSemaphore) -> None:
    try:
        while True:
            semaphore.release()
    except RedisSemaphoreNotAcquiredError:
        pass


def use_all(semaphore: RedisSemaphore, client: Redis) -> None:
    """Have all permits at once, over new connections, and close."""
    # What a wait has popped when its connection is cut is missing for a while, as promised.
    within(20, lambda: not client.info("clients")["blocked_clients"], "somebody still waits")
    cut_off(client)
    permits = [semaphore.acquire(4) for _ in range(COUNT)]
    for permit in permits:
        permit.release()
    semaphore.close()
    free = client.llen(f"redsync:semaphore:{{{semaphore.name}}}:free")
    assert free == COUNT, f"only {free} permits are free"


def in_another_thread(call: Callable[[], None]) -> str:
    """What goes wrong in a call, if anything.

    A lock that the interrupted thread was left with would be no obstacle to that one itself.
    """
    with ThreadPoolExecutor(1) as thread:
        error = thread.submit(call).exception()
    return repr(error) if error else ""


def left_behind(client: Redis) -> str:
    """The threads and connections that are still there, if any."""

    def alone() -> bool:
        gc.collect()  # an interrupted frame and its error refer to each other
        return len(alive()) == 1 and len(client.client_list()) == 1

    try:
        within(20, alone, "not alone")
    except AssertionError:
        return f"left: {alive()}, {len(client.client_list()) - 1} connections"
    return ""


def within(seconds: float, condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.001)


def alive() -> list[threading.Thread]:
    """The threads that run: one whose start was interrupted is listed for ever."""
    return [each for each in threading.enumerate() if each.is_alive()]
