"""What timers are constructed and called with: the environment, and what makes no sense."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from redsync.aio import Router, Timer, Timers

from ..support.aio import Redis, RedisCluster
from .timing import NOW, MakeTimers, Record, after

SETTINGS = (
    "TIMELINE_KEY",
    "PAYLOADS_KEY",
    "SEPARATOR",
    "CONCURRENT_PROCESSING_LIMIT",
    "HANDLING_SLEEP",
    "HANDLING_JITTER_MIN_VALUE",
    "HANDLING_JITTER_MAX_VALUE",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in SETTINGS:
        monkeypatch.delenv(f"TIMERS_{each}", raising=False)


async def test_keys_are_those_of_redis_timers(client: Redis) -> None:
    timers = Timers(redis_client=client, routers=[Record().router])
    await timers.set_timer("notes", "1", "x", after(60))
    assert await client.zrange("timers_timeline", 0, -1) == [b"notes--1"]
    assert await client.hgetall("timers_payloads") == {b"notes--1": b'"x"'}
    await timers.remove_timer("notes", "1")
    await timers.close()


async def test_the_environment_names_keys_and_separator(
    client: Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TIMERS_TIMELINE_KEY", f"{name}-when")
    monkeypatch.setenv("TIMERS_PAYLOADS_KEY", f"{name}-what")
    monkeypatch.setenv("TIMERS_SEPARATOR", "::")
    timers = Timers(redis_client=client, routers=[Record().router])
    await timers.set_timer("notes", "1", "x", after(60))
    assert await client.zrange(f"{name}-when", 0, -1) == [b"notes::1"]
    assert await client.hgetall(f"{name}-what") == {b"notes::1": b'"x"'}
    await timers.close()


async def test_an_argument_goes_before_the_environment(
    client: Redis, monkeypatch: pytest.MonkeyPatch, make_timers: MakeTimers, name: str
) -> None:
    for each in ("TIMELINE_KEY", "PAYLOADS_KEY", "SEPARATOR"):
        monkeypatch.setenv(f"TIMERS_{each}", "of-the-environment")
    timers = make_timers(Record().router, separator="/")
    await timers.set_timer("notes", "1", "x", after(60))
    assert await client.zrange(name, 0, -1) == [b"notes/1"]


async def test_the_environment_limits_how_many_run_at_once(
    make_timers: MakeTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMERS_CONCURRENT_PROCESSING_LIMIT", "3")
    assert make_timers()._concurrency == 3
    assert make_timers(concurrency=5)._concurrency == 5
    for wrong in ("0", "many", "-1", "1.5"):
        monkeypatch.setenv("TIMERS_CONCURRENT_PROCESSING_LIMIT", wrong)
        with pytest.raises(ValueError, match="TIMERS_CONCURRENT_PROCESSING_LIMIT"):
            make_timers()


@pytest.mark.parametrize("setting", SETTINGS[4:])
async def test_a_setting_without_a_meaning_is_warned_of(
    client: Redis, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv(f"TIMERS_{setting}", "1")
    with pytest.warns(RuntimeWarning, match=f"TIMERS_{setting} has no effect") as caught:
        Timers(redis_client=client)
    assert [each.filename for each in caught] == [__file__]  # where it is constructed


async def test_a_timeline_of_its_own_has_payloads_of_its_own(client: Redis) -> None:
    shop = Timers(redis_client=client, timeline_key="shop", routers=[Record().router])
    bank = Timers(redis_client=client, timeline_key="{bank}", routers=[Record().router])
    same = Timers(redis_client=client, timeline_key="bank", routers=[Record().router])
    for each in (shop, bank, same):
        await each.set_timer("notes", "1", each._name, after(60))
    for each in (shop, bank, same):
        assert await each.fetch_all_timers() == (["notes--1"], {"notes--1": f'"{each._name}"'})
        assert await each.remove_timer("notes", "1")
        await each.close()


async def test_usual_settings_are_not_warned_of(client: Redis) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Timers(redis_client=client)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"redis_client": None}, TypeError, "redis"),
        ({"concurrency": 0}, ValueError, "concurrency"),
        ({"concurrency": True}, ValueError, "concurrency"),
        ({"max_attempts": 0}, ValueError, "max_attempts"),
        ({"backoff": None}, TypeError, "backoff"),
        ({"lease": 0.001}, ValueError, "lease"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeline_key": ""}, ValueError, "timeline_key"),
        ({"payloads_key": 1}, TypeError, "payloads_key"),
        ({"separator": ""}, ValueError, "separator"),
        ({"timeline_key": "same", "payloads_key": "same"}, ValueError, "same"),
        ({"routers": [print]}, TypeError, "router"),
        ({"routers": Router()}, TypeError, "router"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    client: Redis, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Timers(**{"redis_client": client, **options})


async def test_on_a_cluster_the_keys_have_to_be_together() -> None:
    # It is not connected to.
    cluster = RedisCluster.__new__(RedisCluster)
    with pytest.raises(ValueError, match="slot"):
        Timers(redis_client=cluster, timeline_key="a", payloads_key="b")
    keys = Timers(redis_client=cluster)._scripts.keys
    assert (keys.timeline, keys.payloads) == (b"timers_timeline", b"{timers_timeline}:payloads")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "either"),
        ({"activation_period": NOW, "activate_at": datetime.now(timezone.utc)}, ValueError, "eith"),
        ({"activation_period": 5}, TypeError, "timedelta"),
        ({"activation_period": timedelta.max}, ValueError, "at most"),
        ({"activate_at": datetime(2030, 1, 1)}, ValueError, "aware"),
        ({"activate_at": datetime.max.replace(tzinfo=timezone.utc)}, ValueError, "before"),
        ({"activate_at": 1.0}, TypeError, "datetime"),
        ({"every": 1}, TypeError, "every"),
        ({"every": timedelta(0)}, ValueError, "every"),
        ({"every": timedelta(hours=1), "missed": "never"}, ValueError, "missed"),
        ({"timer_id": 1, "activation_period": NOW}, TypeError, "timer_id"),
        ({"timer_id": "x" * 200_000, "activation_period": NOW}, ValueError, "timer_id"),
        ({"timer_id": "\ud800", "activation_period": NOW}, ValueError, "timer_id"),
        ({"topic": 1, "activation_period": NOW}, RuntimeError, "Handler is not found"),
    ],
)
async def test_a_timer_that_makes_no_sense_is_refused(
    make_timers: MakeTimers, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    timers = make_timers(Record().router)
    with pytest.raises(TypeError, match=r"redsync\.Timer"):
        await timers.set_timers([("notes", "1")])  # type: ignore[list-item]
    given = {"topic": "notes", "timer_id": "1", "payload": None, **options}
    with pytest.raises(error, match=message):
        await timers.set_timer(**given)
    with pytest.raises(error, match=message):
        await timers.set_timers([Timer("notes", "2", None, NOW), Timer(**given)])
    assert await timers.fetch_all_timers() == ([], {})


async def test_an_instant_that_is_not_aware_cannot_be_asked_for(make_timers: MakeTimers) -> None:
    timers = make_timers()
    with pytest.raises(ValueError, match="aware"):
        await timers.fetch_ready_timers(datetime(2030, 1, 1))
