"""What a process makes of the answers it gets, with a backend that the test plays itself."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

import pytest
from redis import exceptions

from redsync._async.grant import Grant
from redsync._async.pool import PermitWaiter, Pool
from redsync._protocol.keys import SemaphoreKeys
from redsync._protocol.resp import Reply
from redsync._protocol.scripts import Command
from redsync._protocol.semaphore import (
    Empty,
    Facts,
    Return,
    Seat,
    Tended,
    Terms,
    Token,
)
from redsync.aio import RedisSemaphoreTimeoutError

FACTS = Facts(count=3, version=5, fence=20, grace=1000, ttl=2000)


class Instance:
    terms = Terms(ttl=2000, keep=10_000)
    identifier = "some one"


class Backend:
    """Answers what it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        self.acquired: Token | Empty | None = Token(0, 17)
        self.answer: Any = None
        self.seated: list[bool] = []
        self.renewed: list[bool] = []
        self.facts = FACTS
        self.error: Exception | None = None
        self.seen: list[int] = []
        self.returns: list[list[Return]] = []
        self.terms: list[Terms] = []
        self.leads: list[int] = []

    async def acquire(self, owner: str, terms: Terms, seen: int, *_: Any) -> Any:
        self.seen.append(seen)
        if self.error is not None:
            raise self.error
        return self.acquired if self.answer is None else await self.answer()

    async def renew(self, seats: Sequence[Seat], deadline: float) -> list[bool]:
        return self.renewed or [False for _ in seats]

    async def tend(
        self,
        terms: Terms,
        known: Facts,
        seats: Sequence[Seat],
        returns: Sequence[Return],
        seen: int,
        lead: int,
        deadline: float,
    ) -> Tended:
        self.terms.append(terms)
        self.leads.append(lead)
        self.returns.append(list(returns))
        if self.error is not None:
            raise self.error
        return Tended(self.seated or [True for _ in seats], 500, self.facts)

    async def release(self, *_: Any) -> None:
        if self.error is not None:
            raise self.error

    def claim(self, terms: Terms, known: Facts, seats: Sequence[Seat], seen: int) -> Command | None:
        self.seen.append(seen)
        return Command(b"")


class Way:
    """Leads nowhere."""

    place = None
    moves = 0
    clustered = False

    def give_up_stalled(self, *_: Any) -> None:
        pass

    async def open_line(self, timeout: float) -> None:
        raise exceptions.ConnectionError("nowhere")


