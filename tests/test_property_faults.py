"""The state machines find faults: each of these, planted in a script or in the core, fails them.

In CI a few; all of them with HYPOTHESIS_PROFILE=long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import pytest
from hypothesis.errors import Flaky
from redis.exceptions import RedisError

from redsync import RedsyncError
from redsync._protocol import scripts
from redsync.cli.server import Server

from . import test_property_event, test_property_semaphore, test_property_timers
from .support import processes
from .support.properties import search, thorough
from .support.worlds import AsyncioWorld, ThreadWorld

pytestmark = [pytest.mark.proof, pytest.mark.timeout(180)]

SEMAPHORE: Final = test_property_semaphore.SemaphoreMachine
EVENT: Final = test_property_event.EventMachine
TIMERS: Final = test_property_timers.TimersMachine


@dataclass(frozen=True)
class Fault:
    """A text in scripts that is replaced by another."""

    name: str
    machine: Any
    script: str
    """Where; or all that begin with this."""
    text: str
    instead: str
    usual: bool = False
    """Whether CI plants it."""


FAULTS: Final = [
    Fault(
        "a permit is given back by whoever had the slot before",
        SEMAPHORE,
        "semaphore/",
        "if known ~= tonumber(fence) or holder",
        "if holder",
    ),
    Fault(
        "a permit is renewed over a later one",
        SEMAPHORE,
        "semaphore/tend",
        "if ours < known or ours == known",
        "if ours == known",
    ),
    Fault(
        "the leases have no time to live",
        SEMAPHORE,
        "semaphore/acquire",
        "call('PEXPIRE', KEYS[2], m[2])",
        "",
        usual=True,
    ),
    Fault(
        "the tokens have no time to live",
        SEMAPHORE,
        "semaphore/",
        "call('PEXPIRE', free, keep)\n  end\n  pushed",
        "\n  end\n  pushed",
    ),
    Fault(
        "a shrink leaves the tokens",
        SEMAPHORE,
        "semaphore/",
        "local surplus = circulating() - count",
        "local surplus = 0",
    ),
    Fault(
        "a slot comes back although there are enough",
        SEMAPHORE,
        "semaphore/",
        " and circulating() <= tonumber(m[1]) then",
        " then",
    ),
    Fault(
        "a fence is that of the grant before",
        SEMAPHORE,
        "semaphore/",
        "math.max(tonumber(last) + 1, micros, seen + 1)",
        "math.max(tonumber(last), 1)",
    ),
    Fault(
        "fences begin anew after a loss of data",
        SEMAPHORE,
        "semaphore/",
        "math.max(tonumber(last) + 1, micros, seen + 1)",
        "tonumber(last) + 1",
    ),
    Fault(
        "lost data is recovered at once",
        SEMAPHORE,
        "semaphore/",
        "local recovery = text(now + ttl)",
        "local recovery = text(now)",
    ),
    Fault(
        "a permit is granted while earlier holders may come back",
        SEMAPHORE,
        "semaphore/",
        "if now < tonumber(m[3]) then",
        "if false then",
    ),
    Fault(
        "what is missing is not looked for",
        SEMAPHORE,
        "semaphore/",
        "if call('LLEN', free) + call('ZCARD', held) ~= circulating() then",
        "if false then",
    ),
    Fault(
        "what comes for nobody is not given back",
        SEMAPHORE,
        "semaphore/tend",
        "while ARGV[at] do",
        "while false do",
    ),
    Fault(
        "a lease that is over is not taken back",
        SEMAPHORE,
        "semaphore/",
        "call('ZRANGEBYSCORE', held, '-inf', now)",
        "call('ZRANGEBYSCORE', held, '-inf', '(0')",
    ),
    Fault(
        "somebody is woken twice by one signal",
        EVENT,
        "event/confirm",
        "if call('ZREM', open, ARGV[1]) == 1 then",
        "if call('ZSCORE', open, ARGV[1]) then",
        usual=True,
    ),
    Fault(
        "a signal that was given to somebody else wakes",
        EVENT,
        "event/confirm",
        "return call('ZSCORE', open, memory) and 1 or 0",
        "return 1",
    ),
    Fault("clear leaves what was popped", EVENT, "event/clear", "signals, open)", "signals)"),
    Fault(
        "what was popped by the dead is not missed",
        EVENT,
        "event/tend",
        "elseif known > listed then",
        "elseif false then",
    ),
    Fault(
        "what was taken by the dead is not put back",
        EVENT,
        "event/tend",
        "call('ZRANGEBYSCORE', open, '(0', now)",
        "{}",
    ),
    Fault(
        "a signal that is there is put into the list again",
        EVENT,
        "event/tend",
        "if id ~= head then",
        "if true then",
    ),
    Fault(
        "signals go with the memory of others",
        EVENT,
        "event/",
        "call('PERSIST', open)",
        "",
        usual=True,
    ),
    Fault(
        "the memory of signals stays",
        EVENT,
        "event/",
        "call('PEXPIRE', open, MEMORY)",
        "",
    ),
    Fault("sets have no time to live", EVENT, "event/", "call('PEXPIRE', sets, 2 * MEMORY)", ""),
    Fault(
        "the ids of signals do not rise",
        EVENT,
        "event/",
        "math.max(tonumber(last[2] or 0) + 1, micros)",
        "9e15 - micros",
    ),
    Fault(
        "a late report counts",
        TIMERS,
        "timers/turn",
        "if r and r.fence == fence then",
        "if r then",
    ),
    Fault(
        "an arming during a run goes with it",
        TIMERS,
        "timers/turn",
        "elseif r.rearmed then",
        "elseif false then",
    ),
    Fault(
        "an arming during a run begins beside it",
        TIMERS,
        "timers/arm",
        "if old.fence == NONE then",
        "if true then",
    ),
    Fault(
        "timers run a second early",
        TIMERS,
        "timers/turn",
        "'-inf', seconds(now), 'LIMIT'",
        "'-inf', seconds(now + 60000000), 'LIMIT'",
        usual=True,
    ),
    Fault(
        "attempts are not counted",
        TIMERS,
        "timers/turn",
        "r.attempts + 1, me",
        "r.attempts, me",
    ),
    Fault(
        "there is one attempt more",
        TIMERS,
        "timers/turn",
        "if r.attempts >= tonumber(option(ordinal, 3)) then",
        "if r.attempts > tonumber(option(ordinal, 3)) then",
    ),
    Fault(
        "a timer that was cut off counts as not begun",
        TIMERS,
        "timers/turn",
        "r.cut or what == 'cut'",
        "r.cut",
    ),
    Fault(
        "a recurring timer is armed from now on",
        TIMERS,
        "timers/turn",
        "local instant = r.due + tonumber(",
        "local instant = now + tonumber(",
    ),
    Fault(
        "missed instants are made up for one by one",
        TIMERS,
        "timers/turn",
        "math.floor((now - r.due) / every) * every",
        "every",
    ),
    Fault(
        "missed instants are never skipped",
        TIMERS,
        "timers/turn",
        "if policy == 'skip' and",
        "if false and",
    ),
    Fault(
        "the payload of a timer stays",
        TIMERS,
        "timers/turn",
        "call('HDEL', payloads, unpack(finished))",
        "",
    ),
    Fault(
        "what redis-timers has set is overlooked",
        TIMERS,
        "timers/turn",
        "if micros(score) ~= r.due then",
        "if false then",
    ),
    Fault(
        "what redis-timers has set goes with the run",
        TIMERS,
        "timers/turn",
        "if score and micros(score) ~= r.due then",
        "if false then",
    ),
    Fault(
        "the old entry stays in the index",
        TIMERS,
        "timers/arm",
        "call('ZREM', due(ordinal), unpack(outdated[ordinal]))",
        "",
        usual=True,
    ),
    Fault(
        "a timer of another topic is replaced",
        TIMERS,
        "timers/arm",
        "if records[i] and records[i].length",
        "if false and records[i].length",
    ),
    Fault(
        "to remove a timer that runs is to remove it",
        TIMERS,
        "timers/cancel",
        "r.fence ~= NONE or",
        "",
    ),
    Fault(
        "to remove a timer that has failed is to remove it",
        TIMERS,
        "timers/cancel",
        "r.attempts > 0 or",
        "",
    ),
    Fault(
        "to remove a timer of another topic is to remove it",
        TIMERS,
        "timers/cancel",
        "if r and r.length ~= ARGV[2] then",
        "if false then",
    ),
    Fault(
        "a timer that is armed is replaced by a dead one",
        TIMERS,
        "timers/revive",
        "elseif call('ZSCORE', timeline, member) then",
        "elseif false then",
    ),
    Fault(
        "a renewal comes in time, whenever it comes",
        TIMERS,
        "timers/renew",
        "local ours = r and r.fence == fence",
        "local ours = r",
    ),
    Fault(
        "a renewal brings a new arming forward",
        TIMERS,
        "timers/renew",
        "at = math.max(at, r.due)",
        "",
    ),
    Fault(
        "runs have no order",
        TIMERS,
        "timers/turn",
        "digits(fence + i - 1)",
        "digits(1)",
    ),
]


@dataclass(frozen=True)
class CoreFault:
    """A method of both twins that is replaced by another."""

    name: str
    machine: Any
    method: str
    """With its module, and the class."""
    instead: Callable[..., Any]
    usual: bool = False


CORE_FAULTS: Final = [
    CoreFault(
        "the permits of a closed instance are renewed",
        SEMAPHORE,
        "pool.Pool.leave_alone",
        lambda pool, grants: None,
    ),
    CoreFault(
        "a late permit is not given back",
        SEMAPHORE,
        "pool.Pool._return",
        lambda pool, handback: None,
    ),
    CoreFault(
        "whoever comes last is served first",
        SEMAPHORE,
        "waiting.Queue.pop",
        lambda queue: queue._waiting.popitem()[1],
    ),
    CoreFault(
        "a lost permit is not noticed",
        SEMAPHORE,
        "grant.Grant.lose",
        lambda grant: None,
    ),
    CoreFault(
        "whoever is cancelled keeps its signal",
        EVENT,
        "signals.Signals.abandon",
        lambda signals, owner: None,
    ),
    CoreFault(
        "whoever comes last is woken first",
        EVENT,
        "waiting.Queue.pop",
        lambda queue: queue._waiting.popitem()[1],
        usual=True,
    ),
    CoreFault(
        "a signal that comes for nobody is lost",
        EVENT,
        "signals.Signals.deliver",
        lambda signals, elements, sent: _give(signals, elements),
    ),
    CoreFault(
        "what runs came to is not reported",
        TIMERS,
        "schedule.Schedule.finish",
        lambda schedule, lease, outcome: schedule._leases.pop(lease.claimed.fence, None),
    ),
]


def _give(signals: Any, elements: list[bytes]) -> None:
    for each in elements:
        if signals._queue:
            waiter = signals._queue.pop()
            signals._given[waiter.owner] = each.decode()
            waiter.resolve(each.decode())


WRONG: Final = (AssertionError, Flaky, LookupError, ValueError, RedisError, RedsyncError)
"""What a course may end with."""

F = TypeVar("F", Fault, CoreFault)


def chosen(faults: list[F]) -> list[Any]:
    """Those to be planted."""
    usual = [each for each in faults if each.usual or thorough()]
    return [pytest.param(each, id=each.name.replace(" ", "-")) for each in usual]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Do not wait long for what does not come, and say nothing of it."""
    caplog.set_level(logging.CRITICAL, "redsync")
    for module in (processes, test_property_semaphore, test_property_event):
        monkeypatch.setattr(module, "PATIENCE", 2.0)


