"""The places at the server, the links to them, and the workers that take them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import IO, Final

from ..proxy import FaultProxy
from .history import Journal

__all__ = ["Seat"]

_COMPLAINT: Final = 2000


class Seat:
    """A place with a link of its own, and the worker that is there.

    Args:
        number: Which one.
        seed: Of the run.
        address: The server.
        folder: Where workers write.
        journal: Where to write what becomes of them.
        plant: A fault that its workers shall have.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        address: tuple[str, int] | str,
        folder: Path,
        journal: Journal,
        plant: str = "",
    ) -> None:
        self.number = number
        self.proxy = FaultProxy(address)
        self._seed = seed
        self._folder = folder
        self._journal = journal
        self._plant = plant
        self._generation = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __enter__(self) -> Seat:
        self.proxy.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.discard()
        self.proxy.__exit__(*exc_info)

    @property
    def worker(self) -> str:
        """The name of the worker that is there now, or was last."""
        return f"{self.number}.{self._generation}"

    def start(self) -> None:
        """Have a new worker take it."""
        self._generation += 1
        self._stderr = open(self._folder / f"{self.worker}.stderr", "wb")
        command = [sys.executable, "-m", f"{__package__}.worker"]
        self._process = subprocess.Popen(
            [*command, str(self.number), self.worker, str(self._seed), str(os.getpid())],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stderr=self._stderr,
            env={
                **os.environ,
                "REDIS_URL": self.proxy.url,
                "PYTHONSAFEPATH": "1",
                "REDSYNC_TORTURE_PLANT": self._plant,
            },
            start_new_session=True,
        )

    def kill(self) -> None:
        """End the worker by SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._journal.write(died=self.worker, at=monotonic())
        self._close()

    def stop(self) -> None:
        """Stop it by SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it continue."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def tell(self, order: str) -> None:
        """Give an order."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()

    def look(self) -> None:
        """Take note if the worker has ended by itself, which is a trouble, and start another."""
        if self._process is not None and self._process.poll() is not None:
            self._mourn()
            self.start()

    def join(self, deadline: float) -> None:
        """Wait until it has ended, as it was told to."""
        assert self._process is not None
        try:
            status = self._process.wait(max(0.1, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            self._journal.write(trouble=f"worker {self.worker} does not end")
            self.kill()
            return
        if status != 0:
            self._mourn()
        self._close()

    def discard(self) -> None:
        """End it at once, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def _mourn(self) -> None:
        assert self._process is not None
        complaint = (self._folder / f"{self.worker}.stderr").read_text("utf-8", "replace")
        text = f"worker {self.worker} ended with status {self._process.returncode}"
        self._journal.write(trouble=f"{text}: {complaint[-_COMPLAINT:]}")
        self._journal.write(died=self.worker, at=monotonic())
        self._close()

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if self._stderr is not None:
            self._stderr.close()
