"""The demo: it tells whether promises are kept, takes part in no other use, leaves nothing."""

from __future__ import annotations

import importlib.util
import io
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
from typing import IO, Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from redsync import cli
from redsync.cli.demo import command
from redsync.cli.demo.checks import check, most_at_once
from redsync.cli.demo.history import History, Hold
from redsync.cli.demo.show import Show, Table
from redsync.cli.demo.summary import summary
from redsync.cli.demo.timer_checks import check_timers
from redsync.cli.demo.timer_history import Arming, Run, TimerHistory
from redsync.cli.demo.timers import picture
from redsync.cli.server import Server

from .support.sync import connect, eventually
from .test_server import gone

pytestmark = pytest.mark.faults

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


# What the checks find in histories of timers


def arming(timer: str, payload: str, at: int, period: int, every: int | None = None) -> Arming:
    """At a time of the server's clock in milliseconds."""
    return Arming(timer, payload, at * 1000, period * 1000, (at + period) * 1000, every)


def run(worker: str, timer: str, due: int, clock: int, how: str | None, **facts: Any) -> Run:
    """Of both clocks, milliseconds; theirs run side by side."""
    known: dict[str, Any] = {
        "payload": "payload",
        "attempt": 1,
        "fence": clock,
        "until": clock / 1e3 + 30,
    }
    return Run(
        worker, timer, due=due * 1000, clock=clock * 1000, began=clock / 1e3, how=how,
        **(known | facts),
    )  # fmt: skip


def kept() -> TimerHistory:
    """One timer of each sort; asyncio-5 is killed at 2.5, and had renewed its lease until 3.4."""
    history = TimerHistory(1.0)
    history.armings = [
        arming("once", "payload", 1000, 300),
        arming("moved", "old", 1000, 500),
        arming("moved", "new", 1010, 800),
        arming("flaky", "payload", 1000, 100),
        arming("broken", "payload", 1000, 100),
        arming("beat", "payload", 1000, 400, every=400_000),
        arming("long", "payload", 2000, 0),
    ]
    history.runs = [
        run("asyncio-5", "flaky", 1100, 1101, "failed"),
        run("threads-6", "broken", 1100, 1102, "failed"),
        run("threads-6", "once", 1300, 1302, "completed"),
        run("threads-6", "flaky", 1100, 1303, "failed", attempt=2),
        run("asyncio-5", "broken", 1100, 1304, "failed", attempt=2),
        run("asyncio-5", "beat", 1400, 1403, "completed"),
        run("asyncio-5", "broken", 1501, 1504, "completed"),
        run("threads-6", "flaky", 1100, 1705, "completed", attempt=3),
        run("asyncio-5", "beat", 1800, 1801, "completed"),
        run("asyncio-5", "moved", 1810, 1812, "completed", payload="new"),
        run("asyncio-5", "long", 2000, 2001, None, until=3.4),
        run("asyncio-5", "beat", 2200, 2202, "completed"),
        run("threads-6", "long", 2000, 3405, "completed", attempt=2),
    ]
    history.killed = {"asyncio-5": 2.5}
    history.dead = {"broken": (2, "Failure: it does not work yet")}
    history.revived = {"broken": 1_500_000}
    history.removed = {"beat": 2_500_000}
    history.left = 0
    return history


def timer_faults(history: TimerHistory) -> dict[str, list[str]]:
    return {each.key: each.faults for each in check_timers(history) if each.faults}


def test_a_sound_history_of_timers_has_no_faults() -> None:
    assert timer_faults(kept()) == {}


def test_a_demo_that_ran_no_timers_proves_nothing() -> None:
    assert list(timer_faults(TimerHistory(1.0))) == [
        "timers_once",
        "timers_retried",
        "timers_dead",
        "timers_recurring",
        "timers_taken_over",
        "timers_left",
    ]


def test_a_timer_that_ran_early_is_found() -> None:
    history = kept()
    history.runs[2].clock = history.runs[2].due - 1
    assert timer_faults(history) == {
        "timers_on_time": ["attempt 1 of once by threads-6 began 0.000001 s early"]
    }


