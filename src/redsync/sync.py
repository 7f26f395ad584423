"""redsync for threads; `redsync.aio` offers the same names for asyncio."""

from ._sync.event import RedisEvent
from ._sync.permit import Permit
from ._sync.semaphore import RedisSemaphore
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
