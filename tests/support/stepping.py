"""A program whose main thread is interrupted at each place in turn where the interpreter looks for
signals.

    python -m tests.support.stepping URL PLAN

It ends with status 0 if what was interrupted works on and nothing was leaked, else it says what
was.
"""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from redis import Redis

import redsync
from redsync.sync import (
    Permit,
    RedisEvent,
    RedisEventTimeoutError,
    SemaphoreInitStrategy,
)

from .leftovers import COUNT, cut_off, in_another_thread, left_behind, make, release_all, use_all

OURS = frozenset(str(each) for each in Path(redsync.__file__).parent.rglob("*.py"))
"""The files of redsync."""

Place = tuple[object, ...]
"""An event, and the way there."""


def way_to(frame: FrameType) -> list[int]:
    """The stack: for each frame whose code it is, and where in that."""
    way = []
    each: FrameType | None = frame
    while each is not None:
        # By identity: to hash all of the code takes longer than all the rest.
        way += [id(each.f_code), each.f_lasti]
        each = each.f_back
    return way


class Stepper:
    """Interrupts redsync once, at a place where it was not interrupted before.

    That is at the entry of a function or after a call of a builtin one, by whichever way it got
    there.
    """

    def __init__(self, known: set[Place]) -> None:
        self.where = ""
        self._known = known

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        ours = code.co_filename in OURS or code is threading.Thread.start.__code__
        if ours and not self.where and event in ("call", "c_return"):
            place = (event, *way_to(frame))
            if place not in self._known:
                self._known.add(place)
                self.where = event + "\n" + "".join(traceback.format_stack(frame)[-4:])
                raise KeyboardInterrupt


class Acquire:
    """acquire(): the first one of an instance, a later one, one whose connection was cut, or one
    that has to wait.
    """

    def __init__(self, client: Redis, number: int, when: str) -> None:
        self._client = client
        self._semaphore = make(client, SemaphoreInitStrategy.LUA, f"step-{number}", 60)
        if when != "first":
            self._semaphore.acquire(5).release()
        if when == "cut off":
            cut_off(client)
        self._helper = None
        if when == "waiting":
            permits = [self._semaphore.acquire(5) for _ in range(COUNT)]
            self._helper = later(partial(release_each, permits))

    def act(self) -> None:
        """What is interrupted."""
        self._semaphore.acquire(5)

    def check(self, interrupted: bool) -> str:
        """What is wrong afterwards, if anything."""
        if self._helper is not None:
            self._helper.join()
        release_all(self._semaphore)
        return in_another_thread(lambda: use_all(self._semaphore, self._client))


class Event:
    """The first set() of an instance; a later wait() for a signal that is there, over a connection
    that was cut; or one for a signal that comes.
    """

    def __init__(self, client: Redis, number: int, when: str) -> None:
        self._client = client
        self._event = RedisEvent(client, f"step-{number}")
        self._sets = when == "first"
        if not self._sets:
            self._event.is_set()
        self._helper = later(self._event.set) if when == "waiting" else None
        if when == "there":
            self._event.set()
            cut_off(client)

    def act(self) -> None:
        """What is interrupted."""
        if self._sets:
            self._event.set()
        else:
            self._event.wait(5)

    def check(self, interrupted: bool) -> str:
        """What is wrong afterwards, if anything."""
        if self._helper is not None:
            self._helper.join()
        return in_another_thread(lambda: self._use(interrupted))

    def _use(self, interrupted: bool) -> None:
        cut_off(self._client)
        if self._sets and interrupted:
            with suppress(RedisEventTimeoutError):  # it may have been set, or not
                self._event.wait(0)
        elif self._sets or interrupted:
            self._event.wait(2)
        assert not self._event.is_set(), "there is one signal too many"
        self._event.set()
        self._event.wait(2)
        self._event.close()


PLANS: dict[str, Callable[[Redis, int, str], Acquire | Event]] = {
    "acquire": Acquire,
    "event": Event,
}


def release_each(permits: list[Permit]) -> None:
    for permit in permits:
        permit.release()


def later(call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(0.01, call)
    timer.start()
    return timer


def step_through(url: str, plan: str) -> str:
    """Interrupt what is planned at each place in turn."""
    what, _, when = plan.partition("-")
    known: set[Place] = set()
    troubles: list[str] = []
    while len(troubles) < 3:
        client = Redis.from_url(url)
        planned = PLANS[what](client, len(known), when)
        stepper = Stepper(known)
        interrupted = False
        sys.setprofile(stepper)
        try:
            planned.act()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.setprofile(None)
        trouble = planned.check(interrupted)
        del planned
        trouble = trouble or left_behind(client)
        if trouble:
            troubles.append(f"at place {len(known)}: {trouble}\n{stepper.where}")
        client.close()
        if not stepper.where:
            break
    if len(known) < 50:
        return f"there were only {len(known)} places"
    return "\n".join(troubles)


def main() -> int:
    url, plan = sys.argv[1:]
    gc.freeze()  # what was imported need not be looked through each time
    trouble = step_through(url, plan)
    print(trouble)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