def test_a_timer_that_was_set_too_early_is_found() -> None:
    history = kept()
    history.armings[0].due = history.runs[2].due = 1_299_999
    assert timer_faults(history) == {
        "timers_on_time": ["once was set for an earlier time than it was asked for"]
    }


@pytest.mark.parametrize("number", [2, 5, 6])
def test_a_timer_that_ran_at_a_time_of_its_own_is_found(number: int) -> None:
    history = kept()
    history.runs[number].due -= 2_000
    (found,) = timer_faults(history)["timers_on_time"]
    assert found.endswith("was due at a time for which it was not set")


def test_a_replaced_timer_that_ran_is_found() -> None:
    history = kept()
    history.runs.append(run("threads-6", "moved", 1500, 1501, "completed", payload="old"))
    assert timer_faults(history) == {
        "timers_once": [
            "attempt 1 of moved by threads-6 ran, though another one had taken its place"
        ]
    }


def test_a_timer_that_ran_before_it_could_be_replaced_is_no_fault() -> None:
    history = kept()
    history.armings[2] = arming("moved", "new", 1510, 300)
    history.runs.append(run("threads-6", "moved", 1500, 1501, "completed", payload="old"))
    assert timer_faults(history) == {}


@pytest.mark.parametrize(("times", "how"), [(0, "lost"), (2, "completed")])
def test_a_timer_that_was_not_done_once_is_found(times: int, how: str) -> None:
    history = kept()
    history.runs[2].how = how
    history.runs.append(replace(history.runs[2], fence=9000))
    assert timer_faults(history) == {"timers_once": [f"once was done {times} times"]}


def test_another_attempt_that_came_too_soon_is_found() -> None:
    history = kept()
    history.runs[7].clock = history.runs[3].clock + 399_999
    assert timer_faults(history) == {
        "timers_retried": ["attempt 3 of flaky by threads-6 came after 0.399999 s"]
    }


def test_attempts_that_are_missing_are_found() -> None:
    history = kept()
    history.runs[3].how = "completed"
    del history.runs[7]
    assert timer_faults(history) == {
        "timers_retried": [
            "expected failed, failed, completed, but attempt 1 failed, attempt 2 completed"
        ]
    }


@pytest.mark.parametrize(
    ("dead", "fault"),
    [
        ({}, "it was not found among the dead"),
        ({"broken": (3, "it does not work yet")}, "it was found dead after 3 attempts"),
        ({"broken": (2, "KeyError: 'x'")}, "it was found dead after 2 attempts, of KeyError: 'x'"),
    ],
)
def test_a_death_that_was_not_noted_is_found(dead: dict[str, tuple[int, str]], fault: str) -> None:
    history = kept()
    history.dead = dead
    (found,) = timer_faults(history)["timers_dead"]
    assert found.startswith(fault)


def test_a_revived_timer_that_did_not_run_is_found() -> None:
    history = kept()
    del history.runs[6]
    assert timer_faults(history) == {
        "timers_once": ["broken was done 0 times"],
        "timers_dead": ["expected completed, but it did not run"],
    }


def test_a_beat_that_came_twice_is_found() -> None:
    history = kept()
    history.runs.append(run("threads-6", "beat", 2200, 2300, "completed"))
    assert timer_faults(history) == {
        "timers_recurring": ["attempt 1 of beat by threads-6 was due no later than the one before"]
    }


def test_a_beat_whose_worker_was_killed_comes_again() -> None:
    history = kept()
    history.runs[11].how, history.runs[11].until = None, 3.2
    history.runs.append(run("threads-6", "beat", 2200, 3201, "completed", attempt=2))
    assert timer_faults(history) == {}


def test_a_beat_after_the_end_is_found() -> None:
    history = kept()
    history.runs.append(run("threads-6", "beat", 2600, 2601, "completed"))
    assert timer_faults(history) == {
        "timers_recurring": ["attempt 1 of beat by threads-6 was due after it had been removed"]
    }


