"""The benchmarks: what is measured is what the tables say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import subjects
from benchmarks.figures import Sheet, Spread, percentile, ratios
from benchmarks.report import BEGIN, END, load, publish, save, summary
from benchmarks.rows import ROWS
from benchmarks.rows.waiting import handovers
from benchmarks.subjects import Case, Subject, of_each, take_turns

PROGRAM = """
import sys
from rounds import Clock
from rounds.sync import serve

def counter(url, step):
    def round_(number):
        print(url, file=sys.stderr)
        return Clock().answer(number * int(step))
    return round_

serve({"counter": counter})
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Subject]:
    (tmp_path / "small.py").write_text(PROGRAM)
    monkeypatch.setattr(subjects, "PROGRAMS", tmp_path)
    return lambda case: Subject(Path(sys.executable), case, "asyncio", "redis://x", None)


def test_programs_take_turns(start: Callable[[Case], Subject]) -> None:
    cases = (Case("one", "small", "counter", ("1",)), Case("two", "small", "counter", ("2",)))
    times = iter(range(100))
    results = take_turns(
        cases, start, 3, {"number": 5}, pytest.fail, lambda: {"cpu": float(next(times))}
    )
    assert of_each(results, lambda answers: answers[0]["operations"]) == {
        "one": [5, 5, 5],
        "two": [10, 10, 10],
    }
    assert of_each(results, lambda answers: answers[0]["server"]["cpu"])["one"] == [1, 1, 1]


def test_the_processes_of_a_case_work_together(start: Callable[[Case], Subject]) -> None:
    case = Case("both", "small", "counter", ("1",), processes=2)
    results = take_turns([case], start, 1, {"number": 5}, pytest.fail, dict)
    assert [len(answers) for answers in results["both"]] == [2]


def test_what_cannot_be_started_is_left_out_and_told(start: Callable[[Case], Subject]) -> None:
    cases = (Case("good", "small", "counter", ("1",)), Case("bad", "small", "nothing"))
    told: list[str] = []
    results = take_turns(cases, start, 1, {"number": 5}, told.append, dict)
    assert [*results] == ["good"]
    [text] = told
    assert "left out: bad" in text and "KeyError" in text


def test_a_percentile_is_a_sample_that_so_many_do_not_exceed() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert percentile(samples, 0.99) == 99
    assert percentile(samples, 1) == 100
    assert percentile([7.0], 0.5) == 7


def test_ratios_are_of_the_same_round() -> None:
    assert ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]


def test_targets_are_ours_alone() -> None:
    sheet = Sheet(1)
    for name in ("redsync", "redsync, threads", "redsync 2.0.0", "two PINGs"):
        sheet.add("here", name, "time", [1.0, 3.0, 2.0], most=1.5)
    assert [each.met for each in sheet.figures] == [False, False, None, None]
    assert sheet.figures[0].spread == Spread(2.0, 1.0, 3.0, 3)


def test_a_handover_is_from_a_release_to_the_grant_of_the_other_process() -> None:
    one = {"spans": [(1.0, 2.0), (2.6, 3.0), (3.1, 4.0)]}
    other = {"spans": [(2.1, 2.5)]}
    assert handovers([one, other]) == pytest.approx([0.1, 0.1])


def test_figures_are_written_and_read_again(tmp_path: Path) -> None:
    sheet = Sheet(1)
    sheet.add("3.13, unix socket", "redsync", "time against two PINGs", [0.5, 0.4, 0.6], most=0.6)
    sheet.add("3.13, unix socket", "redsync", "time", [120.0], "µs", most=100)
    save(tmp_path, sheet.figures, {"server": "Valkey"})
    figures, surroundings = load(tmp_path)
    assert figures == sheet.figures
    assert surroundings == {"server": "Valkey"}
    page = (tmp_path / "README.md").read_text()
    assert "| time against two PINGs | redsync | **0.5** x (0.4 to 0.6) | ≤ 0.6 |" in page
    assert "| time | redsync | ~~120~~ µs | ≤ 100 |" in page
    assert json.loads((tmp_path / "figures.json").read_text())["figures"][0]["row"] == 1


def test_each_row_is_described() -> None:
    assert all(row.__doc__ and f"Row {number}:" in row.__doc__ for number, row in ROWS.items())


def test_the_readme_shows_what_was_measured() -> None:
    root = Path(__file__).parent.parent
    figures, _ = load(root / "docs" / "benchmarks")
    assert f"{BEGIN}\n{summary(figures)}\n{END}" in (root / "README.md").read_text()


def test_to_publish_changes_nothing_but_the_table(tmp_path: Path) -> None:
    sheet = Sheet(3)
    sheet.add("3.13, loopback", "redsync", "acquire + release", [8000.0], "/s")
    sheet.add("3.13, loopback", "redsync 2.0.0", "acquire + release", [500.0], "/s")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(readme, sheet.figures)
    line = "| 1,000 tasks on 10 permits: acquire + release | 8,000 /s | redsync 2.0.0: 500 /s |"
    assert readme.read_text() == (
        f"before\n{BEGIN}\n| | redsync | others |\n|---|---|---|\n{line}\n{END}\nafter\n"
    )
