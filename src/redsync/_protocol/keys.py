"""Names of keys. Those of one object share a hash tag: a cluster keeps them on one node."""

from __future__ import annotations

from binascii import crc_hqx
from typing import NamedTuple


class SemaphoreKeys(NamedTuple):
    """The keys of one semaphore, and the stem of the keys that end a blocked wait."""

    free: bytes
    held: bytes
    meta: bytes
    wake: bytes

    @classmethod
    def of(cls, prefix: str, name: str) -> SemaphoreKeys:
        """The keys of the semaphore `name`."""
        stem = _stem(prefix, name)
        return cls(stem + b":free", stem + b":held", stem + b":meta", stem + b":wake:")


class EventKeys(NamedTuple):
    """The keys of one event, and the stem of the keys that end a blocked wait."""

    signals: bytes
    open: bytes
    sets: bytes
    wake: bytes

    @classmethod
    def of(cls, prefix: str, name: str) -> EventKeys:
        """The keys of the event `name`."""
        stem = _stem(prefix, name)
        return cls(stem + b":signals", stem + b":open", stem + b":sets", stem + b":wake:")


class TimerKeys(NamedTuple):
    """The keys of one timeline, and the stems of those of a topic, a worker and a request."""

    timeline: bytes
    payloads: bytes
    state: bytes
    meta: bytes
    dead: bytes
    topics: bytes
    due: bytes
    wake: bytes
    claimed: bytes
    request: bytes
    unblock: bytes

    @classmethod
    def of(cls, timeline: str, payloads: str | None, *, clustered: bool) -> TimerKeys:
        """The keys of the timeline with this name.

        Args:
            timeline: The name of its key.
            payloads: The name of the key of the payloads; None: one beside the others.
            clustered: Whether all have to be on one node.

        Raises:
            ValueError: They would not be, or two of them would be the same.
        """
        # Those of `x` and of `{x}` are different timelines, so the other keys are too.
        stem = f"{timeline}:timers" if _tag(timeline.encode()) else f"{{{timeline}}}"
        if payloads is None:
            payloads = f"{stem}:payloads"
        names = ("state", "meta", "dead", "topics", "due:", "wake:", "claimed:", "request:")
        keys = cls(
            timeline.encode(),
            payloads.encode(),
            *(f"{stem}:{each}".encode() for each in (*names, "unblock:")),
        )
        if keys.payloads in (keys.timeline, keys.state, keys.meta, keys.dead, keys.topics):
            raise ValueError(
                f"payloads_key must be a key of its own, unlike that of timeline_key: {payloads!r}"
            )
        if clustered:
            keys._check_slots()
        return keys

    def _check_slots(self) -> None:
        slot = slot_of(self.timeline)
        for argument, key in (("payloads_key", self.payloads), ("timeline_key", self.state)):
            if slot_of(key) != slot:
                raise ValueError(
                    f"on a cluster all keys of the timers have to be in one slot, but timeline_key "
                    f"{self.timeline.decode()!r} is in slot {slot} and {key.decode()!r} in slot "
                    f"{slot_of(key)}: choose another {argument}, with the same {{tag}} in both"
                )


def _stem(prefix: str, name: str) -> bytes:
    """`prefix:{name}`, or `prefix:name` where the name brings a hash tag of its own.

    So `x` and `{x}` are the same object.
    """
    stem = f"{prefix}:{name}" if _tag(name.encode()) else f"{prefix}:{{{name}}}"
    key = stem.encode()
    if _tag(key) is None:
        raise ValueError(
            f"the key {stem!r}, made of key_prefix {prefix!r} and name {name!r}, has no hash tag: "
            "a cluster would scatter the keys of this object; leave out the braces"
        )
    return key


def _tag(key: bytes) -> bytes | None:
    """What a cluster hashes instead of the whole key, if anything.

    Only the first `{` counts, up to the next `}`, and only if there is something in between.
    """
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if 0 <= start < end - 1 else None


def slot_of(key: bytes) -> int:
    """The cluster's hash slot of a key: CRC16 (XMODEM) modulo 16384, as its specification says."""
    return crc_hqx(_tag(key) or key, 0) % 16384
