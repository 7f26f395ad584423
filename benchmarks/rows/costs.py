"""What it costs to be there: idle commands, the server's processor, the time of the import."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from ..bench import Bench, Where
from ..environments import OWN
from ..figures import Figure, Sheet, ratios
from ..subjects import Answer, Case, of_each, server_cpu

__all__ = ["idle", "importing", "layers", "server"]

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
    where, seconds = Where(bench.pythons[-1]), 1.0 if bench.quick else 60.0

    def rates(what: str) -> tuple[float, float]:
        case = Case(what, "idle_aio", what)
        [[answer]] = bench.compare(where, [case], 1, warm_up=False, seconds=seconds)[what]
        # The second reading of the meter has come with a request of its own.
        sent, run = answer["server"]["requests"] - 1, answer["server"]["commands"]
        return sent / answer["seconds"], run / answer["seconds"]

    holder, both, worker = rates("holder"), rates("both"), rates("worker")
    waiter = both[0] - holder[0], both[1] - holder[1]
    for measure, (sent, run), most in (
        ("a process that waits", waiter, 0.5),
        ("a process that holds", holder, 0.2),
        ("a worker of timers", worker, 0.2),
    ):
        sheet.add(where, "redsync", f"requests of {measure}", [sent], "/s", most=most)
        what = f"commands for {measure}, those of scripts too"
        sheet.add(where, "redsync", what, [run], "/s")
    return sheet.figures


def server(bench: Bench) -> Sequence[Figure]:
    """Row 12: CPU time of the server's main thread."""
    sheet = Sheet(12)
    rounds, seconds = (2, 0.2) if bench.quick else (10, 1.0)
    for where in bench.everywhere(pinned=True):
        for kind, program, most in (
            ("one at a time", "uncontended_aio", 1.5),
            ("pipelined", "pipelined_aio", None),
        ):
            cases = (Case(LISTS, program, "lists"), Case("redsync", program, "redsync"))
            results = bench.compare(where, cases, rounds, seconds=seconds)
            cpu = of_each(results, server_cpu)
            against = ratios(cpu["redsync"], cpu[LISTS])
            sheet.add(where, "redsync", f"{kind}: CPU against {LISTS}", against, most=most)
            against = ratios(_usec(results["redsync"], "scripts"), _usec(results[LISTS], "usec"))
            sheet.add(where, "redsync", f"{kind}: commandstats against {LISTS}", against)
    return sheet.figures


def _usec(rounds: Sequence[Sequence[Answer]], kind: str) -> list[float]:
    return [answers[0]["server"][kind] / answers[0]["operations"] for answers in rounds]


LAYERS = (
    ("wire", "two PINGs over our connection"),
    ("scripts", "the two scripts over it"),
    ("link", "and each of them has one effect"),
    ("pool", "and the permit is renewed, until it is given back"),
    ("semaphore", "acquire and release"),
)


def layers(bench: Bench) -> Sequence[Figure]:
    """Row 16: what each layer adds, from a bare connection to what users call."""
    sheet = Sheet(16)
    rounds, seconds = (1, 0.05) if bench.quick else (20, 0.3)
    where = Where(bench.pythons[-1], pinned=True)
    kinds = (("tasks", "aio", "_async"), ("threads", "threads", "_sync"))
    for kind, program, tree in kinds[: 1 if bench.quick else None]:
        cases = [
            Case("two PINGs of redis-py", f"uncontended_{program}", "pings"),
            Case("two PINGs on a bare connection", f"uncontended_{program}", "raw"),
            *(Case(name, f"{tree}/layers", what) for what, name in LAYERS),
        ]
        results = bench.compare(where, cases, rounds, seconds=seconds)
        for measure, value in (
            ("time", lambda answers: median(answers[0]["samples"])),
            ("client CPU", lambda answers: answers[0]["cpu"] / answers[0]["operations"]),
            ("server CPU", server_cpu),
        ):
            for name, values in of_each(results, value).items():
                micros = [1e6 * each for each in values]
                sheet.add(where, name, f"{kind}: {measure}", micros, "µs")
    return sheet.figures


def importing(bench: Bench) -> Sequence[Figure]:
    """Row 13: the import, beyond that of redis."""
    sheet = Sheet(13)
    for version in bench.pythons[-1:] if bench.quick else bench.pythons:
        command: list[str | Path] = [bench.environments.python(version, OWN), "-c", _IMPORT]
        times = [
            float(subprocess.run(command, capture_output=True, check=True).stdout)
            for _ in range(3 if bench.quick else 21)
        ]
        sheet.add(version, "redsync", "import redsync.sync after redis", times, "ms", most=30)
    return sheet.figures
