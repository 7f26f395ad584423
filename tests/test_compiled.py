"""What CPython makes of our source: an interrupt gets past no lock and no clean-up.

Signals are looked for wherever a loop jumps back. From CPython 3.12 on that jump, at the end of a
`while` right inside of `with` or `try`, is not covered by them, so what is raised there releases no
lock and runs no `finally`. A `for`, or a `while` in a function that is called there, is covered.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

import redsync

PACKAGE = Path(redsync.__file__).parent
BLOCKING = [PACKAGE / "_sync", PACKAGE / "_runtime" / "sync", PACKAGE / "_protocol"]
EVERYTHING = ("BaseException", "KeyboardInterrupt")

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="older ones cover the jump")


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from functions(each)


def gaps(code: CodeType) -> Iterator[int]:
    """The lines of loops whose jump back is not covered by what covers the loop."""
    instructions = list(dis.get_instructions(code))
    places = {each.offset: number for number, each in enumerate(instructions)}
    table = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> int | None:
        return next((each.target for each in table if each.start <= offset < each.end), None)

    for each in instructions:
        if each.opname == "JUMP_BACKWARD":
            start, covers = each.argval, handler(each.argval)
            if covers not in (None, handler(each.offset)):
                begin = places[covers]
                if heeds_interrupts(instructions[begin : begin + 4]):
                    position = instructions[places[start]].positions  # type: ignore[attr-defined]
                    yield position.lineno


def heeds_interrupts(handler: list[dis.Instruction]) -> bool:
    """Whether it is a `with`, a `finally` or an `except` for whatever an interrupt raises."""
    if handler[0].opname != "PUSH_EXC_INFO":
        return False  # it restores the variable of a comprehension
    names = [each.argval for each in handler if each.opname == "LOAD_GLOBAL"]
    only = any(each.opname == "CHECK_EXC_MATCH" for each in handler)
    return not only or any(name in EVERYTHING for name in names)


def found_in(text: str, name: str = "text") -> list[int]:
    others = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    return [
        line
        for code in functions(compile(text, name, "exec"))
        if not code.co_flags & others
        for line in gaps(code)
    ]


def test_no_interrupt_gets_past_a_lock_or_a_clean_up() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for folder in BLOCKING
        for path in folder.rglob("*.py")
        for line in found_in(path.read_text(), str(path))
    }
    assert found == set()


@pytest.mark.parametrize(
    "around", ["with lock:", "try:{}finally: end()", "try:{}except BaseException: end()"]
)
def test_a_loop_that_lets_an_interrupt_past_would_be_found(around: str) -> None:
    begin, _, end = around.partition("{}")
    loop = f"    {begin}\n        while left:\n            take()\n"
    text = f"def f(lock, left):\n{loop}" + (f"    {end}\n" if end else "")
    assert found_in(text) == [4]
    assert found_in(text.replace("while left", "for _ in left")) == []
