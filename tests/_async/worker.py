"""A process that does what a test tells it: ``python -m tests._async.worker URL PARENT``.

`support.process` starts it and tells what it understands.  Orders come as lines of JSON and are
carried out at once, each in the background; each is answered by a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from time import monotonic
from typing import Any

from redsync.aio import Permit, RedisEvent, RedisSemaphore
from redsync.cli.orders import die_with
from redsync.exceptions import RedisSemaphorePermitLostError

from ..support.aio import Redis, lines, run, sleep, spawn, together
from .timer_bench import TimerBench

Facts = dict[str, Any]


class Bench(TimerBench):
    """What the process has in its hands."""

    def __init__(self, client: Redis) -> None:
        super().__init__(client)
        self._semaphores: dict[str, RedisSemaphore] = {}
        self._permits: dict[str, Permit] = {}
        self._events: dict[str, RedisEvent] = {}
        self._acts = 0

    async def answer(self, order: Facts) -> None:
        """Carry out an order, and tell what came of it."""
        number = order.pop("order")
        try:
            facts = await getattr(self, order.pop("do"))(**order)
            reply = {"order": number, "facts": facts}
        except Exception as error:
            reply = {"order": number, "error": f"{type(error).__name__}: {error}"}
        # One write, so that threads do not mix up their lines.
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()

    async def open(self, name: str, options: Facts) -> Facts:
        semaphore = RedisSemaphore(self._client, name, **options)
        self._semaphores[name] = semaphore
        return {"count": await semaphore.get_count()}

    async def close(self, name: str) -> Facts:
        await self._semaphores.pop(name).close()
        return {}

    async def status(self, name: str) -> Facts:
        status = await self._semaphores[name].status()
        held = [each.fence for each in status.held]
        return {"free": status.free, "held": held, "missing": status.missing}

    async def acquire(self, name: str, key: str = "", timeout: float | None = None) -> Facts:
        asked = monotonic()
        permit = await self._semaphores[name].acquire(timeout)
        self._permits[key or name] = permit
        return {"asked": asked, "granted": monotonic(), **self._seen(permit)}

    async def look(self, key: str) -> Facts:
        return self._seen(self._permits[key])

    async def release(self, key: str) -> Facts:
        ended = monotonic()
        await self._permits[key].release()
        return {"ended": ended}

    async def wait_lost(self, key: str) -> Facts:
        return {"lost": await self._permits[key].wait_lost(), "at": monotonic()}

    async def act(self, key: str) -> Facts:
        """Do something again and again for as long as the permit is not lost."""
        permit, last = self._permits[key], 0.0
        while True:
            now = monotonic()  # before it looks, and so never later than what it relies on
            if permit.lost:
                return {"last": last, **self._seen(permit)}
            last = now
            self._acts += 1
            await sleep(0.001)

    async def acts(self) -> int:
        return self._acts

    async def body(self, name: str, seconds: float) -> Facts:
        """Hold a permit in a body that is to be cancelled when it is lost."""
        facts: Facts = {"cancelled": True, "error": None}
        try:
            async with self._semaphores[name].permit(cancel_on_loss=True) as permit:
                self._permits[name] = permit
                await sleep(seconds)
                facts.update(cancelled=False, lost=permit.lost)
        except RedisSemaphorePermitLostError as error:
            facts["error"] = str(error)
        return {"at": monotonic(), **facts}

    async def inside(self, name: str) -> bool:
        """Whether a body has got its permit."""
        return name in self._permits

    async def contend(self, name: str, contenders: int, seconds: float, hold: float) -> list[Facts]:
        """Acquire and release at several places at once, and tell of each hold."""
        end = monotonic() + seconds
        semaphore = self._semaphores[name]

        async def contender() -> list[Facts]:
            holds: list[Facts] = []
            while monotonic() < end:
                asked = monotonic()
                permit = await semaphore.acquire()
                holds.append({"asked": asked, "granted": monotonic(), **self._seen(permit)})
                await sleep(hold)
                holds[-1]["ended"] = monotonic()
                holds[-1].update(held=permit.held, lost=permit.lost)
                await permit.release()
            return holds

        found = await together(*[contender] * contenders, timeout=seconds + 20)
        return [hold for holds in found for hold in holds]

    async def set_event(self, name: str) -> Facts:
        await self._event(name).set()
        return {}

    async def wait_event(self, name: str, timeout: float | None = None) -> Facts:
        await self._event(name).wait(timeout)
        return {"woken": monotonic()}

    async def is_set(self, name: str) -> Facts:
        return {"set": await self._event(name).is_set()}

    def _event(self, name: str) -> RedisEvent:
        return self._events.setdefault(name, RedisEvent(self._client, name))

    def _seen(self, permit: Permit) -> Facts:
        now = monotonic()  # before remaining(): the sum must not be optimistic
        return {
            "slot": permit.slot,
            "fence": permit.fence,
            "held": permit.held,
            "lost": permit.lost,
            "until": now + permit.remaining(),
        }


async def main() -> None:
    bench = Bench(Redis.from_url(sys.argv[1]))
    orders = []
    async for line in lines(sys.stdin):
        orders.append(spawn(partial(bench.answer, json.loads(line))))
    os._exit(0)


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    run(main)
