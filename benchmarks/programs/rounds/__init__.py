"""A program of a benchmark: it gets ready, and then answers each line of JSON with another.

It may run with a peer's environment, in which there is nothing of ours: standard library only.
"""

from __future__ import annotations

import json
import os
from time import perf_counter, process_time
from typing import Any

# Whatever a peer prints must not come in between.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

Answer = dict[str, Any]


class Clock:
    """Seconds and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self.began, self._cpu = perf_counter(), process_time()

    def answer(self, operations: int, **more: Any) -> Answer:
        """What a round came to."""
        seconds = perf_counter() - self.began
        return {
            "operations": operations,
            "seconds": seconds,
            "cpu": process_time() - self._cpu,
            **more,
        }


def say(answer: Answer) -> None:
    """Tell whoever gave the order."""
    _answers.write(json.dumps(answer) + "\n")
    _answers.flush()


def leave() -> None:
    """There will be no more orders."""
    _answers.close()
