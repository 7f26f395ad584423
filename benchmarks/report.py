"""What was measured, as JSON, as tables and as pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from .figures import Figure, Spread

__all__ = ["load", "save"]

TITLES: Final[Mapping[int, str]] = {
    1: "Acquire and release, one task, nobody else",
    2: "Acquire and release, one thread, nobody else",
    3: "1,000 tasks of one process on 10 permits",
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
    (folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "README.md").write_text(_page(figures, surroundings, pictures))


def load(folder: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Read what was measured last."""
    found = json.loads((folder / "figures.json").read_text())
    figures = [Figure(**{**each, "spread": Spread(**each["spread"])}) for each in found["figures"]]
    return figures, found["surroundings"]


def _page(
    figures: Sequence[Figure], surroundings: Mapping[str, Any], pictures: Sequence[str]
) -> str:
    lines = ["# Benchmarks", ""]
    lines += ["Written by `nox -s bench`; docs/performance.md says what the figures mean."]
    lines += ["The median of the rounds, and the least and the greatest of them in brackets. All"]
    lines += ["programs of a table have taken turns on one server. A target is in bold if it was"]
    lines += ["reached, and crossed out if not.", ""]
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
    text = _number(figure.spread.median)
    if figure.met is not None:
        text = f"**{text}**" if figure.met else f"~~{text}~~"
    unit = f" {figure.unit}" if figure.unit else ""
    if figure.spread.rounds == 1:
        return text + unit
    return f"{text}{unit} ({_number(figure.spread.low)} to {_number(figure.spread.high)})"


def _target(figures: Iterable[Figure]) -> str:
    for each in figures:
        if each.most is not None:
            return f"≤ {_number(each.most)}"
        if each.least is not None:
            return f"≥ {_number(each.least)}"
    return ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
