"""Every exception of redsync, for tasks and threads alike; those of redis-py pass through."""

from __future__ import annotations

__all__ = [
    "RedisEventError",
    "RedisEventTimeoutError",
    "RedisSemaphoreCountError",
    "RedisSemaphoreCountMismatchError",
    "RedisSemaphoreError",
    "RedisSemaphoreNotAcquiredError",
    "RedisSemaphorePermitLostError",
    "RedisSemaphoreTimeoutError",
    "RedisTimersConflictError",
    "RedisTimersError",
    "RedisTimersHandlerNotFoundError",
    "RedisTimersPayloadError",
    "RedsyncError",
]


class RedsyncError(Exception):
    """Whatever redsync itself refuses or reports."""


class RedisSemaphoreError(RedsyncError):
    """Something about a semaphore."""


class RedisSemaphoreTimeoutError(RedisSemaphoreError, TimeoutError):
    """No permit came free in time; the caller holds none."""


class RedisSemaphoreNotAcquiredError(RedisSemaphoreError):
    """`release()` was called, but there is no permit to give back."""


class RedisSemaphorePermitLostError(RedisSemaphoreError):
    """The lease of a permit ran out, or its slot went to somebody else, while it was in use.

    What the permit protected may have been done by two at once: compare fences.
    """


class RedisSemaphoreCountError(RedisSemaphoreError, ValueError):
    """The number of permits is not a whole number from 1 to 4096."""

    def __init__(self, message: str, count: object) -> None:
        super().__init__(message)
        self.count = count
        """What was asked for."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.count)


class RedisSemaphoreCountMismatchError(RedisSemaphoreError):
    """The semaphore exists with another number of permits; nothing was changed."""

    def __init__(self, message: str, requested: int, actual: int) -> None:
        super().__init__(message)
        self.requested = requested
        """The number that was asked for."""
        self.actual = actual
        """The number that the semaphore has."""

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.requested, self.actual)


class RedisEventError(RedsyncError):
    """Something about an event."""


class RedisEventTimeoutError(RedisEventError, TimeoutError):
    """No signal came in time; none was taken."""


class RedisTimersError(RedsyncError):
    """Something about timers."""


class RedisTimersHandlerNotFoundError(RedisTimersError, RuntimeError):
    """No router has a handler for this topic."""


class RedisTimersPayloadError(RedisTimersError, ValueError):
    """The payload is not what the handler's schema asks for."""


class RedisTimersConflictError(RedisTimersError, ValueError):
    """Another topic has a timer that would have the same name in Redis; nothing was changed.

    With the separator `--`, ("a", "b--c") and ("a--b", "c") are both called `a--b--c`.
    """


# Tracebacks show the name that users import.
for _name in __all__:
    globals()[_name].__module__ = "redsync"
del _name
