"""What a server holds for a semaphore, and what its clock, or a dead process, does to it.

Read and written key by key: the tests trust no report of ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis

from redsync._protocol import scripts
from redsync._protocol.keys import SemaphoreKeys

__all__ = ["Grant", "SemaphoreView", "State"]

_READ = """
local immortal = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then
    immortal[#immortal + 1] = key
  end
end
return {
  redis.call('LRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', KEYS[3]), redis.call('TIME'), immortal,
}
"""

_FIXED = (b"count", b"version", b"fence", b"grace", b"ttl", b"keep", b"recovery")


class Grant(NamedTuple):
    """Which permit."""

    slot: int
    fence: int


@dataclass(frozen=True)
class State:
    """The three keys at one instant."""

    count: int
    recovers: bool
    free: list[Grant]
    leased: dict[Grant, str]
    """Those that somebody was granted, and the identifiers."""
    ended: set[Grant]
    """Those among them whose lease is over, and that nobody has taken back yet."""
    kept: set[int]
    """Slots that are leased to nobody."""
    missing: set[int]
    """Slots that are neither free nor leased."""

    @property
    def circulating(self) -> int:
        """How many slots there are."""
        return len(self.free) + len(self.leased) + len(self.kept) + len(self.missing)


class SemaphoreView:
    """Looks at one semaphore, and meddles with it."""

    def __init__(self, client: Redis, name: str) -> None:
        self.keys = SemaphoreKeys.of("redsync:semaphore", name)
        self._all = (self.keys.free, self.keys.held, self.keys.meta)
        self._client: Any = client  # redis-py's types know bytes and str alike, and awaitables
        self._read = client.register_script(_READ)
        self._ghosts = itertools.count(1)

    def state(self) -> State:
        """What is there, which has to make sense at every instant."""
        tokens, leases, fields, time, immortal = self._read(self._all, client=self._client)
        assert not immortal, f"keys that live for ever: {immortal}"
        meta = dict(zip(fields[::2], fields[1::2], strict=True))
        assert all(field in meta for field in _FIXED), f"there is no semaphore: {meta}"
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        records = {
            int(field[1:]): text.decode().split(" ", 4)
            for field, text in meta.items()
            if field not in _FIXED
        }
        free = [Grant(*map(int, token.split(b":"))) for token in tokens]
        held = {
            int(slot): int(float(end)) for slot, end in zip(leases[::2], leases[1::2], strict=True)
        }
        slots = [each.slot for each in free]
        assert len(set(slots)) == len(slots), f"a slot is in the list twice: {free}"
        assert not held.keys() & set(slots), f"slots are both free and leased: {free}, {held}"
        assert {*held, *slots} <= records.keys(), f"slots without a record: {free}, {held}"
        for slot, fence in free:
            assert records[slot] == [str(fence)], f"the token {slot}:{fence} names no grant"
        fences = [int(record[0]) for record in records.values() if record[0] != "0"]
        assert len(set(fences)) == len(fences), f"a fence was given twice: {records}"
        assert max(fences, default=0) <= int(meta[b"fence"]), f"a fence above the highest: {meta}"
        owned = {slot: Grant(slot, int(r[0])) for slot, r in records.items() if len(r) > 1}
        return State(
            count=int(meta[b"count"]),
            recovers=now < int(meta[b"recovery"]),
            free=free,
            leased={owned[slot]: records[slot][4] for slot in held if slot in owned},
            ended={owned[slot] for slot, end in held.items() if slot in owned and end < now},
            kept={slot for slot in held if slot not in owned},
            missing=records.keys() - held.keys() - set(slots),
        )

    # The clock

    def end_leases(self, but: Collection[Grant]) -> None:
        """Have all leases end but these, as if time had passed: nobody's too."""
        spared = {each.slot for each in but if each in self.state().leased}
        for slot in self._client.zrange(self.keys.held, 0, -1):
            if int(slot) not in spared:
                self._client.zadd(self.keys.held, {slot: 1}, xx=True)

    def end_recovery(self) -> None:
        """The longest lease of those who had one before the loss is over."""
        self._client.hset(self.keys.meta, "recovery", 0)

    # Those who died

    def take(self) -> tuple[Grant, str] | None:
        """Be granted a permit, and never be seen again; it tells the name of the request."""
        owner = f"ghost:{next(self._ghosts)}"
        reply = self._call("acquire", owner, 30_000, 60_000, 0, "a ghost", "0")
        if not isinstance(reply, bytes):
            return None
        return Grant(*map(int, reply.split(b":"))), owner

    def pop(self) -> bool:
        """Pop a token, and never be seen again."""
        return self._client.lpop(self.keys.free) is not None

    def release_and_cut(self, grant: Grant, owner: str) -> None:
        """Give a permit back, and close all connections before anybody hears of it."""
        with self._client.pipeline(transaction=False) as pipe:
            text = scripts._SCRIPTS["semaphore/release"]
            pipe.eval(text, 3, *self._all, *grant, owner, 0)
            pipe.client_kill_filter(_type="normal", skipme=True)
            pipe.execute()

    def _call(self, script: str, *arguments: object) -> Any:
        return self._client.eval(scripts._SCRIPTS[f"semaphore/{script}"], 3, *self._all, *arguments)
