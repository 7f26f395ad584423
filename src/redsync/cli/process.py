"""A worker process of a command, as the command sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

__all__ = ["WorkerProcess"]


class WorkerProcess:
    """One process.  It dies with us: it reads its orders from a pipe whose end we hold.

    Args:
        module: What it runs.
        arguments: For it.
        url: The server; not among the arguments, as it may hold a password.
        variables: For its environment.
        prefix: Programs that run it, and leave it its process id.
        stdout, stderr, folder: As `subprocess.Popen` has them.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        url: str,
        *,
        variables: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        stdout: int | None = None,
        stderr: IO[bytes] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=folder,
            # The working directory is no place to import from.
            env={**os.environ, **(variables or {}), "REDIS_URL": url, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for the command, which ends us in its own way
        )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def reports(self) -> IO[bytes]:
        """What it writes, if `stdout` was a pipe."""
        assert self._process.stdout is not None
        return self._process.stdout

    def tell(self, order: str) -> None:
        """Give an order; one that has died takes none."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it by SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it continue."""
        self._process.send_signal(signal.SIGCONT)

    def status(self, patience: float) -> int | None:
        """Wait for its end; its exit status, or None if it does not end."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def discard(self) -> None:
        """End it at once, if it has not ended."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()
