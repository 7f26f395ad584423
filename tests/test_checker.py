"""The checker finds what it looks for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from .support.checker import Hold, check, check_fences, check_overlaps, check_slots, most_at_once
from .support.failover import Held, Switch, judge


def hold(slot: int, fence: int, granted: float, ended: float = math.inf, asked: float = 0) -> Hold:
    return Hold("p", slot, fence, asked, granted, ended)


def flawless(number: int, count: int) -> list[Hold]:
    """The history of a semaphore that works, with gaps, in no order."""
    dice = random.Random(number)
    free = [0.0] * count
    holds = []
    granted = 0.0
    for fence in range(number):
        slot = min(range(count), key=lambda each: free[each])
        granted = max(granted, free[slot]) + dice.uniform(0.001, 0.1)
        free[slot] = granted + dice.uniform(0.01, 1)
        holds.append(Hold(f"p{fence % 3}", slot, fence, granted - 0.005, granted, free[slot]))
    dice.shuffle(holds)
    return holds


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_history_without_a_fault_passes(count: int) -> None:
    holds = flawless(200, count)
    check(holds, count)
    assert most_at_once(holds) == count


def test_an_empty_history_passes() -> None:
    check([], 1)
    assert most_at_once([]) == 0


def test_one_permit_ends_in_the_instant_in_which_the_next_begins() -> None:
    check([hold(0, 1, 1, 2), hold(0, 2, 2, 3)], 1)


@pytest.mark.parametrize(
    "others",
    [
        [hold(1, 2, 1.9, 3)],  # begins within
        [hold(1, 2, 1.2, 1.3)],  # lies within
        [hold(1, 2, 0.5, 9)],  # lies around
        [hold(1, 2, 1, 2)],  # is the same time
        [hold(1, 2, 1.5)],  # never ends
    ],
)
def test_one_permit_too_many_is_found(others: Sequence[Hold]) -> None:
    holds = [hold(0, 1, 1, 2), *others]
    assert most_at_once(holds) == 2
    check_overlaps(holds, 2)
    with pytest.raises(AssertionError, match=r"2 permits at once: slot .* with fence .* of p"):
        check_overlaps(holds, 1)


def test_one_slot_in_two_hands_is_found_even_if_there_are_permits_enough() -> None:
    holds = [hold(0, 1, 1, 3), hold(1, 2, 1, 3), hold(1, 3, 2, 4)]
    check_overlaps(holds, 3)
    with pytest.raises(AssertionError, match=r"a slot held by two: .*fence 2.*fence 3"):
        check_slots(holds)


def test_a_permit_that_has_run_out_on_arrival_is_held_by_nobody() -> None:
    holds = [hold(0, 1, 5, 4), hold(0, 2, 4.5, 6)]
    check_overlaps(holds, 1)
    check_slots(holds)


def test_a_fence_given_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="a fence given twice"):
        check_fences([hold(0, 1, 1, 2), hold(1, 1, 3, 4)])


def test_a_fence_of_a_slot_that_falls_is_found() -> None:
    with pytest.raises(AssertionError, match="a fence fell"):
        check_fences([hold(0, 2, 1, 2), hold(0, 1, 3, 4)])


def test_a_later_request_with_a_lower_fence_is_found_across_slots() -> None:
    between = hold(2, 2, 2.5, 2.6, asked=0)
    holds = [hold(0, 3, 1, 2, asked=0), between, hold(1, 1, 3, 4, asked=2)]
    with pytest.raises(AssertionError, match=r"a later request got a lower fence: .*3.*1"):
        check_fences(holds)


def test_an_earlier_request_may_notice_its_lower_fence_later() -> None:
    check_fences([hold(0, 2, 1, 2, asked=0.5), hold(1, 1, 3, 4, asked=0.9)])


def longer(holds: list[Hold], at: int) -> Hold:
    """The same hold, kept until the slot's next one has begun."""
    one = holds[at]
    later = [each for each in holds if each.slot == one.slot and each.granted > one.granted]
    following = min(later, key=lambda each: each.granted)
    return Hold(one.process, one.slot, one.fence, one.asked, one.granted, following.granted + 1e-6)


def relabelled(holds: list[Hold], at: int) -> Hold:
    """The same hold with the lowest fence of all."""
    one = holds[at]
    return Hold(one.process, one.slot, -1, one.asked, one.granted, one.ended)


@pytest.mark.parametrize("fault", [longer, relabelled])
@pytest.mark.parametrize("seed", range(20))
def test_one_fault_among_hundreds_of_holds_is_found(
    fault: Callable[[list[Hold], int], Hold], seed: int
) -> None:
    holds = flawless(300, 3)
    middle = [at for at, each in enumerate(holds) if 100 < each.fence < 200]
    at = random.Random(seed).choice(middle)
    holds[at] = fault(holds, at)
    with pytest.raises(AssertionError):
        check(holds, 3)


def held(slot: int, fence: int, granted: float) -> Held:
    return Held("s", "me", granted - 0.1, slot, fence, granted, granted + 0.2)


@pytest.mark.parametrize(("granted", "excused"), [(2.0, True), (3.05, False), (4.0, False)])
def test_a_lower_fence_is_excused_only_while_two_masters_serve(
    granted: float, excused: bool
) -> None:
    switch = Switch(broken=1.0, promoted=3.0)
    story = [held(0, 5, 0.5), held(0, 60, 1.5), held(1, 7, granted), held(0, 61, 5.0)]
    if excused:
        judge(story, 2, switch, 6)
    else:
        with pytest.raises(AssertionError, match="lower fence"):
            judge(story, 2, switch, 6)
