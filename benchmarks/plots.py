"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib import pyplot

from .figures import Figure

__all__ = ["draw"]

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text as text: a tenth of the size
matplotlib.rcParams["svg.hashsalt"] = "redsync"  # the same figures make the same file

OURS: Final = "#2a6f97"
OTHERS: Final = "#a9b4bc"


SUMMARY: Final = "summary.svg"


def draw(folder: Path, figures: Sequence[Figure]) -> list[str]:
    """Write a picture for each measure of several subjects; returns the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    measures = dict.fromkeys((each.row, each.measure) for each in figures)
    for row, measure in measures:
        mine = [each for each in figures if (each.row, each.measure) == (row, measure)]
        if row > 2 and len({each.subject for each in mine}) > 2 and "samples" not in measure:
            names.append(_bars(folder, row, measure, mine))
    _draw_summary(folder, figures)
    return names


def _draw_summary(folder: Path, figures: Sequence[Figure]) -> None:
    """Rows 1 and 2, at the last place of each."""
    picture, plots = pyplot.subplots(1, 2, figsize=(10, 2.8))
    for row, plot, title in zip((1, 2), plots, ("asyncio", "threads"), strict=True):
        mine = [
            each for each in figures if each.row == row and each.measure.startswith("time against")
        ]
        pinned = [each for each in mine if "one core" in each.where and "uvloop" not in each.where]
        shown = [each for each in pinned if each.where == pinned[-1].where]
        shown.sort(key=lambda each: -each.spread.median)  # the first bar is at the bottom
        for number, figure in enumerate(shown):
            _bar(plot, number, figure)
        plot.set_yticks(range(len(shown)), [each.subject for each in shown])
        plot.set_title(f"{title}: acquire + release", fontsize=9)
        plot.set_xlabel("times as long as two PINGs of redis-py", fontsize=9)
        plot.spines[["top", "right"]].set_visible(False)
    picture.tight_layout()
    picture.savefig(folder / SUMMARY, metadata={"Date": None})
    pyplot.close(picture)


def _bars(folder: Path, row: int, measure: str, figures: Sequence[Figure]) -> str:
    """A bar for each subject and place, and a line from the least round to the greatest."""
    places = list(dict.fromkeys(each.where for each in figures))
    subjects = list(dict.fromkeys(each.subject for each in figures))
    picture, plots = pyplot.subplots(
        1, len(places), sharey=True, squeeze=False,
        figsize=(2.5 + 2.6 * len(places), 0.8 + 0.35 * len(subjects)),
    )  # fmt: skip
    for place, plot in zip(places, plots[0], strict=True):
        mine = {each.subject: each for each in figures if each.where == place}
        for number, subject in enumerate(reversed(subjects)):
            if subject in mine:
                _bar(plot, number, mine[subject])
        plot.set_yticks(range(len(subjects)), reversed(subjects))
        plot.set_title(place, fontsize=9)
        plot.spines[["top", "right"]].set_visible(False)
    picture.suptitle(measure, fontsize=10)
    picture.tight_layout()
    name = f"{row:02}-{''.join(c if c.isalnum() else '-' for c in measure.lower())}.svg"
    picture.savefig(folder / name, metadata={"Date": None})
    pyplot.close(picture)
    return name


def _bar(plot: matplotlib.axes.Axes, number: int, figure: Figure) -> None:
    spread = figure.spread
    color = OURS if figure.subject.startswith("redsync") and "2.0" not in figure.subject else OTHERS
    plot.barh(number, spread.median, color=color)
    plot.plot([spread.low, spread.high], [number, number], color="black", linewidth=1)
    plot.text(spread.high, number, f" {spread.median:.3g}", va="center", fontsize=8)
    target = figure.most if figure.most is not None else figure.least
    if target is not None:
        plot.axvline(target, color="#b23a48", linewidth=1, linestyle=":")
