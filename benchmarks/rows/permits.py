"""Acquiring and releasing: alone, and among many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from ..bench import Bench, Where
from ..figures import Figure, Sheet, percentile, ratios
from ..subjects import Answer, Case, Results, of_each, rate

__all__ = ["many_tasks", "many_workers", "tasks", "threads"]

PINGS = "two PINGs of redis-py"

TASKS = (
    Case(PINGS, "uncontended_aio", "pings"),
    Case("two PINGs on a bare connection", "uncontended_aio", "raw"),
    Case("redsync", "uncontended_aio", "redsync"),
    Case("redsync 2.0.0", "uncontended_aio", "redsync2", peer="redsync 2.0.0"),
    Case("Lock of redis-py", "uncontended_aio", "redis-lock"),
    Case("py-redis-semaphore", "uncontended_aio", "redis-semaphore", peer="py-redis-semaphore"),
    Case("self-limiters", "uncontended_aio", "self-limiters", peer="self-limiters", only="tcp"),
)
THREADS = (
    Case(PINGS, "uncontended_threads", "pings"),
    Case("two PINGs on a bare connection", "uncontended_threads", "raw"),
    Case("redsync", "uncontended_threads", "redsync"),
    Case("Lock of redis-py", "uncontended_threads", "redis-lock"),
    Case("python-redis-lock", "uncontended_threads", "python-redis-lock", peer="python-redis-lock"),
    Case("pottery", "uncontended_threads", "pottery", peer="pottery"),
    Case("py-redis-semaphore", "uncontended_threads", "redis-semaphore", peer="py-redis-semaphore"),
)

OLD = "redsync 2.0.0"
PROCESS = (
    Case("redsync", "contended_aio", "redsync"),
    Case(OLD, "contended_aio", "redsync2", peer=OLD),
)
POOL = (
    Case("redsync", "contended_threads", "redsync", ("10",)),
    Case("redsync, 1 permit", "contended_threads", "redsync", ("1",)),
    Case("python-redis-lock", "contended_threads", "python-redis-lock", peer="python-redis-lock"),
)


def tasks(bench: Bench) -> Sequence[Figure]:
    """Row 1: one task, nobody else."""
    sheet = Sheet(1)
    for where in _alone_in(bench, ("asyncio", "uvloop")):
        # uvloop is in our environment, and in that of redsync 2.0.0.
        having = [case for case in TASKS if where.loop == "asyncio" or "redsync" in case.peer]
        _alone(bench, sheet, where, having)
    return sheet.figures


def threads(bench: Bench) -> Sequence[Figure]:
    """Row 2: one thread, nobody else."""
    sheet = Sheet(2)
    for where in _alone_in(bench, ("asyncio",)):
        _alone(bench, sheet, where, THREADS)
    return sheet.figures


def _alone_in(bench: Bench, loops: Sequence[str]) -> list[Where]:
    """On one processor, where the next process runs at once, and wherever the system likes."""
    pinned = bench.everywhere(loops=loops, pinned=True)
    return pinned if bench.quick else pinned + bench.everywhere()


def _alone(bench: Bench, sheet: Sheet, where: Where, cases: Sequence[Case]) -> None:
    rounds, seconds = (2, 0.05) if bench.quick else (15, 0.3)
    results = bench.compare(where, cases, rounds, seconds=seconds)
    time = of_each(results, lambda answers: median(answers[0]["samples"]))
    slow = of_each(results, lambda answers: percentile(answers[0]["samples"], 0.99))
    usage = of_each(results, _usage)
    most = 0.6 if where.pinned else None
    for name in results:
        sheet.add(where, name, f"time against {PINGS}", ratios(time[name], time[PINGS]), most=most)
        sheet.add(where, name, "99th percentile against theirs", ratios(slow[name], slow[PINGS]))
        cpu = ratios(usage[name], usage[PINGS])
        sheet.add(where, name, "client CPU against theirs", cpu, most=most)
        sheet.add(where, name, "time", [1e6 * each for each in time[name]], "µs")


CROWDS: Final[Sequence[tuple[int, str, float | None, float | None]]] = (
    (1000, "", 4, 0.2),
    (300, "300 tasks: ", None, None),
)
"""How many tasks, what they are called, and what must be reached, in rate and in client CPU."""


def many_tasks(bench: Bench) -> Sequence[Figure]:
    """Row 3: 1,000 tasks of one process on 10 permits, and 300, as few servers have a thousand
    connections of a process that are blocked at one key.
    """
    sheet = Sheet(3)
    rounds, seconds = (1, 0.5) if bench.quick else (7, 2.0)
    for where in bench.everywhere():
        for tasks, what, least, most in CROWDS[: 1 if bench.quick else None]:
            results = bench.compare(where, PROCESS, rounds, tasks=tasks, seconds=seconds)
            _rates(sheet, results, where, OLD, f"{what}acquire + release", least)
            usage = of_each(results, _usage)
            if usage.keys() >= {"redsync", OLD}:
                cpu = ratios(usage["redsync"], usage[OLD])
                sheet.add(where, "redsync", f"{what}client CPU against {OLD}", cpu, most=most)
    return sheet.figures


def many_workers(bench: Bench) -> Sequence[Figure]:
    """Row 4: 4 processes of 250 tasks; 200 threads."""
    sheet = Sheet(4)
    rounds, seconds = (1, 0.5) if bench.quick else (5, 2.0)
    for where in bench.everywhere():
        four = [replace(case, processes=4) for case in PROCESS]
        results = bench.compare(where, four, rounds, tasks=250, seconds=seconds)
        _rates(sheet, results, where, OLD, "4 processes of 250 tasks", least=2.5)
        results = bench.compare(where, POOL, rounds, threads=200, seconds=seconds)
        _rates(sheet, results, where, "python-redis-lock", "200 threads", least=6)
    return sheet.figures


def _usage(answers: Sequence[Answer]) -> float:
    """CPU time per operation, of all processes."""
    cpu = sum(float(each["cpu"]) for each in answers)
    return cpu / sum(float(each["operations"]) for each in answers)


def _rates(
    sheet: Sheet, results: Results, where: Where, peer: str, what: str, least: float | None
) -> None:
    """Operations per second, and against those of a peer."""
    rates = of_each(results, rate)
    for name, values in rates.items():
        sheet.add(where, name, what, values, "/s")
        if name != peer and peer in rates:
            against = ratios(values, rates[peer])
            sheet.add(where, name, f"{what}, against {peer}", against, least=least)
