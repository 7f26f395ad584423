"""The command tells no passwords, and what others have put into Redis commands no terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result
from redis import Redis
from rich.console import Console

import redsync._sync.link
from redsync.cli.commands import redsync as command
from redsync.cli.server import Server
from redsync.cli.timers import show
from redsync.cli.urls import open_client

from .support.secrets import PASSWORD, USER, secrets_in, told_by, url_with
from .support.sync import connect, disconnect

COMMAND: Final = [sys.executable, "-c", "from redsync.cli import main; main()"]

ESCAPED: Final = quote(PASSWORD, safe="")

UNESCAPED: Final = f"{USER}:{PASSWORD}"
"""With a slash, a number sign and an at sign, as in a URL that somebody typed without thinking."""

SLIPS: Final = [
    f"redis://{UNESCAPED}@127.0.0.1:6379/0",
    f"redis://:{PASSWORD}@127.0.0.1:6379/0",
    f"redis://x:[{PASSWORD}]@127.0.0.1/0",
    f"redis://x:[{PASSWORD}@127.0.0.1/0",
    f"redis://x:{PASSWORD[:4]}\u2100{PASSWORD[-4:]}@127.0.0.1/0",
    f"redis://x:{PASSWORD[:4]}?@127.0.0.1:{PASSWORD[-4:]}",
    f"redis://127.0.0.1:{PASSWORD[:4]}/0?password={ESCAPED}",
    f"redis://127.0.0.1:1/0?no_such_option={ESCAPED}&password={ESCAPED}",
    f"redis://127.0.0.1:1/0?socket_timeout={ESCAPED}",
    f"redis://127.0.0.1:1/{ESCAPED}?socket_timeout=x",
    f"redis:/{UNESCAPED}@127.0.0.1:6379/0",
    f"redis:{UNESCAPED}@127.0.0.1:6379/0",
    f"redis+tls://{UNESCAPED}@127.0.0.1:6379/0",
    f"valkey://{UNESCAPED}@127.0.0.1:6379/0",
    f"REDIS://{UNESCAPED}@127.0.0.1:6379/0",
    f"json:{PASSWORD[:4]}.{PASSWORD}",
    f"http://{UNESCAPED}@127.0.0.1:6379/0",
    f" redis://{UNESCAPED}@127.0.0.1:6379/0",
    f"redis://{PASSWORD}@127.0.0.1:6379/0",
    f"redis://{PASSWORD.partition('/')[2]}@127.0.0.1:6379/0",
    f"redis://{PASSWORD[:4]}?{PASSWORD[-4:]}@127.0.0.1:6379/0",
    f"unix://{UNESCAPED}@/no/such/socket?db=0",
    f"unix://x:{PASSWORD[:4]}/{PASSWORD[-4:]}@/no/such/socket?db=0",
    f"unix://x:{PASSWORD[:4]}#{PASSWORD[-4:]}@/no/such/socket",
]
"""What people type and paste by mistake."""


def invoke(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(command, arguments, **options)


def assert_secret(result: Result) -> None:
    """It has failed, has said why, and has told nothing."""
    told = [result.output, result.stderr, *told_by(result.exception)]
    assert not any(map(secrets_in, told)), told
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit), told
    assert "Error: " in result.stderr


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon: nothing of this gets better."""
    monkeypatch.setattr(redsync._sync.link, "PATIENCE", 0.1)
    monkeypatch.setattr(redsync._sync.link, "ALLOWANCE", 0.1)


# Passwords


@pytest.mark.parametrize("target", SLIPS)
def test_a_slip_in_a_url_does_not_bring_its_password_to_light(target: str) -> None:
    for arguments in (["ls"], ["dead"], ["run"], ["rm"], ["revive", "--all"]):
        more = ["topic", "id"][: {"rm": 2, "revive": 1}.get(arguments[0], 0)]
        assert_secret(invoke("timers", *arguments, target, *more))
    assert_secret(invoke("demo", "--url", target))
    assert_secret(invoke("demo", env={"REDIS_URL": target}))


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "URL"],
        ["demo", "--json", "x", "URL"],
        ["URL"],
        ["timers", "URL"],
        ["timers", "ls", "json:x", "URL"],
        ["timers", "rm", "--limit", "URL"],
        ["timers", "ls", "--limit", "URL", "URL"],
        ["timers", "ls", "--no-such-option=URL", "URL"],
        ["timers", "run", "--timeout", "URL", "x"],
        ["timers", "run", "--log-level", "URL", "x"],
        ["timers", "ls", "--timeline-key", "x", "json", "URL"],
    ],
)
@pytest.mark.parametrize("url", [url_with("redis", "127.0.0.1:6379"), SLIPS[0]])
def test_a_url_in_the_wrong_place_is_not_repeated(arguments: list[str], url: str) -> None:
    assert_secret(invoke(*(each.replace("URL", url) for each in arguments)))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_server_that_is_not_there_is_told_without_the_password(scheme: str) -> None:
    for host in ("127.0.0.1:1", "nowhere.invalid", f"127.0.0.1:1/0?password={ESCAPED}"):
        url = url_with(scheme, host)
        assert_secret(invoke("timers", "ls", url))
        assert_secret(invoke("demo", "--json", "--url", url))
        assert_secret(invoke("demo", env={"REDIS_URL": url}))


@pytest.mark.usefixtures("impatient")
def test_neither_does_a_server_that_refuses_the_password(
    make_server: Callable[..., Server],
) -> None:
    place = f"127.0.0.1:{make_server('--requirepass', 'other').port}"
    for url in (url_with("redis", place), f"redis://{place}?password={ESCAPED}"):
        for arguments in (["ls"], ["dead"]):
            assert_secret(invoke("timers", *arguments, url))
        assert_secret(invoke("demo", "--url", url))
    assert_secret(invoke("timers", "ls", url_with("rediss", place)))


