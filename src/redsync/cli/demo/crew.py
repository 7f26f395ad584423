"""The worker processes of the demo, as the demo sees them."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterable
from typing import Any

from ..process import WorkerProcess

__all__ = ["Crew", "Worker"]


class Worker(WorkerProcess):
    """One process, and what it reports."""

    def __init__(
        self, program: str, kind: str, name: str, key: str, url: str, inbox: Inbox
    ) -> None:
        self.name = name
        self.ended = False
        """It has closed its end of the reports: no more will come."""
        module = f"{__package__}.{program}"
        super().__init__(module, [kind, key, name], url, stdout=subprocess.PIPE)
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def _listen(self, inbox: Inbox) -> None:
        with self.reports as lines:
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
