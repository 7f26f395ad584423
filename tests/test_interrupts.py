"""Ctrl-C and time limits, which raise in the middle of anything, leak nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from redsync.cli.server import Server
from redsync.sync import SemaphoreInitStrategy

pytestmark = [pytest.mark.proof, pytest.mark.timeout(150)]  # they compute all the time

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value)
def strategy(request: pytest.FixtureRequest) -> SemaphoreInitStrategy:
    chosen: SemaphoreInitStrategy = request.param
    return chosen


START = """
import faulthandler, runpy
faulthandler.dump_traceback_later(130, exit=True)
runpy.run_module("tests.support.{}", run_name="__main__", alter_sys=True)
"""


def run(module: str, *arguments: str) -> None:
    """Run a program of tests/support in a process of its own; one that hangs tells where."""
    done = subprocess.run(
        [sys.executable, "-c", START.format(module), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Exception in thread" not in done.stderr, done.stderr[-4000:]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("error", ["keyboard", "soft"])
def test_acquire_leaks_nothing_when_it_is_interrupted(
    server: Server, strategy: SemaphoreInitStrategy, error: str, seed: int
) -> None:
    run("interrupting", server.url, strategy.value, f"acquire-{error}", str(seed))


@pytest.mark.parametrize("error", ["keyboard", "soft"])
def test_an_interrupted_body_costs_its_permit_for_a_lease_at_most(
    server: Server, strategy: SemaphoreInitStrategy, error: str
) -> None:
    run("interrupting", server.url, strategy.value, f"body-{error}", "0")


@pytest.mark.parametrize("when", ["first", "later", "cut off", "waiting"])
def test_acquire_may_be_interrupted_at_every_place(server: Server, when: str) -> None:
    run("stepping", server.url, f"acquire-{when}")


@pytest.mark.parametrize("when", ["first", "there", "waiting"])
def test_an_event_may_be_interrupted_at_every_place(server: Server, when: str) -> None:
    run("stepping", server.url, f"event-{when}")
