"""Routers, their handlers, and the pauses between attempts: what needs no server."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

import redsync.sync
from redsync import Backoff, RedisTimersPayloadError, Retry, Router, aio
from redsync.routing import Policy


class Callables:
    """Handlers of every shape."""

    def method(self, data: object) -> None: ...

    def __call__(self, data: object, context: object) -> None: ...

    @staticmethod
    def static(data: object, context: object, run: object) -> None: ...


def registered(function: Callable[..., object], **options: Any) -> Any:
    router = Router()
    assert router.handler(topic="t", **options)(function) is function
    [handler] = router.handlers
    return handler


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda data: None, 1),
        (lambda data, context: None, 2),
        (lambda data, context, run: None, 3),
        (lambda data, context, verbose=True: None, 2),
        (lambda data, *, verbose=True: None, 1),
        (lambda data=None: None, 1),
        (lambda *arguments: None, 3),
        (Callables().method, 1),
        (Callables(), 2),
        (Callables.static, 3),
        (partial(lambda mine, data: None, "mine"), 1),
    ],
)
def test_a_handler_takes_one_to_three_arguments(
    function: Callable[..., object], count: int
) -> None:
    assert registered(function).parameters == count


def test_what_only_makes_a_generator_is_no_handler() -> None:
    def generate(data: object) -> Any:
        yield data

    async def generate_later(data: object) -> Any:
        yield data

    for function in (generate, generate_later):
        with pytest.raises(TypeError, match="must not yield"):
            registered(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda a, b, c, d: None,
        lambda data, *, needed: None,
        lambda **named: None,
        max,
        "not a function",
        None,
    ],
)
def test_what_cannot_be_called_so_is_no_handler(function: Any) -> None:
    with pytest.raises(TypeError, match="a handler"):
        registered(function)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"topic": 1}, TypeError, "topic"),
        ({"topic": "x" * 10_000}, ValueError, "topic must be at most"),
        ({"topic": "\ud800"}, ValueError, "topic"),
        ({"max_attempts": 0}, ValueError, "max_attempts"),
        ({"max_attempts": 10_000}, ValueError, "max_attempts"),
        ({"max_attempts": 1.5}, ValueError, "max_attempts"),
        ({"backoff": 3}, TypeError, "backoff"),
        ({"lease": 0}, ValueError, "lease"),
        ({"lease": float("nan")}, ValueError, "lease"),
        ({"lease": "30"}, TypeError, "lease"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": -1}, ValueError, "timeout"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Router().handler(**{"topic": "t", **options})


def test_what_a_handler_says_counts_for_more_than_what_is_said_for_all() -> None:
    own: dict[str, Any] = {"max_attempts": 2, "backoff": Backoff(7), "lease": 3, "timeout": 4}
    usual = Policy(max_attempts=5, backoff=Backoff(1), lease=30, timeout=60)
    assert usual.applied(registered(lambda data: None, **own)) == Policy(**own)
    assert usual.applied(registered(lambda data: None)) == usual


@pytest.mark.parametrize("payload", [float("nan"), {1, 2}, b"bytes", object(), "\ud800"])
def test_without_a_schema_a_payload_is_json(payload: object) -> None:
    handler = registered(lambda data: None)
    with pytest.raises(RedisTimersPayloadError, match="topic 't'"):
        handler.dump(payload)


def test_a_payload_that_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(RedisTimersPayloadError):
        registered(lambda data: None).dump(endless)
    with pytest.raises(RedisTimersPayloadError):
        registered(lambda data: None, schema=list[Any]).dump(endless)


def test_what_is_not_json_any_more_is_told() -> None:
    for options, message in (({}, "is no JSON"), ({"schema": int}, "does not fit int")):
        with pytest.raises(RedisTimersPayloadError, match=message):
            registered(lambda data: None, **options).load(b"{")


def test_a_payload_that_would_be_another_one_when_it_is_read_is_refused() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Renamed(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        amount: int = pydantic.Field(default=0, serialization_alias="Amount")

    doubled = Annotated[int, pydantic.AfterValidator(lambda value: value * 2)]
    for schema, payload in ((Renamed, Renamed(amount=7)), (doubled, 1)):
        with pytest.raises(RedisTimersPayloadError, match="something else"):
            registered(lambda data: None, schema=schema).dump(payload)
    kept: dict[Any, object] = {set[str]: {"b", "a"}, float: 0.1, datetime: datetime.now()}
    for kind, value in kept.items():
        handler = registered(lambda data: None, schema=kind)
        assert handler.load(handler.dump(value)) == value


def test_without_pydantic_a_schema_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydantic", None)
    with pytest.raises(ImportError, match=r"redsync\[timers\]"):
        Router().handler(topic="t", schema=int)
    assert registered(lambda data: None).load(b"[1]") == [1]


def test_a_coroutine_function_is_no_handler_for_threads() -> None:
    router = Router()

    @router.handler(topic="t")
    async def handle(data: object) -> None: ...

    aio.Timers(redis_client=aio_client(), routers=[router])
    timers = redsync.sync.Timers(redis_client=sync_client())
    with pytest.raises(TypeError, match="coroutine"):
        timers.include_router(router)
    assert timers.handlers_by_topics == {}


def aio_client() -> Any:
    import redis.asyncio

    return redis.asyncio.Redis()


def sync_client() -> Any:
    import redis

    return redis.Redis()


# Pauses


def test_each_pause_is_longer_until_the_longest() -> None:
    backoff = Backoff(base=1, factor=3, maximum=20, jitter=0)
    assert [backoff.pause(n) for n in range(1, 6)] == [1, 3, 9, 20, 20]
    assert backoff.pause(9999) == 20
    assert Backoff(base=0.1, factor=2, maximum=20, jitter=0).pause(9999) == 20


def test_chance_moves_a_pause_by_its_share_only() -> None:
    pauses = [Backoff(base=10, jitter=0.1).pause(1) for _ in range(500)]
    assert 9 <= min(pauses) < 9.5 and 10.5 < max(pauses) <= 11


def test_no_pause_stays_none() -> None:
    assert Backoff(base=0).pause(9999) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"base": -1}, ValueError),
        ({"base": float("nan")}, ValueError),
        ({"factor": 0.5}, ValueError),
        ({"maximum": float("inf")}, ValueError),
        ({"jitter": 1.1}, ValueError),
        ({"jitter": "0.1"}, TypeError),
        ({"base": True}, TypeError),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="of a Backoff"):
        Backoff(**options)


def test_a_wish_to_retry_has_a_delay_that_makes_sense() -> None:
    assert Retry().delay is None
    assert Retry(1.5).delay == Retry(timedelta(seconds=1.5)).delay == 1.5
    with pytest.raises(TypeError, match="delay"):
        Retry("3")  # type: ignore[arg-type]
    for delay in (-1, float("nan"), 1e10, timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="delay"):
            Retry(delay)


def test_a_topic_fits_into_a_record() -> None:
    for topic in ("x" * 9999, "ä" * 4999):
        Router().handler(topic=topic)
    for topic in ("x" * 10_000, "ä" * 5000):
        with pytest.raises(ValueError, match="9999 bytes"):
            Router().handler(topic=topic)


def test_a_model_is_taken_whose_json_would_do() -> None:
    class Wanted(BaseModel):
        number: int

    class Other(BaseModel):
        number: int

    router = Router()
    router.handler(topic="t", schema=Wanted)(lambda data: None)
    assert router.handlers[0].dump(Other(number=7)) == b'{"number":7}'
