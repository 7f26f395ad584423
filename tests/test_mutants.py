"""The list of mutations fits the sources, and its runner tells a killed one from a survivor."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

from mutants import ROOT, ListError, Mutation, Verdict, check, judge_all, load, summary, table

pytestmark = pytest.mark.proof

MUTATION = Mutation(
    file="_backoff.py",
    old="growth = float(self.factor) ** (failures - 1)",
    new="growth = float(self.factor) ** failures",
    breaks="The first pause is as long as the second.",
    killed_by="tests/test_routing.py::test_each_pause_is_longer_until_the_longest",
)


def test_every_mutation_can_be_applied_to_the_sources_as_they_are() -> None:
    mutations = load()
    assert len(mutations) >= 150
    check(mutations)


def test_every_test_that_is_named_exists() -> None:
    named = sorted({each.killed_by for each in load()})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    # pytest refuses to collect what does not exist.
    collected = subprocess.run([*command, *named], cwd=ROOT, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stdout[-3000:]


@pytest.mark.parametrize(
    ("old", "count"), [("return 0 if self.odd else 1", 0), ("import", "several")]
)
def test_a_fragment_that_is_not_there_once_is_told(old: str, count: object) -> None:
    with pytest.raises(ListError, match="instead of once"):
        check([replace(MUTATION, old=old)])


def test_a_mutation_that_changes_nothing_or_is_there_twice_is_told() -> None:
    with pytest.raises(ListError, match="nothing would change"):
        check([replace(MUTATION, new=MUTATION.old)])
    with pytest.raises(ListError, match="listed twice"):
        check([MUTATION, MUTATION])


def test_an_entry_without_a_test_is_told(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text("[['a.py']]\nold = 'a'\nnew = 'b'\nbreaks = 'c'\n")
    with pytest.raises(ListError, match="killed_by"):
        load(tmp_path)


@pytest.mark.timeout(180)  # it starts pytest three times
def test_who_survives_who_dies_and_what_is_no_program_are_told_apart() -> None:
    harmless = replace(MUTATION, new=f"{MUTATION.old}  # no change", breaks="Nothing.")
    no_python = replace(MUTATION, new="growth = (")
    no_lua = replace(
        MUTATION,
        file="_protocol/lua/event/common.lua",
        old="call('RPUSH', signals, id)",
        new="call('RPUSH', signals, id",
    )
    before = (ROOT / MUTATION.path).read_bytes()
    told: list[Verdict] = []
    verdicts = judge_all([MUTATION, harmless, no_python, no_lua], 1, told.append)
    assert told == verdicts
    assert [each.killed for each in verdicts] == [True, False, False, False]
    assert "assert" in verdicts[0].why
    assert "SURVIVED" in verdicts[1].why
    assert "it is no program: SyntaxError" in verdicts[2].why
    assert "Error compiling script" in verdicts[3].why
    assert (ROOT / MUTATION.path).read_bytes() == before
    assert table(verdicts).count("**nobody**") == 3
    assert "| _backoff.py | 3 | 1 |" in summary(verdicts)


def test_a_test_that_fails_without_a_mutation_kills_nobody() -> None:
    absent = replace(MUTATION, killed_by="tests/test_routing.py::test_of_nothing")
    with pytest.raises(ListError, match="although nothing is broken"):
        judge_all([absent], 1, lambda _: None)
