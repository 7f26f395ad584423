"""Which handler a topic has, and what holds for its runs. The same for tasks and threads."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ._arguments import MIN_PERMIT_TTL, checked_text, checked_ttl, checked_whole
from ._backoff import Backoff
from .exceptions import RedisTimersPayloadError

__all__ = ["Handler", "Router"]

_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""json.dumps would make an encoder for each payload."""

MAX_ATTEMPTS: Final = 9999

MAX_TOPIC: Final = 9999
"""Bytes."""

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Handler:
    """A function that is called with the payload of each timer of its topic."""

    topic: str
    schema: object
    """What the payload has to be; None: any JSON."""
    handler: Callable[..., object]
    parameters: int
    """How many of (data, context, run) it takes."""
    max_attempts: int | None = None
    backoff: Backoff | None = None
    lease: float | None = None
    timeout: float | None = None
    _adapter: Any = None

    def dump(self, payload: object) -> bytes:
        """The payload as JSON.

        Raises:
            RedisTimersPayloadError: It is not what the schema asks for.
        """
        try:
            if self._adapter is None:
                return _encode(payload).encode()
            validated = self._validated(payload)
            dumped = self._dumped(validated)
            # Better now than when it is due.
            loaded = self._adapter.validate_json(dumped)
            if loaded != validated and self._dumped(loaded) != dumped:
                raise ValueError("what is read from its JSON is something else")
        except (ValueError, TypeError, RecursionError) as error:
            what = "is no JSON" if self._adapter is None else f"does not fit {_name(self.schema)}"
            raise RedisTimersPayloadError(
                f"the payload of topic {self.topic!r} {what}: {error}"
            ) from error
        return dumped

    def load(self, payload: bytes) -> object:
        """The payload that was made JSON of, perhaps by another version of the program.

        Raises:
            RedisTimersPayloadError: It is not what the schema asks for.
        """
        try:
            if self._adapter is None:
                return json.loads(payload)
            return self._adapter.validate_json(payload)
        except (ValueError, RecursionError) as error:
            what = "is no JSON" if self._adapter is None else f"does not fit {_name(self.schema)}"
            raise RedisTimersPayloadError(f"the payload {what}: {error}") from error

    def _dumped(self, payload: object) -> bytes:
        dumped: bytes = self._adapter.dump_json(payload, by_alias=True, warnings=False)
        return dumped

    def _validated(self, payload: object) -> object:
        try:
            return self._adapter.validate_python(payload)
        except ValueError:
            # redis-timers took any model whose JSON would do.
            dump = getattr(payload, "model_dump_json", None)
            if dump is None:
                raise
            return self._adapter.validate_json(dump())


class Router:
    """Handlers by topic, to be included in `Timers`.

        router = Router()

        @router.handler(topic="reminders", schema=Reminder)
        def remind(data, context):
            context["mailer"].send(data.address)

    Make one in each module that has handlers.
    """

    def __init__(self) -> None:
        self.handlers: list[Handler] = []

    def handler(
        self,
        *,
        topic: str,
        schema: object = None,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        lease: float | None = None,
        timeout: float | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function for a topic.

        It is called with the payload, the context of `Timers`, and a `TimerRun`: with as many of
        these as it has parameters. For asyncio it may be a coroutine function or a plain one, which
        runs in a thread; for threads, a plain one.

        Args:
            topic: Its timers.
            schema: Whatever pydantic validates: a model, a dataclass, a TypedDict, `list[int]`, and
                needs the extra `redsync[timers]`. None: any JSON, as json.loads has it.
            max_attempts: How often it is tried before a timer counts as dead, 1 to 9999.
            backoff: How long to wait after each failure.
            lease: Seconds after which another worker takes over from one that died or was stopped,
                0.1 at least. It is renewed while the handler runs, so it may be far shorter than
                that takes.
            timeout: Seconds for one run, which counts as failed then. A coroutine is cancelled. A
                thread cannot be: its lease is given up, so another run may begin beside it.

        What is None here is what `Timers` says.

        Raises:
            TypeError, ValueError: An argument makes no sense.
            ImportError: There is a schema, and no pydantic.
        """
        checked_topic(topic)
        _check_options(max_attempts, backoff, lease, timeout)
        adapter = None if schema is None else _adapter(schema)

        def register(function: F) -> F:
            self.handlers.append(
                Handler(
                    topic=topic,
                    schema=schema,
                    handler=function,
                    parameters=_count_parameters(function),
                    max_attempts=max_attempts,
                    backoff=backoff,
                    lease=lease,
                    timeout=timeout,
                    _adapter=adapter,
                )
            )
            return function

        return register


@dataclass(frozen=True)
class Policy:
    """What holds for all topics that do not say otherwise."""

    max_attempts: int
    backoff: Backoff
    lease: float
    timeout: float | None

    def __post_init__(self) -> None:
        for name in ("max_attempts", "backoff", "lease"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} of Timers must not be None")
        _check_options(self.max_attempts, self.backoff, self.lease, self.timeout)

    def applied(self, handler: Handler) -> Policy:
        """What holds for a handler."""
        return Policy(
            max_attempts=handler.max_attempts or self.max_attempts,
            backoff=handler.backoff or self.backoff,
            lease=handler.lease or self.lease,
            timeout=handler.timeout or self.timeout,
        )


def checked_topic(topic: str) -> str:
    """A topic."""
    if len(checked_text("topic", topic).encode()) > MAX_TOPIC:
        raise ValueError(f"topic must be at most {MAX_TOPIC} bytes of UTF-8, not {topic[:50]!r}…")
    return topic


def _check_options(
    max_attempts: int | None, backoff: Backoff | None, lease: float | None, timeout: float | None
) -> None:
    if max_attempts is not None:
        checked_whole("max_attempts", max_attempts, 1, MAX_ATTEMPTS)
    if backoff is not None and not isinstance(backoff, Backoff):
        raise TypeError(f"backoff must be a redsync.Backoff, not {backoff!r}")
    if lease is not None:
        checked_ttl("lease", lease, MIN_PERMIT_TTL)
    if timeout is not None:
        checked_ttl("timeout", timeout, 0.001)


def _adapter(schema: Any) -> Any:
    try:
        from pydantic import TypeAdapter
    except ImportError as error:
        raise ImportError(
            "a handler with a schema needs pydantic: pip install 'redsync[timers]', or leave out"
            " the schema"
        ) from error
    return TypeAdapter(schema)


def _count_parameters(function: Callable[..., Any]) -> int:
    """How many of (data, context, run) a handler takes."""
    if not callable(function):
        raise TypeError(f"a handler must be a function, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"a handler must not yield, as nobody would iterate: {function!r}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise TypeError(f"a handler must tell its parameters, unlike {function!r}") from error
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    # A third one that has a default is somebody's own.
    count = max(min(len(places), 2), sum(p.default is p.empty for p in places))
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        count = max(count, 3)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        count = 0
    if not 1 <= count <= 3:
        raise TypeError(
            f"a handler takes (data), (data, context) or (data, context, run), unlike {function!r}"
        )
    return count


def _name(schema: object) -> str:
    return getattr(schema, "__name__", None) or repr(schema)


for _each in (Handler, Router):
    _each.__module__ = "redsync"
del _each
