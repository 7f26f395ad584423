"""The demo: it tells whether promises are kept, takes part in no other use, leaves nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

import pytest
from click.testing import CliRunner

from redsync import cli
from redsync.cli.demo import command
from redsync.cli.demo.checks import check, most_at_once
from redsync.cli.demo.history import History, Hold
from redsync.cli.demo.show import Show
from redsync.cli.server import Server

from .support.sync import connect, eventually
from .test_server import gone

DEMO = [sys.executable, "-c", "from redsync.cli import main; main()", "demo"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}

# What the checks find in histories


def hold(worker: str, slot: int, fence: int, begin: float, end: float, asked: float = 0) -> Hold:
    return Hold(worker, 0, slot, fence, asked, begin, until=begin + 2, ended=end)


def sound() -> History:
    """Three permits, of which one holder is killed at 3.5, until when it had renewed its lease."""
    holds = [
        hold("asyncio-1", 0, 10, 1.0, 2.0),
        hold("threads-2", 1, 11, 1.1, 2.5),
        hold("asyncio-3", 2, 12, 1.2, 2.2),
        hold("asyncio-1", 0, 20, 2.01, 3.0, asked=2.0),
        replace(hold("threads-4", 2, 22, 2.21, 0), until=5.4, ended=None),
        hold("threads-2", 1, 25, 2.51, 2.9, asked=2.5),
        hold("asyncio-3", 1, 29, 2.91, 3.9, asked=2.6),
        hold("asyncio-1", 0, 30, 3.01, 4.0, asked=3.0),
        hold("threads-2", 2, 54, 5.45, 5.8, asked=2.95),
    ]
    history = History(3, 2.0, holds, free=3)
    history._open = {("threads-4", 0): holds[4]}
    history.killed = {"threads-4": 3.5}
    history.sent = [("asyncio-1", 1.5)]
    history.woken = [("threads-2", 1.51)]
    return history


def faults(history: History) -> dict[str, list[str]]:
    return {each.key: each.faults for each in check(history) if each.faults}


def test_a_sound_history_has_no_faults() -> None:
    assert faults(sound()) == {}
    assert most_at_once(sound()) == 3


def test_four_holders_are_found() -> None:
    history = sound()
    history.holds.append(hold("asyncio-3", 3, 13, 1.5, 1.6))
    assert faults(history) == {
        "holders": [
            "4 holders at once when slot 3 with fence 13 of asyncio-3.0 was granted",
        ]
    }


def test_two_holders_of_one_slot_are_found() -> None:
    history = sound()
    history.holds[3].granted = 1.99
    (found,) = faults(history)["holders"][1:]
    assert found.startswith("slot 0 with fence 20 of asyncio-1.0 was granted 0.010 s before the")


def test_a_permit_granted_while_the_killed_holder_may_believe_in_it_is_found() -> None:
    history = sound()
    history.holds[-1].granted = 5.39
    (found,) = faults(history)["holders"]
    assert "was granted 0.010 s before the end of slot 2 with fence 22 of threads-4.0" in found


def test_a_fence_that_falls_in_its_slot_is_found() -> None:
    history = sound()
    history.holds[3].fence = 9
    assert faults(history) == {
        "fences": [
            "slot 0 with fence 9 of asyncio-1.0 was granted after"
            " slot 2 with fence 12 of asyncio-3.0"
        ]
    }


def test_a_fence_that_falls_from_one_slot_to_another_is_found() -> None:
    history = sound()
    history.holds[7].fence = 24
    assert faults(history) == {
        "fences": [
            "slot 0 with fence 24 of asyncio-1.0 was granted after"
            " slot 1 with fence 29 of asyncio-3.0"
        ]
    }


def test_a_fence_that_was_granted_twice_is_found() -> None:
    history = sound()
    history.holds[1].fence = 10
    assert faults(history) == {"fences": ["fence 10 was granted 2 times"]}


def test_reports_out_of_order_are_no_fault() -> None:
    history = sound()
    history.holds[0].granted = 1.15  # its acquire() returned later than the next one's
    history.holds.reverse()
    assert faults(history) == {}


def test_a_permit_that_never_came_back_is_found() -> None:
    history = sound()
    del history.holds[-1]
    history.free = 2
    assert faults(history) == {
        "killed": ["slot 2 with fence 22 of threads-4.0 never came back"],
        "nothing_lost": ["2 of 3 permits free at the end"],
    }


def test_a_permit_that_came_back_late_is_found() -> None:
    history = sound()
    history.holds[-1].granted = 6.51
    history.holds[-1].ended = 6.6
    assert faults(history) == {
        "killed": ["slot 2 with fence 22 of threads-4.0 came back only after 3.010 s"]
    }


def test_a_demo_that_killed_no_holder_proves_nothing() -> None:
    history = sound()
    history.holds[4].ended = 3.4
    history._open.clear()
    assert list(faults(history)) == ["killed"]


@pytest.mark.parametrize(
    ("woken", "fault"),
    [
        ([], "1 sent, 0 woken"),
        ([("threads-2", 1.51), ("asyncio-3", 1.6)], "1 sent, 2 woken"),
        ([("threads-2", 1.49)], "threads-2 was woken before the signal was sent"),
    ],
)
def test_a_signal_lost_doubled_or_early_is_found(
    woken: list[tuple[str, float]], fault: str
) -> None:
    history = sound()
    history.woken = woken
    assert faults(history) == {"signal": [fault]}


def test_a_slot_that_nobody_ever_got_is_found() -> None:
    history = sound()
    history.holds = [each for each in history.holds if each.slot != 1]
    assert faults(history) == {"nothing_lost": ["never granted: slots 1"]}


def test_reports_make_a_history() -> None:
    history = History(3, 2.0)
    facts = {"contender": 1, "slot": 2, "fence": 7, "asked": 0.5, "until": 3.0}
    held = history.add("threads-2", {"what": "granted", "at": 1.0, **facts})
    assert held == Hold("threads-2", 1, 2, 7, asked=0.5, granted=1.0, until=3.0)
    history.add("threads-2", {"what": "sure", "at": 1.5, "contender": 1, "until": 3.5})
    assert (history.open(), held.end) == ([held], 3.5)
    history.add("threads-2", {"what": "ended", "at": 1.6, "contender": 1, "lost": False})
    assert (history.open(), held.end, history.lost) == ([], 1.6, 0)


# The command


@pytest.mark.parametrize(("plant", "status"), [(None, 0), ("falling fence", 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_status_tells_of_a_broken_promise(
    monkeypatch: pytest.MonkeyPatch, plant: str | None, status: int, options: list[str]
) -> None:
    def perform(history: History, show: Show, url: str | None) -> None:
        vars(history).update(vars(sound()))
        if plant:
            history.holds[3].fence = 9

    monkeypatch.setattr(command, "perform", perform)
    result = CliRunner().invoke(command.demo, options)
    assert result.exit_code == status, result.output
    if options:
        summary = json.loads(result.output)
        assert summary["ok"] is (plant is None)
        assert summary["checks"]["fences"]["ok"] is (plant is None)
        assert summary["checks"]["signal"]["ok"] is True
    else:
        assert ("FAILED  fences rise" in result.output) is bool(plant)


def test_a_server_that_cannot_be_reached_is_told() -> None:
    result = CliRunner().invoke(command.demo, ["--url", "unix:///no/such/socket"])
    assert result.exit_code == 1
    assert "the server cannot be used" in result.output


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'redsync\[cli\]'"):
        cli.main()


def test_the_package_imports_neither_click_nor_rich() -> None:
    code = "import sys, redsync.cli; sys.exit(len({'click', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


# The whole of it


def test_it_ends_in_time_with_a_summary_for_programs() -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [*DEMO, "--json"], env=ENVIRONMENT, capture_output=True, text=True, timeout=25
    )
    assert time.monotonic() - began < 20
    assert (ended.returncode, ended.stderr) == (0, "")
    summary = json.loads(ended.stdout)
    assert summary["ok"] is True
    assert all(each["ok"] for each in summary["checks"].values())
    assert min(summary["grants"].values()) > 0
    assert set(summary["grants"]) == {"asyncio", "threads"}
    assert summary["most_at_once"] == 3
    assert len(summary["signal"]["woken"]) == 1
    assert 0 < summary["killed"][0]["back_after"] <= 3


def test_it_uses_the_server_it_is_given_and_leaves_nothing_there(server: Server) -> None:
    assert server.ask("SET mine 1") == "+OK"
    environment = {**ENVIRONMENT, "REDIS_URL": server.url}
    ended = subprocess.run(DEMO, env=environment, capture_output=True, text=True, timeout=25)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "server  pid" not in ended.stdout
    assert "\x1b" not in ended.stdout  # plain lines
    assert re.search(r"^ *\d\.\d\d s  slot \d  fence \d+  to threads-\d", ended.stdout, re.M)
    assert re.search(r"^ *\d\.\d\d s  slot \d is back after [12]\.\d+ s$", ended.stdout, re.M)
    with connect(server) as client:
        left = [key for key in client.scan_iter() if key != b"mine"]
        # What ends a blocked wait goes by itself.
        assert [key for key in left if client.ttl(key) < 0 or b":wake:" not in key] == []
        assert client.get("mine") == b"1"


@contextmanager
def running(stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(DEMO, env=environment, stdout=stdout, text=True) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def pids_before_the_first_grant(lines: IO[str]) -> list[int]:
    pids = []
    for line in lines:
        if found := re.search(r"  pid (\d+)", line):
            pids.append(int(found[1]))
        if "fence" in line:
            break
    return pids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_and_workers_die_with_it(number: signal.Signals) -> None:
    with running() as demo:
        assert demo.stdout is not None
        pids = pids_before_the_first_grant(demo.stdout)
        assert len(pids) == 5
        assert not any(map(gone, pids))
        demo.send_signal(number)
        eventually(lambda: demo.poll() is not None)
        assert demo.returncode != 0
        eventually(lambda: all(map(gone, pids)))


def test_on_a_terminal_a_table_lives() -> None:
    master, slave = pty.openpty()
    with running(stdout=slave) as demo, open(master, "rb", buffering=0) as terminal:
        os.close(slave)
        seen = b""
        # A slot, a fence and who has it; then the same picture drawn anew.
        while not re.search(rb"Fence.*0 .*\d{16} .*(asyncio|threads)-\d\.\d.*Fence", seen, re.S):
            seen += terminal.read(4096)
        assert b"\x1b[" in seen
        demo.send_signal(signal.SIGINT)
        eventually(lambda: demo.poll() is not None)
