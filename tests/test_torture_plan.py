"""The schedule of faults."""

from __future__ import annotations

from itertools import pairwise

import pytest
from click.testing import CliRunner

from redsync.cli.commands import redsync
from redsync.cli.torture.plan import EVERYBODY, KINDS, Fault, make_plan, storms
from redsync.cli.torture.terms import SEATS

SEEDS = range(20)


def targets(fault: Fault) -> set[int]:
    return set(range(SEATS)) if fault.target == EVERYBODY else {fault.target}


def test_the_same_seed_makes_the_same_plan() -> None:
    assert make_plan(60, 5) == make_plan(60, 5)
    assert make_plan(60, 5) != make_plan(60, 6)


def test_the_command_prints_the_plan() -> None:
    command = ["torture", "--plan", "--seconds", "60", "--seed", "5"]
    printed = [CliRunner().invoke(redsync, command).output for _ in range(2)]
    assert printed[0] == printed[1]
    assert printed[0].splitlines() == [str(fault) for fault in make_plan(60, 5)]


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_minute_there_is_a_fault_of_each_kind(seed: int) -> None:
    assert {fault.kind for fault in make_plan(60, seed)} == set(KINDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_target_has_one_fault_at_a_time(seed: int) -> None:
    plan = make_plan(120, seed)
    for target in range(-1, SEATS):
        for one, other in pairwise(each for each in plan if target in targets(each)):
            assert one.end < other.at


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("seconds", [5, 60, 300])
def test_in_a_calm_there_is_at_most_one_death(seconds: float, seed: int) -> None:
    spans = storms(seconds)
    calm = [
        fault
        for fault in make_plan(seconds, seed)
        if not any(begin <= fault.at and fault.end <= end + 0.001 for begin, end in spans)
    ]
    assert {fault.kind for fault in calm} <= {"kill"}
    assert len(calm) == len(spans) // 2


@pytest.mark.parametrize("seed", SEEDS)
def test_every_second_storm_leaves_the_server_alone(seed: int) -> None:
    plan = make_plan(200, seed)
    for number, (begin, end) in enumerate(storms(200)):
        faults = [fault for fault in plan if begin <= fault.at < end]
        assert len(faults) > 10
        assert any(fault.target < 0 for fault in faults) == (number % 2 == 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_clock_stays_within_some_seconds(seed: int) -> None:
    offset = 0.0
    for fault in make_plan(3600, seed):
        offset += fault.detail.get("jump", 0.0)
        assert abs(offset) <= 6.001
