"""Those who wait: how soon they run, in which order, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from ..bench import Bench, Where
from ..figures import Figure, Sheet, percentile, ratios
from ..subjects import Answer, Case, Results, of_each
from .permits import OLD, PROCESS

__all__ = ["fairness", "handover", "memory"]

LISTS = "RPUSH and BLPOP of redis-py"

_TASKS = (
    Case(LISTS, "handover_aio", "lists", processes=2),
    Case("redsync", "handover_aio", "redsync", processes=2),
    Case(OLD, "handover_aio", "redsync2", peer=OLD, processes=2),
)
_LOCK = "python-redis-lock"
_THREADS = (
    Case(LISTS, "handover_threads", "lists", processes=2),
    Case("redsync", "handover_threads", "redsync", processes=2),
    Case(_LOCK, "handover_threads", _LOCK, peer=_LOCK, processes=2),
)


def handover(bench: Bench) -> Sequence[Figure]:
    """Row 5: from the release in one process to the waiter of another one that runs."""
    sheet = Sheet(5)
    rounds, times = (2, 50) if bench.quick else (10, 300)
    for where in bench.everywhere():
        for kind, cases in (("tasks", _TASKS), ("threads", _THREADS)):
            _handovers(sheet, kind, bench.compare(where, cases, rounds, times=times), where)
    return sheet.figures


def _handovers(sheet: Sheet, kind: str, results: Results, where: Where) -> None:
    middle = of_each(results, lambda answers: median(handovers(answers)))
    # A round alone has too few for its slowest hundredth.
    samples = {
        name: [each for answers in rounds for each in handovers(answers)]
        for name, rounds in results.items()
    }
    slow = {name: percentile(each, 0.99) for name, each in samples.items()}
    for name in results:
        against = ratios(middle[name], middle[LISTS])
        sheet.add(where, name, f"{kind}: median against {LISTS}", against, most=0.8)
        tail = [slow[name] / slow[LISTS]]
        sheet.add(where, name, f"{kind}: 99th percentile against theirs", tail, most=1.2)
        sheet.add(where, name, f"{kind}: samples", [len(samples[name])], "")
        sheet.add(where, name, f"{kind}: median", [1e6 * each for each in middle[name]], "µs")


def handovers(answers: Sequence[Answer]) -> list[float]:
    """From each release to the next grant, if that is the other process's."""
    spans = sorted(
        (granted, released, number)
        for number, answer in enumerate(answers)
        for granted, released in answer["spans"]
    )
    return [later[0] - one[1] for one, later in pairwise(spans) if later[2] != one[2]]


def fairness(bench: Bench) -> Sequence[Figure]:
    """Row 6: 4 processes of 50 tasks on 10 permits, each held for 3 ms."""
    sheet = Sheet(6)
    rounds, seconds = (1, 1.0) if bench.quick else (4, 4.0)
    four = [replace(case, processes=4) for case in PROCESS[: 1 if bench.quick else None]]
    for where in bench.everywhere():
        results = bench.compare(where, four, rounds, tasks=50, seconds=seconds, hold=0.003)
        for name, values in of_each(results, _tail).items():
            sheet.add(where, name, "99th percentile of waiting against median", values, most=1.5)
        for name, values in of_each(results, _least_share).items():
            what = "share of the process that got least against its part"
            sheet.add(where, name, what, values, least=0.8)
    return sheet.figures


def _tail(answers: Sequence[Answer]) -> float:
    waits: list[float] = [wait for each in answers for wait in each["samples"]]
    return percentile(waits, 0.99) / median(waits)


def _least_share(answers: Sequence[Answer]) -> float:
    counts = [each["operations"] for each in answers]
    return float(min(counts) * len(counts) / sum(counts))


def memory(bench: Bench) -> Sequence[Figure]:
    """Row 7: 10,000 tasks of one process that wait for one permit."""
    sheet = Sheet(7)
    case = Case("redsync", "waiters_aio", "waiters")
    for where in bench.everywhere():
        results = bench.compare(where, [case], 1 if bench.quick else 5, tasks=10_000)
        for measure, key, most, unit in (
            ("connections", "connections", 2, ""),
            ("memory for each, its task included", "bytes", 3072, "bytes"),
            ("to cancel all", "cancelled", 0.5, "s"),
        ):
            values = [answers[0][key] for answers in results["redsync"]]
            sheet.add(where, "redsync", measure, values, unit, most=most)
    return sheet.figures
