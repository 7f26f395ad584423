"""The schedule of faults: a pure function of its seed and its length.

Storms, in which faults come one upon the other, take turns with calms, in which there is none: that
is where recovery is measured.  Every second storm leaves the server alone, and in the calm after it
one worker is killed, and nothing else is done: so it is seen how soon others take over if all is
well with them.  A target has one fault at a time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .terms import SEATS

__all__ = ["EVERYBODY", "KINDS", "SERVER", "Fault", "Kind", "make_plan", "storms"]

_CYCLE: Final = 20.0
_STORM: Final = 0.5
"""The share of a cycle."""
_LONELY: Final = 0.4
"""When in a calm a worker is killed, as a share of the storm before."""
_MATCHES: Final = ("", "BLPOP redsync:event", "BLPOP redsync:semaphore", "EVALSHA")
"""What a request begins with that is lost, or whose reply is: with BLPOP a token goes astray."""
_WARM_UP: Final = 0.5
_DISTANCE: Final = (0.1, 0.7)
"""Seconds from the beginning of a fault to that of the next one."""
_FARTHEST: Final = 6.0
"""Seconds that the server's clock may be off."""

SERVER: Final = -1
EVERYBODY: Final = -2


@dataclass(frozen=True)
class Kind:
    """What may happen."""

    name: str
    meaning: str
    target: int | None
    """The server, everybody's link, or None: one of the seats."""
    seconds: tuple[float, float]
    share: int
    """How often among all."""


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("kill", "SIGKILL of a worker; a new one takes its seat", None, (0.0, 1.5), 4),
        Kind("stop", "SIGSTOP of a worker, SIGCONT later", None, (0.2, 5.0), 4),
        Kind("drop", "all connections of a worker are cut", None, (0.0, 0.0), 2),
        Kind("half-open", "its connections die and nobody is told", None, (0.5, 2.0), 2),
        Kind("delay", "requests and replies of a worker come late", None, (0.5, 4.0), 2),
        Kind("lose-reply", "replies to a worker are lost, then the connection", None, (0.5, 2), 3),
        Kind("lose-request", "the same with requests", None, (0.5, 2.0), 2),
        Kind("tear", "connections break in the middle of a message", None, (0.5, 2.0), 2),
        Kind("partition", "nothing gets through, one way or both", None, (0.3, 4.5), 4),
        Kind("unplug", "the cable to a worker's network is pulled out", None, (0.3, 3.0), 2),
        Kind("blackout", "nobody reaches the server", EVERYBODY, (0.3, 3.5), 1),
        Kind("pause", "SIGSTOP of the server, SIGCONT later", SERVER, (0.2, 3.5), 2),
        Kind("sleep", "the server is busy (DEBUG SLEEP)", SERVER, (0.2, 2.5), 1),
        Kind("client-pause", "the server keeps all waiting (CLIENT PAUSE)", SERVER, (0.2, 2.5), 1),
        Kind("restart", "SIGKILL of the server; it comes back", SERVER, (0.0, 2.5), 3),
        Kind("clock", "the server's clock is set forward or back", SERVER, (0.3, 1.0), 2),
    )
}


@dataclass(frozen=True)
class Fault:
    """Something that is to happen."""

    number: int
    at: float
    """Seconds after the beginning."""
    kind: str
    target: int
    """A seat, or the server, or everybody."""
    seconds: float
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> float:
        """When it is over."""
        return self.at + self.seconds

    @property
    def where(self) -> str:
        """The target in words."""
        return {SERVER: "server", EVERYBODY: "everybody"}.get(self.target, f"seat {self.target}")

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "target": self.where}

    def __str__(self) -> str:
        detail = ", ".join(f"{name} {value}" for name, value in self.detail.items())
        words = f"{self.at:8.3f} s  {self.kind:<13}{self.where:<11}{self.seconds:5.2f} s  {detail}"
        return words.rstrip()


