"""What the checks find in histories of timers, and what they let pass."""

from __future__ import annotations

from typing import Any

import pytest

from redsync.cli.torture.checks_timers import check
from redsync.cli.torture.history import Jump, Window

from .support.hand_made import SECOND, HandMade


@pytest.fixture
def made() -> HandMade:
    return HandMade()


def test_a_run_when_it_is_due_is_as_promised(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1)
    assert made.promises(check) == []


def test_an_early_run_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 1.99, 2.1)
    assert made.promises(check) == ["never early"]


def test_a_run_is_early_if_the_clock_was_set_back_before(made: HandMade) -> None:
    made.history.jumps.append(Jump(0.5, 0.501, -2.0))
    arming = made.arm("0.1", 1, 1, due=HandMade.clock(1.005) - SECOND)
    made.run("1.1", arming, 1.99, 2.1)
    assert made.promises(check) == ["never early"]


def test_a_clock_that_is_set_forward_may_make_it_early(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 5)
    made.history.jumps.append(Jump(2, 2.001, 4.5))
    made.run("1.1", arming, 2.1, 2.2)
    assert made.promises(check) == []


def test_a_clock_that_was_ahead_for_a_while_may_have_made_it_early(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 5)
    made.history.jumps += [Jump(2, 2.001, 4.5), Jump(2.3, 2.301, -4.5)]
    made.run("1.1", arming, 2.4, 2.5)
    assert made.promises(check) == []


def test_a_timer_that_is_due_at_another_time_than_it_was_set_for_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1, due=HandMade.clock(1.5))
    made.run("1.1", arming, 2.02, 2.1)
    assert made.promises(check) == ["never early"]


def test_a_timer_that_never_runs_is_found(made: HandMade) -> None:
    made.arm("0.1", 1, 1)
    assert made.promises(check) == ["at least once, or dead"]


def test_a_timer_whose_runs_all_failed_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1, "fail")
    assert made.promises(check) == ["at least once, or dead"]


def dead(made: HandMade, arming: Any, attempts: int) -> None:
    key = f"{arming.worker}:{arming.number}"
    entry = {"name": arming.of, "arming": key, "attempts": attempts, "due": 0, "error": ""}
    made.history.finds["timers"]["dead"].append(entry)


def test_a_timer_may_be_dead_after_all_attempts(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    dead(made, arming, 5)
    assert made.promises(check) == []


def test_a_timer_that_is_dead_too_soon_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    dead(made, arming, 4)
    assert made.promises(check) == ["at least once, or dead"]


def test_what_was_replaced_need_not_run(made: HandMade) -> None:
    made.arm("0.1", 1, 1)
    arming = made.arm("0.1", 1.5, 1)
    made.run("1.1", arming, 2.52, 2.6)
    assert made.promises(check) == []


def test_what_was_removed_need_not_run(made: HandMade) -> None:
    made.arm("0.1", 1, 1)
    made.add("0.1", "remove", "quick:t", 1.5, 1.6, removed=True)
    assert made.promises(check) == []


def test_a_run_of_what_was_removed_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.add("0.1", "remove", "quick:t", 1.5, 1.6, removed=True)
    made.run("1.1", arming, 2.02, 2.1)
    assert made.promises(check) == ["removed is removed"]


def test_a_retry_after_a_removal_that_came_too_late_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1, "fail")
    made.add("0.1", "remove", "quick:t", 2.2, 2.3, removed=False)
    made.run("1.1", arming, 2.31, 2.32, "fail", attempt=2)
    assert made.promises(check) == []
    made.run("1.1", arming, 2.5, 2.6, attempt=3)
    assert made.promises(check) == ["removed is removed"]


def test_a_second_run_though_all_was_well_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1)
    made.run("2.1", arming, 4.2, 4.3, attempt=2)
    assert made.promises(check) == ["once, while all is well"]


@pytest.mark.parametrize(
    ("kind", "target"), [("partition", "1.1"), ("kill", "1.1"), ("restart", "server")]
)
def test_a_second_run_after_a_fault_may_be(made: HandMade, kind: str, target: str) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1)
    made.history.windows.append(Window(kind, target, 2.2, 5))
    made.run("2.1", arming, 4.2, 4.3, attempt=2)
    assert made.promises(check) == []


def test_an_attempt_that_is_not_counted_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1, "fail")
    made.run("2.1", arming, 2.5, 2.6)
    assert made.promises(check) == ["attempts rise"]


def test_an_earlier_run_with_the_higher_fence_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1, "fail", fence=9, attempt=2)
    made.run("2.1", arming, 2.5, 2.6, "fail", fence=8)
    dead(made, arming, 5)
    assert made.promises(check) == ["attempts rise"]


def test_a_claim_that_a_jump_of_the_clock_has_ended_may_begin_later(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.history.jumps.append(Jump(2.2, 2.21, 2.5))
    made.history.windows.append(Window("clock", "server", 2.2, 2.5))
    made.run("1.1", arming, 2.3, 2.4, fence=9, attempt=2)
    made.run("2.1", arming, 2.5, 2.6, fence=8)
    assert made.promises(check) == []


def test_one_attempt_too_many_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, 2.1, attempt=6)
    assert made.promises(check) == ["attempts rise"]


def test_two_runs_at_once_are_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, None)
    made.run("2.1", arming, 3.5, 3.6, attempt=2)
    assert made.promises(check) == ["runs do not overlap"]


def test_a_run_after_the_lease_of_the_one_before_may_be(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, None)
    made.run("2.1", arming, 4.03, 4.1, attempt=2)
    assert made.promises(check) == []


def test_a_run_that_nobody_takes_over_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 2.02, None)
    made.history.deaths["1.1"] = 2.5
    made.history.windows.append(Window("kill", "1.1", 2.49, 3))
    made.run("2.1", arming, 9, 9.1, attempt=2)
    assert made.promises(check) == ["a dead worker is replaced"]


def test_a_timer_that_is_late_is_found(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.run("1.1", arming, 6, 6.1)
    assert made.promises(check) == ["in time"]


def test_a_timer_may_be_late_after_a_fault(made: HandMade) -> None:
    arming = made.arm("0.1", 1, 1)
    made.history.windows.append(Window("restart", "server", 1.5, 5))
    made.run("1.1", arming, 6, 6.1)
    assert made.promises(check) == []


def test_what_is_left_is_found(made: HandMade) -> None:
    made.history.finds["timers"]["left"].append("quick--t")
    assert made.promises(check) == ["at least once, or dead"]


def series(made: HandMade, *steps: int) -> None:
    arming = made.arm("0.1", 0, 0.5, "beat:series", every=0.5)
    first = arming.facts["due"]
    for step in steps:
        due = first + step * SECOND // 2
        at = (due - HandMade.clock(0)) / SECOND + 0.01
        made.run("1.1", arming, at, at + 0.01, due=due)


def test_a_series_with_all_its_instants_is_as_promised(made: HandMade) -> None:
    series(made, 0, 1, 2, 3)
    assert made.promises(check) == []


def test_an_instant_that_is_left_out_is_found(made: HandMade) -> None:
    series(made, 0, 1, 3, 4)
    assert made.promises(check) == ["series"]
