"""A crash-safe distributed semaphore, event and timers on Redis or Valkey.

`redsync.aio` is for asyncio, `redsync.sync` for threads. The names of `redsync` itself are those of
`redsync.aio`, as they were in redsync 2.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import (
        Backoff,
        DeadTimer,
        Handler,
        HeldPermit,
        MissedRuns,
        Permit,
        RedisEvent,
        RedisEventError,
        RedisEventTimeoutError,
        RedisSemaphore,
        RedisSemaphoreCountError,
        RedisSemaphoreCountMismatchError,
        RedisSemaphoreError,
        RedisSemaphoreNotAcquiredError,
        RedisSemaphorePermitLostError,
        RedisSemaphoreTimeoutError,
        RedisTimersConflictError,
        RedisTimersError,
        RedisTimersHandlerNotFoundError,
        RedisTimersPayloadError,
        RedsyncError,
        Retry,
        Router,
        SemaphoreInitStrategy,
        SemaphoreStatus,
        Timer,
        TimerRun,
        Timers,
    )

    __version__: str

__all__ = [
    "Backoff",
    "DeadTimer",
    "Handler",
    "HeldPermit",
    "MissedRuns",
    "Permit",
    "RedisEvent",
    "RedisEventError",
    "RedisEventTimeoutError",
    "RedisSemaphore",
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
    "Retry",
    "Router",
    "SemaphoreInitStrategy",
    "SemaphoreStatus",
    "Timer",
    "TimerRun",
    "Timers",
]


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> object:
        # Programs with threads need nothing of redsync.aio, whose import takes as long as theirs.
        if name in __all__:
            from . import aio

            return globals().setdefault(name, getattr(aio, name))
        if name == "__version__":
            from importlib.metadata import version  # 30 ms that most programs do not need

            return version("redsync")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
