"""How cost grows, and how much one node or a small cluster can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import median
from typing import Any

import redis

from tests.support import CLIENT, HOST
from tests.support.cluster import MASTERS, Cluster

from ..bench import Bench, Where, meter_of
from ..environments import OWN
from ..figures import Figure, Sheet
from ..subjects import Answer, Case, Subject, of_each, rate, server_cpu, take_turns
from .permits import PROCESS

__all__ = ["capacity", "growth"]

PERMITS = (1, 10, 100, 1_000)
NAMES = (1, 10, 100, 1_000)
TASKS = (20, 200, 2_000, 10_000)
PROCESSES = (1, 2, 4, 8)
_ONE = {"permits": "permit", "names": "name", "processes": "process"}
SPREAD = "300"
"""How many names, each with a task."""


def growth(bench: Bench) -> Sequence[Figure]:
    """Row 14: with permits, names, tasks and processes; timers are in row 10."""
    sheet = Sheet(14)
    where = Where(bench.pythons[-1], pinned=True)
    rounds, seconds = (1, 0.05) if bench.quick else (10, 0.3)
    for what, numbers in (("permits", PERMITS), ("names", NAMES)):
        some = numbers[::3] if bench.quick else numbers
        cases = [Case(_so_many(n, what), "growth_aio", what, (str(n),)) for n in some]
        results = bench.compare(where, cases, rounds, seconds=seconds)
        for name, values in of_each(results, _time).items():
            sheet.add(where, name, "one task: acquire + release", values, "µs")
        for name, values in of_each(results, _server).items():
            sheet.add(where, name, "one task: the server's main thread", values, "µs")
    where = Where(bench.pythons[-1])
    rounds, seconds = (1, 0.5) if bench.quick else (5, 2.0)
    for tasks in TASKS[: 1 if bench.quick else None]:
        results = bench.compare(where, PROCESS[:1], rounds, tasks=tasks, seconds=seconds)
        rates = of_each(results, rate)[OWN]
        sheet.add(where, f"{tasks:,} tasks", "10 permits: acquire + release", rates, "/s")
    for number in PROCESSES[: 1 if bench.quick else None]:
        case = replace(PROCESS[0], processes=number)
        results = bench.compare(where, [case], rounds, tasks=100, seconds=seconds)
        rates = of_each(results, rate)[OWN]
        name = f"{_so_many(number, 'processes')} of 100 tasks"
        sheet.add(where, name, "10 permits: acquire + release", rates, "/s")
    return sheet.figures


def capacity(bench: Bench) -> Sequence[Figure]:
    """Row 15: what the main threads of a server, and of a cluster's masters, spend on each."""
    sheet = Sheet(15)
    where = Where(bench.pythons[-1], "tcp")
    rounds, seconds = (1, 0.5) if bench.quick else (10, 2.0)
    case = Case("one node", "growth_aio", "spread", (SPREAD, "node"))
    results = bench.compare(where, [case], rounds, seconds=seconds)
    _spent(sheet, where, case.name, of_each(results, _server)[case.name], 1)
    if bench.quick:
        return sheet.figures
    nodes = _on_cluster(bench, where, rounds, seconds)
    name = f"cluster of {MASTERS} masters"
    _spent(sheet, where, name, [sum(each) for each in nodes], MASTERS)
    shares = [max(each) / sum(each) for each in nodes]
    what = "the busiest master's share of it"
    sheet.add(where, name, what, shares, "")
    return sheet.figures


def _so_many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number != 1 else f"1 {_ONE[what]}"


def _spent(sheet: Sheet, where: Where, name: str, micros: Sequence[float], masters: int) -> None:
    what = "all main threads together, for each acquire + release"
    sheet.add(where, name, what, micros, "µs")
    # An estimate: threads that are busy all the time, and names that are spread evenly.
    rates = [1e6 * masters / each for each in micros]
    sheet.add(where, name, "so it could carry at most", rates, "/s")


def _on_cluster(bench: Bench, where: Where, rounds: int, seconds: float) -> list[list[float]]:
    """Microseconds of each master for each acquire and release, in each round."""
    case = Case(OWN, "growth_aio", "spread", (SPREAD, "cluster"))
    bench.tell(f"{where}: a cluster")
    options: dict[str, Any] = CLIENT
    with Cluster() as cluster, ExitStack() as stack:
        ports = [each.port for each in cluster.masters()]
        admins = [stack.enter_context(redis.Redis(HOST, port, **options)) for port in ports]
        url = f"redis://{CLIENT['username']}:{CLIENT['password']}@{HOST}:{ports[0]}"

        def meter() -> Mapping[str, float]:
            return {str(n): meter_of(admin)["cpu"] for n, admin in enumerate(admins)}

        def start(case: Case) -> Subject:
            python = bench.environments.python(where.python, case.peer)
            return Subject(python, case, where.loop, url, None)

        results = take_turns([case], start, rounds, {"seconds": seconds}, bench.tell, meter)
    return [
        [1e6 * cpu / answers[0]["operations"] for cpu in answers[0]["server"].values()]
        for answers in results[OWN]
    ]


def _time(answers: Sequence[Answer]) -> float:
    return 1e6 * float(median(answers[0]["samples"]))


def _server(answers: Sequence[Answer]) -> float:
    return 1e6 * server_cpu(answers)
