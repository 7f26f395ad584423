"""redsync for asyncio; `redsync.sync` offers the same names for threads."""

from ._async.event import RedisEvent
from ._async.permit import Permit
from ._async.semaphore import RedisSemaphore
from ._types import HeldPermit, SemaphoreInitStrategy, SemaphoreStatus
from .exceptions import (
    RedisEventError,
    RedisEventTimeoutError,
    RedisSemaphoreCountError,
    RedisSemaphoreCountMismatchError,
    RedisSemaphoreError,
    RedisSemaphoreNotAcquiredError,
    RedisSemaphorePermitLostError,
    RedisSemaphoreTimeoutError,
    RedsyncError,
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