def places(fault: Fault) -> list[str]:
    """The scripts that have the text."""
    found = [name for name, text in scripts._SCRIPTS.items() if fault.text.encode() in text]
    return [name for name in found if name.startswith(fault.script)]


def test_all_faults_can_be_planted_also_those_that_are_planted_now_and_then() -> None:
    assert [each.name for each in FAULTS if not places(each)] == []


@pytest.mark.parametrize("fault", chosen(FAULTS))
def test_a_fault_in_a_script_is_found(
    fault: Fault, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = fault.text.encode(), fault.instead.encode()
    for name in places(fault):
        monkeypatch.setitem(scripts._SCRIPTS, name, scripts._SCRIPTS[name].replace(old, new))
    assert_found(fault.machine, server)


@pytest.mark.parametrize("fault", chosen(CORE_FAULTS))
def test_a_fault_in_the_core_is_found(
    fault: CoreFault, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for twin in ("_async", "_sync"):
        monkeypatch.setattr(f"redsync.{twin}.{fault.method}", fault.instead)
    assert_found(fault.machine, server)


def assert_found(machine: Any, server: Server) -> None:
    with (
        pytest.raises(WRONG) as found,
        AsyncioWorld() as asyncio,
        ThreadWorld() as threads,
    ):
        search(lambda: machine(server, {"asyncio": asyncio, "threads": threads}))
    # What happens once may not happen again; but it must not be that the time was up.
    causes = getattr(found.value, "exceptions", [found.value])
    assert not any(isinstance(each, pytest.fail.Exception) for each in causes), causes
