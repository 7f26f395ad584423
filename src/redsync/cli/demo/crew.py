"""The worker processes of the demo, as the demo sees them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["Crew", "Worker"]

_LAST_WAIT: Final = 1.0


class Worker:
    """One process.  It dies with us: it reads its orders from a pipe whose end we hold."""

    def __init__(
        self, program: str, kind: str, name: str, key: str, url: str, inbox: Inbox
    ) -> None:
        self.name = name
        self.ended = False
        """It has closed its end of the reports: no more will come."""
        command = [sys.executable, "-m", f"{__package__}.{program}", kind, key, name]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Not in the arguments, as the URL may hold a password.  The working directory is no
            # place to import from.
            env={**os.environ, "REDIS_URL": url, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for the demo, which ends us in its own way
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def tell(self, order: str) -> None:
        """Give an order; one that has died takes none."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.send_signal(signal.SIGKILL)

    def status(self) -> int | None:
        """Wait for its end; its exit status, or None if it does not end."""
        try:
            return self._process.wait(_LAST_WAIT)
        except subprocess.TimeoutExpired:
            return None

    def discard(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _listen(self, inbox: Inbox) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):  # else it was killed in the middle of it
                    inbox.put((self, json.loads(line)))
        inbox.put((self, None))


Inbox = queue.SimpleQueue[tuple[Worker, "dict[str, Any] | None"]]


class Crew:
    """The workers of a scene, half of them asyncio, half threads; they end with the ``with`` block.

    Args:
        program: The module that they run.
        numbers: Theirs; no two workers of the demo have the same.
        key: What their keys in the server are named after.
        url: The server.
    """

    def __init__(self, program: str, numbers: Iterable[int], key: str, url: str) -> None:
        self._inbox: Inbox = queue.SimpleQueue()
        self._program = program
        self._plan = [("asyncio" if n % 2 else "threads", n) for n in numbers]
        self._key = key
        self._url = url
        self.workers: list[Worker] = []

    def __enter__(self) -> Crew:
        try:
            for kind, number in self._plan:
                name = f"{kind}-{number}"
                self.workers.append(
                    Worker(self._program, kind, name, self._key, self._url, self._inbox)
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self.workers:
            worker.discard()

    def tell_all(self, order: str) -> None:
        """Give everyone an order."""
        for worker in self.workers:
            worker.tell(order)

    def next_report(self, deadline: float) -> tuple[Worker, dict[str, Any] | None] | None:
        """Wait for a report, of whomever; None in place of a report is a worker's end."""
        try:
            return self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
