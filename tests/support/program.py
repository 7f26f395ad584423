"""Runs small programs, each in an interpreter of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ended", "run_program"]

_PREAMBLE = """
import asyncio, gc, json, multiprocessing, os, signal, sys, threading, time
import redis, redis.asyncio
import redsync.aio, redsync.sync
url = os.environ["REDIS_URL"]
"""


@dataclass(frozen=True)
class Ended:
    """How a program has ended."""

    code: int
    out: str
    err: str
    seconds: float

    def assert_clean(self) -> None:
        """It has succeeded, and has not complained."""
        assert (self.code, self.err) == (0, ""), f"exit status {self.code}\n{self.err}"


def run_program(
    source: str, url: str, *options: str, arguments: Sequence[str] = (), timeout: float = 40
) -> Ended:
    """Run a program to its end; it finds `url`, redis, redsync and common modules imported.

    Args:
        source: The program.
        url: Where Redis is.
        options: For the interpreter.
        arguments: For the program.
        timeout: Seconds after which it is killed, and the test fails.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *options, "-c", _PREAMBLE + textwrap.dedent(source), *arguments],
        cwd=Path(__file__).parents[2],  # for what it may import from the tests
        env={**os.environ, "REDIS_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
        late = False
    except subprocess.TimeoutExpired:
        late = True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has forked
    if late:
        out, err = process.communicate()
    assert not late, f"still running after {timeout} s\n{out}\n{err}"
    return Ended(process.returncode, out, err, time.monotonic() - began)
