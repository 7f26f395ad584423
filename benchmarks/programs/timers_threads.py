"""Timers that are due already, and a worker with threads."""

from __future__ import annotations

import threading
from datetime import timedelta

from redis import Redis
from rounds import Answer, Clock
from rounds.sync import Round, serve

from redsync.sync import Router, Timer, Timers


def drain(url: str, concurrency: str = "") -> Round:
    """Timers that are due already, and a worker that begins then, with the usual size or this."""
    size = int(concurrency) if concurrency else None
    client = Redis.from_url(url)

    def round_(number: int) -> Answer:
        client.flushall()
        done, lock = threading.Event(), threading.Lock()
        left = number
        router = Router()

        @router.handler(topic="t")
        def handle(payload: int) -> None:
            nonlocal left
            with lock:
                left -= 1
                if not left:
                    done.set()

        setter = Timers(redis_client=client, routers=[router])
        setter.set_timers(Timer("t", str(n), n, timedelta(0)) for n in range(number))
        setter.close()
        clock = Clock()
        with Timers(redis_client=client, routers=[router], concurrency=size):
            done.wait()
            return clock.answer(number)

    return round_


if __name__ == "__main__":
    serve({"drain": drain})
