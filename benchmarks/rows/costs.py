"""What it costs to be there: idle commands, the server's processor, the time of the import."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..bench import Bench, Where
from ..environments import OWN
from ..figures import Figure, Sheet, ratios
from ..subjects import Answer, Case, of_each

__all__ = ["idle", "importing", "server"]

LISTS = "BLPOP and RPUSH"

_IMPORT = """
import time
import redis
began = time.perf_counter()
import redsync.sync
print(1000 * (time.perf_counter() - began))
"""


def idle(bench: Bench) -> Sequence[Figure]:
    """Row 11: a process that holds, one that waits, a worker of timers, with the usual leases."""
    sheet = Sheet(11)
    where, seconds = Where(bench.pythons[-1]), 5.0 if bench.quick else 60.0

    def rate(what: str) -> float:
        results = bench.compare(where, [Case(what, "idle_aio", what)], 1, seconds=seconds)
        [[answer]] = results[what]
        return float(answer["server"]["commands"] / answer["seconds"])

    holder = rate("holder")
    for measure, value, most in (
        ("of a process that waits", rate("both") - holder, 0.5),
        ("of a process that holds", holder, 0.2),
        ("of a worker of timers", rate("worker"), 0.2),
    ):
        sheet.add(where, "redsync", f"commands {measure}", [value], "/s", most=most)
    return sheet.figures


def server(bench: Bench) -> Sequence[Figure]:
    """Row 12: CPU time of the server's main thread."""
    sheet = Sheet(12)
    rounds, seconds = (3, 0.3) if bench.quick else (10, 1.0)
    for where in bench.everywhere(pinned=True):
        for kind, program, most in (
            ("one at a time", "uncontended_aio", 1.5),
            ("pipelined", "pipelined_aio", None),
        ):
            cases = (Case(LISTS, program, "lists"), Case("redsync", program, "redsync"))
            results = bench.compare(where, cases, rounds, seconds=seconds)
            cpu, script = of_each(results, _cpu), of_each(results, _usec)
            against = ratios(cpu["redsync"], cpu[LISTS])
            sheet.add(where, "redsync", f"{kind}: CPU against {LISTS}", against, most=most)
            against = ratios(script["redsync"], script[LISTS])
            sheet.add(where, "redsync", f"{kind}: commandstats against {LISTS}", against)
    return sheet.figures


def _cpu(answers: Sequence[Answer]) -> float:
    return float(answers[0]["server"]["cpu"] / answers[0]["operations"])


def _usec(answers: Sequence[Answer]) -> float:
    return float(answers[0]["server"]["usec"] / answers[0]["operations"])


def importing(bench: Bench) -> Sequence[Figure]:
    """Row 13: the import, beyond that of redis."""
    sheet = Sheet(13)
    for version in bench.pythons[-1:] if bench.quick else bench.pythons:
        command: list[str | Path] = [bench.environments.python(version, OWN), "-c", _IMPORT]
        times = [
            float(subprocess.run(command, capture_output=True, check=True).stdout)
            for _ in range(5 if bench.quick else 21)
        ]
        sheet.add(version, "redsync", "import redsync.sync after redis", times, "ms", most=30)
    return sheet.figures
