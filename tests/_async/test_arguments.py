"""Arguments that make no sense are refused before anything is sent, by argument and value."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

import pytest

from redsync.aio import (
    RedisSemaphore,
    RedisSemaphoreCountError,
    RedisSemaphoreNotAcquiredError,
    SemaphoreInitStrategy,
)

from ..support.aio import Redis, connect, disconnect
from ..support.proxy import FaultProxy

REFUSALS = (TypeError, ValueError)

BAD_TIMEOUTS = [
    math.nan,
    -math.inf,
    -1,
    -0.001,
    True,
    False,
    "1",
    b"1",
    [1],
    1j,
    pytest.param(10**400, id="10**400"),
]

BAD_TTLS = [0, 0.0, -1, math.nan, math.inf, -math.inf, True, None, "30", [30], 1e300]

BAD_COUNTS = [0, -1, 4097, True, False, 1.5, 2.0, math.nan, "3", [3]]

LONE_SURROGATE = "a\ud800"  # what a file name that is not UTF-8 becomes in Python

ENTRANCES = ["construct", "create", "attach"]


@pytest.fixture
async def unused(proxy: FaultProxy) -> AsyncIterator[Redis]:
    """A client with which nobody may connect."""
    client = connect(proxy)
    yield client
    await disconnect(client)
    assert proxy.accepted == 0, "something was sent"


@pytest.fixture
def semaphore(unused: Redis) -> RedisSemaphore:
    """A semaphore that was never used."""
    return RedisSemaphore(unused, "name", count=2)


async def enter(entrance: str, *arguments: Any, **options: Any) -> RedisSemaphore:
    """Call one of the three ways to a semaphore."""
    if entrance == "construct":
        return RedisSemaphore(*arguments, **options)
    if entrance == "create":
        return await RedisSemaphore.create(*arguments, **options)
    # If it were not refused, nobody would make it.
    return await RedisSemaphore.attach(*arguments, timeout=0, **options)


def names(caught: pytest.ExceptionInfo[Exception], argument: str, value: object) -> bool:
    """Tell whether the error says which argument was refused, and what it was."""
    text = str(caught.value)
    # Nobody wants to read a number of 400 digits.
    return argument in text and (repr(value) in text or repr(value)[:3] in text)


async def test_what_makes_sense_is_sent(client: Redis, proxy: FaultProxy) -> None:
    # The control: the fixture `unused` would notice.
    proxied = connect(proxy)
    semaphore = await RedisSemaphore.create(proxied, "name", count=2)
    await semaphore.close()
    await disconnect(proxied)
    assert proxy.accepted > 0


async def test_constructing_sends_nothing(semaphore: RedisSemaphore) -> None:
    assert semaphore.name == "name"


# Timeouts


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
async def test_acquire_refuses_a_timeout(semaphore: RedisSemaphore, timeout: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        await semaphore.acquire(timeout)
    assert names(caught, "timeout", timeout)


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
async def test_permit_refuses_a_timeout(semaphore: RedisSemaphore, timeout: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        async with semaphore.permit(timeout):
            pass
    assert names(caught, "timeout", timeout)


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
async def test_attach_refuses_a_timeout(unused: Redis, timeout: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        await RedisSemaphore.attach(unused, "name", timeout=timeout)
    assert names(caught, "timeout", timeout)


async def test_a_negative_timeout_is_a_value_error(semaphore: RedisSemaphore) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await semaphore.acquire(-1)


# Leases


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("argument", ["permit_ttl", "lease_ttl"])
@pytest.mark.parametrize("ttl", BAD_TTLS)
async def test_a_lease_is_refused(unused: Redis, entrance: str, argument: str, ttl: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        await enter(entrance, unused, "name", **{argument: ttl})
    assert names(caught, argument, ttl)


# Counts


@pytest.mark.parametrize("count", [*BAD_COUNTS, None])
async def test_create_refuses_a_count(unused: Redis, count: Any) -> None:
    with pytest.raises(RedisSemaphoreCountError) as caught:
        await RedisSemaphore.create(unused, "name", count=count)
    assert names(caught, "count", count)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("count", BAD_COUNTS)
async def test_the_constructor_refuses_a_count(unused: Redis, count: Any) -> None:
    with pytest.raises(RedisSemaphoreCountError) as caught:
        RedisSemaphore(unused, "name", count=count)
    assert names(caught, "count", count)


@pytest.mark.parametrize("count", [*BAD_COUNTS, None])
async def test_resize_refuses_a_count(semaphore: RedisSemaphore, count: Any) -> None:
    with pytest.raises(RedisSemaphoreCountError) as caught:
        await semaphore.resize(count)
    assert names(caught, "count", count)


@pytest.mark.parametrize("count", [1, 4096])
async def test_the_limits_of_the_count_belong_to_it(unused: Redis, count: int) -> None:
    assert RedisSemaphore(unused, "name", count=count).name == "name"


# Names


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", ["", None, 5, b"name", ["name"], LONE_SURROGATE], ids=ascii)
async def test_a_name_is_refused(unused: Redis, entrance: str, name: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        await enter(entrance, unused, name)
    assert names(caught, "name", name)


@pytest.mark.parametrize("identifier", ["", 5, b"me", LONE_SURROGATE], ids=ascii)
async def test_an_identifier_is_refused(unused: Redis, identifier: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        RedisSemaphore(unused, "name", identifier=identifier)
    assert names(caught, "identifier", identifier)


@pytest.mark.parametrize("prefix", [None, 5, b"prefix", LONE_SURROGATE], ids=ascii)
async def test_a_key_prefix_is_refused(unused: Redis, prefix: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        RedisSemaphore(unused, "name", key_prefix=prefix)
    assert names(caught, "key_prefix", prefix)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("redsync:semaphore", "}x"), ("redsync:semaphore", "}"), ("p{}", "x"), ("{}", "x{y}")],
)
@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_a_key_without_a_hash_tag_is_refused(
    unused: Redis, entrance: str, prefix: str, name: str
) -> None:
    with pytest.raises(ValueError, match="hash tag") as caught:
        await enter(entrance, unused, name, key_prefix=prefix)
    assert names(caught, "name", name)
    assert names(caught, "key_prefix", prefix)


# Clients and strategies

# One of the two kinds is right in this world, and wrong in that of the twin.
KINDS = [import_module(module).Redis for module in ("redis", "redis.asyncio")]
WRONG_KINDS = [kind for kind in KINDS if kind is not Redis]


def test_there_is_one_wrong_kind_of_client() -> None:
    assert len(WRONG_KINDS) == 1


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("kind", WRONG_KINDS)
async def test_a_client_of_the_other_world_is_refused(
    unused: Redis, proxy: FaultProxy, entrance: str, kind: Any
) -> None:
    # Some versions of redis-py show passwords in the repr of a client.
    stranger = kind.from_url(proxy.url, username="u-secret", password="p-secret")
    with pytest.raises(TypeError) as caught:
        await enter(entrance, stranger, "name")
    text = str(caught.value)
    assert "redis_client" in text and f"not a {kind.__module__}.Redis" in text
    assert "secret" not in text


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("what", [None, 5, Redis])
async def test_what_is_not_a_client_is_refused(unused: Redis, entrance: str, what: Any) -> None:
    with pytest.raises(TypeError) as caught:
        await enter(entrance, what, "name")
    assert names(caught, "redis_client", what)


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_a_url_is_no_client_and_its_password_is_not_told(
    unused: Redis, entrance: str
) -> None:
    url: Any = "redis://:secret@localhost"
    with pytest.raises(TypeError, match=r"redis_client.*from_url") as caught:
        await enter(entrance, url, "name")
    assert "secret" not in str(caught.value)


async def test_a_pipeline_is_not_a_client(unused: Redis) -> None:
    with pytest.raises(TypeError, match="redis_client"):
        RedisSemaphore(unused.pipeline(), "name")


async def test_what_is_not_a_permit_is_not_released(unused: Redis) -> None:
    wrong: Any = 1
    with pytest.raises(TypeError, match=r"permit.*1"):
        await RedisSemaphore(unused, "name", count=1).release(wrong)


async def test_a_body_that_was_not_entered_is_not_left(unused: Redis) -> None:
    with pytest.raises(RedisSemaphoreNotAcquiredError, match="with statement"):
        await RedisSemaphore(unused, "name", count=1).permit().__aexit__(None, None, None)


async def test_a_pool_is_not_a_client(unused: Redis) -> None:
    with pytest.raises(TypeError, match="redis_client"):
        RedisSemaphore(unused.connection_pool, "name")  # type: ignore[arg-type]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("strategy", ["nope", "", None, 5, "Lua"])
async def test_an_unknown_strategy_is_refused(unused: Redis, entrance: str, strategy: Any) -> None:
    with pytest.raises(REFUSALS) as caught:
        await enter(entrance, unused, "name", semaphore_init_strategy=strategy)
    assert names(caught, "semaphore_init_strategy", strategy)


@pytest.mark.parametrize("strategy", ["lua", "optimistic_locking", *SemaphoreInitStrategy])
async def test_a_strategy_may_be_given_by_its_value(unused: Redis, strategy: Any) -> None:
    semaphore = RedisSemaphore(unused, "name", semaphore_init_strategy=strategy)
    assert semaphore.name == "name"
