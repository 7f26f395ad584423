"""The connection that waits is free again at once when nobody waits any more."""

from __future__ import annotations

import time

import pytest

from redsync.aio import RedisEvent, RedisEventTimeoutError

from ..support.aio import Redis


@pytest.mark.punctual
async def test_closing_does_not_sit_out_the_rest_of_a_wait(client: Redis, name: str) -> None:
    event = RedisEvent(client, name)
    with pytest.raises(RedisEventTimeoutError):
        await event.wait(timeout=0.1)
    began = time.monotonic()
    await event.close()
    assert time.monotonic() - began < 2  # the server blocks for 5 s, if nobody tells it otherwise
