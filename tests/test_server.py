"""The embedded server: it is found, does what it is told, and never outlives its user."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redsync.cli import server as module
from redsync.cli.server import Server, ServerNotFoundError, ServerStartError, find_server

from .support.sync import connect, eventually, spawn


def gone(pid: int) -> bool:
    """Tell whether the process has ended, waited for or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")  # where there is one, a zombie has ended too
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_environment_chooses_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSYNC_SERVER", "/bin/sh")
    assert find_server() == Path("/bin/sh")


def test_a_wrong_choice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSYNC_SERVER", "/no/such/server")
    with pytest.raises(ServerNotFoundError, match="REDSYNC_SERVER is '/no/such/server'"):
        find_server()


def test_the_package_is_preferred_to_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDSYNC_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    on_path = tmp_path / "redis-server"
    on_path.touch(mode=0o755)
    assert find_server().name == "valkey-server"
    monkeypatch.setattr(module, "_packaged_server", lambda: None)
    assert find_server() == on_path


def test_without_any_server_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def not_installed(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delenv("REDSYNC_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "files", not_installed)
    with pytest.raises(ServerNotFoundError, match=r"redsync\[server\]"):
        find_server()


@pytest.mark.parametrize("tcp", [False, True])
def test_it_answers_at_once_and_leaves_nothing_behind(tcp: bool) -> None:
    with Server(tcp=tcp) as server:
        assert server.url.startswith("redis://" if tcp else "unix://")
        with connect(server) as client:
            assert client.ping()
        folder, pid = server.folder, server.pid
    assert not server.running
    assert not folder.exists()
    assert gone(pid)


def test_options_reach_the_server(make_server: Callable[..., Server]) -> None:
    server = make_server("--requirepass", "secret", tcp=False)
    with connect(server, password="secret") as client:
        assert client.config_get("requirepass") == {"requirepass": "secret"}


def test_a_refused_option_is_told() -> None:
    server = Server("--no-such-option", "1")
    with pytest.raises(ServerStartError, match="no-such-option"):
        server.start()
    assert not server.running


def test_an_executable_that_is_not_a_server_is_told() -> None:
    with pytest.raises(ServerStartError, match="has ended"):
        Server(executable="/bin/true").start()


def test_a_restart_empties_it_and_keeps_the_address(make_server: Callable[..., Server]) -> None:
    server = make_server()
    url, pid = server.url, server.pid
    assert server.ask("SET key value") == "+OK"
    server.restart()
    assert (server.url, server.ask("DBSIZE")) == (url, ":0")
    assert server.pid != pid


def test_after_a_crash_it_can_be_started_again(make_server: Callable[..., Server]) -> None:
    server = make_server()
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.running)
    with pytest.raises(ConnectionRefusedError):
        server.ask("PING")
    server.start()
    assert server.ask("PING") == "+PONG"


def test_a_suspended_server_keeps_its_connections(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.suspend()
    with pytest.raises(TimeoutError):
        server.ask("PING", timeout=0.05)
    answer = spawn(lambda: server.ask("PING"))
    assert not answer.done()
    server.resume()
    assert answer.result() == "+PONG"


def test_it_outlives_the_thread_that_started_it() -> None:
    server = Server()
    try:
        spawn(server.start).result()
        time.sleep(0.05)  # there is nothing to wait for: it must not end
        assert server.ask("PING") == "+PONG"
    finally:
        server.stop()


def test_a_long_temporary_folder_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with Server() as server:
        assert server.ask("PING") == "+PONG"


def test_two_servers_do_not_meet(make_server: Callable[..., Server]) -> None:
    first, second = make_server(), make_server()
    assert first.ask("SET key value") == "+OK"
    assert second.ask("EXISTS key") == ":0"


USER = """
import os, sys, time
from redsync.cli.server import Server

server = Server(tcp=True)
server.start()
print(server.pid, server.folder, flush=True)
"""

# A signal that comes just before a sleep begins is heeded at its end.
LEFT_IN_PEACE = "while True: time.sleep(0.05)"
LEFT_ALONE = "sys.exit()"
FORKING = """
if os.fork() == 0:
    server.stop()  # it is the parent's: this must not end it
    print("forked", flush=True)
time.sleep(60)
"""


def user(then: str) -> subprocess.Popen[str]:
    """Start a program that starts a server, prints its process id and folder, and goes on."""
    return subprocess.Popen([sys.executable, "-c", USER + then], stdout=subprocess.PIPE, text=True)


def server_of(program: subprocess.Popen[str]) -> tuple[int, Path]:
    assert program.stdout is not None
    pid, folder = program.stdout.readline().split(maxsplit=1)
    return int(pid), Path(folder.strip())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_the_process_that_started_it(number: signal.Signals) -> None:
    with user(LEFT_IN_PEACE) as program:
        pid, folder = server_of(program)
        assert not gone(pid)
        program.send_signal(number)
        program.wait()
        eventually(lambda: gone(pid))
        eventually(lambda: not folder.exists())


def test_it_dies_with_a_process_that_forgot_to_stop_it() -> None:
    with user(LEFT_ALONE) as program:
        pid, folder = server_of(program)
        eventually(lambda: gone(pid))
        eventually(lambda: not folder.exists())


def test_a_forked_child_neither_stops_it_nor_keeps_it_alive() -> None:
    with user(FORKING) as program:
        pid, folder = server_of(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "forked\n"
        assert not gone(pid)
        assert folder.exists()
        program.kill()
        program.wait()
        eventually(lambda: gone(pid))
