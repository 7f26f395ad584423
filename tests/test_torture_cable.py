"""A network of its own for a worker, and the cable to it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from redsync.cli.server import Server
from redsync.cli.torture.cable import Cable, CableError
from redsync.cli.torture.clock import Clock
from redsync.cli.torture.history import Journal
from redsync.cli.torture.nemesis import Nemesis
from redsync.cli.torture.plan import Fault
from redsync.cli.torture.seats import Seat

from .support.sync import eventually

NUMBER = 7

ECHO = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as link:
    while said := link.recv(100):
        link.sendall(said)
"""


@pytest.fixture
def cable() -> Iterator[Cable]:
    with suppress(CableError), Cable(NUMBER) as laid:
        yield laid
        return
    pytest.skip("network namespaces take Linux, root, util-linux and iproute2")


def test_behind_a_pulled_cable_nothing_is_told_until_it_is_back(cable: Cable) -> None:
    with socket.create_server((cable.near, 0)) as listener:
        port = str(listener.getsockname()[1])
        echo = [*cable.prefix, sys.executable, "-c", ECHO, cable.near, port]
        with subprocess.Popen(echo) as process:
            link, (host, _) = listener.accept()
            assert host == cable.far
            with link:
                link.settimeout(10)
                link.sendall(b"one")
                assert link.recv(100) == b"one"
                cable.pull()
                link.sendall(b"two")
                link.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    link.recv(100)
                cable.plug_in()
                link.settimeout(10)
                assert link.recv(100) == b"two"
            assert process.wait(10) == 0


def test_the_network_goes_with_its_cable(cable: Cable) -> None:
    assert cable._name in interfaces()
    cable.__exit__()
    eventually(lambda: cable._name not in interfaces())


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def test_where_there_can_be_no_cable_it_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no programs
    with pytest.raises(CableError):
        Cable(NUMBER).__enter__()
    journal = Journal(tmp_path / "nemesis.jsonl")
    with Seat(0, 1, ("127.0.0.1", 1), tmp_path, journal) as seat:
        assert seat.proxy.host == "127.0.0.1"
        nemesis = Nemesis(Server(), Clock(tmp_path, None), [seat], journal)
        nemesis.begin(Fault(0, 0.0, "unplug", 0, 0.5, {}))
    assert (nemesis.left_out, nemesis.done) == ({"unplug": 1}, {})
