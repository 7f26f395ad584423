"""A run in figures: as a summary for JSON, and that as text for people and for documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .checks_events import exact
from .history import History, Operation
from .verdict import Violation

__all__ = ["markdown", "summary", "text"]


_MISSING: Final = {
    "clock": "libfaketime is not installed",
    "unplug": "network namespaces take Linux, root, util-linux and iproute2",
}
"""What a fault that was left out would take."""


def summary(
    history: History,
    violations: Sequence[tuple[Violation, list[Operation]]],
    recoveries: dict[str, dict[str, Any]],
    setting: dict[str, Any],
) -> dict[str, Any]:
    """Everything that is told of a run."""
    faults = Counter(window.kind for window in history.windows)
    kinds = sorted({each.what for each in history.operations})
    operations = {
        kind: dict(Counter(each.how for each in history.operations if each.what == kind))
        for kind in kinds
    }
    sure, events = exact(history)
    return {
        **setting,
        "ok": not violations,
        "faults": dict(sorted(faults.items())),
        "operations": operations,
        "events": {"all": events, "exact": sure},
        "standstill": {
            "server": _longest(history, "server"),
            "process": max((_longest(history, each) for each in history.gaps), default=0.0),
        },
        "recoveries": recoveries,
        "violations": [
            {
                "promise": violation.promise,
                "text": violation.text,
                "history": [each.told(history.began) for each in operations],
            }
            for violation, operations in violations
        ],
    }


def text(result: dict[str, Any]) -> Iterator[str]:
    """For a terminal."""
    yield f"seed {result['seed']}, {result['seconds']:g} s, took {result['took']:.0f} s"
    faults = ", ".join(f"{kind} {number}" for kind, number in result["faults"].items())
    yield f"{sum(result['faults'].values())} faults: {faults or 'none'}"
    for kind, number in result["left_out"].items():
        yield f"left out: {kind} {number} ({_MISSING[kind]})"
    for kind, outcomes in result["operations"].items():
        told = ", ".join(f"{how} {number}" for how, number in sorted(outcomes.items()))
        yield f"  {kind:<13}{sum(outcomes.values()):>8}  {told}"
    yield f"  {_standstill(result)}"
    events = result["events"]
    yield f"  signals of {events['all']} events counted, of {events['exact']} without any unknown"
    for name, figures in result["recoveries"].items():
        yield f"  {name}: {_figures(figures)}"
    for each in result["violations"]:
        yield f"VIOLATION of {each['promise']!r}: {each['text']}"
        yield from (f"    {line}" for line in each["history"])
    yield "All is as promised." if result["ok"] else "A promise was broken."


def markdown(result: dict[str, Any]) -> Iterator[str]:
    """Tables for a document."""
    yield f"`redsync torture --seconds {result['seconds']:g} --seed {result['seed']}`"
    yield ""
    yield "| Fault | Times |"
    yield "|---|---|"
    for kind, number in result["faults"].items():
        yield f"| {result['meanings'][kind]} | {number:,} |"
    yield f"| **all** | {sum(result['faults'].values()):,} |"
    yield ""
    yield "| Operation | ok | failed | unknown |"
    yield "|---|---|---|---|"
    for kind, outcomes in result["operations"].items():
        counts = " | ".join(f"{outcomes.get(how, 0):,}" for how in ("ok", "fail", "unknown"))
        yield f"| {kind} | {counts} |"
    yield ""
    yield "| Recovery | Times | Median | 99 % | Worst |"
    yield "|---|---|---|---|---|"
    for name, figures in result["recoveries"].items():
        if figures["times"]:
            spans = " | ".join(f"{figures[each]:.2f} s" for each in ("median", "most", "worst"))
            yield f"| {name} | {figures['times']:,} | {spans} |"
    yield ""
    yield _standstill(result)
    yield ""
    events = result["events"]
    yield (
        f"Violations: {len(result['violations'])}. Signals were counted for each of"
        f" {events['all']} events; of {events['exact']} no operation was unknown."
    )


def _longest(history: History, name: str) -> float:
    """The longest time for which it did not get to run though nothing was done to it."""
    free = (
        end - begin
        for begin, end in history.gaps.get(name, ())
        if not any(history.faults_of(name, begin, end))
    )
    return max(free, default=0.0)


def _standstill(result: dict[str, Any]) -> str:
    spans = result["standstill"]
    return (
        f"The machine itself kept the server waiting for up to {spans['server']:.2f} s,"
        f" and a process for up to {spans['process']:.2f} s."
    )


def _figures(figures: dict[str, Any]) -> str:
    if not figures["times"]:
        return "never"
    spans = ", ".join(
        f"{name} {figures[key]:.3f} s"
        for name, key in (("median", "median"), ("99 %", "most"), ("worst", "worst"))
    )
    return f"{figures['times']} times, {spans}"