class Scene:
    """A pool of a semaphore that is there, with one instance."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.instance = Instance()
        self.calls = 0
        keys = SemaphoreKeys.of("p", "x")
        self.way = Way()
        way: Any = self.way
        backend: Any = self.backend
        self.pool = Pool("x", way, backend, keys, self.call)
        self.pool.join(self.instance)
        self.pool._note(FACTS)

    def call(self) -> None:
        self.calls += 1

    async def acquire(self, owner: str = "me:1", timeout: float | None = 0) -> Grant:
        now = monotonic()
        return await self.pool.acquire(owner, self.instance, timeout, now, now + 5)


async def test_who_loses_its_seat_is_told() -> None:
    scene = Scene()
    kept, lost = await scene.acquire("me:1"), await scene.acquire("me:2")
    scene.backend.seated = [True, False]
    await scene.pool.tend()
    assert kept.held and lost.lost


async def test_a_lease_that_was_renewed_counts_from_before() -> None:
    for how in ("seated", "renewed"):
        scene = Scene()
        grant = await scene.acquire()
        grant.deadline = monotonic() + 0.5
        setattr(scene.backend, how, [True])
        before = monotonic()
        await scene.pool.tend()
        assert before + 1.9 < grant.deadline <= monotonic() + 2 - 0.02


async def test_what_was_given_back_is_not_given_back_again() -> None:
    scene = Scene()
    grant = await scene.acquire()
    scene.pool.give_back(grant)
    assert scene.pool.due() == 0.0 and scene.calls
    await scene.pool.tend()
    await scene.pool.tend()
    assert scene.backend.returns == [[grant.handback()], []]
    scene.pool.leave(scene.instance)
    assert scene.pool.idle()


async def test_what_cannot_be_given_back_is_tried_again_for_two_leases() -> None:
    scene = Scene()
    grant = await scene.acquire()
    scene.backend.error = exceptions.ConnectionError("away")
    with pytest.raises(exceptions.ConnectionError):
        await scene.pool.release(grant)
    assert grant.released and scene.pool.due() == 0.0
    await scene.pool.tend()
    assert monotonic() < scene.pool.due() < monotonic() + 1  # soon again
    await scene.pool.tend()
    assert scene.backend.returns == [[grant.handback()]] * 2
    scene.pool._returns = {each: since - 4.1 for each, since in scene.pool._returns.items()}
    await scene.pool.tend()
    await scene.pool.tend()
    assert scene.backend.returns == [[grant.handback()]] * 3 + [[]]


async def test_what_could_not_be_released_is_given_back_soon() -> None:
    scene = Scene()
    grant = await scene.acquire()
    await scene.pool.tend()
    assert scene.pool.due() > monotonic()
    scene.backend.error = exceptions.ConnectionError("away")
    with pytest.raises(exceptions.ConnectionError):
        await scene.pool.release(grant)
    assert scene.pool.due() == 0.0


async def test_whatever_a_request_was_granted_goes_back_if_its_answer_is_not_known() -> None:
    scene = Scene()
    scene.backend.error = exceptions.ConnectionError("away")
    with pytest.raises(exceptions.ConnectionError):
        await scene.acquire("me:7")
    scene.pool.abandon("me:7")
    scene.pool.abandon("me:7")
    scene.backend.error = None
    await scene.pool.tend()
    assert scene.backend.returns == [[Return.all_of("me:7")]]


async def test_a_permit_that_came_for_somebody_who_has_left_goes_back() -> None:
    scene = Scene()
    grant = await scene.acquire("me:1")
    scene.pool.abandon("me:1")
    assert grant.released
    await scene.pool.tend()
    assert scene.backend.returns == [[grant.handback()]]


async def test_what_was_refused_is_not_given_back() -> None:
    scene = Scene()
    scene.backend.error = exceptions.NoPermissionError("no")
    with pytest.raises(exceptions.NoPermissionError):
        await scene.acquire("me:7")
    scene.pool.abandon("me:7")
    scene.backend.error = None
    await scene.pool.tend()
    assert scene.backend.returns == [[]]


async def test_the_highest_fence_that_was_seen_is_told_to_the_server() -> None:
    scene = Scene()
    scene.pool._note(Facts(3, 5, 40, 1000, 2000))
    await scene.acquire("me:1")
    scene.backend.acquired = Token(1, 60)
    await scene.acquire("me:2")
    await scene.acquire("me:3")
    scene.pool.deliver([b"2:80"], monotonic())
    await scene.acquire("me:4")
    assert scene.backend.seen == [40, 40, 60, 80]


async def test_facts_from_before_a_resize_change_nothing() -> None:
    scene = Scene()
    scene.pool._note(Facts(9, 6, 20, 1000, 2000))
    scene.pool._note(FACTS)
    assert scene.pool._facts is not None and scene.pool._facts.count == 9


async def test_the_longest_lease_of_anybody_is_the_one_to_wait_for() -> None:
    scene = Scene()
    scene.backend.facts = Facts(3, 5, 20, 1000, 60_000)
    scene.pool._note(scene.backend.facts)
    await scene.pool.tend()
    scene.pool.leave(scene.instance)
    scene.pool.join(scene.instance)
    await scene.pool.tend()
    assert [each.ttl for each in scene.backend.terms] == [60_000, 60_000]


async def test_a_try_that_set_something_free_for_nobody_is_made_once_more() -> None:
    scene = Scene()
    answers: list[Token | Empty | None] = [Empty(None, 1, FACTS), Token(0, 17)]

    async def answer() -> Any:
        return answers.pop(0)

    scene.backend.answer = answer
    assert (await scene.acquire(timeout=0)).token == Token(0, 17)


async def test_a_lease_that_had_run_out_on_arrival_is_not_handed_out() -> None:
    scene = Scene()
    now = monotonic()

    async def answer() -> Any:
        # The answer has taken longer than the lease.
        scene.instance.terms = Terms(ttl=0, keep=10_000)
        return Token(0, 17)

    scene.backend.answer = answer
    short = Instance()
    short.terms = Terms(ttl=0, keep=10_000)
    assert await scene.pool._try("me:1", short, now + 5) is None
    await scene.pool.tend()
    assert scene.backend.returns == [[Return(0, 17, "me:1")]]


async def test_whoever_waits_comes_when_a_lease_of_somebody_else_ends() -> None:
    scene = Scene()
    await scene.pool.tend()
    later = scene.pool.due()
    scene.pool._queue._waiting["me:9"] = PermitWaiter("me:9", scene.instance)
    now = monotonic()
    assert scene.pool.due() < later
    assert now + 0.4 < scene.pool.due() <= now + 0.501


async def test_whoever_waits_with_a_shorter_lease_is_called_on_sooner() -> None:
    scene = Scene()
    await scene.pool.tend()
    assert scene.pool.due() > monotonic() + 2  # for the keys alone
    scene.backend.acquired = Empty(None, 0, FACTS)
    hurried, now = Instance(), monotonic()
    with pytest.raises(RedisSemaphoreTimeoutError):
        await scene.pool.acquire("me:1", hurried, 0.05, now, now + 5)
    assert scene.pool.due() < monotonic() + 2 / 3 * 1.2


async def test_leases_are_renewed_three_times_before_they_end() -> None:
    scene = Scene()
    grant = await scene.acquire()
    await scene.pool.tend()
    now = monotonic()
    assert now + 2 / 3 * 0.8 - 0.1 < scene.pool.due() < now + 2 / 3 * 1.2
    assert scene.pool._renew_within(0.6) and scene.pool.due() < monotonic() + 0.25
    assert not scene.pool._renew_within(60)
    assert grant.held


@pytest.mark.parametrize("reply", [exceptions.NoScriptError("no"), None], ids=["error", "nothing"])
async def test_a_claim_that_was_not_answered_is_made_by_the_watchdog(reply: Reply) -> None:
    scene = Scene()
    await scene.pool.tend()
    grant = await scene.acquire()
    scene.pool._claims.append(grant)
    assert scene.pool.has_claim
    claim = scene.pool.claim()
    assert claim is not None and not scene.pool.has_claim and scene.pool.due() > monotonic()
    if reply is None:
        claim.failed()
    else:
        claim.answered(reply)
    assert scene.pool.due() == 0.0


async def test_what_is_to_be_given_back_still_is_after_a_claim() -> None:
    scene = Scene()
    grant = await scene.acquire()
    scene.pool._return(Return.all_of("me:9"))
    scene.pool._return(Return(1, 18, "me:8"))
    scene.pool._claims.append(grant)
    claim = scene.pool.claim()
    assert claim is not None
    claim.answered([500, b"0", b"3", b"5", b"20", b"1000", b"2000"])
    assert grant.lost
    assert list(scene.pool._returns) == [Return.all_of("me:9"), Return(1, 18, "me:8")]
    assert scene.pool.due() == 0.0


async def test_a_permit_that_is_dropped_by_a_closed_instance_is_not_renewed() -> None:
    scene = Scene()
    grant = await scene.acquire()
    scene.pool.leave_alone([grant])
    assert grant.held and not scene.pool._held()


def queued(scene: Scene, owner: str) -> PermitWaiter:
    """Somebody in line, for whom no connection is opened."""
    waiter = PermitWaiter(owner, scene.instance)
    scene.pool._queue._waiting[owner] = waiter
    return waiter


async def test_a_token_from_before_the_connection_is_exchanged_once_for_each_slot() -> None:
    scene = Scene()
    for opened in (100, 200):
        queue, waiter = scene.pool._queue, queued(scene, f"me:{opened}")
        queue.opened = opened
        scene.pool.deliver([b"1:%d" % (opened - 1)], monotonic())
        assert len(queue) == 1 and len(scene.pool._returns) == 1
        [handback] = scene.pool._returns
        assert handback[:2] == (1, opened - 1)
        scene.pool.deliver([b"1:%d" % (opened - 2)], monotonic())
        assert not queue and waiter.result().token == Token(1, opened - 2)
        await scene.pool.tend()


async def test_a_token_that_was_pushed_since_is_handed_out() -> None:
    scene = Scene()
    waiter = queued(scene, "me:9")
    scene.pool._queue.opened = 100
    scene.pool.deliver([b"1:100"], monotonic())
    assert waiter.result().token == Token(1, 100)


async def test_fences_take_the_lead_once_after_each_move_to_another_server() -> None:
    scene = Scene()
    await scene.pool.tend()
    for move in (1, 2):
        scene.way.moves = move
        assert scene.pool.due() == 0.0
        scene.backend.error = exceptions.ConnectionError("away")
        await scene.pool.tend()
        scene.backend.error = None
        await scene.pool.tend()
        await scene.pool.tend()
    assert scene.backend.leads == [0, *[60_000_000, 60_000_000, 0] * 2]


async def test_what_was_released_of_late_is_given_back_to_the_next_server_too() -> None:
    scene = Scene()
    late, old = await scene.acquire("me:1"), await scene.acquire("me:2")
    await scene.pool.release(old)
    await scene.pool.release(late)
    [of_old, of_late] = scene.pool._settled
    scene.pool._settled[0] = of_old[0], of_old[1] - 2.1  # longer ago than a lease
    scene.way.moves = 1
    await scene.pool.tend()
    await scene.pool.tend()
    assert scene.backend.returns == [[late.handback()], []]
    assert [each for each, _ in scene.pool._settled] == [of_late[0]]


async def test_what_somebody_else_wrote_is_told_once_until_it_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    garbage = exceptions.ResponseError("WRONGTYPE Operation against a key")
    for error in (garbage, garbage, None, garbage):
        scene.backend.error = error
        await scene.pool.tend()
        assert monotonic() < scene.pool.due()
    told = [each for each in caplog.records if each.name == "redsync"]
    assert len(told) == 2 and "did not write" in told[0].getMessage()


async def test_why_a_server_refuses_to_renew_is_told_and_what_passes_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    passing = [exceptions.ConnectionError("gone"), exceptions.WatchError("others were faster")]
    for error in (*passing, exceptions.ResponseError("ERR syntax error")):
        scene.backend.error = error
        await scene.pool.tend()
    [told] = [each.getMessage() for each in caplog.records if each.name == "redsync"]
    assert repr(scene.pool.name) in told and "syntax error" in told
