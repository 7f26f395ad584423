"""What processes write down, and what is read of it."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

from redsync.cli.torture.history import Journal, Look, Window, read

from .support.program import run_program


def test_what_was_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "0.1.jsonl")
    entry = journal.begin("acquire", "n", timeout=1.0)
    entry.end("ok", at=5.0, slot=1, fence=7)
    entry.look(5.0, 7.0)
    entry.look(5.5, 7.5)
    journal.write(gap=[1.0, 2.0])
    [operation] = (history := read(tmp_path)).operations
    assert (operation.worker, operation.what, operation.of) == ("0.1", "acquire", "n")
    assert (operation.ok, operation.ended) == (True, 5.0)
    assert operation.facts == {"timeout": 1.0, "slot": 1, "fence": 7}
    assert operation.looks == [Look(5.0, 7.0), Look(5.5, 7.5)]
    assert history.held_up("0.1", 1.5, 3) == 0.5


def test_an_operation_without_an_end_is_unknown(tmp_path: Path) -> None:
    Journal(tmp_path / "0.1.jsonl").begin("set", "n")
    [operation] = read(tmp_path).operations
    assert (operation.how, operation.ended) == ("unknown", math.inf)


def test_a_torn_line_is_none(tmp_path: Path) -> None:
    path = tmp_path / "0.1.jsonl"
    Journal(path).begin("set", "n").end("ok")
    os.truncate(path, path.stat().st_size - 3)
    [operation] = read(tmp_path).operations
    assert operation.how == "unknown"


@pytest.mark.proof
def test_what_was_written_survives_the_death_of_its_process(tmp_path: Path) -> None:
    ended = run_program(
        """
        from pathlib import Path
        from redsync.cli.torture.history import Journal

        Journal(Path(sys.argv[1])).begin("set", "n").end("ok")
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        "",
        arguments=[str(tmp_path / "0.1.jsonl")],
    )
    assert ended.code == -signal.SIGKILL
    [operation] = read(tmp_path).operations
    assert operation.ok


def test_faults_are_found_by_time_and_worker(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "nemesis.jsonl")
    for target, began, ended in [("0.1", 5, 6), ("server", 1, 9), ("1.1", 2, 3)]:
        window = Window("pause", target, began, ended)
        journal.write(
            window={"kind": window.kind, "target": target, "began": began, "ended": ended}
        )
    history = read(tmp_path)
    assert [each.target for each in history.windows_in(2.5, 5)] == ["server", "1.1", "0.1"]
    assert [each.target for each in history.faults_of("0.1", 3.5, 5)] == ["server", "0.1"]
    assert not list(history.faults_of("1.1", 9.5, 10))
