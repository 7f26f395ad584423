"""Plain functions as handlers of asyncio timers: they run in threads, which nobody can end."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

from redsync.aio import Router, Timers
from redsync.cli.server import Server

from .support.aio import connect, disconnect, eventually


async def test_a_plain_handler_that_is_cut_off_is_not_run_again_while_its_lease_lasts(
    server: Server,
) -> None:
    begun, go = threading.Event(), threading.Event()
    router = Router()

    @router.handler(topic="long")
    def wait(data: object) -> None:
        begun.set()
        go.wait(10)

    client = connect(server)
    first, second = (Timers(redis_client=client, routers=[router]) for _ in range(2))
    try:
        await first.set_timer("long", "a", 0, timedelta(0))
        running = asyncio.create_task(first.run_forever())
        await eventually(begun.is_set)
        stopping = asyncio.create_task(first.stop(0))
        await running
        asyncio.get_running_loop().call_later(0.5, go.set)  # or it would hold up the test
        assert await second.handle_ready_timers() == 0
        await stopping
    finally:
        go.set()
        await first.close()
        await second.close()
        await disconnect(client)
