"""The commands for timers: a worker that ends as it should, and what operators see and change."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis import Redis

import redsync._async.link
import redsync._sync.link
from redsync import Backoff, Router
from redsync.cli.commands import redsync as command
from redsync.cli.server import Server
from redsync.sync import Timers

from .support.process import KINDS, Kind
from .support.sync import connect, eventually, spawn

COMMAND = [sys.executable, "-I", "-c", "from redsync.cli import main; main()", "timers"]
"""Isolated, so that the current folder is on the path only if the command puts it there."""

NOW = timedelta(0)
HOUR = timedelta(hours=1)

PROGRAM = """
import asyncio, time
import redis, redis.asyncio
import redsync.{twin}
from redsync import Router

notes = redis.Redis.from_url({url!r})
router = Router()

@router.handler(topic="jobs")
{prefix}def job(data):
    notes.incr("begun")
    while not notes.exists("go"):
        {pause}(0.005)
    notes.incr("ended")

@router.handler(topic="threads")
def threads(data):
    notes.incr("begun")
    time.sleep(60)

@router.handler(topic="broken", max_attempts=1)
def broken(data):
    raise ValueError("it is broken")

client = {client}.from_url({url!r})
timers = redsync.{twin}.Timers(redis_client=client, routers=[router])
idle = redsync.{twin}.Timers(redis_client=client)
"""

_numbers = itertools.count()


def write_program(folder: Path, kind: Kind, url: str) -> str:
    """Write a module with timers, and return its name, which no other one has."""
    name = f"program_{next(_numbers)}"
    if kind == "asyncio":
        world = {"twin": "aio", "prefix": "async ", "pause": "await asyncio.sleep"}
        client = "redis.asyncio.Redis"
    else:
        world = {"twin": "sync", "prefix": "", "pause": "time.sleep"}
        client = "redis.Redis"
    (folder / f"{name}.py").write_text(PROGRAM.format(url=url, client=client, **world))
    return name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture(params=KINDS)
def program(request: pytest.FixtureRequest, folder: Path, server: Server) -> str:
    """The name of a module with timers, of either kind."""
    return write_program(folder, request.param, server.url)


@pytest.fixture
def client(server: Server) -> Iterator[Redis]:
    with connect(server) as connected:
        yield connected


@pytest.fixture
def timers(client: Redis) -> Iterator[Timers]:
    """Timers that fail at once, or, those of the topic "later", again in an hour."""
    router = Router()

    @router.handler(topic="jobs")
    @router.handler(topic="broken", max_attempts=1)
    @router.handler(topic="other", max_attempts=1)
    @router.handler(topic="later", backoff=Backoff(3600, maximum=3600))
    def fail(data: object) -> None:
        raise ValueError("it is broken\nin two lines")

    made = Timers(redis_client=client, routers=[router])
    yield made
    made.close()


def invoke(*arguments: str, typed: str = "") -> Result:
    for name in [each for each in sys.modules if each.startswith("program_")]:
        del sys.modules[name]  # a command closes its timers, as if the program ended
    return CliRunner().invoke(command, ["timers", *arguments], input=typed)


def shown(*arguments: str) -> list[list[str]]:
    """What a table has below its head, by columns."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    _, *rows = result.stdout.splitlines()
    return [re.split(r" {2,}", row.strip()) for row in rows]


