"""What was measured, as JSON, as tables and as pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from .figures import Figure, Spread

__all__ = ["FIGURES", "TITLES", "load", "publish", "save", "short", "summary"]

FIGURES: Final = "figures.json"
"""The file that everything else is made of."""

TITLES: Final[Mapping[int, str]] = {
    1: "Acquire and release, one task, nobody else",
    2: "Acquire and release, one thread, nobody else",
    3: "1,000 tasks of one process, or 300, on 10 permits",
    4: "4 processes of 250 tasks, and 200 threads, on 10 permits",
    5: "Hand-over between two processes",
    6: "Fairness: 4 processes of 50 tasks on 10 permits, each held for 3 ms",
    7: "10,000 who wait in one process",
    8: "Timers at random instants",
    9: "Timers that are overdue, one worker",
    10: "Setting timers",
    11: "Commands of processes that do nothing",
    12: "The server's main thread",
    13: "Import",
    14: "How cost grows",
    15: "What servers can carry",
    16: "Where the time of an acquire and release goes",
}


def save(
    folder: Path,
    figures: Sequence[Figure],
    surroundings: Mapping[str, Any],
    pictures: Sequence[str] = (),
) -> None:
    """Write everything into a folder, which has the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"surroundings": surroundings, "figures": [asdict(each) for each in figures]}
    (folder / FIGURES).write_text(json.dumps(found, indent=1) + "\n")
    (folder / "README.md").write_text(_page(figures, surroundings, pictures))


BEGIN: Final = "<!-- what was measured: written by nox -s bench -->"
END: Final = "<!-- end of what was measured -->"

_PINGS: Final = "time against two PINGs of redis-py"
_SUMMARY: Final = (
    (1, _PINGS, "one core", "acquire + release, one task, against two `PING`s"),
    (2, _PINGS, "one core", "the same, one thread"),
    (3, "acquire + release", "", "1,000 tasks on 10 permits: acquire + release"),
    (4, "4 processes of 250 tasks", "", "4 processes of 250 tasks"),
    (4, "200 threads", "", "200 threads on 10 permits; a lock has one"),
    (5, "tasks: median", "", "from a release to a waiter of another process"),
    (8, "99th percentile", "", "1,000 timers at random instants: 99th percentile of lateness"),
    (8, "the earliest", "", "and the earliest of them"),
    (9, "20,000 overdue", "", "20,000 overdue timers, one worker"),
    (11, "requests of a process that holds", "", "requests of a process that holds a permit"),
)
"""Row, measure, a part of the place, and what it is, for the README."""


def publish(readme: Path, figures: Sequence[Figure]) -> None:
    """Write the table of the README."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{summary(figures)}\n{END}{after}")


def summary(figures: Sequence[Figure]) -> str:
    """The most telling figures, of the newest CPython over loopback, as a table."""
    lines = ["| | redsync | others |", "|---|---|---|"]
    for row, measure, part, what in _SUMMARY:
        mine = [
            each
            for each in figures
            if (each.row, each.measure) == (row, measure)
            and part in each.where
            and "uvloop" not in each.where
        ]
        if mine:
            lines.append(_summed(what, [each for each in mine if each.where == mine[-1].where]))
    return "\n".join(lines)


def _summed(what: str, figures: Sequence[Figure]) -> str:
    texts = {each.subject: f"{short(each.spread.median)} {each.unit}" for each in figures}
    own = [each for each in texts if each.startswith("redsync") and each != "redsync 2.0.0"]
    ours = [texts.pop(each) for each in own[:1]]
    for each in own[1:]:
        ours.append(f"{texts.pop(each)} ({each.removeprefix('redsync, ')})")
    others = [f"{name}: {text}" for name, text in texts.items() if not name.startswith("two PINGs")]
    return f"| {what} | {', '.join(ours)} | {'; '.join(others)} |"


def load(folder: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Read what was measured last."""
    found = json.loads((folder / FIGURES).read_text())
    figures = [Figure(**{**each, "spread": Spread(**each["spread"])}) for each in found["figures"]]
    return figures, found["surroundings"]


def _page(
    figures: Sequence[Figure], surroundings: Mapping[str, Any], pictures: Sequence[str]
) -> str:
    lines = ["# Benchmarks", ""]
    lines += ["Written by `nox -s bench`; docs/performance.md says what the figures mean."]
    lines += ["The median of the rounds, and the least and the greatest of them in brackets. What"]
    lines += ["is compared in ratios has taken turns on one server, but for few and many timers in"]
    lines += ["row 10. A target is in bold if it was reached, and crossed out if not.", ""]
    lines += [f"* {name}: {what}" for name, what in surroundings.items()]
    for row, group in groupby(sorted(figures, key=lambda each: each.row), lambda each: each.row):
        lines += ["", f"## {row}. {TITLES[row]}", ""]
        lines += _table(list(group))
        for each in pictures:
            if each.startswith(f"{row:02}-"):
                lines += ["", f"![{each}]({each})"]
    return "\n".join(lines) + "\n"


def _table(figures: Sequence[Figure]) -> Iterable[str]:
    places = list(dict.fromkeys(each.where for each in figures))
    yield "| | | " + " | ".join(places) + " | target |"
    yield "|---|---|" + "---:|" * len(places) + "---|"
    lines = dict.fromkeys((each.measure, each.subject) for each in figures)
    for measure, subject in lines:
        mine = {
            each.where: each
            for each in figures
            if (each.measure, each.subject) == (measure, subject)
        }
        cells = [_cell(mine[place]) if place in mine else "" for place in places]
        yield f"| {measure} | {subject} | {' | '.join(cells)} | {_target(mine.values())} |"


def _cell(figure: Figure) -> str:
    text = short(figure.spread.median)
    if figure.met is not None:
        text = f"**{text}**" if figure.met else f"~~{text}~~"
    unit = f" {figure.unit}" if figure.unit else ""
    if figure.spread.rounds == 1:
        return text + unit
    return f"{text}{unit} ({short(figure.spread.low)} to {short(figure.spread.high)})"


def _target(figures: Iterable[Figure]) -> str:
    for each in figures:
        if each.most is not None:
            return f"≤ {short(each.most)}"
        if each.least is not None:
            return f"≥ {short(each.least)}"
    return ""


def short(value: float) -> str:
    """A number with three digits, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
