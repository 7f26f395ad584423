"""What a run may believe of its lease, by its own clock and by what it was told."""

from __future__ import annotations

from time import monotonic

from redsync._async.schedule import Lease
from redsync._protocol.timers import Claimed


def lease(length: float = 100.0, ago: float = 0.0) -> Lease:
    claimed = Claimed("t", b"t--x", 17, 0, 1, b"1")
    return Lease(claimed, length, monotonic() - ago)


def test_a_lease_counts_from_when_it_was_asked_for_less_a_margin() -> None:
    held = lease(ago=40)
    assert 59 < held.remaining() <= 60 - 0.01
    assert lease(length=0.1).remaining() <= 0.09
    held.confirm(monotonic() - 20)
    assert 79 < held.remaining() <= 80 - 0.01


def test_a_lease_is_renewed_long_before_its_end() -> None:
    held = lease()
    assert 30 < held.renewal - monotonic() < 40


def test_a_lease_that_nobody_has_missed_may_be_resumed() -> None:
    overdue = lease(ago=101)
    assert overdue.to_be_renewed() and overdue.resume(monotonic())
    assert overdue.remaining() > 99


def test_a_lease_that_was_seen_to_end_is_lost_for_good() -> None:
    seen, told = lease(ago=101), lease()
    assert seen.remaining() == 0
    told.lose()
    for lost in (seen, told):
        assert not lost.to_be_renewed() and not lost.resume(monotonic())
        lost.confirm(monotonic())
        assert lost.remaining() == 0


def test_a_handler_that_takes_longer_than_it_may_is_not_renewed() -> None:
    slow, quick = lease(), lease()
    slow.expires, quick.expires = monotonic() - 1, monotonic() + 50
    assert not slow.to_be_renewed() and not slow.resume(monotonic())
    assert quick.to_be_renewed() and quick.resume(monotonic())
