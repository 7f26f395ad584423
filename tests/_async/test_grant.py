"""What a holder may believe, by its own clock and by what it was told."""

from __future__ import annotations

from time import monotonic

from redsync._async.grant import Grant, margin
from redsync._protocol.semaphore import Token
from redsync._runtime.aio import Mutex

from ..support.aio import eventually, spawn


def grant(lasts: float, ttl: float = 100.0, since: float = 0.0) -> Grant:
    now = monotonic()
    return Grant(Token(3, 17), "me:7", "some one", ttl, now - since, now + lasts, Mutex())


async def test_a_margin_covers_milliseconds_and_clocks_that_differ() -> None:
    assert 0.002 <= margin(0.1) < 0.01
    assert 0.3 <= margin(30) < 0.5


async def test_a_lease_counts_from_when_it_was_asked_for() -> None:
    held = grant(lasts=10)
    held.confirm(monotonic() - 50)
    assert 40 < held.remaining() < 50 - margin(100) + 0.001


async def test_a_confirmation_that_is_late_takes_nothing_away() -> None:
    held = grant(lasts=60)
    held.confirm(monotonic() - 80)
    assert 50 < held.remaining() < 60


async def test_nothing_brings_back_what_was_lost() -> None:
    overdue, told = grant(lasts=-0.001), grant(lasts=60)
    assert not overdue.held and overdue.lost
    told.lose()
    for lost in (overdue, told):
        lost.confirm(monotonic())
        assert lost.lost and not lost.held and lost.remaining() == 0


async def test_a_confirmation_after_the_end_of_the_lease_brings_nothing_back() -> None:
    overdue = grant(lasts=-0.001)
    overdue.confirm(monotonic())
    assert overdue.lost and not overdue.held


async def test_a_permit_is_given_back_once() -> None:
    held = grant(lasts=60)
    assert held.release() and not held.release()
    assert held.released and not held.held and not held.lost and held.ended
    lost = grant(lasts=-1)
    assert lost.lost and not lost.release() and lost.ended


async def test_whoever_waits_for_the_loss_hears_of_it() -> None:
    for end in ("lose", "release"):
        held = grant(lasts=60)
        waiting = spawn(lambda held=held: held.wait_lost(None))  # type: ignore[misc]
        await eventually(lambda held=held: held._loss is not None)  # type: ignore[misc]
        getattr(held, end)()
        assert await waiting.result(5) is (end == "lose")


async def test_whoever_waits_for_the_loss_waits_no_longer_than_told_and_than_the_lease() -> None:
    began = monotonic()
    assert not await grant(lasts=60).wait_lost(0.01)
    assert await grant(lasts=0.01).wait_lost(60)
    assert monotonic() - began < 5


async def test_a_seat_tells_for_how_long_a_permit_is_held() -> None:
    seat = grant(lasts=60, since=5).seat()
    assert (seat.slot, seat.fence, seat.owner, seat.ttl) == (3, 17, "me:7", 100_000)
    assert 5000 <= seat.age < 10_000
