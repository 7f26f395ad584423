"""Nothing that comes from elsewhere is run as code: the package has nothing to do that with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import redsync

PACKAGE: Final = Path(redsync.__file__).parent

MODULES: Final = {
    *("cPickle", "cloudpickle", "code", "codeop", "dill", "joblib", "jsonpickle", "marshal"),
    *("pickle", "pickletools", "runpy", "shelve", "yaml"),
}
"""Each of them makes code, or objects of any class, of bytes."""

CALLS: Final = {"__import__", "compile", "eval", "exec", "execfile"}

METHODS: Final = {"full_load", "load_module", "loadstring", "system", "unsafe_load"}

IN_LUA: Final = re.compile(r"\b(loadstring|load|loadfile|dofile|require|setfenv|debug)\b")

SHELL: Final = "shell"


def findings(text: str) -> Iterator[str]:
    """What a module has in it that could run something."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level else [node.module or ""]
        else:
            names = []
        yield from (name for name in names if name.partition(".")[0] in MODULES)
        if isinstance(node, ast.Name) and node.id in CALLS:
            yield node.id
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield node.attr
        if isinstance(node, ast.keyword) and node.arg == SHELL:
            yield SHELL


def findings_in_lua(text: str) -> Iterator[str]:
    """The same for a script, whose comments do not count."""
    for line in text.splitlines():
        yield from IN_LUA.findall(line.partition("--")[0])


def sources(suffix: str) -> list[Path]:
    """The files of the package, the blocking twin's too."""
    # The model is not a part of what is installed.
    found = sorted(each for each in PACKAGE.rglob(f"*{suffix}") if "model" not in each.parts)
    assert len(found) > 10
    return found


def test_no_module_makes_code_or_objects_of_what_it_reads() -> None:
    found = {str(path): list(findings(path.read_text("utf-8"))) for path in sources(".py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_script_makes_code_of_its_arguments() -> None:
    found = {str(path): list(findings_in_lua(path.read_text("utf-8"))) for path in sources(".lua")}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_script_is_put_together_from_what_callers_say() -> None:
    # A script is a file of the package; whatever differs between calls is in KEYS and ARGV.
    from redsync._protocol.scripts import _SCRIPTS

    texts = {text for text in _SCRIPTS.values()}
    assert all(isinstance(text, bytes) and b"%s" not in text for text in texts)
    assert len(texts) == len([path for path in sources(".lua") if path.stem != "common"])


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import marshal as m",
        "from pickle import loads",
        "import yaml.loader",
        "x = eval('1')",
        "run = exec",
        "__import__('os')",
        "yaml.unsafe_load(x)",
        "os.system('true')",
        "subprocess.run('x', shell=True)",
    ],
)
def test_the_search_finds_what_it_is_for(text: str) -> None:
    assert list(findings(text))


def test_the_search_of_scripts_finds_what_it_is_for() -> None:
    assert list(findings_in_lua("local f = loadstring(ARGV[1])\n-- dofile")) == ["loadstring"]