def test_a_program_whose_server_refuses_the_password_logs_none(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    url = url_with("redis", f"127.0.0.1:{make_server('--requirepass', 'other').port}")
    for world, kind in (("aio", "redis.asyncio"), ("sync", "redis")):
        (tmp_path / f"of_{world}.py").write_text(
            f"import os, {kind}, redsync.{world}\n"
            "router = redsync.Router()\n"
            "router.handler(topic='t')(lambda payload: None)\n"
            f"client = {kind}.Redis.from_url(os.environ['URL'])\n"
            f"timers = redsync.{world}.Timers(redis_client=client, routers=[router])\n"
        )
        ended = subprocess.run(
            [*COMMAND, "timers", "run", f"of_{world}", "--log-level", "debug"],
            cwd=tmp_path,
            env={**os.environ, "URL": url},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "password" in ended.stderr and not secrets_in(ended.stderr)


def test_a_url_that_makes_sense_is_taken(tmp_path: Path) -> None:
    for url in (
        url_with("redis", "127.0.0.1:1/0"),
        "redis://127.0.0.1:1",
        f"rediss://127.0.0.1:1/2?socket_timeout=1&password={ESCAPED}&username=a@b",
        f"unix://{tmp_path}/s?db=1",
        url_with("unix", f"{tmp_path}/s"),
    ):
        assert open_client(url, "x") is not None


# Terminals

DEAD: Final = "{timers_timeline}:dead"

HOSTILE: Final = [
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "[bold red]loud[/]",
    "[link=https://example.org]here[/link]",
    "[/]",
    "a\rb\nc\td\x00e\x08f\x7f",
    "\u202egnp.exe",
    "\u2028line\u2029paragraph\x85next",
    "\U000e0001tag",
    "\u200bnothing",
]
"""What colours, clears, hides, turns round, links or ends a line; or looks like rich's markup."""

CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\U000e0001]")


@pytest.fixture
def client(server: Server) -> Iterator[Redis]:
    connected = connect(server)
    yield connected
    disconnect(connected)


@pytest.fixture
def hostile(client: Redis) -> None:
    """A timeline with all of that in its topics, ids and payloads, alive and dead."""
    for each in HOSTILE:
        for member in (f"topic--{each}", f"{each}--id"):
            client.zadd("timers_timeline", {member: 1})
            client.hset("timers_payloads", member, json.dumps(each, ensure_ascii=False))
        client.hset("timers_payloads", f"topic--{each}", each)  # no JSON
        header = f"0005 {10**15} 1 {10**15} 1 {len(each.encode())}\n"
        client.hset(DEAD, f"topic--{each}", f"{header}{each}{each}")
    client.zadd("timers_timeline", {b"topic--\xff\xfe": 1, b"\xff--id": 1})
    client.hset("timers_payloads", b"topic--\xff\xfe", b"\xff\x1b[31m")
    client.hset(DEAD, b"topic--\xff", b"0005 1000000000000000 1 1000000000000000 1 1\n\xff\xfe")


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("arguments", [["ls"], ["dead"], ["ls", "--json"], ["dead", "--json"]])
def test_what_others_have_written_is_shown_and_commands_nothing(
    server: Server, arguments: list[str]
) -> None:
    result = invoke("timers", *arguments, server.url)
    assert result.exit_code == 0, result.output
    assert not CONTROL.search(result.stdout)
    assert "title" in result.stdout and r"\x1b" in result.stdout.replace("u001b", "x1b")
    if "--json" not in arguments:
        assert "[bold red]loud[/]" in result.stdout
    else:
        assert HOSTILE[0] in {each["id"] for each in json.loads(result.stdout)}


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("name", ["ls", "dead"])
def test_neither_does_it_on_a_terminal(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consoles: list[Console] = []

    def terminal(**options: Any) -> Console:
        consoles.append(Console(force_terminal=True, width=120, record=True, **options))
        return consoles[-1]

    monkeypatch.setattr(show, "Console", terminal)
    result = invoke("timers", name, server.url)
    assert result.exit_code == 0, result.output
    # What rich itself sends there is colour, weight and the like, and it writes no links.
    text = re.sub(r"\x1b\[[\d;]*m", "", result.stdout)
    assert not CONTROL.search(text), CONTROL.findall(text)
    assert "red" not in str({each.style for each in consoles[0]._record_buffer})


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("verb", ["rm", "revive", "discard"])
def test_what_is_changed_is_named_harmlessly(server: Server, verb: str) -> None:
    ids = [each for each in HOSTILE if "\x00" not in each]
    result = invoke("timers", verb, server.url, "topic", *ids)
    assert len(result.output.splitlines()) == len(ids), result.output
    assert not CONTROL.search(result.output)


def test_what_a_question_repeats_is_harmless(server: Server, client: Redis) -> None:
    topic = HOSTILE[1]
    header = f"{len(topic.encode()):04d} {10**15} 1 {10**15} 1 1\n"
    client.hset(DEAD, f"{topic}--id", f"{header}xx")
    result = invoke("timers", "discard", server.url, topic, "--all", input="n\n")
    assert result.exit_code == 1 and "Discard 1 dead timers" in result.output
    assert not CONTROL.search(result.output)
    assert "\x1b" not in invoke("timers", "discard", server.url, topic + "x", "--all").output


def test_the_search_finds_what_it_is_for() -> None:
    assert all(CONTROL.search(each) or "[" in each for each in HOSTILE)
