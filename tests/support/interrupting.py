"""A program whose main thread is interrupted again and again while it uses a semaphore.

    python -m tests.support.interrupting URL STRATEGY PLAN SEED

It ends with status 0 if the semaphore works on and nothing was leaked, else it says what was.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from types import FrameType

from redis import Redis

from redsync.sync import RedisSemaphore, SemaphoreInitStrategy

from .leftovers import in_another_thread, left_behind, make, release_all, use_all

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

    def has_caused(self, error: BaseException | None) -> bool:
        """Whether it is the alarm's error, or came of it: when it rings inside of Thread.start() or
        redis-py 5.0, these may raise one of their own.
        """
        while error is not None and not isinstance(error, self.error):
            error = error.__context__
        return error is not None

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
    except BaseException as error:
        if not alarm.has_caused(error):
            raise
        return True
    return False


def whole_body(semaphore: RedisSemaphore, alarm: Alarm) -> bool:
    """Be interrupted while acquiring, holding or releasing; tell whether that came in time."""
    try:
        alarm.set()
        with semaphore.permit(5) as permit:
            assert permit.held
        alarm.armed = False
    except BaseException as error:
        if not alarm.has_caused(error):
            raise
        return True
    return False


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
    end = time.monotonic() + 60
    while interrupts < INTERRUPTS and time.monotonic() < end:
        interrupts += use(semaphore, alarm)
    going = False
    for each in contenders:
        each.join(20)
    if interrupts < INTERRUPTS:
        return f"only {interrupts} interrupts"
    return in_another_thread(lambda: use_all(semaphore, client)) or left_behind(client)


def main() -> int:
    url, strategy_name, plan, seed = sys.argv[1:]
    strategy = SemaphoreInitStrategy(strategy_name)
    trouble = interrupt_at_random(Redis.from_url(url), strategy, plan, int(seed))
    print(trouble)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
