"""Whether it is noted that a process, or the server, did not get to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from redsync.cli.server import Server
from redsync.cli.torture.heart import Heart, pulse_of
from redsync.cli.torture.history import Journal, read

from .support.sync import eventually, sleep


def test_it_is_noted_when_the_server_does_not_answer(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server(tcp=False)

    def longest() -> float:
        return max((end - begin for begin, end in read(tmp_path).gaps.get("server", ())), default=0)

    with Heart(Journal(tmp_path / "server.jsonl"), pulse_of(server)):
        server.suspend()
        sleep(1.0)
        server.resume()
        eventually(lambda: longest() > 0.9)
        server.kill()
        sleep(1.5)
        server.start()
        eventually(lambda: longest() > 1.4)
