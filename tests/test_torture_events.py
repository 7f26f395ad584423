"""What the checks find in histories of events, and what they let pass."""

from __future__ import annotations

import pytest

from redsync.cli.torture.checks_events import check, exact
from redsync.cli.torture.shrink import shrink

from .support.hand_made import HandMade


@pytest.fixture
def made() -> HandMade:
    return HandMade()


def test_a_wait_for_each_set_is_as_promised(made: HandMade) -> None:
    for number in range(3):
        made.add("0.1", "set", "e", number, number + 0.1)
        made.add("1.1", "wait", "e", number, number + 0.2, timeout=1.0)
    assert made.promises(check) == []
    assert exact(made.history) == (1, 1)


def test_a_signal_that_wakes_two_is_found(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "e", 0, 1.2, timeout=2.0)
    made.add("2.1", "wait", "e", 0, 1.2, timeout=2.0)
    assert made.promises(check) == ["each signal wakes one"]


def test_a_wait_before_the_set_is_found(made: HandMade) -> None:
    made.add("1.1", "wait", "e", 0, 0.5, timeout=2.0)
    made.add("0.1", "set", "e", 1, 1.1)
    assert made.promises(check) == ["each signal wakes one"]


def test_a_set_that_was_cut_off_may_wake_one(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, None)
    made.add("1.1", "wait", "e", 0, 1.2, timeout=2.0)
    assert made.promises(check) == []


def test_a_signal_that_wakes_nobody_is_found(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "e", 0, 2, "fail", timeout=2.0, error="timeout")
    assert made.promises(check) == ["no signal is lost"]


def test_a_wait_that_was_cut_off_may_have_used_up_a_signal(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "e", 0, None, timeout=2.0)
    assert made.promises(check) == []
    assert exact(made.history) == (0, 1)


def test_signals_of_another_event_do_not_count(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "other", 0, 1.2, timeout=2.0)
    assert made.promises(check) == ["each signal wakes one", "no signal is lost"]


@pytest.mark.parametrize("took", [0.9, 3.0])
def test_timeouts_that_are_not_kept_are_found(made: HandMade, took: float) -> None:
    made.add("1.1", "wait", "e", 1, 1 + took, "fail", timeout=1.0, error="timeout")
    assert made.promises(check) == ["timeouts"]


def test_of_a_signal_that_is_lost_the_history_has_what_cannot_be_paired_off(made: HandMade) -> None:
    for number in range(5):
        made.add("0.1", "set", "e", number, number + 0.1)
        made.add("1.1", "wait", "e", number, number + 0.2, timeout=9.0)
    lost = made.add("0.1", "set", "e", 9, 9.1)
    [violation] = check(made.history)
    assert shrink(made.history, violation, check) == [lost]


def test_the_smallest_history_keeps_all_sets(made: HandMade) -> None:
    sets = [made.add("0.1", "set", "e", number, number + 0.1) for number in range(2)]
    for number in range(3):
        made.add("1.1", "wait", "e", number, 2 + number / 10, timeout=9.0)
    made.add("1.1", "wait", "e", 2.5, 2.6, "fail", timeout=0.1, error="timeout")
    [violation] = check(made.history)
    smallest = shrink(made.history, violation, check)
    assert [each for each in smallest if each.what == "set"] == sets
    assert sum(each.what == "wait" for each in smallest) == 3


def test_a_wait_that_raised_an_error_uses_up_no_signal_if_its_process_goes_on(
    made: HandMade,
) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "e", 0, 2, "unknown", timeout=3.0, error="TimeoutError")
    assert made.promises(check) == ["no signal is lost"]
    made.history.deaths["1.1"] = 3.0
    assert made.promises(check) == []


def test_a_wait_that_was_cancelled_uses_up_no_signal(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "e", 0, 2, "fail", timeout=3.0, error="cancelled")
    assert made.promises(check) == ["no signal is lost"]


def test_who_dies_after_a_cancellation_may_have_used_one_up(made: HandMade) -> None:
    made.add("0.1", "set", "e", 1, 1.1)
    made.add("1.1", "wait", "e", 0, 2, "fail", timeout=3.0, error="cancelled")
    made.history.deaths["1.1"] = 3.0
    assert made.promises(check) == []
