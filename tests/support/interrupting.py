"""A program whose main thread is interrupted again and again while it uses a semaphore.

    python -m tests.support.interrupting URL STRATEGY PLAN SEED

It ends with status 0 if the semaphore works on and nothing was leaked, else it says what was.
"""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from redis import Redis

import redsync
from redsync.sync import (
    Permit,
    RedisSemaphore,
    RedisSemaphoreNotAcquiredError,
    SemaphoreInitStrategy,
)

COUNT = 2
INTERRUPTS = 200


class SoftTimeLimit(Exception):
    """What task queues raise in the handler of a signal."""


class Alarm:
    """Raises an error in the main thread at some instant, by a real signal."""

    def __init__(self, error: type[BaseException], chance: random.Random) -> None:
        self.error = error
        self.armed = False
        self._chance = chance
        signal.signal(signal.SIGALRM, self._ring)

    def set(self) -> None:
        """Have it ring within some milliseconds."""
        self.armed = True
        longest = self._chance.choice([0.0002, 0.001, 0.005])
        signal.setitimer(signal.ITIMER_REAL, 0.00001 + longest * self._chance.random())

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            raise self.error


def acquire_only(semaphore: RedisSemaphore, alarm: Alarm) -> bool:
    """Be interrupted while acquiring; tell whether that came in time."""
    try:
        try:
            alarm.set()
            semaphore.acquire(5)
            alarm.armed = False
        finally:
            alarm.armed = False
            release_all(semaphore)  # acquire() may have returned when it rang
    except alarm.error:
        return True
    return False


def whole_body(semaphore: RedisSemaphore, alarm: Alarm) -> bool:
    """Be interrupted while acquiring, holding or releasing; tell whether that came in time."""
    try:
        alarm.set()
        with semaphore.permit(5) as permit:
            assert permit.held
        alarm.armed = False
    except alarm.error:
        return True
    return False


def release_each(permits: list[Permit]) -> None:
    for permit in permits:
        permit.release()


def release_all(semaphore: RedisSemaphore) -> None:
    try:
        while True:
            semaphore.release()
    except RedisSemaphoreNotAcquiredError:
        pass


def interrupt_at_random(
    client: Redis, strategy: SemaphoreInitStrategy, plan: str, seed: int
) -> str:
    """Interrupt by signals, while others contend."""
    what, _, error = plan.partition("-")
    use = {"acquire": acquire_only, "body": whole_body}[what]
    chance = random.Random(seed)
    alarm = Alarm({"keyboard": KeyboardInterrupt, "soft": SoftTimeLimit}[error], chance)
    semaphore = make(client, strategy, "random", 1 if what == "body" else 60)
    going = True

    def contend() -> None:
        while going:
            with semaphore.permit(20):
                time.sleep(0.001 * chance.random())

    contenders = [threading.Thread(target=contend, daemon=True) for _ in range(2)]
    for each in contenders:
        each.start()
    interrupts = 0
    end = time.monotonic() + 15
    while interrupts < INTERRUPTS and time.monotonic() < end:
        interrupts += use(semaphore, alarm)
    going = False
    for each in contenders:
        each.join(3)
    if interrupts < INTERRUPTS:
        return f"only {interrupts} interrupts"
    return check(semaphore, client)


class Stepper:
    """Interrupts redsync where the interpreter looks for signals: at the n-th such place.

    That is at the entry of a function, and after a call of a builtin one.
    """

    def __init__(self, number: int) -> None:
        self.where = ""
        self._left = number
        package = Path(redsync.__file__).parent
        self._files = tuple(str(each) for each in package.rglob("*.py"))

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        ours = code.co_filename in self._files or code is threading.Thread.start.__code__
        if ours and event in ("call", "c_return"):
            self._left -= 1
            if self._left == 0:
                self.where = event + "\n" + "".join(traceback.format_stack(frame)[-4:])
                raise KeyboardInterrupt


def interrupt_everywhere(url: str, strategy: SemaphoreInitStrategy, when: str) -> str:
    """Interrupt acquire() at each place in turn: the first one of an instance, a later one, or one
    that has to wait.
    """
    troubles = []
    number = 0
    while True:
        number += 1
        client = Redis.from_url(url)
        semaphore = make(client, strategy, f"step-{number}", 60)
        if when != "first":
            semaphore.acquire(5).release()
        others = [semaphore.acquire(5) for _ in range(COUNT)] if when == "waiting" else []
        timer = threading.Timer(0.01, release_each, [others])
        timer.start()
        stepper = Stepper(number)
        sys.setprofile(stepper)
        try:
            semaphore.acquire(5)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        timer.join()
        release_all(semaphore)
        trouble = check(semaphore, client)
        if trouble:
            troubles.append(f"at place {number}: {trouble}\n{stepper.where}")
        client.close()
        if not stepper.where:
            break
    if number < 50:
        return f"there were only {number} places"
    return "\n".join(troubles)


def make(
    client: Redis, strategy: SemaphoreInitStrategy, name: str, permit_ttl: float
) -> RedisSemaphore:
    if strategy is SemaphoreInitStrategy.OPTIMISTIC_LOCKING:
        permit_ttl = 1  # what is popped and not claimed comes back after half of it
    return RedisSemaphore(
        client, name, count=COUNT, permit_ttl=permit_ttl, semaphore_init_strategy=strategy
    )


def check(semaphore: RedisSemaphore, client: Redis) -> str:
    """What is wrong with the instance, or was left behind, if anything."""
    try:
        permits = [semaphore.acquire(2) for _ in range(COUNT)]
        for permit in permits:
            permit.release()
        semaphore.close()
    except Exception as error:
        return repr(error)
    if client.llen(f"redsync:semaphore:{{{semaphore.name}}}:free") != COUNT:
        return "not all permits are free"
    gc.collect()  # an interrupted frame and its error refer to each other
    deadline = time.monotonic() + 2
    while len(threads := alive()) > 1 or len(client.client_list()) > 1:
        if time.monotonic() > deadline:
            return f"left: {threads}, {len(client.client_list()) - 1} connections"
        time.sleep(0.001)
    return ""


def alive() -> list[threading.Thread]:
    """The threads that run: one whose start was interrupted is listed for ever."""
    return [each for each in threading.enumerate() if each.is_alive()]


def main() -> int:
    url, strategy_name, plan, seed = sys.argv[1:]
    strategy = SemaphoreInitStrategy(strategy_name)
    if plan.startswith("everywhere"):
        trouble = interrupt_everywhere(url, strategy, plan.partition("-")[2])
    else:
        trouble = interrupt_at_random(Redis.from_url(url), strategy, plan, int(seed))
    print(trouble)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
