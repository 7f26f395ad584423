"""What is in Redis of all timers, of all topics."""

from __future__ import annotations

import logging
from typing import Literal

from .._instants import datetime_of
from .._protocol.resp import Reply
from .._protocol.timers import MOST, Letter, parse_letter, parse_page, readable, texts
from .._types import DeadTimer
from .schedule import Schedule

_log = logging.getLogger("redsync")


async def names_and_payloads(schedule: Schedule) -> tuple[list[str], dict[str, str]]:
    """The names of those that are not dead, in the order in which they are due, and payloads."""
    scored = await pages(schedule, "timeline")
    names = sorted(scored, key=lambda member: (float(scored[member]), member))
    payloads = await pages(schedule, "payloads")
    lacking = [each for each in names if each not in payloads]
    if lacking:
        # They have run meanwhile, unless their payload was lost.
        there = await _scores(schedule, lacking)
        names = [each for each in names if each in payloads or each in there]
    return (
        [readable(each) for each in names],
        {readable(member): readable(each) for member, each in payloads.items()},
    )


async def names_due_by(schedule: Schedule, micros: int) -> list[str]:
    """The names of those that are due by an instant."""
    seconds = f"{micros // 1_000_000}.{micros % 1_000_000:06d}"
    return [readable(each) for each in texts(await schedule.ask(schedule.scripts.ready(seconds)))]


async def dead_timers(schedule: Schedule, separator: str) -> list[DeadTimer]:
    """Those that have failed for good, in the order in which they did."""
    found = []
    for member, letter in (await pages(schedule, "dead")).items():
        try:
            found.append(_dead_timer(parse_letter(member, letter, separator)))
        except (ValueError, OverflowError):
            _log.warning("redsync: what is noted of the dead timer %r makes no sense", member)
    return sorted(found, key=lambda each: (each.died_at, each.topic, each.timer_id))


def _dead_timer(letter: Letter) -> DeadTimer:
    return DeadTimer(
        topic=letter.topic,
        timer_id=letter.timer_id,
        payload=letter.payload,
        error=letter.error,
        attempts=letter.attempts,
        scheduled_for=datetime_of(letter.due),
        died_at=datetime_of(letter.died),
    )


async def pages(
    schedule: Schedule, kind: Literal["timeline", "payloads", "dead"]
) -> dict[bytes, bytes]:
    """Whatever is there from the beginning to the end of the call, and perhaps other things."""
    found: dict[bytes, bytes] = {}
    cursor = b"0"
    while True:
        cursor, pairs = parse_page(await schedule.ask(schedule.scripts.page(kind, cursor)))
        found.update(pairs)
        if cursor == b"0":
            return found


async def _scores(schedule: Schedule, members: list[bytes]) -> dict[bytes, Reply]:
    """Of those that are still there."""
    found: dict[bytes, Reply] = {}
    for first in range(0, len(members), MOST):
        some = members[first : first + MOST]
        scores = await schedule.ask(schedule.scripts.scores(some))
        assert isinstance(scores, list)
        found.update((m, s) for m, s in zip(some, scores, strict=True) if s is not None)
    return found
