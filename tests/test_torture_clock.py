"""The clock of a server that can be set."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from redsync.cli.server import Server
from redsync.cli.torture.clock import Clock, find_library
from redsync.cli.torture.history import Journal
from redsync.cli.torture.nemesis import Nemesis
from redsync.cli.torture.plan import SERVER, Fault

from .support.sync import connect

LIBRARY = find_library()


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
def test_the_clock_of_a_server_is_set_and_stays_so_after_a_restart(tmp_path: Path) -> None:
    clock = Clock(tmp_path, LIBRARY)
    with Server(environment=clock.environment()) as server, connect(server) as client:

        def offset() -> float:
            seconds, micros = client.time()
            return float(seconds + micros / 1e6 - time.time())

        for jump, expected in [(0.0, 0.0), (20.0, 20.0), (-50.5, -30.5)]:
            clock.jump(jump)
            clock.await_shown(server)
            assert expected - 1 < offset() < expected + 0.01
        server.restart()
        assert -31.5 < offset() < -30.49


def test_what_cannot_be_done_is_left_out_and_told(tmp_path: Path) -> None:
    clock = Clock(tmp_path, None)
    assert clock.environment() == {}
    nemesis = Nemesis(Server(), clock, [], Journal(tmp_path / "nemesis.jsonl"))
    nemesis.begin(Fault(0, 0.0, "clock", SERVER, 0.5, {"jump": 1.0}))
    assert nemesis.left_out == {"clock": 1}
    assert nemesis.done == {}
