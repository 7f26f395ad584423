"""Timers: late, overdue, and being set."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ..bench import Bench, Where
from ..figures import Figure, Sheet, percentile, ratios
from ..subjects import Answer, Case, Results, of_each, rate

__all__ = ["arming", "drain", "lateness"]

PING = "one PING of redis-py"

_PEERS = (
    ("faststream-redis-timers", "faststream"),
    ("arq", "arq"),
    ("APScheduler", "apscheduler"),
    ("huey", "huey"),
)


def _peers(what: str) -> list[Case]:
    return [Case(peer, "timers_peers", what, (short,), peer, only="tcp") for peer, short in _PEERS]


def lateness(bench: Bench) -> Sequence[Figure]:
    """Row 8: timers at random instants."""
    sheet = Sheet(8)
    number, span = (50, 1.0) if bench.quick else (1000, 20.0)
    for where in bench.everywhere():
        # Peers know one transport only, and take their time.
        beside = (where.python, where.transport) == (bench.pythons[-1], "tcp")
        cases = [Case("redsync", "timers_aio", "lateness")]
        cases += _peers("lateness") if beside else []
        results = bench.compare(where, cases, 1, warm_up=False, number=number, span=span)
        for name, rounds in results.items():
            late = [1000 * each for answers in rounds for each in answers[0]["samples"]]
            sheet.add(where, name, "median lateness", [median(late)], "ms", most=2)
            sheet.add(where, name, "99th percentile", [percentile(late, 0.99)], "ms", most=10)
            sheet.add(where, name, "the earliest", [min(late)], "ms", least=0)
    return sheet.figures


def drain(bench: Bench) -> Sequence[Figure]:
    """Row 9: timers that are due already, one worker, a handler that does nothing."""
    sheet = Sheet(9)
    tasks = Case("redsync", "timers_aio", "drain")
    threads = (
        Case("redsync, threads", "timers_threads", "drain"),
        Case("redsync, 32 threads", "timers_threads", "drain", ("32",)),
    )
    for where in bench.everywhere(loops=("asyncio", "uvloop")):
        cases = [tasks, *threads] if where.loop == "asyncio" else [tasks]
        for number in (2_000,) if bench.quick else (20_000, 100_000):
            _drained(
                sheet,
                bench.compare(where, cases, 1 if bench.quick else 3, number=number),
                number,
                where,
            )
    if not bench.quick:
        where = Where(bench.pythons[-1], "tcp")
        _drained(
            sheet, bench.compare(where, _peers("drain"), 1, warm_up=False, number=1000), 1000, where
        )
    return sheet.figures


def _drained(sheet: Sheet, results: Results, number: int, where: Where) -> None:
    for name, rates in of_each(results, rate).items():
        least = 8_000 if "threads" in name else 15_000
        sheet.add(where, name, f"{number:,} overdue", rates, "/s", least=least)


def _time(answers: Sequence[Answer]) -> float:
    return float(median(answers[0]["samples"]))


def arming(bench: Bench) -> Sequence[Figure]:
    """Row 10: setting timers, beside few and beside many others."""
    sheet = Sheet(10)
    few, many = (1_000, 20_000) if bench.quick else (1_000, 1_000_000)
    rounds, seconds = (2, 0.1) if bench.quick else (10, 0.5)
    for where in bench.everywhere():
        cases = (Case(PING, "timers_aio", "ping"), _arming(few))
        times = of_each(bench.compare(where, cases, rounds, seconds=seconds), _time)
        against = ratios(times["redsync"], times[PING])
        sheet.add(where, "redsync", f"one by one, against {PING}", against, most=1)
        # Two servers, one after the other: both numbers do not fit into one.
        alone = {
            number: of_each(
                bench.compare(where, [_arming(number)], rounds, seconds=seconds), _time
            )["redsync"]
            for number in (few, many)
        }
        against = ratios(alone[many], alone[few])
        what = f"one by one, beside {many:,} against beside {few:,}"
        sheet.add(where, "redsync", what, against, most=1.3)
        for number, least in ((few, 50_000), (many, 35_000)):
            case = Case("redsync", "timers_aio", "arming-many", (str(number),))
            rates = of_each(bench.compare(where, [case], rounds, number=10_000), rate)
            what = f"10,000 at once, beside {number:,}"
            sheet.add(where, "redsync", what, rates["redsync"], "/s", least=least)
    return sheet.figures


def _arming(beside: int) -> Case:
    return Case("redsync", "timers_aio", "arming", (str(beside),))