def objects(*arguments: str) -> list[dict[str, object]]:
    result = invoke(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def bury(timers: Timers, *names: tuple[str, str]) -> None:
    """Have timers die."""
    for topic, timer_id in names:
        timers.set_timer(topic, timer_id, {"of": timer_id}, NOW)
        assert timers.handle_ready_timers() == 1


def dead_ids(timers: Timers) -> list[str]:
    return [each.timer_id for each in timers.fetch_dead_timers()]


# ls


def test_ls_shows_timers_in_the_order_in_which_they_are_due(program: str, timers: Timers) -> None:
    due = timers.set_timer("jobs", "second", {"n": 2}, 2 * HOUR)
    timers.set_timer("jobs", "first", [1], HOUR)
    timers.set_timer("other", "third", 3, every=3 * HOUR)
    first, second, third = shown("ls", program)
    local = f"{due.astimezone():%Y-%m-%d %H:%M:%S}"
    assert re.fullmatch(r"in (2:00:00|1:59:5\d)", second[3])
    assert [*second[:3], *second[4:]] == ["jobs", "second", local, "armed", '{"n": 2}']
    assert first[:2] == ["jobs", "first"]
    assert third[4:] == ["armed, every 3:00:00", "3"]


def test_ls_tells_programs_everything(program: str, timers: Timers) -> None:
    payload = {"long": "x" * 1000}
    due = timers.set_timer("jobs", "a--b", payload, every=HOUR)
    assert objects("ls", program) == [
        {
            "topic": "jobs",
            "id": "a--b",
            "due": due.isoformat(),
            "state": "armed",
            "attempts": 0,
            "every": 3600.0,
            "payload": payload,
        }
    ]


def test_ls_tells_what_becomes_of_a_timer(server: Server, timers: Timers) -> None:
    begun, go = threading.Event(), threading.Event()
    router = Router()

    @router.handler(topic="long")
    def wait(data: object) -> None:
        begun.set()
        go.wait(10)

    timers.set_timer("later", "failed", 0, NOW)
    timers.handle_ready_timers()
    timers.include_router(router)
    timers.set_timer("long", "taken", 0, NOW)
    call = spawn(timers.handle_ready_timers)
    assert begun.wait(5)
    timers.set_timer("jobs", "due", 0, NOW)
    timers.set_timer("jobs", "not due", 0, HOUR)
    states = {each[1]: each[4] for each in shown("ls", server.url)}
    go.set()
    call.result()
    assert states == {
        "failed": "retrying, 1 failed",
        "taken": "running",
        "due": "waiting",
        "not due": "armed",
    }


def test_ls_shows_a_topic_and_a_part(server: Server, timers: Timers) -> None:
    for number in range(60):
        timers.set_timer("jobs", f"j{number}", 0, HOUR)
        timers.set_timer("other", f"o{number}", 0, HOUR)
    result = invoke("ls", server.url)
    assert len(result.stdout.splitlines()) == 51
    assert result.stderr == "50 of 120 timers; --limit shows more\n"
    assert len(objects("ls", server.url)) == 120
    result = invoke("ls", server.url, "--topic", "other", "--limit", "2")
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [
        ["other", "o0"],
        ["other", "o1"],
    ]
    assert result.stderr == "2 of 60 timers; --limit shows more\n"


def test_ls_finds_the_topic_of_a_timer_of_redis_timers(
    program: str, server: Server, client: Redis
) -> None:
    client.zadd("timers_timeline", {"jobs--a--b": 1.5, "un--known": 2e12, "odd": 3})
    client.hset("timers_payloads", mapping={"jobs--a--b": "no JSON"})
    assert [(each["topic"], each["id"], each["payload"]) for each in objects("ls", program)] == [
        ("jobs", "a--b", "no JSON"),
        ("odd", "", None),
        ("un", "known", None),
    ]
    client.sadd("{timers_timeline}:topics", "jobs--a")  # some worker had it
    assert (objects("ls", server.url)[0]["topic"], objects("ls", program)[0]["id"]) == (
        "jobs--a",
        "b",
    )


def test_nothing_to_show_is_no_error(program: str, timers: Timers) -> None:
    for name, what in (("ls", "timers"), ("dead", "dead timers")):
        result = invoke(name, program)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == f"there are no {what}\n"
        assert objects(name, program) == []


def test_a_url_may_come_with_the_names_of_keys(server: Server, client: Redis) -> None:
    names = {"timeline_key": "mine", "payloads_key": "bodies", "separator": "/"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in names.items()]
    own = Timers(redis_client=client, routers=[], **names)  # type: ignore[arg-type]
    router = Router()
    router.handler(topic="jobs")(lambda data: None)
    own.include_router(router)
    own.set_timer("jobs", "a", 7, HOUR)
    (found,) = objects("ls", server.url, *options)
    assert (found["topic"], found["id"], found["payload"]) == ("jobs", "a", 7)
    assert objects("ls", server.url) == []
    own.close()


def test_names_of_keys_do_not_go_with_a_module(program: str) -> None:
    result = invoke("ls", program, "--timeline-key", "mine")
    assert (result.exit_code, "with a URL only" in result.stderr) == (2, True)


# dead


def test_dead_shows_what_failed_in_the_order_in_which_it_did(program: str, timers: Timers) -> None:
    bury(timers, ("broken", "x"), ("other", "y"), ("broken", "z"))
    first, second, _ = shown("dead", program)
    assert first[:4] == ["broken", "x", r"ValueError: it is broken\nin two lines", "1"]
    assert first[-1] == '{"of": "x"}'
    (letter, *_) = timers.fetch_dead_timers()
    times = (letter.scheduled_for, letter.died_at)
    assert first[4:6] == [f"{each.astimezone():%Y-%m-%d %H:%M:%S}" for each in times]
    assert second[:2] == ["other", "y"]
    assert [row[1] for row in shown("dead", program, "--topic", "broken")] == ["x", "z"]
    assert invoke("dead", program, "--limit", "1").stderr.startswith("1 of 3 dead timers")


def test_dead_tells_programs_everything(program: str, timers: Timers) -> None:
    bury(timers, ("broken", "x"))
    (letter,) = timers.fetch_dead_timers()
    assert objects("dead", program) == [
        {
            "topic": "broken",
            "id": "x",
            "error": "ValueError: it is broken\nin two lines",
            "attempts": 1,
            "due": letter.scheduled_for.isoformat(),
            "died": letter.died_at.isoformat(),
            "payload": {"of": "x"},
        }
    ]


def test_what_is_in_redis_does_not_command_the_terminal(server: Server, timers: Timers) -> None:
    timer_id = "\x1b[31mred\n[bold]"
    timers.set_timer("broken", timer_id, "\x9b1m", NOW)
    escaped = r"\x1b[31mred\n[bold]"
    assert shown("ls", server.url)[0][1] == escaped
    timers.handle_ready_timers()
    (row,) = shown("dead", server.url)
    assert (row[1], row[-1]) == (escaped, r'"\x9b1m"')
    assert invoke("revive", server.url, "broken", timer_id).stdout == f"{escaped}: revived\n"


# revive, discard, rm


@pytest.mark.parametrize(("verb", "done"), [("revive", "revived"), ("discard", "discarded")])
def test_dead_timers_are_changed_by_their_ids(
    program: str, timers: Timers, verb: str, done: str
) -> None:
    bury(timers, ("broken", "a"), ("broken", "b"), ("broken", "c"))
    result = invoke(verb, program, "broken", "a", "c")
    assert (result.exit_code, result.stdout) == (0, f"a: {done}\nc: {done}\n")
    assert dead_ids(timers) == ["b"]
    assert len(timers.fetch_all_timers()[0]) == (2 if verb == "revive" else 0)
    result = invoke(verb, program, "broken", "c", "b")
    assert (result.exit_code, result.stdout) == (1, f"b: {done}\n")
    assert result.stderr == "Error: there is no dead timer 'c' of topic 'broken'\n"
    assert dead_ids(timers) == []


@pytest.mark.parametrize("verb", ["revive", "discard"])
def test_all_of_a_topic_are_changed_once_that_is_confirmed(
    program: str, timers: Timers, verb: str
) -> None:
    bury(timers, ("broken", "a"), ("other", "b"), ("broken", "c"))
    result = invoke(verb, program, "broken", "--all", typed="n\n")
    assert result.exit_code == 1
    assert f"{verb.title()} 2 dead timers of topic 'broken'? [y/N]" in result.stderr
    assert dead_ids(timers) == ["a", "b", "c"]
    assert invoke(verb, program, "broken", "--all").exit_code == 1  # nobody is there to answer
    assert invoke(verb, program, "broken", "--all", typed="y\n").exit_code == 0
    assert dead_ids(timers) == ["b"]
    result = invoke(verb, program, "other", "--all", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert dead_ids(timers) == []
    result = invoke(verb, program, "other", "--all")
    assert (result.exit_code, "no dead timers of topic 'other'" in result.stderr) == (1, True)


@pytest.mark.parametrize("verb", ["revive", "discard"])
@pytest.mark.parametrize("arguments", [[], ["a", "--all"]])
def test_it_takes_either_ids_or_all(server: Server, verb: str, arguments: list[str]) -> None:
    assert invoke(verb, server.url, "broken", *arguments).exit_code == 2


def test_a_timer_whose_id_is_in_use_again_is_not_revived(server: Server, timers: Timers) -> None:
    bury(timers, ("broken", "a"))
    timers.set_timer("broken", "a", 0, HOUR)
    result = invoke("revive", server.url, "broken", "a")
    assert (result.exit_code, "cannot be revived" in result.stderr) == (1, True)
    assert dead_ids(timers) == ["a"]


def test_rm_removes_timers_also_of_a_topic_without_a_handler(program: str, timers: Timers) -> None:
    for timer_id in ("a", "b", "c"):
        timers.set_timer("other", timer_id, 0, HOUR)
    result = invoke("rm", program, "other", "a", "nil", "c")
    assert (result.exit_code, result.stdout) == (1, "a: removed\nc: removed\n")
    assert result.stderr == "Error: there is no timer 'nil' of topic 'other'\n"
    assert timers.fetch_all_timers()[0] == ["other--b"]
    assert invoke("rm", program, "other", "b").exit_code == 0


def test_rm_tells_of_a_run_that_has_begun(server: Server, timers: Timers) -> None:
    timers.set_timer("later", "a", 0, NOW)
    timers.handle_ready_timers()
    result = invoke("rm", server.url, "later", "a")
    assert (result.exit_code, result.stdout) == (0, "a: removed, after a run had begun\n")


def test_a_name_that_cannot_be_is_refused(server: Server) -> None:
    for arguments in (["", "a"], ["topic", ""], ["topic"]):
        assert invoke("rm", server.url, *arguments).exit_code == 2


# Targets


@pytest.mark.parametrize("name", ["run", "ls"])
def test_a_target_that_is_not_there_is_told(program: str, folder: Path, name: str) -> None:
    (folder / "needy.py").write_text("import nowhere_to_be_found\n")
    for target, message in {
        "no_such_module": f"no module 'no_such_module' in {folder}",
        f"{program}.inner": f"no module '{program}.inner'",
        f"{program}:nothing": f"'{program}' has no 'nothing'",
        f"{program}:router.x": f"'{program}' has no 'router.x'",
        f"{program}:router": f"{program}:router must be Timers",
        ":timers": "no module ''",
        ".relative": "no module '.relative'",
    }.items():
        result = invoke(name, target)
        assert result.exit_code == 2, result
        assert message in result.stderr
    result = invoke(name, "needy")  # what is wrong there only a traceback tells
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == "nowhere_to_be_found"


def test_a_url_that_makes_no_sense_is_told() -> None:
    for url in ("redis://host:port", "redis://host?no_such_option=1"):
        result = invoke("ls", url)
        assert (result.exit_code, "no URL of a server" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["run", "ls"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_not_there_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: Kind
) -> None:
    for module in (redsync._async.link, redsync._sync.link):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
    result = invoke(name, write_program(folder, kind, "redis://127.0.0.1:1"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the server cannot be used: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_refuses_is_told(
    folder: Path, make_server: Callable[..., Server], kind: Kind
) -> None:
    url = make_server("--requirepass", "secret").url
    result = invoke("run", write_program(folder, kind, url))
    assert (result.exit_code, "give the client a password" in result.stderr) == (1, True)


def test_there_has_to_be_something_to_run(program: str, server: Server) -> None:
    result = invoke("run", f"{program}:idle")
    assert (result.exit_code, "has no handlers" in result.stderr) == (1, True)
    result = invoke("run", server.url)
    assert (result.exit_code, "handlers are code" in result.stderr) == (2, True)
    for nonsense in ("-1", "nan", "soon"):
        assert invoke("run", program, "--timeout", nonsense).exit_code == 2


# run


class Running:
    """A worker process."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self._path = path

    @property
    def log(self) -> str:
        return self._path.read_text()

    def logged(self, text: str) -> None:
        eventually(lambda: text in self.log)

    def signal(self, number: signal.Signals, then: str) -> None:
        """Send it, and wait until the worker says so."""
        self.process.send_signal(number)
        self.logged(then)

    def ended(self, code: int, *, within: float = 20) -> None:
        """Wait for its end."""
        assert self.process.wait(within) == code, self.log


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    path = folder / "log"
    with (
        path.open("wb") as log,
        subprocess.Popen([*COMMAND, "run", *arguments], cwd=folder, stderr=log) as process,
    ):
        try:
            yield Running(process, path)
        finally:
            process.kill()


def begun(client: Redis) -> None:
    eventually(lambda: client.exists("begun"))


def test_at_a_signal_what_runs_comes_to_its_end_and_nothing_else_begins(
    program: str, folder: Path, client: Redis, timers: Timers
) -> None:
    timers.set_timer("jobs", "a", 0, NOW)
    with running(folder, f"{program}:timers") as worker:
        begun(client)
        assert client.hexists("{timers_timeline}:meta", "w:jobs")  # the worker will come back
        worker.signal(signal.SIGTERM, "SIGTERM: no more timers are taken")
        eventually(lambda: not client.hexists("{timers_timeline}:meta", "w:jobs"))
        timers.set_timer("jobs", "b", 0, NOW)
        client.set("go", 1)
        worker.ended(0)
        assert worker.log.endswith("INFO redsync: stopped\n")
    assert (client.get("begun"), client.get("ended")) == (b"1", b"1")
    assert timers.fetch_all_timers()[0] == ["jobs--b"]


def test_it_logs_what_fails_and_ends_at_once_if_nothing_runs(
    program: str, folder: Path, timers: Timers
) -> None:
    timers.set_timer("broken", "a", 0, NOW)
    with running(folder, program, "--timeout", "0") as worker:
        worker.logged("timer 'a' of topic 'broken': attempt 1 of 1 failed; it counts as dead")
        worker.logged("ValueError: it is broken")
        eventually(lambda: dead_ids(timers) == ["a"])
        worker.signal(signal.SIGINT, "SIGINT: no more timers are taken")
        worker.ended(0)
        assert worker.log.endswith("INFO redsync: stopped\n")
        assert f"INFO redsync: {program} runs timers (" in worker.log
        assert "of the topics 'jobs', 'threads', 'broken'\n" in worker.log


@pytest.mark.parametrize(
    ("kind", "topic", "by"),
    [
        ("asyncio", "jobs", "signal"),
        ("asyncio", "threads", "signal"),  # Python itself would wait for its thread
        ("threads", "jobs", "signal"),
        ("asyncio", "jobs", "timeout"),
        ("threads", "jobs", "timeout"),
    ],
)
def test_a_second_signal_or_the_timeout_cuts_off_what_runs(
    server: Server, folder: Path, client: Redis, kind: Kind, topic: str, by: str
) -> None:
    client.zadd("timers_timeline", {f"{topic}--a": 0})
    client.hset("timers_payloads", f"{topic}--a", "0")
    timeout = "0.1" if by == "timeout" else "60"
    with running(folder, write_program(folder, kind, server.url), "--timeout", timeout) as worker:
        begun(client)
        worker.signal(signal.SIGTERM, f"waiting for what runs, for {timeout} s at most")
        if by == "signal":
            worker.signal(signal.SIGINT, "SIGINT again: what runs is cut off")
        worker.ended(1)
        assert "WARNING redsync: stopped; what still ran was cut off" in worker.log
    assert client.get("ended") is None
    assert client.zcard("timers_timeline") == 1  # somebody else will run it


def test_a_module_that_is_not_there_is_an_error_of_usage(folder: Path) -> None:
    with running(folder, "no_such_module") as worker:
        worker.ended(2)
        assert "Traceback" not in worker.log
