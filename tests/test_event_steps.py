"""What each step of the event decides, at the very millisecond at which it matters.

The scripts run on a real server, at instants that the test chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis

from redsync._protocol import scripts
from redsync._protocol.event import GRACE
from redsync._protocol.keys import EventKeys
from redsync.cli.server import Server

MILLISECOND = 1000
SECOND = 1_000_000
HOUR = 3600 * SECOND


@dataclass
class Stage:
    """An event, and the clock of its server."""

    redis: Any  # redis-py's types know bytes and str alike, and awaitables
    keys: EventKeys = field(default_factory=lambda: EventKeys.of("event", "x"))
    micros: int = 1_800_000_000_000_000

    def script(self, name: str, *arguments: object) -> Any:
        text = scripts._SCRIPTS[f"event/{name}"].decode()
        assert text.count("call('TIME')") == 1
        time = f"{{'{self.micros // SECOND}', '{self.micros % SECOND}'}}"
        keys = (self.keys.signals, self.keys.open, self.keys.sets)
        return self.redis.eval(text.replace("call('TIME')", time), 3, *keys, *map(str, arguments))

    def set(self, request: str) -> int:
        done: int = self.script("set", request)
        return done

    def take(self, owner: str, again: int = 0) -> int:
        taken: int = self.script("take", owner, GRACE, again)
        return taken

    def tend(self, *returns: str) -> int:
        wait: int = self.script("tend", GRACE, *returns)
        return wait

    def confirm(self, signal: str) -> int:
        confirmed: int = self.script("confirm", signal)
        return confirmed

    def pop(self) -> str:
        """As a connection that waits does."""
        popped: bytes = self.redis.lpop(self.keys.signals)
        return popped.decode()

    def listed(self) -> list[str]:
        return [each.decode() for each in self.redis.lrange(self.keys.signals, 0, -1)]

    def open(self) -> dict[str, int]:
        """What is known of signals; leases in milliseconds from now."""
        now = self.micros // MILLISECOND
        found = self.redis.zrange(self.keys.open, 0, -1, withscores=True)
        return {
            each.decode(): int(score) - now if score > 0 else int(score) for each, score in found
        }


@pytest.fixture
def stage(server: Server) -> Iterator[Stage]:
    with Redis.from_url(server.url) as redis:
        yield Stage(redis)


def test_ids_rise_within_a_microsecond_and_though_the_clock_is_set_back(stage: Stage) -> None:
    start = stage.micros
    stage.set("a")
    stage.set("b")
    stage.micros -= HOUR
    stage.set("c")
    assert stage.listed() == [str(start), str(start + 1), str(start + 2)]
    assert stage.open() == {str(start): 0, str(start + 1): 0, str(start + 2): 0}


def test_a_request_is_remembered_for_a_minute_and_no_longer(stage: Stage) -> None:
    assert stage.set("a") == 1
    stage.micros += 60 * SECOND
    assert stage.set("b") == 1
    assert stage.set("a") == 0
    stage.micros += 1
    assert stage.set("c") == 1
    assert stage.redis.zrange(stage.keys.sets, 0, -1) == [b"b", b"c"]
    assert 110 < stage.redis.ttl(stage.keys.sets) <= 120


def test_what_is_known_of_signals_that_wait_stays_for_ever(stage: Stage) -> None:
    stage.set("a")
    assert stage.redis.ttl(stage.keys.open) == -1
    assert stage.confirm(stage.pop()) == 1
    assert 50 < stage.redis.ttl(stage.keys.open) <= 60  # it only remembers
    stage.set("b")
    assert stage.redis.ttl(stage.keys.open) == -1
    stage.set("c")
    assert stage.confirm(stage.pop()) == 1
    assert stage.redis.ttl(stage.keys.open) == -1
    stage.tend()
    assert stage.redis.ttl(stage.keys.open) == -1


@pytest.mark.parametrize("who", ["confirm", "tend"])
def test_a_confirmation_is_remembered_for_a_minute_and_no_longer(stage: Stage, who: str) -> None:
    for request in ("a", "b", "c"):
        stage.set(request)
    first = stage.pop()
    assert stage.confirm(first) == 1
    stage.micros += 60 * SECOND
    assert stage.confirm(stage.pop()) == 1
    assert stage.confirm(first) == 1
    stage.micros += MILLISECOND
    if who == "confirm":
        assert stage.confirm(stage.pop()) == 1
    else:
        stage.tend()
    assert f"confirmed {first}" not in stage.open()
    assert stage.confirm(first) == 0


def test_what_was_cleared_does_not_come_back(stage: Stage) -> None:
    stage.set("a")
    stage.set("b")
    stage.pop()
    assert stage.script("clear", "c") == 1
    assert stage.tend() == -1
    stage.micros += HOUR
    assert stage.tend() == -1
    assert stage.listed() == [] and stage.open() == {}


def test_a_clear_that_is_sent_again_leaves_what_was_set_in_between(stage: Stage) -> None:
    stage.set("a")
    assert stage.script("clear", "c") == 1
    stage.set("b")
    assert stage.script("clear", "c") == 0
    assert len(stage.listed()) == 1


def test_whoever_confirms_too_late_is_told_so(stage: Stage) -> None:
    stage.set("a")
    signal = stage.pop()
    assert stage.tend() == GRACE
    stage.micros += (GRACE - 1) * MILLISECOND
    assert stage.tend() == 1
    assert stage.listed() == []
    stage.micros += MILLISECOND
    assert stage.tend() == -1
    [fresh] = stage.listed()
    assert fresh != signal
    assert stage.confirm(signal) == 0
    assert stage.confirm(stage.pop()) == 1
    stage.micros += HOUR
    assert stage.tend() == -1
    assert stage.listed() == []


def test_whoever_takes_a_signal_has_the_time_to_confirm_it(stage: Stage) -> None:
    stage.set("a")
    stage.set("b")
    assert stage.take("me") == 1
    assert stage.take("me", again=1) == 1
    assert stage.open() == {stage.listed()[0]: 0, "me": GRACE}
    stage.micros += (GRACE - 1) * MILLISECOND
    assert stage.tend() == 1
    assert len(stage.listed()) == 1
    stage.micros += MILLISECOND
    assert stage.tend() == -1
    assert len(stage.listed()) == 2
    assert stage.confirm("me") == 0
    assert list(stage.open().values()) == [0, 0]


def test_a_signal_that_is_given_back_twice_is_there_once(stage: Stage) -> None:
    stage.set("a")
    signal = stage.pop()
    stage.tend(signal)
    assert len(stage.listed()) == 1
    stage.tend(signal)
    assert len(stage.listed()) == 1


def test_a_signal_that_is_in_the_list_all_the_same_is_given_back_once(stage: Stage) -> None:
    stage.set("a")
    signal = stage.pop()
    stage.redis.rpush(stage.keys.signals, signal)  # a failover has lost the pop
    stage.tend(signal)
    assert len(stage.listed()) == 1 and stage.listed() != [signal]


def test_a_signal_that_was_confirmed_may_be_given_back(stage: Stage) -> None:
    stage.set("a")
    signal = stage.pop()
    assert stage.confirm(signal) == 1
    stage.tend(signal)
    assert len(stage.listed()) == 1
    assert stage.confirm(signal) == 0


def test_a_signal_does_not_stay_away_longer_because_the_clock_was_set_back(stage: Stage) -> None:
    stage.set("a")
    assert stage.take("me") == 1
    stage.micros -= HOUR
    assert stage.tend() == GRACE
    assert stage.open() == {"me": GRACE}


def test_signals_are_missed_though_what_was_known_of_them_was_lost(stage: Stage) -> None:
    for request in ("a", "b"):
        stage.set(request)
    stage.redis.delete(stage.keys.open)
    stage.tend()
    assert list(stage.open().values()) == [0, 0]
    signal = stage.pop()
    assert stage.tend() == GRACE
    assert stage.open()[signal] == GRACE


def test_only_what_is_not_in_the_list_is_missed(stage: Stage) -> None:
    for request in ("a", "b", "c"):
        stage.set(request)
    signal = stage.pop()
    second, third = stage.listed()
    stage.tend()
    assert stage.open() == {second: 0, third: 0, signal: GRACE}


def test_the_head_of_the_list_is_not_missed_though_its_id_is_the_lowest(stage: Stage) -> None:
    stage.set("a")
    stage.redis.delete(stage.keys.sets)
    stage.micros -= HOUR
    stage.set("b")
    stage.pop()
    [lower] = stage.listed()
    stage.tend()
    assert stage.open()[lower] == 0
