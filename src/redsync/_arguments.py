"""What callers hand in, checked before anything is sent. Errors name argument and value."""

from __future__ import annotations

import math
from typing import Final

from ._types import SemaphoreInitStrategy
from .exceptions import RedisSemaphoreCountError

MAX_COUNT: Final = 4096

MAX_TTL: Final = 1e9
"""Seconds. Redis counts milliseconds in 64 bits, Lua in 53."""

MIN_PERMIT_TTL: Final = 0.1
"""Seconds. A shorter lease would leave no time for a renewal over a real network."""


def checked_timeout(timeout: float | None) -> float | None:
    """How long to wait, in seconds: `None` for ever, 0 for one try."""
    if timeout is None:
        return None
    value = _number("timeout", timeout)
    if math.isnan(value) or value < 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return None if math.isinf(value) else value


def checked_ttl(argument: str, ttl: float, minimum: float) -> float:
    """A lease, in seconds."""
    value = _number(argument, ttl)
    if not minimum <= value <= MAX_TTL:  # refuses NaN too
        raise ValueError(f"{argument} must be {minimum} to {MAX_TTL:g} seconds, not {ttl!r}")
    return value


def checked_count(count: int) -> int:
    """The number of permits."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise RedisSemaphoreCountError(
            f"count must be a whole number from 1 to {MAX_COUNT}, not {count!r}", count
        )
    return count


def checked_text(argument: str, text: str, *, empty: bool = False) -> str:
    """A name that goes into a key, or an identifier."""
    if not isinstance(text, str):
        raise TypeError(f"{argument} must be a str, not {text!r}")
    if not text and not empty:
        raise ValueError(f"{argument} must not be empty, not {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument} must be text that UTF-8 can hold, not {text!r}") from error
    return text


def checked_whole(argument: str, value: int, minimum: int, maximum: int) -> int:
    """A number of something."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise ValueError(
            f"{argument} must be a whole number from {minimum} to {maximum}, not {value!r}"
        )
    return value


def refused_client(client: object, module: str, other: str) -> TypeError:
    """The error for what is no client of this world."""
    # Text may be a URL, with a password in it; and redis-py 6 and 7 show that of a client.
    if isinstance(client, (str, bytes)):
        given = "text (see from_url)"
    elif client is None or isinstance(client, (type, int, float)):
        given = repr(client)
    else:
        given = f"a {type(client).__module__}.{type(client).__qualname__}"
    return TypeError(
        f"redis_client must be a Redis or RedisCluster of {module}, not {given};"
        f" {other} is for those of the other kind"
    )


def checked_strategy(strategy: SemaphoreInitStrategy) -> SemaphoreInitStrategy:
    """How a semaphore is changed in Redis; its value will do."""
    try:
        return SemaphoreInitStrategy(strategy)
    except ValueError:
        known = " or ".join(repr(each.value) for each in SemaphoreInitStrategy)
        raise ValueError(f"semaphore_init_strategy must be {known}, not {strategy!r}") from None


def _number(argument: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{argument} must be a number of seconds, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{argument} must be a number of seconds, not {value!r}") from None
