"""Short runs of the torture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from redsync.cli.commands import redsync
from redsync.cli.torture.command import judged
from redsync.cli.torture.course import Course
from redsync.cli.torture.plan import EVERYBODY, Fault

# The faults of a run last for seconds, and signals of the dead take up to 7 s to come back.
pytestmark = [pytest.mark.proof, pytest.mark.timeout(150)]


def test_all_that_is_promised_holds_under_faults(tmp_path: Path) -> None:
    tables, told = tmp_path / "tables.md", tmp_path / "result.json"
    options = ["--seconds", "10", "--seed", "2", "--folder", str(tmp_path / "run")]
    options += ["--markdown", str(tables), "--json", str(told)]
    ended = CliRunner().invoke(redsync, ["torture", *options])
    assert ended.exit_code == 0, ended.output
    result = json.loads(told.read_text())
    assert result["ok"]
    assert sum(result["faults"].values()) + sum(result["left_out"].values()) > 8
    for what in ("acquire", "release", "set", "wait", "arm", "remove", "run"):
        assert result["operations"][what]["ok"] > 0, ended.output
    assert "Violations: 0." in tables.read_text()
    assert "All is as promised." in ended.output


def test_faults_that_are_planted_are_found(tmp_path: Path) -> None:
    # Holders that believe in a permit after nobody could reach the server for a lease; events that
    # are set twice; and timers that are removed behind everybody's back.
    plan = [Fault(0, 1.0, "blackout", EVERYBODY, 2.5)]
    Course(plan, 6.0, 1, tmp_path, lambda progress: None, "deaf,echo,thief").run()
    result = judged(tmp_path, {})
    for promise, most in [
        ("no slot twice", 4),
        ("each signal wakes one", 100),
        ("at least once, or dead", 2),
    ]:
        found = [each for each in result["violations"] if each["promise"] == promise]
        assert found, result
        assert all(1 <= len(each["history"]) <= most for each in found)
