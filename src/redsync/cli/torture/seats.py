"""The places at the server, the links to them, and the workers that take them."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from typing import Final

from ..process import WorkerProcess
from ..proxy import FaultProxy
from .cable import Cable, CableError
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

    Attributes:
        cable: To the network of its worker; None: there can be none here.
        proxy: The link, while it is entered.
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
        self.cable: Cable | None = None
        self._address = address
        self._cleanup = ExitStack()
        self._seed = seed
        self._folder = folder
        self._journal = journal
        self._plant = plant
        self._generation = 0
        self._process: WorkerProcess | None = None

    def __enter__(self) -> Seat:
        with self._cleanup as stack:
            with suppress(CableError):
                self.cable = stack.enter_context(Cable(self.number))
            where = [self.cable.near] if self.cable else []
            self.proxy = stack.enter_context(FaultProxy(self._address, *where))
            stack.callback(self.discard)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cleanup.close()

    @property
    def process(self) -> WorkerProcess:
        """The worker that is there."""
        assert self._process is not None
        return self._process

    @property
    def _complaints(self) -> Path:
        return self._folder / f"{self.worker}.stderr"

    @property
    def worker(self) -> str:
        """The name of the worker that is there now, or was last."""
        return f"{self.number}.{self._generation}"

    def start(self) -> None:
        """Have a new worker take it."""
        self._generation += 1
        with open(self._complaints, "wb") as stderr:
            self._process = WorkerProcess(
                f"{__package__}.worker",
                [str(self.number), self.worker, str(self._seed), str(os.getpid())],
                self.proxy.url,
                variables={"REDSYNC_TORTURE_PLANT": self._plant},
                prefix=self.cable.prefix if self.cable else [],
                stderr=stderr,
                folder=self._folder,
            )

    def kill(self) -> None:
        """End the worker by SIGKILL."""
        self.process.discard()
        self._journal.write(died=self.worker, at=monotonic())
        self._process = None

    def look(self) -> None:
        """Take note if the worker has ended by itself, which is a trouble, and start another."""
        if self._process is not None and self._process.status(0) is not None:
            self._mourn(f"ended by itself, with status {self._process.status(0)}")
            self.start()

    def join(self, deadline: float) -> None:
        """Wait until it has ended, as it was told to."""
        status = self.process.status(max(0.1, deadline - monotonic()))
        if status is None:
            self._mourn("does not end")
        elif status != 0:
            self._mourn(f"ended with status {status}")
        self.discard()

    def discard(self) -> None:
        """End it at once, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.discard()

    def _mourn(self, how: str) -> None:
        complaint = self._complaints.read_text("utf-8", "replace")[-_COMPLAINT:]
        self._journal.write(trouble=f"worker {self.worker} {how}: {complaint}")
        self.kill()