def test_a_timer_that_nobody_took_over_is_found() -> None:
    history = kept()
    del history.runs[-1]
    history.left = 1
    assert timer_faults(history) == {
        "timers_once": ["long was done 0 times"],
        "timers_taken_over": ["nobody took over from attempt 1 of long by asyncio-5"],
        "timers_left": ["1 timers are left at the end"],
    }


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"began": 3.399},
            "began 0.001 s before the lease of attempt 1 of long by asyncio-5 ended",
        ),
        ({"began": 4.501}, "attempt 2 of long by threads-6 began only after 2.001 s"),
        ({"worker": "asyncio-5"}, "was followed by one of the same process"),
        ({"attempt": 1}, "does not count attempt 1 of long by asyncio-5"),
    ],
)
def test_a_timer_that_was_taken_over_otherwise_is_found(change: dict[str, Any], fault: str) -> None:
    history = kept()
    history.runs[-1] = replace(history.runs[-1], **change)
    (found,) = timer_faults(history)["timers_taken_over"]
    assert fault in found


def test_reports_make_a_history_of_timers() -> None:
    history = TimerHistory(1.0)
    which = {"timer": "long", "fence": 7}
    facts = {"payload": "x", "attempt": 1, "due": 1, "clock": 2_000_001, "until": 3.0}
    began = history.add("threads-6", {"what": "began", "at": 2.0, **which, **facts})
    assert (history.runs, began.how, began.lateness) == ([began], None, 2.0)
    history.add("threads-6", {"what": "sure", "at": 2.5, **which, "until": 3.5})
    assert began.until == 3.5
    history.killed["threads-6"] = 2.6
    assert history.cut_off() == [began]
    history.add("threads-6", {"what": "ended", "at": 2.55, **which, "how": "completed"})
    assert (history.cut_off(), history.completed("long")) == ([], 1)


def test_a_scene_leaves_its_last_picture(capsys: pytest.CaptureFixture[str]) -> None:
    with Table() as show:
        show.scene(lambda: "permits")
        show.note("a signal")
        show.scene(lambda: "timers")
        show.note("a death")
    seen = re.findall("permits|a signal|timers|a death", capsys.readouterr().out)
    assert seen == ["permits", "a signal", "timers", "a death"]


def test_the_table_tells_how_each_timer_fares() -> None:
    history = kept()
    del history.runs[-1], history.runs[6:8], history.runs[2]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(picture(history))
    rows = [re.split(r" *│ *", line)[1:-1] for line in console.export_text().splitlines()]
    assert [row for row in rows if row] == [
        ["once", "0", "", "", "", "waits"],
        ["moved", "1", "1", "2.0 ms", "asyncio-5", "completed"],
        ["flaky", "2", "2", "", "threads-6", "failed"],
        ["broken", "2", "2", "", "asyncio-5", "dead"],
        ["beat", "3", "1", "2.0 ms", "asyncio-5", "removed"],
        ["long", "1", "1", "1.0 ms", "asyncio-5 (killed)", "runs"],
    ]


# The command


@pytest.mark.parametrize(("plant", "status"), [(None, 0), ("falling fence", 1), ("early timer", 1)])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_exit_status_tells_of_a_broken_promise(
    monkeypatch: pytest.MonkeyPatch, plant: str | None, status: int, options: list[str]
) -> None:
    def perform(history: History, timer_history: TimerHistory, show: Show, url: str | None) -> None:
        vars(history).update(vars(sound()))
        vars(timer_history).update(vars(kept()))
        if plant == "falling fence":
            history.holds[3].fence = 9
        elif plant == "early timer":
            timer_history.runs[0].clock = 0

    monkeypatch.setattr(command, "perform", perform)
    result = CliRunner().invoke(command.demo, options)
    assert result.exit_code == status, result.output
    if options:
        told = json.loads(result.output)
        assert told["ok"] is (plant is None)
        assert told["checks"]["fences"]["ok"] is (plant != "falling fence")
        assert told["checks"]["timers_on_time"]["ok"] is (plant != "early timer")
        assert told["checks"]["signal"]["ok"] is True
    else:
        assert ("FAILED  fences rise" in result.output) is (plant == "falling fence")
        assert ("FAILED  no timer runs early" in result.output) is (plant == "early timer")


