"""What tasks and threads wait for: the same in both worlds."""

from __future__ import annotations

from functools import partial
from time import monotonic

import pytest

from redsync._runtime.aio import Flag, Lock, PerHome, Promise, Worker

from ..support.aio import sleep, spawn


async def test_a_flag_wakes_all_who_wait() -> None:
    flag = Flag()
    waiting = [spawn(partial(flag.wait, 20)) for _ in range(3)]
    await sleep(0.01)
    flag.set()
    assert [await each.result(5) for each in waiting] == [True, True, True]


async def test_a_flag_that_is_set_holds_nobody_up() -> None:
    flag = Flag()
    began = monotonic()
    assert not flag.is_set() and not await flag.wait(0) and not await flag.wait(0.01)
    flag.set()
    assert flag.is_set() and await flag.wait(20) and await flag.wait()
    flag.clear()
    assert not await flag.wait(0.01)
    assert monotonic() - began < 5


async def test_a_promise_has_one_value() -> None:
    promise: Promise[int] = Promise()
    assert not await promise.wait(0.01)
    waiting = spawn(partial(promise.wait, 20))
    promise.resolve(7)
    promise.resolve(8)
    promise.fail(ValueError("late"))
    await waiting.result(5)
    assert await promise.wait(0) and promise.result() == 7


async def test_a_promise_that_fails_raises() -> None:
    promise: Promise[int] = Promise()
    promise.fail(ValueError("no"))
    promise.resolve(7)
    await promise.wait(20)
    with pytest.raises(ValueError, match="no"):
        promise.result()


async def test_a_lock_lets_one_in_and_waits_no_longer_than_told() -> None:
    lock = Lock()
    assert await lock.acquire(20)
    assert not await spawn(partial(lock.acquire, 0.01)).result(5)
    lock.release()
    assert await lock.acquire(20)
    lock.release()
    lock.release()  # it is not ours any more
    assert await lock.acquire(20)
    lock.release()


async def test_a_worker_is_alive_until_it_has_ended() -> None:
    flag = Flag()

    async def work() -> None:
        await flag.wait(20)

    worker = Worker(work, "some worker")
    assert worker.alive and not await worker.join(0.01)
    flag.set()
    assert await worker.join(5) and not worker.alive


async def test_a_home_keeps_what_was_made_for_it() -> None:
    homes: PerHome[list[int]] = PerHome(list)
    assert homes.peek() is None
    assert homes.get() is homes.get() is homes.peek()
