"""Worker processes that do what a test tells them, of either kind.

    with WorkerProcess("threads", server) as worker:
        worker.ask("open", name="n", options={"count": 1})
        granted = worker.ask("acquire", name="n")
        waiting = worker.begin("acquire", name="n", key="another")  # in the background
        worker.kill()

What there is to ask for are the methods of `Bench` in tests/_async/worker.py, and of `TimerBench`
in timer_bench.py; times are of CLOCK_MONOTONIC, which the processes of a machine share.  A worker
dies with its parent, even if it is stopped then.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Literal

from . import Reachable

__all__ = ["KINDS", "Facts", "Kind", "WorkerError", "WorkerProcess"]

Kind = Literal["asyncio", "threads"]
"""Which of the two namespaces a worker uses."""

KINDS: Final[tuple[Kind, Kind]] = ("asyncio", "threads")

Facts = dict[str, Any]
"""What a worker tells."""

_MODULES: Final[dict[Kind, str]] = {
    "asyncio": "tests._async.worker",
    "threads": "tests._sync.worker",
}
_ROOT: Final = Path(__file__).parents[2]


class WorkerError(Exception):
    """What an order has raised in the worker; ``Class: message``."""


class Answer:
    """What comes of an order."""

    def __init__(self) -> None:
        self._future: Future[Any] = Future()

    def done(self) -> bool:
        """Whether it is there."""
        return self._future.done()

    def result(self, timeout: float = 20) -> Any:
        """Wait for it; raises WorkerError if the order did."""
        return self._future.result(timeout)


class WorkerProcess:
    """A process that takes orders; see tests/_async/worker.py."""

    def __init__(self, kind: Kind, server: Reachable) -> None:
        self.kind = kind
        self._numbers = itertools.count()
        self._answers: dict[int, Answer] = {}
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "always", "-m", _MODULES[kind], server.url, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=_ROOT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """End it; it must not have complained."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._stderr.seek(0)
        complaints = self._stderr.read().decode()
        self._stderr.close()
        if error is None:
            assert not complaints, complaints
        elif complaints:
            print(complaints, file=sys.stderr)

    def begin(self, do: str, **arguments: object) -> Answer:
        """Give an order."""
        number = next(self._numbers)
        answer = self._answers[number] = Answer()
        line = json.dumps({"order": number, "do": do, **arguments}).encode() + b"\n"
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), line)
        return answer

    def ask(self, do: str, *, patience: float = 20, **arguments: object) -> Any:
        """Give an order, and wait for what comes of it."""
        return self.begin(do, **arguments).result(patience)

    def kill(self) -> float:
        """End it by SIGKILL; returns the time just before."""
        now = time.monotonic()
        self._process.kill()
        self._process.wait()
        return now

    def stop(self) -> float:
        """Stop it by SIGSTOP; returns the time at which it surely did nothing any more."""
        os.kill(self.pid, signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status
        return time.monotonic()

    def go_on(self) -> float:
        """Have it continue; returns the time just before."""
        now = time.monotonic()
        os.kill(self.pid, signal.SIGCONT)
        return now

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            future = self._answers.pop(reply["order"])._future
            if "error" in reply:
                future.set_exception(WorkerError(reply["error"]))
            else:
                future.set_result(reply["facts"])
        for answer in self._answers.values():
            answer._future.set_exception(WorkerError("the worker has ended"))