def test_a_demo_that_broke_off_says_nothing_of_timers() -> None:
    history = sound()
    history.troubles = ["it took too long until something"]
    result = summary(history, TimerHistory(1.0), 1.0)
    faulty = [key for key, each in result["checks"].items() if not each["ok"]]
    assert (result["ok"], faulty) == (False, ["workers"])
    assert not any(key.startswith("timers") for key in result["checks"])


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


@contextmanager
def running(
    stdout: int = subprocess.PIPE, stderr: int | None = None, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100", **variables}
    with subprocess.Popen(DEMO, env=environment, stdout=stdout, stderr=stderr, text=True) as demo:
        try:
            yield demo
        finally:
            demo.kill()


@pytest.mark.punctual
def test_it_ends_in_time_with_a_summary_for_programs() -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [*DEMO, "--json"], env=ENVIRONMENT, capture_output=True, text=True, timeout=25
    )
    assert time.monotonic() - began < 20
    assert (ended.returncode, ended.stderr) == (0, "")
    told = json.loads(ended.stdout)
    assert told["ok"] is True
    assert all(each["ok"] for each in told["checks"].values())
    assert min(told["grants"].values()) > 0
    assert set(told["grants"]) == {"asyncio", "threads"}
    assert told["most_at_once"] == 3
    assert len(told["signal"]["woken"]) == 1
    assert 0 < told["killed"][0]["back_after"] <= 3
    timers = told["timers"]
    assert min(late for times in timers["lateness"].values() for late in times) >= 0
    assert [each["attempts"] for each in timers["dead"]] == [2]
    taken = [each for each in timers["taken_over"] if each["timer"] == "long"]
    assert {taken[0]["killed"], taken[0]["by"]} == {"asyncio-5", "threads-6"}
    assert 0 < taken[0]["after"] <= 2


def lasting_keys(server: Server) -> list[bytes]:
    with connect(server) as client:
        return [key for key in client.scan_iter() if client.ttl(key) == -1]


@pytest.mark.punctual
def test_it_uses_the_server_it_is_given_and_leaves_nothing_there(server: Server) -> None:
    assert server.ask("SET mine 1") == "+OK"
    stdout = ""
    with running(REDIS_URL=server.url, stderr=subprocess.PIPE) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        for line in demo.stdout:
            stdout += line
            if "beat is set" in line:
                eventually(lambda: lasting_keys(server) == [b"mine"])  # should it be killed now
        assert (demo.wait(), demo.stderr.read()) == (0, "")
    assert "server  pid" not in stdout
    assert "\x1b" not in stdout  # plain lines
    assert re.search(r"^ *\d+\.\d\d s  slot \d  fence \d+  to threads-\d", stdout, re.M)
    assert re.search(r"^ *\d+\.\d\d s  slot \d is back after [12]\.\d+ s$", stdout, re.M)
    assert re.search(r"^ *\d+\.\d\d s  once-1  attempt 1  by .*-\d, .* ms after", stdout, re.M)
    assert re.search(r"^ *\d+\.\d\d s  .*-\d has taken long over after [01]\.", stdout, re.M)
    with connect(server) as client:
        left = [key for key in client.scan_iter() if key != b"mine"]
        # What ends a blocked wait, or is there for a repeated command, goes by itself.
        passing = re.compile(rb":(wake|unblock|request|claimed):")
        assert [key for key in left if not passing.search(key)] == []
        assert [key for key in left if not 0 <= client.ttl(key) <= 120] == []
        assert client.get("mine") == b"1"


def pids_until_the_last_worker(lines: IO[str]) -> list[int]:
    pids = []
    for line in lines:
        if found := re.search(r"  pid (\d+)", line):
            pids.append(int(found[1]))
        if "worker threads-6" in line:
            break
    return pids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_and_workers_die_with_it(number: signal.Signals) -> None:
    with running() as demo:
        assert demo.stdout is not None
        pids = pids_until_the_last_worker(demo.stdout)
        assert len(pids) == 7
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
