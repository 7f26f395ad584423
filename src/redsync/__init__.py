"""A crash-safe distributed semaphore and event on Redis or Valkey.

`redsync.aio` is for asyncio, `redsync.sync` for threads. The names of `redsync` itself are those of
`redsync.aio`, as they were in redsync 2.
"""

from .aio import (
    HeldPermit,
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
    RedsyncError,
    SemaphoreInitStrategy,
    SemaphoreStatus,
)

__all__ = [
    "HeldPermit",
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
    "RedsyncError",
    "SemaphoreInitStrategy",
    "SemaphoreStatus",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # 30 ms that most programs do not need

        return version("redsync")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
