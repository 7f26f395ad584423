"""What the checks find in histories of permits, and what they let pass."""

from __future__ import annotations

import pytest

from redsync.cli.torture.checks_semaphores import check
from redsync.cli.torture.history import Jump, Window
from redsync.cli.torture.shrink import shrink

from .support.hand_made import HandMade


@pytest.fixture
def made() -> HandMade:
    return HandMade()


def test_one_after_the_other_is_as_promised(made: HandMade) -> None:
    made.hold("0.1", 1, 2, fence=1)
    made.hold("1.1", 2.01, 3, fence=2)
    made.hold("0.1", 2.5, 3, slot=1, fence=3)
    assert made.promises(check) == []


def test_two_holders_of_a_slot_are_found(made: HandMade) -> None:
    made.hold("0.1", 1, 2, fence=1)
    made.hold("1.1", 1.9, 3, fence=2)
    assert made.promises(check) == ["no slot twice"]


def test_a_slot_that_there_is_not_is_found(made: HandMade) -> None:
    made.hold("0.1", 1, 2, slot=3, fence=1)
    assert made.promises(check) == ["slots"]


def resize(made: HandMade, at: float, count: int, *, ended: float | None = None) -> None:
    """It takes 0.1 s; one that ends later has no answer."""
    how = "ok" if ended is None else "unknown"
    made.add("2.1", "resize", "resized", at, ended or at + 0.1, how, count=count)


@pytest.mark.parametrize("asked", [2.2, 9.0])
def test_a_slot_beyond_the_new_number_of_permits_is_found(made: HandMade, asked: float) -> None:
    resize(made, 0.5, 4)
    resize(made, 1, 2)
    made.hold("0.1", asked + 0.01, asked + 1, slot=2, fence=1, of="resized")
    assert made.promises(check) == ["fewer permits"]


def test_so_is_one_for_somebody_who_has_waited_since_before(made: HandMade) -> None:
    resize(made, 1, 2)
    made.hold("0.1", 3.2, 4, slot=2, fence=1, of="resized", asked=0.5)
    assert made.promises(check) == ["fewer permits"]


def test_a_slot_below_the_new_number_of_permits_may_be_granted(made: HandMade) -> None:
    resize(made, 1, 2)
    made.hold("0.1", 5, 6, slot=1, fence=1, of="resized")
    assert made.promises(check) == []


def test_a_token_may_have_been_on_its_way_when_it_was_resized(made: HandMade) -> None:
    resize(made, 1, 2)
    made.hold("0.1", 2, 3, slot=2, fence=1, of="resized")
    assert made.promises(check) == []


@pytest.mark.parametrize(("at", "ended"), [(0.95, None), (2.5, None), (0.5, 2.0)])
def test_whichever_resize_may_have_been_the_last_counts(
    made: HandMade, at: float, ended: float | None
) -> None:
    resize(made, 1, 2)
    resize(made, at, 3, ended=ended)
    made.hold("0.1", 3, 4, slot=2, fence=1, of="resized")
    assert made.promises(check) == []


def test_a_resize_that_has_failed_does_not_count(made: HandMade) -> None:
    resize(made, 1, 2)
    made.add("2.1", "resize", "resized", 2, 2.1, "fail", count=3, error="E")
    made.hold("0.1", 3, 4, slot=2, fence=1, of="resized")
    assert made.promises(check) == ["fewer permits"]


def test_who_was_killed_would_have_believed_until_the_end_of_the_lease(made: HandMade) -> None:
    made.hold("0.1", 1, None, fence=1)
    made.history.deaths["0.1"] = 1.5
    made.hold("1.1", 2.9, 3, fence=2)
    assert made.promises(check) == ["no slot twice"]


def test_after_the_lease_of_one_that_was_killed_another_may_have_it(made: HandMade) -> None:
    made.hold("0.1", 1, None, fence=1)
    made.history.deaths["0.1"] = 1.5
    made.hold("1.1", 3, 4, fence=2)
    assert made.promises(check) == []


def jump(made: HandMade, at: float, seconds: float) -> None:
    made.history.jumps.append(Jump(at, at + 0.001, seconds))


def test_a_jump_of_the_clock_may_end_a_lease(made: HandMade) -> None:
    made.hold("0.1", 1, 2.5, fence=1)
    jump(made, 2.0, 1.5)
    made.hold("1.1", 2.1, 3, fence=2)
    assert made.promises(check) == []


def test_a_jump_by_less_than_the_rest_excuses_nothing(made: HandMade) -> None:
    made.hold("0.1", 1, 2.5, fence=1)
    jump(made, 2.0, 0.5)
    made.hold("1.1", 2.1, 3, fence=2)
    assert made.promises(check) == ["no slot twice"]


@pytest.mark.parametrize(("at", "found"), [(2.4, ["no slot twice"]), (2.6, [])])
def test_a_jump_by_less_than_the_rest_ends_the_lease_earlier_by_as_much(
    made: HandMade, at: float, found: list[str]
) -> None:
    made.hold("0.1", 1, None, fence=1)
    made.history.deaths["0.1"] = 2.2
    jump(made, 2.0, 0.5)
    made.hold("1.1", at, 3, fence=2)
    assert made.promises(check) == found


def test_a_jump_before_the_renewal_that_counts_excuses_nothing(made: HandMade) -> None:
    made.hold("0.1", 1, None, fence=1, renewals=(2.2,))
    made.history.deaths["0.1"] = 2.3
    jump(made, 2.0, 0.5)
    made.hold("1.1", 3.9, 4.1, fence=2)
    assert made.promises(check) == ["no slot twice"]


