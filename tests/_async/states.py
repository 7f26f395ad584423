"""What Redis holds for a semaphore, read key by key: the tests trust no report of ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..support.aio import Redis, eventually

PREFIX = "redsync:semaphore"


@dataclass(frozen=True)
class State:
    """The three keys at one instant."""

    count: int
    version: int
    fence: int
    free: dict[int, int]
    """Slots and the fences of their tokens."""
    held: dict[int, int]
    """Slots and the ends of their leases."""
    owned: dict[int, int]
    """Slots that were granted, and the fences of their grants."""
    circulating: frozenset[int]

    @property
    def missing(self) -> set[int]:
        """Slots that are neither free nor leased."""
        return set(self.circulating) - self.free.keys() - self.held.keys()

    def seated(self, slot: int, fence: int) -> bool:
        """Whether this grant has its lease."""
        return slot in self.held and self.owned.get(slot) == fence


def key(name: str, part: str) -> str:
    """The name of one of the keys."""
    return f"{PREFIX}:{{{name}}}:{part}"


async def state(client: Redis, name: str) -> State:
    """Read a semaphore, and check what has to be true of it at every instant."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.lrange(key(name, "free"), 0, -1)
        pipe.zrange(key(name, "held"), 0, -1, withscores=True)
        pipe.hgetall(key(name, "meta"))
        for part in ("free", "held", "meta"):
            pipe.pttl(key(name, part))
        free, held, meta, *lives = await pipe.execute()
    tokens = [(int(token.split(b":")[0]), int(token.split(b":")[1])) for token in free]
    records = {int(field[1:]): value.split(b" ") for field, value in meta.items() if _slot(field)}
    found = State(
        count=int(meta.get(b"count", 0)),
        version=int(meta.get(b"version", 0)),
        fence=int(meta.get(b"fence", 0)),
        free=dict(tokens),
        held={int(slot): int(deadline) for slot, deadline in held},
        owned={slot: int(record[0]) for slot, record in records.items() if len(record) > 1},
        circulating=frozenset(records),
    )
    assert len(tokens) == len(found.free), f"a slot is in the list twice: {tokens}"
    assert not found.free.keys() & found.held.keys(), f"slots are both free and held: {found}"
    if meta:  # else a test has deleted it
        known = found.free.keys() | found.held.keys()
        assert known <= found.circulating, f"unknown slots: {found}"
        for slot, fence in found.free.items():
            assert records[slot] == [b"%d" % fence], f"the token of slot {slot} is none: {found}"
    assert all(life != -1 for life in lives), f"keys that live for ever: {lives}"
    return found


def _slot(field: bytes) -> bool:
    return field[:1] == b"s" and field[1:].isdigit()


async def is_whole(client: Redis, name: str, count: int) -> bool:
    """Whether all permits are free, each of them once."""
    found = await state(client, name)
    return found.count == count and set(found.free) == found.circulating == set(range(count))


async def becomes_whole(client: Redis, name: str, count: int, timeout: float = 4) -> None:
    """Wait until all permits are free."""
    await eventually(partial(is_whole, client, name, count), timeout)
