"""What worker processes of the command line tools have in common: orders, and an end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Final

__all__ = ["Orders", "die_with"]

_PR_SET_PDEATHSIG: Final = 1


class Orders:
    """What the parent has told us to do, a word in each line of standard input."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def given(self, order: str) -> bool:
        """Whether it has been given, ever."""
        return order in self._given

    def follow(self, **actions: Callable[[], object]) -> None:
        """Take orders from now on, in a thread; those that are named here are called.

        The end of the orders, however it came about, ends the process.
        """
        threading.Thread(target=self._read, args=(actions,), daemon=True).start()

    def _read(self, actions: dict[str, Callable[[], object]]) -> None:
        try:
            # Without a buffer: its lock would be in the interpreter's way when it ends.
            with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
                for line in lines:
                    order = line.decode().strip()
                    self._given.add(order)
                    if order in actions:
                        actions[order]()
        except BaseException:
            traceback.print_exc()
        os._exit(1)


def die_with(parent: int) -> None:
    """Have this process killed when its parent dies, even while it is stopped."""
    if sys.platform == "linux":  # elsewhere the end of standard input has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
