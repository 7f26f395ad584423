"""The semaphore as its users hold it."""

from __future__ import annotations

import math
from functools import partial
from time import monotonic
from types import TracebackType

from redis import exceptions

from .._arguments import (
    MIN_PERMIT_TTL,
    checked_count,
    checked_strategy,
    checked_text,
    checked_timeout,
    checked_ttl,
)
from .._backoff import Backoff, Pauses
from .._protocol.keys import SemaphoreKeys
from .._protocol.owner import default_identifier, new_owner
from .._protocol.semaphore import Facts, Terms
from .._runtime.aio import Client, PerHome, checked_client, sleep
from .._types import HeldPermit, SemaphoreInitStrategy, SemaphoreStatus
from ..exceptions import (
    RedisSemaphoreCountMismatchError,
    RedisSemaphoreError,
    RedisSemaphoreNotAcquiredError,
    RedisSemaphoreTimeoutError,
)
from .backend import Backend
from .link import PATIENCE, Link, deadline_for
from .membership import Membership
from .optimistic import Optimistic
from .permit import Holding, Ledger, Permit
from .pool import Pool
from .scripted import Scripted
from .session import Session


class RedisSemaphore:
    """At most `count` permits at a time, for all processes that use the same name.

    A permit is a lease. While its holder lives it is renewed in the background; when the holder
    dies it is free again within `permit_ttl`. Those who wait are served in order of arrival within
    a process, and nearly so between processes. One instance may be shared by any number of tasks or
    threads.

        semaphore = RedisSemaphore(client, "printers", count=3)
        async with semaphore.permit(timeout=5) as permit:
            ...

    Constructing it sends nothing. At the first use the semaphore is made if `count` is given, and
    otherwise has to be made by somebody else, for which `acquire` waits, and `status`, `resize` and
    `get_count` for 5 seconds.

    Args:
        redis_client: A client of redis-py, of the same kind as the namespace, asyncio or blocking.
            It is never closed, and its connections are not used.
        name: All that use the same name, `key_prefix` and database share the semaphore.
        count: The number of permits, 1 to 4096.
        lease_ttl: Seconds for which the keys stay in Redis after the last use.
        permit_ttl: Seconds after which the permit of a dead holder is free again.
        semaphore_init_strategy: Whether scripts are used.
        key_prefix: What the keys begin with.
        identifier: Who you are, for `status`; by default host and process.

    Raises:
        TypeError, ValueError: An argument makes no sense; nothing was sent.
    """

    def __init__(
        self,
        redis_client: Client,
        name: str,
        *,
        count: int | None = None,
        lease_ttl: float = 300.0,
        permit_ttl: float = 30.0,
        semaphore_init_strategy: SemaphoreInitStrategy = SemaphoreInitStrategy.LUA,
        key_prefix: str = "redsync:semaphore",
        identifier: str | None = None,
    ) -> None:
        self._client = checked_client(redis_client)
        self._count = None if count is None else checked_count(count)
        ttl = int(checked_ttl("permit_ttl", permit_ttl, MIN_PERMIT_TTL) * 1000)
        keep = int(checked_ttl("lease_ttl", lease_ttl, MIN_PERMIT_TTL) * 1000)
        # Keys that vanish before the leases in them would set permits free that are held.
        self._terms = Terms(ttl, max(keep, 2 * ttl))
        self._strategy = checked_strategy(semaphore_init_strategy)
        checked_text("key_prefix", key_prefix, empty=True)
        self._name = checked_text("name", name)
        self._keys = SemaphoreKeys.of(key_prefix, name)
        self._identifier = None if identifier is None else checked_text("identifier", identifier)
        self._homes: PerHome[_Home] = PerHome(partial(_Home, name))

    @classmethod
    async def create(
        cls,
        redis_client: Client,
        name: str,
        *,
        count: int = 1,
        lease_ttl: float = 300.0,
        permit_ttl: float = 30.0,
        semaphore_init_strategy: SemaphoreInitStrategy = SemaphoreInitStrategy.LUA,
        key_prefix: str = "redsync:semaphore",
        identifier: str | None = None,
    ) -> RedisSemaphore:
        """Make the semaphore if there is none yet; any number of processes may do so at once.

        Raises:
            RedisSemaphoreCountMismatchError: It exists with another count; nothing was changed.
        """
        semaphore = cls(
            redis_client,
            name,
            count=checked_count(count),
            lease_ttl=lease_ttl,
            permit_ttl=permit_ttl,
            semaphore_init_strategy=semaphore_init_strategy,
            key_prefix=key_prefix,
            identifier=identifier,
        )
        await semaphore._joined(None, deadline_for(None))
        return semaphore

    @classmethod
    async def attach(
        cls,
        redis_client: Client,
        name: str,
        *,
        timeout: float | None = 60.0,
        lease_ttl: float = 300.0,
        permit_ttl: float = 30.0,
        semaphore_init_strategy: SemaphoreInitStrategy = SemaphoreInitStrategy.LUA,
        key_prefix: str = "redsync:semaphore",
        identifier: str | None = None,
    ) -> RedisSemaphore:
        """Use a semaphore that somebody else makes, and wait for that if need be.

        Args:
            timeout: Seconds to wait; None: for ever.

        Raises:
            RedisSemaphoreTimeoutError: Nobody has made it in time.
        """
        timeout = checked_timeout(timeout)
        semaphore = cls(
            redis_client,
            name,
            lease_ttl=lease_ttl,
            permit_ttl=permit_ttl,
            semaphore_init_strategy=semaphore_init_strategy,
            key_prefix=key_prefix,
            identifier=identifier,
        )
        await semaphore._joined(timeout, deadline_for(timeout))
        return semaphore

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def terms(self) -> Terms:
        """Lease and lifetime of the keys, in milliseconds. For redsync's own use."""
        return self._terms

    @property
    def identifier(self) -> str:
        """Who holds its permits, as `status` tells it."""
        return self._identifier or default_identifier()

    def __repr__(self) -> str:
        return f"<RedisSemaphore {self._name!r}>"

    async def acquire(self, timeout: float | None = None) -> Permit:
        """Wait for a permit.

        Args:
            timeout: Seconds to wait; None: for ever; 0: one try.

        Raises:
            RedisSemaphoreTimeoutError: No permit came free in time.
            RedisSemaphoreCountMismatchError: At the first use: it exists with another count.
            RedisSemaphoreError: This instance was closed.
            redis.exceptions.RedisError: Redis refuses, or cannot be reached. Those who wait
                already go on waiting for it.
        """
        timeout = checked_timeout(timeout)
        began = monotonic()
        deadline = deadline_for(timeout)
        home = self._homes.get()
        owner = new_owner()
        pool = home.membership.attended()
        try:
            if pool is None:
                pool = await self._joined(timeout, deadline)
                if deadline < monotonic():  # somebody else has made it in the meantime
                    deadline = deadline_for(timeout and max(0.0, began + timeout - monotonic()))
            grant = await pool.acquire(owner, self, timeout, began, deadline)
            permit = Permit(self._name, pool, grant)
            home.ledger.add(permit)
            return permit
        except BaseException:
            # A cancellation, an interrupt, an error: whatever was granted goes back.
            if pool is not None:
                pool.abandon(owner)
            raise

    async def release(self, permit: Permit | None = None) -> None:
        """Give a permit back.

        Args:
            permit: Which one; None: the latest that the running task or thread has acquired through
                this instance, or else the oldest that the instance holds.

        Raises:
            RedisSemaphoreNotAcquiredError: There is none, or it was released before.
            TypeError: This is no permit.
            redis.exceptions.RedisError: As with `Permit.release`.
        """
        if permit is not None and not isinstance(permit, Permit):
            raise TypeError(f"permit must be what acquire() returned, or None, not {permit!r}")
        ledger = self._homes.get().ledger
        ledger.forget_ended()
        found = ledger.take(permit)
        if found is None:
            what = "holds no permit" if permit is None else f"does not hold {permit!r}"
            raise RedisSemaphoreNotAcquiredError(
                f"this instance of the semaphore {self._name!r} {what}; acquire one first"
            )
        await found.release()

    def permit(self, timeout: float | None = None, *, cancel_on_loss: bool = False) -> Holding:
        """Acquire on entry, release on exit.

            async with semaphore.permit(timeout=5) as permit:
                ...

        Args:
            timeout: As with `acquire`.
            cancel_on_loss: If the permit is lost, cancel the body and raise
                RedisSemaphorePermitLostError. It is cancelled as by an anyio.CancelScope, at
                whatever it waits for until its end: shield what has to be cleaned up. A thread
                cannot be cancelled: in the blocking twin the error comes at the end of the body,
                which may look at `permit.lost`.
        """
        return Holding(self, checked_timeout(timeout), cancel_on_loss)

    async def get_count(self) -> int:
        """The number of permits, as Redis knows it."""
        deadline = deadline_for(None)
        pool = await self._joined(PATIENCE, deadline)
        return int((await pool.contents(deadline)).meta["count"])

    async def status(self) -> SemaphoreStatus:
        """What is free and who holds what, as Redis knows it at this instant."""
        deadline = deadline_for(None)
        pool = await self._joined(PATIENCE, deadline)
        contents = await pool.contents(deadline)
        held = tuple(
            HeldPermit(
                slot=lease.slot,
                fence=lease.fence,
                identifier=lease.identifier,
                held_for=max(0, contents.now - lease.since) / 1000,
                expires_in=max(0, lease.deadline - contents.now) / 1000,
            )
            for lease in contents.leases()
        )
        free = len(contents.free)
        return SemaphoreStatus(
            count=int(contents.meta["count"]),
            free=free,
            held=held,
            missing=len(contents.records) - free - len(held),
        )

    async def resize(self, count: int) -> None:
        """Change the number of permits: more at once, fewer as permits come back.

        Raises:
            RedisSemaphoreError: Somebody else resized it at the same time, to another count.
        """
        checked_count(count)
        deadline = deadline_for(None)
        pool = await self._joined(PATIENCE, deadline, any_count=True)
        facts = await pool.resize(self._terms, count, deadline)
        if facts.count != count:
            raise RedisSemaphoreError(
                f"the semaphore {self._name!r} was resized to {facts.count} by somebody else while"
                f" it was to be resized to {count}; decide again"
            )
        if self._count is not None:
            self._count = count

    async def close(self) -> None:
        """End the use of this instance; it acquires nothing any more.

        Gives nothing back: permits that are held are not renewed any more. They can still be
        released, and run out otherwise. Whoever waits through this instance gets a
        RedisSemaphoreError. With the last instance of a client the connections and
        the watchdog go too.
        """
        home = self._homes.get()
        pool = home.membership.end()
        if pool is not None:
            pool.leave_alone(home.ledger.grants())
        await home.membership.leave(self._key, self)

    async def __aenter__(self) -> RedisSemaphore:
        """Acquire a permit, however long that takes."""
        entered = self._homes.get().entered
        entered.add(await self.acquire())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        permit = self._homes.get().entered.take()
        if permit is not None:
            await self.let_go(permit, error)

    def lend(self, permit: Permit) -> None:
        """For `permit()`, which keeps the permit in mind itself."""
        self._homes.get().ledger.lend(permit)

    async def let_go(self, permit: Permit, error: BaseException | None) -> None:
        """Release at the end of a body, whose own error counts for more than ours."""
        self._homes.get().ledger.take(permit)
        try:
            await permit.release()
        except (exceptions.RedisError, OSError):
            if error is None:
                raise

    # Inside

    @property
    def _key(self) -> tuple[str, bytes, SemaphoreInitStrategy]:
        return ("semaphore", self._keys.meta, self._strategy)

    async def _joined(
        self, timeout: float | None, deadline: float, *, any_count: bool = False
    ) -> Pool:
        """The pool, once the semaphore is there.

        Args:
            timeout: How long to wait for somebody to make it.
            deadline: Until when to try to ask the server for the first time.
            any_count: Whether its count may be another one than this instance's.
        """
        membership = self._homes.get().membership
        pool = membership.attended()
        if pool is not None:
            return pool
        with membership.joining(self._client, self._key, self._make_pool, self) as pool:
            facts = await self._create(pool, timeout, deadline)
            if self._count not in (None, facts.count) and not any_count:
                raise RedisSemaphoreCountMismatchError(
                    f"the semaphore {self._name!r} has {facts.count} permits, not {self._count}:"
                    " use the same count everywhere, or resize()",
                    self._count,
                    facts.count,
                )
        return pool

    async def _create(self, pool: Pool, timeout: float | None, deadline: float) -> Facts:
        end = None if timeout is None else monotonic() + timeout
        looks = Pauses(Backoff(0.05, maximum=1.0, jitter=0.2))
        while True:
            facts = await pool.create(self._terms, self._count, deadline)
            if facts is not None:
                return facts
            remaining = math.inf if end is None else end - monotonic()
            if remaining <= 0:
                raise RedisSemaphoreTimeoutError(
                    f"the semaphore {self._name!r} was not made by anybody within {timeout} s;"
                    " give a count to make it"
                )
            await sleep(min(looks.next(), remaining))
            deadline = deadline_for(None if end is None else max(0.0, end - monotonic()))

    def _make_pool(self, session: Session) -> Pool:
        link = Link(session.hub, self._keys.meta)
        lua = self._strategy is SemaphoreInitStrategy.LUA
        backend: Backend = (Scripted if lua else Optimistic)(link, self._keys)
        return Pool(self._name, link, backend, self._keys, partial(session.wake, self._key))


class _Home:
    """What an instance keeps for one process and loop."""

    def __init__(self, name: str) -> None:
        self.membership: Membership[Pool] = Membership(
            f"the semaphore {name!r}", RedisSemaphoreError
        )
        self.ledger = Ledger()
        self.entered = Ledger()