def test_two_jumps_add_up(made: HandMade) -> None:
    made.hold("0.1", 1, None, fence=1)
    made.history.deaths["0.1"] = 1.4
    jump(made, 1.5, 0.4)
    jump(made, 1.6, 0.4)
    made.hold("1.1", 2.25, 3, fence=2)
    assert made.promises(check) == []


def test_a_jump_back_excuses_nothing(made: HandMade) -> None:
    made.hold("0.1", 1, 2.5, fence=1)
    jump(made, 2.0, -1.5)
    made.hold("1.1", 2.1, 3, fence=2)
    assert made.promises(check) == ["no slot twice"]


def test_what_was_renewed_after_a_jump_is_nobody_elses(made: HandMade) -> None:
    made.hold("0.1", 1, 2.9, fence=1, renewals=(2.2,))
    jump(made, 2.0, 1.5)
    made.hold("1.1", 2.5, 3, fence=2)
    assert made.promises(check) == ["no slot twice"]


def test_doubt_after_a_jump_that_lasts_is_found(made: HandMade) -> None:
    made.hold("0.1", 1, 5, fence=1)
    jump(made, 2.0, 1.5)
    made.hold("1.1", 2.1, 5, fence=2)
    assert made.promises(check) == ["told that it is lost"]


def test_a_fence_that_is_given_twice_is_found(made: HandMade) -> None:
    made.hold("0.1", 1, 2, fence=5)
    made.hold("1.1", 3, 4, slot=1, fence=5)
    assert made.promises(check) == ["fences rise"]


def test_a_fence_that_falls_is_found(made: HandMade) -> None:
    made.hold("0.1", 1, 2, fence=5)
    made.hold("1.1", 3, 4, slot=1, fence=4)
    assert made.promises(check) == ["fences rise"]


def test_requests_at_the_same_time_may_be_answered_in_any_order(made: HandMade) -> None:
    made.hold("0.1", 1, 2, fence=5)
    made.hold("1.1", 1.5, 4, slot=1, fence=4, asked=0.9)
    assert made.promises(check) == []


@pytest.mark.parametrize(
    ("timeout", "how", "took"),
    [(1.0, "fail", 0.9), (1.0, "fail", 3.0), (1.0, "unknown", 3.0), (None, "unknown", 7.0)],
)
def test_timeouts_that_are_not_kept_are_found(
    made: HandMade, timeout: float | None, how: str, took: float
) -> None:
    made.add("0.1", "acquire", "scripts", 1, 1 + took, how, timeout=timeout, error="E")
    assert made.promises(check) == ["timeouts"]


def test_who_was_stopped_may_be_late(made: HandMade) -> None:
    made.add("0.1", "acquire", "scripts", 1, 4, "fail", timeout=1.0, error="timeout")
    made.history.gaps["0.1"] = [(1.5, 3.5)]
    assert made.promises(check) == []


def test_to_wait_beside_a_free_permit_is_found(made: HandMade) -> None:
    made.history.finds["rested"] = 20.0
    made.add("0.1", "acquire", "scripts", 10, 12, "fail", timeout=2.0, error="timeout")
    assert made.promises(check) == ["all permits get used"]


def test_to_wait_beside_a_free_permit_after_a_fault_may_be(made: HandMade) -> None:
    made.history.finds["rested"] = 20.0
    made.history.windows.append(Window("pause", "server", 8, 9))
    made.add("0.1", "acquire", "scripts", 10, 12, "fail", timeout=2.0, error="timeout")
    assert made.promises(check) == []


def test_to_wait_while_all_is_held_may_be(made: HandMade) -> None:
    made.history.finds["rested"] = 20.0
    for slot in range(3):
        looks = tuple(9 + n / 2 for n in range(8))
        made.hold("1.1", 9, 13, slot=slot, fence=slot, renewals=looks)
    made.add("0.1", "acquire", "scripts", 10, 12, "fail", timeout=2.0, error="timeout")
    assert made.promises(check) == []


def test_a_dead_holders_permit_that_does_not_come_back_is_found(made: HandMade) -> None:
    made.hold("0.1", 1, None, fence=1)
    made.history.deaths["0.1"] = 1.5
    made.history.windows.append(Window("kill", "0.1", 1.5, 2.0))
    made.add("1.1", "acquire", "scripts", 2, 8, "fail", timeout=6.0, error="timeout")
    assert made.promises(check) == ["a dead holder's permit comes back"]


@pytest.mark.parametrize(
    "found",
    [
        {"granted": 2, "held": [0, 3, 0], "free": [3, 0, 0]},
        {"granted": 3, "held": [0, 2, 1], "free": [3, 0, 0]},
        {"granted": 3, "held": [0, 3, 0], "free": [2, 0, 1]},
    ],
)
def test_a_permit_that_is_lost_in_the_end_is_found(made: HandMade, found: object) -> None:
    made.history.finds["semaphores"]["scripts"] = found
    assert made.promises(check) == ["nothing is lost"]


def test_the_smallest_history_has_only_those_who_broke_a_promise(made: HandMade) -> None:
    for number in range(10):
        made.hold("2.1", 10 + number, 10.5 + number, fence=10 + number)
    one = made.hold("0.1", 1, 2, fence=1)
    other = made.hold("1.1", 1.9, 3, fence=2)
    [violation] = check(made.history)
    assert shrink(made.history, violation, check) == [one, other]
