"""Fixtures that talk to the server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from redsync.cli.server import Server

from ..support.aio import Redis, connect, disconnect


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Redis]:
    """A client of the empty server, closed after the test."""
    connected = connect(server)
    yield connected
    await disconnect(connected)
