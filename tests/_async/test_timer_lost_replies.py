"""A command about timers whose request or reply is lost has one effect, and the right answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial

import pytest

from redsync._async import link
from redsync._protocol.scripts import _SCRIPTS
from redsync.aio import Backoff, MissedRuns, Router, Timer, TimerRun, Timers

from ..support.aio import Redis, connect, disconnect, eventually, sleep, spawn
from ..support.commands import evalsha
from ..support.proxy import FaultProxy, How
from .helpers import left_alone
from .losing import lose, losses
from .timing import NOW, MakeTimers, Record, after, emptied, is_empty

pytestmark = pytest.mark.faults

ARM, CANCEL, TURN, RENEW, REVIVE, DISCARD, SCAN = (
    evalsha(f"timers/{each}")
    for each in ("arm", "cancel", "turn", "renew", "revive", "discard", "scan")
)


@pytest.fixture(autouse=True)
async def shaky(proxy: FaultProxy, client: Redis) -> AsyncIterator[Redis]:
    """A client whose connections the proxy breaks; no other is left when the test has ended.

    The server knows all scripts.
    """
    for script in _SCRIPTS.values():
        await client.script_load(script)
    connected = connect(proxy)
    yield connected
    await disconnect(connected)
    await client.connection_pool.disconnect()  # one for each task that has used it
    await left_alone(client)


@pytest.fixture
def make_far(make_timers: MakeTimers, shaky: Redis) -> Callable[..., Timers]:
    """Construct timers behind the proxy; those of `make_timers` have a good connection."""
    return partial(make_timers, connected=shaky)


class Failing:
    """A router whose handler fails in each attempt up to one."""

    def __init__(self, good: int, max_attempts: int) -> None:
        self.attempts: list[int] = []
        self.router = Router()

        @self.router.handler(topic="notes", max_attempts=max_attempts, backoff=Backoff(0.01))
        async def fail(data: object, context: object, run: TimerRun) -> None:
            self.attempts.append(run.attempt)
            if run.attempt < good:
                raise ValueError("as it should")


# Setting and removing


@losses
async def test_a_timer_is_set_once(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record()
    near, far = make_timers(record.router), make_far(record.router)
    fault = lose(proxy, loss, ARM, how)
    due = await far.set_timer("notes", "1", "x", after(0.1))
    assert fault.fired == 1
    names = await near.fetch_ready_timers(due)
    assert names == ["notes--1"]
    assert await near.fetch_ready_timers(due - timedelta(microseconds=1)) == []
    async with near:
        await emptied(near)
    assert [run.scheduled_for for run in record.runs] == [due]


@losses
async def test_many_timers_are_set_once(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record()
    near, far = make_timers(record.router), make_far(record.router)
    fault = lose(proxy, loss, ARM, how)
    dues = await far.set_timers([Timer("notes", str(n), n, NOW) for n in range(700)])
    assert fault.fired == 1
    assert await near.handle_ready_timers() == 700
    assert {run.timer_id: run.scheduled_for for run in record.runs} == {
        str(number): due for number, due in enumerate(dues)
    }
    assert len(record.runs) == 700 and await is_empty(near)


async def test_to_set_a_timer_again_does_not_undo_what_came_in_between(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy
) -> None:
    record = Record()
    near, far = make_timers(record.router), make_far(record.router)
    fault = lose(proxy, "reply", ARM, "stall")
    setting = spawn(partial(far.set_timer, "notes", "1", "first", NOW))
    await eventually(lambda: fault.fired)
    assert await near.handle_ready_timers() == 1
    second = await near.set_timer("notes", "1", "second", after(60))
    proxy.close_all()
    assert await setting.result() == record.runs[0].scheduled_for
    assert proxy.sent(ARM) == 2
    assert (await near.fetch_all_timers())[1] == {"notes--1": '"second"'}
    assert await near.fetch_ready_timers(second - timedelta(microseconds=1)) == []
    assert await near.handle_ready_timers() == 0


@losses
async def test_whoever_removes_a_timer_is_told_so(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record()
    near, far = make_timers(record.router), make_far(record.router)
    await near.set_timer("notes", "1", None, NOW)
    fault = lose(proxy, loss, CANCEL, how)
    assert await far.remove_timer("notes", "1") is True
    assert fault.fired == 1
    assert await near.handle_ready_timers() == 0
    fault = lose(proxy, loss, CANCEL, how)
    assert await far.remove_timer("notes", "1") is False
    assert fault.fired == 1


async def test_to_remove_a_timer_again_does_not_remove_a_new_one(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy
) -> None:
    record = Record()
    near, far = make_timers(record.router), make_far(record.router)
    await near.set_timer("notes", "1", "old", NOW)
    fault = lose(proxy, "reply", CANCEL, "stall")
    removing = spawn(partial(far.remove_timer, "notes", "1"))
    await eventually(lambda: fault.fired)
    await near.set_timer("notes", "1", "new", NOW)
    proxy.close_all()
    assert await removing.result() is True
    assert proxy.sent(CANCEL) == 2
    assert await near.handle_ready_timers() == 1
    assert record.payloads == ["new"]


# Turns


@losses
async def test_what_was_claimed_is_run_once_and_at_once(
    make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record()  # with a lease of 30 seconds
    far = make_far(record.router)
    await far.set_timers([Timer("notes", str(n), n, NOW) for n in range(50)])
    fault = lose(proxy, loss, TURN, how)
    async with far:
        await record.written(50)
        await emptied(far)
    assert fault.fired == 1
    assert sorted(record.payloads) == list(range(50))  # type: ignore[type-var]
    assert {run.attempt for run in record.runs} == {1}


async def test_the_answer_to_a_turn_that_was_given_up_comes_with_the_next_one(
    make_far: MakeTimers,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = Record()
    far = make_far(record.router)
    await far.set_timers([Timer("notes", str(n), n, NOW) for n in range(5)])
    monkeypatch.setattr(link, "PATIENCE", 0.2)
    fault = lose(proxy, "reply", TURN)
    proxy.refuse()
    async with far:
        await eventually(lambda: "no timers are taken at the moment" in caplog.text)
        proxy.heal()
        await record.written(5)
        await emptied(far)
    assert fault.fired == 1
    assert sorted(record.payloads) == list(range(5))  # type: ignore[type-var]
    assert {run.attempt for run in record.runs} == {1}


@losses
async def test_what_is_ready_is_handled_once(
    make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record()
    far = make_far(record.router, concurrency=10)
    await far.set_timers([Timer("notes", str(n), n, NOW) for n in range(25)])
    faults = [lose(proxy, loss, TURN, how) for _ in range(3)]
    assert await far.handle_ready_timers() == 25
    assert [fault.fired for fault in faults] == [1, 1, 1]
    assert sorted(record.payloads) == list(range(25))  # type: ignore[type-var]
    assert {run.attempt for run in record.runs} == {1}
    assert await is_empty(far)


@pytest.mark.punctual
@losses
async def test_what_is_done_is_not_run_again(
    make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record(lease=0.2)
    far = make_far(record.router)
    fault = lose(proxy, loss, "completed", how)
    async with far:
        await far.set_timer("notes", "1", 1, NOW)
        await emptied(far)
        assert fault.fired == 1
        await far.set_timer("notes", "after any lease", 2, after(0.3))
        await record.written(2)
        await emptied(far)
    assert record.payloads == [1, 2]


@losses
async def test_each_instant_of_a_series_is_run_once(
    make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    record = Record()
    every = timedelta(milliseconds=20)
    far = make_far(record.router)
    faults = [lose(proxy, loss, "completed", how) for _ in range(3)]
    async with far:
        first = await far.set_timer("notes", "1", 1, NOW, every=every, missed=MissedRuns.ALL)
        await record.written(8)
        await far.remove_timer("notes", "1")
        await emptied(far)
    assert [fault.fired for fault in faults] == [1, 1, 1]
    instants = [run.scheduled_for for run in record.runs]
    assert instants == [first + number * every for number in range(len(instants))]
    assert {run.attempt for run in record.runs} == {1}


@losses
async def test_a_failure_counts_once(
    make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    failing = Failing(good=4, max_attempts=4)
    far = make_far(failing.router)
    faults = [lose(proxy, loss, " again ", how) for _ in range(2)]
    async with far:
        await far.set_timer("notes", "1", 1, NOW)
        await emptied(far)
        assert await far.fetch_dead_timers() == []
    assert [fault.fired for fault in faults] == [1, 1]
    assert failing.attempts == [1, 2, 3, 4]


@losses
async def test_a_timer_dies_once(
    make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    failing = Failing(good=9, max_attempts=1)
    far = make_far(failing.router)
    fault = lose(proxy, loss, " dead ", how)
    async with far:
        await far.set_timer("notes", "1", 1, NOW)
        await emptied(far)
        assert fault.fired == 1
        [dead] = await far.fetch_dead_timers()
    assert (dead.attempts, dead.payload, failing.attempts) == (1, b"1", [1])


@pytest.mark.punctual
@pytest.mark.parametrize("match", [TURN, "BLPOP"])
async def test_the_loss_of_a_token_makes_nobody_late(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, match: str
) -> None:
    record = Record()
    far = make_far(record.router)
    async with far:
        await eventually(lambda: proxy.sent("BLPOP") > 0)
        fault = lose(proxy, "reply", match)
        await make_timers(record.router).set_timer("notes", "1", 1, NOW)
        await record.written(1)
        await emptied(far)
    assert fault.fired == 1
    assert record.runs[0].lateness < 1


async def test_whoever_ends_while_it_looks_for_timers_leaves_no_connection_behind(
    make_far: MakeTimers, proxy: FaultProxy
) -> None:
    far = make_far(Record().router)
    fault = lose(proxy, "reply", SCAN)
    async with far:
        await eventually(lambda: fault.fired)
    await eventually(lambda: proxy.connections == 0)
    await sleep(0.1)  # time enough to connect again
    assert proxy.connections == 0


@pytest.mark.punctual
@losses
async def test_a_lease_is_renewed_all_the_same(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    router = Router()
    runs: list[TimerRun] = []

    @router.handler(topic="long", lease=0.6)
    async def take_long(data: object, context: object, run: TimerRun) -> None:
        runs.append(run)
        await eventually(lambda: run.lost or proxy.sent(RENEW) >= 6)
        assert not run.lost

    near, far = make_timers(router), make_far(router)
    faults = [lose(proxy, loss, RENEW, how) for _ in range(2)]
    async with far:
        await near.set_timer("long", "1", 1, NOW)
        await eventually(lambda: runs)
        async with near:  # it would take over
            await emptied(near)
    assert [fault.fired for fault in faults] == [1, 1]
    assert [run.attempt for run in runs] == [1]


# Dead timers


@losses
async def test_a_dead_timer_is_revived_once(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    failing = Failing(good=2, max_attempts=1)
    near, far = make_timers(failing.router), make_far(failing.router)
    await near.set_timer("notes", "1", 1, NOW)
    await near.handle_ready_timers()
    fault = lose(proxy, loss, REVIVE, how)
    assert await far.revive_timer("notes", "1") is True
    assert fault.fired == 1
    assert await near.fetch_dead_timers() == []
    assert await near.handle_ready_timers() == 1
    assert await near.handle_ready_timers() == 0


async def test_to_revive_a_timer_again_does_not_revive_it_twice(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy
) -> None:
    failing = Failing(good=2, max_attempts=1)
    near, far = make_timers(failing.router), make_far(failing.router)
    await near.set_timer("notes", "1", 1, NOW)
    await near.handle_ready_timers()
    fault = lose(proxy, "reply", REVIVE, "stall")
    reviving = spawn(partial(far.revive_timer, "notes", "1"))
    await eventually(lambda: fault.fired)
    assert await near.handle_ready_timers() == 1  # and it is dead again
    proxy.close_all()
    assert await reviving.result() is True
    assert proxy.sent(REVIVE) == 2
    assert await near.handle_ready_timers() == 0
    assert len(await near.fetch_dead_timers()) == 1


@losses
async def test_whoever_discards_a_dead_timer_is_told_so(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy, loss: str, how: How
) -> None:
    failing = Failing(good=2, max_attempts=1)
    near, far = make_timers(failing.router), make_far(failing.router)
    await near.set_timer("notes", "1", 1, NOW)
    await near.handle_ready_timers()
    fault = lose(proxy, loss, DISCARD, how)
    assert await far.discard_timer("notes", "1") is True
    assert fault.fired == 1
    assert await near.fetch_dead_timers() == []
    assert await far.discard_timer("notes", "1") is False


async def test_to_discard_a_timer_again_does_not_discard_a_new_one(
    make_timers: MakeTimers, make_far: MakeTimers, proxy: FaultProxy
) -> None:
    failing = Failing(good=2, max_attempts=1)
    near, far = make_timers(failing.router), make_far(failing.router)
    await near.set_timer("notes", "1", "old", NOW)
    await near.handle_ready_timers()
    fault = lose(proxy, "reply", DISCARD, "stall")
    discarding = spawn(partial(far.discard_timer, "notes", "1"))
    await eventually(lambda: fault.fired)
    await near.set_timer("notes", "1", "new", NOW)
    await near.handle_ready_timers()
    proxy.close_all()
    assert await discarding.result() is True
    assert proxy.sent(DISCARD) == 2
    assert [each.payload for each in await near.fetch_dead_timers()] == [b'"new"']