def storms(seconds: float) -> list[tuple[float, float]]:
    """When the storms are; the rest is calm."""
    cycles = max(1, round(seconds / _CYCLE))
    length = seconds / cycles
    warm_up = min(_WARM_UP, length / 4)
    return [
        (number * length + (warm_up if number == 0 else 0), (number + _STORM) * length)
        for number in range(cycles)
    ]


def make_plan(seconds: float, seed: int) -> list[Fault]:
    """All faults, in order."""
    rng = random.Random(f"torture {seed}")
    # Each kind of storm has a bag of its own, so that neither has to wait for what the other needs.
    kinds = list(KINDS.values())
    bags = _Bag(rng, kinds), _Bag(rng, [each for each in kinds if each.target is None])
    plan: list[Fault] = []
    offset = 0.0
    for number, (begin, end) in enumerate(storms(seconds)):
        bag, busy = bags[number % 2], dict[int, float]()
        now = begin
        while now < end:
            drawn = bag.draw(now, busy)
            if drawn is not None:
                kind, target = drawn
                detail = dict(_detail(kind, rng, offset))
                offset += detail.get("jump", 0.0)
                lasts = min(_lasts(kind, rng), max(0.0, end - now))
                fault = Fault(len(plan), round(now, 3), kind.name, target, round(lasts, 3), detail)
                plan.append(fault)
                for each in range(SEATS) if target == EVERYBODY else (target,):
                    busy[each] = fault.end + 0.1
            now += rng.uniform(*_DISTANCE)
        if number % 2:
            at = end + _LONELY * (end - begin)
            plan.append(Fault(len(plan), round(at, 3), "kill", rng.randrange(SEATS), 0.5))
    return plan


class _Bag:
    """Kinds, each as often as its share says, in an order of chance, again and again."""

    def __init__(self, rng: random.Random, kinds: Sequence[Kind]) -> None:
        self._rng = rng
        self._kinds = kinds
        self._left: list[Kind] = []

    def draw(self, now: float, busy: dict[int, float]) -> tuple[Kind, int] | None:
        """The next kind that there is a target for, and the target."""
        free = [seat for seat in range(SEATS) if busy.get(seat, 0.0) <= now]
        if not self._left:
            self._left = [kind for kind in self._kinds for _ in range(kind.share)]
            self._rng.shuffle(self._left)
        for number, kind in enumerate(self._left):
            target = kind.target
            if target is None and free:
                target = self._rng.choice(free)
            elif target == EVERYBODY and len(free) < SEATS:
                continue
            elif target is not None and busy.get(SERVER, 0.0) > now:
                continue
            if target is not None:
                del self._left[number]
                return kind, target
        return None


def _lasts(kind: Kind, rng: random.Random) -> float:
    """Short ones are more frequent: most must be ridden out, and some are longer than a lease."""
    least, most = kind.seconds
    return float(least + (most - least) * rng.random() ** 2)


def _detail(kind: Kind, rng: random.Random, offset: float) -> Iterator[tuple[str, Any]]:
    if kind.name == "partition":
        yield "blocked", rng.choice(["both", "requests", "replies"])
    elif kind.name == "delay":
        yield "requests", round(rng.uniform(0.0, 0.3), 3)
        yield "replies", round(rng.uniform(0.0, 0.3), 3)
    elif kind.name in ("lose-reply", "lose-request", "tear"):
        yield "times", rng.randint(1, 4)
        yield "how", rng.choice(["close", "reset", "stall"])
        if kind.name != "tear":
            yield "match", rng.choice(_MATCHES)
        else:
            yield "after", rng.randint(1, 400)
            yield "direction", rng.choice(["requests", "replies"])
    elif kind.name == "drop":
        yield "how", rng.choice(["close", "reset"])
    elif kind.name == "client-pause":
        yield "what", rng.choice(["ALL", "WRITE"])
    elif kind.name == "clock":
        least, most = max(-4.0, -_FARTHEST - offset), min(4.0, _FARTHEST - offset)
        yield "jump", round(rng.uniform(least, most), 3)
