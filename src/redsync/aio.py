"""redsync for asyncio; `redsync.sync` offers the same names for threads."""

from ._async.event import RedisEvent
from ._async.permit import Permit
from ._async.semaphore import RedisSemaphore
from ._async.timers import Timers
from ._backoff import Backoff
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
