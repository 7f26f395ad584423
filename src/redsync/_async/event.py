"""The event as its users hold it."""

from __future__ import annotations

from functools import partial

from .._arguments import checked_text, checked_timeout
from .._protocol.keys import EventKeys
from .._protocol.owner import new_owner
from .._runtime.aio import Client, PerHome, checked_client
from ..exceptions import RedisEventError
from .link import Link
from .membership import Membership
from .session import Session
from .signals import Signals


class RedisEvent:
    """Each `set` wakes exactly one `wait`, in whichever process; until then it is kept in Redis.

        event = RedisEvent(client, "report-ready")
        await event.set()                # here
        await event.wait(timeout=30)     # there

    A process that dies while it is being woken does not take the signal along: somebody else gets
    it, within about 8 seconds of waiting. Two waits return for one `set` only if the process of the
    first one dies, or is cut off from Redis for some seconds, at that very moment.

    Args:
        redis_client: A client of redis-py, of the same kind as the namespace, asyncio or blocking.
            It is never closed, and its connections are not used.
        name: All that use the same name, `key_prefix` and database share the event.
        key_prefix: What the keys begin with.

    Raises:
        TypeError, ValueError: An argument makes no sense; nothing was sent.
    """

    def __init__(
        self, redis_client: Client, name: str, *, key_prefix: str = "redsync:event"
    ) -> None:
        self._client = checked_client(redis_client)
        checked_text("key_prefix", key_prefix, empty=True)
        self._name = checked_text("name", name)
        self._keys = EventKeys.of(key_prefix, name)
        self._homes: PerHome[Membership[Signals]] = PerHome(
            partial(Membership, f"the event {name!r}", RedisEventError)
        )

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    def __repr__(self) -> str:
        return f"<RedisEvent {self._name!r}>"

    async def set(self) -> None:
        """Wake one who waits, or the next one who will.

        Raises:
            redis.exceptions.RedisError: Redis refuses, or gave no answer: then the signal may have
                been added or not, but never twice.
        """
        await self._signals().set(new_owner())

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for a signal, and use it up.

        Args:
            timeout: Seconds to wait; None: for ever; 0: one try.

        Raises:
            RedisEventTimeoutError: None came in time; none was taken. If the server is slow or away
                it may be up to a second late.
            redis.exceptions.RedisError: Redis refuses, or cannot be reached. Those who wait
                already go on waiting for it.
        """
        timeout = checked_timeout(timeout)
        signals = self._signals()
        owner = new_owner()
        try:
            await signals.wait(owner, self, timeout)
        except BaseException:
            signals.abandon(owner)
            raise

    async def clear(self) -> None:
        """Remove the signals that nobody has taken yet."""
        await self._signals().clear(new_owner())

    async def is_set(self) -> bool:
        """Whether a signal waits to be taken."""
        return await self._signals().is_set()

    async def close(self) -> None:
        """End the use of this instance. Signals stay in Redis; whoever waits through this instance
        gets a RedisEventError.

        With the last instance of a client the connections and the watchdog go too.
        """
        membership = self._homes.get()
        membership.end()
        await membership.leave(self._key, self)

    @property
    def _key(self) -> tuple[str, bytes]:
        return ("event", self._keys.signals)

    def _signals(self) -> Signals:
        membership = self._homes.get()
        signals = membership.attended()
        if signals is None:
            with membership.joining(self._client, self._key, self._make_signals, self) as signals:
                pass  # there is nothing to be made
        return signals

    def _make_signals(self, session: Session) -> Signals:
        link = Link(session.hub, self._keys.signals)
        return Signals(self._name, link, self._keys, partial(session.wake, self._key))
