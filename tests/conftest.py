"""A server for the run, and twins that are never stale."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import redis

from .support.proxy import FaultProxy
from .support.standstill import attempts, run_punctual

# Before anything imports redsync, or the conftest.py of a generated folder: pytest reads that one
# ahead of pytest_configure if it is told to run that folder.  Under xdist the controller does it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
    from gen_sync import TREES, generate

    for tree in TREES:
        generate(tree)

from redsync._async import link as async_link
from redsync._sync import link as sync_link
from redsync.cli.server import Server, find_server

from .support.process import Kind
from .support.properties import register_profiles
from .support.worlds import AsyncioWorld, ThreadWorld, World

register_profiles()

# A shell ignores it for what it runs in the background, and whatever is started from here inherits
# that; but there are tests of how programs end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Let an old redis-py leave a unix socket open that it could not connect; it is heard of when
    it is collected, in whatever test that is.
    """
    if redis.VERSION < (5, 1):
        never_connected = r"unclosed <socket\.socket fd=\d+, family=\S*(1|UNIX), \S+, proto=0>"
        config.addinivalue_line("filterwarnings", f"ignore:{never_connected}:ResourceWarning")


def pytest_report_header() -> str:
    """Say which server and which client the tests run with."""
    try:
        parser = f"hiredis {version('hiredis')}"
    except PackageNotFoundError:
        parser = "no hiredis"
    return f"redis-py {version('redis')}, {parser}, server {find_server()}"


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """See to the tests that are marked `punctual`."""
    return run_punctual(item, nextitem) or None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were tried again: if there are many, the machine has too much to do."""
    for report in terminalreporter.stats.get("passed", []):
        if isinstance(report, pytest.TestReport) and report.when == "call" and attempts(report) > 1:
            terminalreporter.write_line(
                f"AGAIN {report.nodeid}, {attempts(report)} times, as the machine stood still"
            )


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls that are to end at once wait longer for Redis than 0.75 s, for which a machine may
    well stand still; but for the tests that are about time.
    """
    marker = request.node.get_closest_marker("punctual")
    if marker is None or marker.kwargs.get("patient"):
        for link in (async_link, sync_link):
            monkeypatch.setattr(link, "ALLOWANCE", link.PATIENCE)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One server for the whole run, on a port and on a unix socket; not emptied."""
    # With the default of 10 Hz, a blocking command's timeout is up to 100 ms late.
    with Server("--hz", "100", tcp=True) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The server of the run, empty."""
    if not shared_server.running:  # a test has killed it
        shared_server.start()
    shared_server.resume()  # a test has suspended it
    assert shared_server.ask("FLUSHALL") == "+OK"
    return shared_server


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Make servers of the test's own: ``make_server("--requirepass", "secret")``."""
    with ExitStack() as servers:

        def make(*options: str, tcp: bool = True) -> Server:
            return servers.enter_context(Server("--hz", "100", *options, tcp=tcp))

        yield make


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    """A proxy in front of the server that breaks the link when told to."""
    with FaultProxy(server.address) as running:
        yield running


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what a question to a sentinel has opened that was answered after its client's end:
    nobody closes it, and no other test must hear of it.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def hurried() -> Iterator[None]:
    """Let threads take turns after nearly every bytecode."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def tmp_acl_file(tmp_path: Path) -> Path:
    """An ACL file with the default user only, to append users to."""
    path = tmp_path / "users.acl"
    path.write_text("user default on nopass ~* &* +@all\n")
    return path


@pytest.fixture
def worlds() -> Iterator[dict[Kind, World]]:
    """Both namespaces, and memory in which garbage is soon found."""
    gc.collect()
    gc.freeze()
    with AsyncioWorld() as asyncio, ThreadWorld() as threads:
        yield {"asyncio": asyncio, "threads": threads}
    gc.unfreeze()
