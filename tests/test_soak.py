"""The soak finds what grows, and writes down what it has seen."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from soak import ALLOWED, Sample, growth, markdown

STEADY = Sample(
    seconds=0,
    rounds=0,
    memory=50,
    objects=8,
    files=9,
    threads=2,
    connections=1,
    keys=100,
    lasting=2,
    server=3,
)


def test_what_is_steady_after_the_warm_up_has_not_grown() -> None:
    warming = [dataclasses.replace(STEADY, memory=10 * n, files=n) for n in range(4)]
    assert set(growth([*warming, *[STEADY] * 16]).values()) == {0}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_grows_is_found(name: str) -> None:
    samples = [
        dataclasses.replace(STEADY, **{name: getattr(STEADY, name) + n * (ALLOWED[name] + 1)})
        for n in range(20)
    ]
    grown = growth(samples)
    assert [each for each, more in grown.items() if more > ALLOWED[each]] == [name]
    assert f"| {name} |" in markdown(samples, {"x": 1}, grown)


def test_a_peak_is_no_growth() -> None:
    samples = [STEADY] * 20
    samples[-1] = dataclasses.replace(STEADY, files=90, memory=900)
    assert set(growth(samples).values()) == {0}


@pytest.mark.proof
def test_a_short_run_writes_what_it_has_seen(tmp_path: Path) -> None:
    soak = Path(__file__).parent.parent / "tools" / "soak.py"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", soak, "--minutes", "0.05", "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert "rounds in" in ended.stdout, ended.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["samples"] and set(found["growth"]) == set(ALLOWED)
    assert (tmp_path / "soak.md").read_text() in ended.stdout
