"""A crash-safe distributed semaphore, event and timers on Redis or Valkey.

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
