"""redsync for threads; `redsync.aio` offers the same names for asyncio."""

from ._backoff import Backoff
from ._sync.event import RedisEvent
from ._sync.permit import Permit
from ._sync.semaphore import RedisSemaphore
from ._sync.timers import Timers
from ._types import (
    DeadTimer,
    HeldPermit,
    MissedRuns,
    Retry,
    SemaphoreInitStrategy,
    SemaphoreStatus,
    Timer,
    TimerRun,
)
from .exceptions import (
    RedisEventError,
    RedisEventTimeoutError,
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
)
from .routing import Handler, Router

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
