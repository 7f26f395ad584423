"""What is compared, row by row of the table in docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..bench import Bench
from ..figures import Figure
from . import costs, growth, permits, timers, waiting

__all__ = ["ROWS"]

ROWS: dict[int, Callable[[Bench], Sequence[Figure]]] = {
    1: permits.tasks,
    2: permits.threads,
    3: permits.many_tasks,
    4: permits.many_workers,
    5: waiting.handover,
    6: waiting.fairness,
    7: waiting.memory,
    8: timers.lateness,
    9: timers.drain,
    10: timers.arming,
    11: costs.idle,
    12: costs.server,
    13: costs.importing,
    14: growth.growth,
    15: growth.capacity,
    16: costs.layers,
}
