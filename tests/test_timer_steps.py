"""What each step of the timers decides, at the very microsecond at which it matters.

The scripts run on a real server, at instants that the test chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis import Redis

from redsync._protocol import scripts
from redsync._protocol.keys import TimerKeys
from redsync._protocol.scripts import Request
from redsync._protocol.timers import (
    BUDGET,
    LAST_INSTANT,
    SLICE,
    Arming,
    Claimed,
    Letter,
    Mode,
    Outcome,
    Terms,
    TimerScripts,
    Turn,
    member_of,
    parse_armed,
    parse_letter,
    parse_scanned,
    parse_turn,
)
from redsync.cli.server import Server

SECOND = 1_000_000
HOUR = 3600 * SECOND

LEASE = SECOND
TERMS = (Terms("t", LEASE, 3), Terms("u", LEASE, 3))
A, B = "aa00000000000000", "bb00000000000000"
"""Two workers, whose names begin with how many milliseconds they leave to others: 170, 187."""


@dataclass
class Stage:
    """A timeline, and the clock of its server."""

    redis: Any  # redis-py's types know bytes and str alike, and awaitables
    keys: TimerKeys = field(default_factory=lambda: TimerKeys.of("tl", None, clustered=False))
    micros: int = 1_800_000_000_123_456
    requests: int = 0
    turns: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scripts = TimerScripts(self.keys)

    def run(self, request: Request, *, again: bool = False) -> Any:
        text = scripts._SCRIPTS[request.script.name].decode()
        assert text.count("call('TIME')") == 1
        time = f"{{'{self.micros // SECOND}', '{self.micros % SECOND}'}}"
        arguments = request._again if again else request._first
        return self.redis.execute_command("EVAL", text.replace("call('TIME')", time), *arguments)

    def named(self, request: str) -> str:
        self.requests += 1
        return request or f"request:{self.requests}"

    def arm(
        self,
        timer_id: str,
        after: int = 0,
        *,
        topic: str = "t",
        every: str = "",
        payload: bytes = b"1",
        request: str = "",
    ) -> tuple[int, bytes]:
        return self.arm_all([arming(timer_id, after, topic, every, payload)], request)

    def arm_all(self, armings: Sequence[Arming], request: str = "") -> tuple[int, bytes]:
        return parse_armed(self.run(self.scripts.arm(self.named(request), armings)))

    def cancel(self, timer_id: str, topic: str = "t", request: str = "") -> str:
        member = member_of(topic, "--", timer_id)
        answer: bytes = self.run(self.scripts.cancel(self.named(request), topic, member))
        return answer.decode()

    def revive(self, timer_id: str, topic: str = "t", request: str = "") -> str:
        member = member_of(topic, "--", timer_id)
        answer: bytes = self.run(self.scripts.revive(self.named(request), topic, member))
        return answer.decode()

    def discard(self, timer_id: str, topic: str = "t", request: str = "") -> str:
        member = member_of(topic, "--", timer_id)
        answer: bytes = self.run(self.scripts.discard(self.named(request), topic, member))
        return answer.decode()

    def turn(
        self,
        worker: str = A,
        *outcomes: Outcome,
        limit: int = 10,
        mode: Mode = "stay",
        again: bool = False,
        number: int | None = None,
        terms: Sequence[Terms] = TERMS,
    ) -> Turn:
        if number is None:
            number = self.turns[worker] = self.turns.get(worker, 0) + 1
        request = self.scripts.turn(worker, number, again, limit, mode, outcomes, terms)
        return parse_turn(self.run(request), terms)

    def claim(self, worker: str = A, *outcomes: Outcome, **options: Any) -> list[Claimed]:
        return self.turn(worker, *outcomes, **options).claimed

    def claim_one(self, worker: str = A, *outcomes: Outcome, **options: Any) -> Claimed:
        [claimed] = self.claim(worker, *outcomes, **options)
        return claimed

    def renew(self, *claimed: Claimed, lease: int = LEASE) -> list[int]:
        runs = [(each.topic, each.fence, lease, each.member) for each in claimed]
        renewed: list[int] = self.run(self.scripts.renew(runs))
        return renewed

    def scan(self, *topics: str) -> tuple[list[bytes], list[bytes]]:
        cursor, unknown, wrong = parse_scanned(self.run(self.scripts.scan(b"0", topics or ("t",))))
        assert cursor == b"0"
        return unknown, wrong

    def adopt(self, topic: str, member: bytes) -> int:
        adopted: int = self.run(self.scripts.adopt([(topic, member)]))
        return adopted

    def entries(self, topic: str = "t") -> dict[str, int]:
        """When somebody has to act next, in microseconds from now, by member."""
        found = self.redis.zrange(self.keys.due + topic.encode(), 0, -1, withscores=True)
        members = [entry[16:].decode() for entry, _ in found]
        assert len(set(members)) == len(members), f"two entries of one timer: {found}"
        return {entry[16:].decode(): round(score * SECOND) - self.micros for entry, score in found}

    def due(self) -> dict[str, int]:
        """What the timeline says, in microseconds from now."""
        found = self.redis.zrange(self.keys.timeline, 0, -1, withscores=True)
        return {member.decode(): round(score * SECOND) - self.micros for member, score in found}

    def tokens(self, topic: str = "t") -> int:
        key = self.keys.wake + topic.encode()
        count: int = self.redis.llen(key)
        assert not count or 0 < self.redis.ttl(key) <= 60
        return count

    def promise(self, topic: str = "t") -> tuple[int, str] | None:
        """In how many microseconds somebody has promised to come, and who."""
        found = self.redis.hget(self.keys.meta, f"w:{topic}")
        return None if found is None else (int(found[:16]) - self.micros, found[16:].decode())

    def dead(self) -> dict[str, Letter]:
        found = self.redis.hgetall(self.keys.dead)
        return {each.decode(): parse_letter(each, text, "--") for each, text in found.items()}

    def is_empty(self) -> bool:
        left = self.redis.zcard(self.keys.timeline) + self.redis.hlen(self.keys.payloads)
        left += len([each for each in self.redis.hkeys(self.keys.state) if each])
        return not left and not self.entries("t") and not self.entries("u")


def arming(
    timer_id: str, after: int = 0, topic: str = "t", every: str = "", payload: bytes = b"1"
) -> Arming:
    return Arming(topic, member_of(topic, "--", timer_id), payload, after, 0, every)


def outcome(claimed: Claimed, what: Any = "completed", after: int = 0, error: str = "") -> Outcome:
    return Outcome(claimed.topic, claimed.member, claimed.fence, what, after, error)


@pytest.fixture
def stage(server: Server) -> Iterator[Stage]:
    with Redis.from_url(server.url) as redis:
        yield Stage(redis)


# Setting


def test_a_timer_is_claimed_when_it_is_due_and_not_before(stage: Stage) -> None:
    now, _ = stage.arm("x", 5 * SECOND, payload=b"[7]")
    assert now == stage.micros
    assert stage.entries() == stage.due() == {"t--x": 5 * SECOND}
    stage.micros += 5 * SECOND - 1
    turn = stage.turn()
    assert turn.claimed == [] and turn.wait == 1 and turn.now == stage.micros
    stage.micros += 1
    claimed = stage.claim_one()
    assert (claimed.topic, claimed.member, claimed.payload) == ("t", b"t--x", b"[7]")
    assert claimed.due == stage.micros == now + 5 * SECOND
    assert claimed.attempt == 1 and not claimed.held
    assert stage.entries() == {"t--x": LEASE} and stage.due() == {"t--x": 0}
    assert stage.claim(B) == []


def test_an_instant_is_taken_as_it_is(stage: Stage) -> None:
    instant = stage.micros + 3
    stage.arm_all([Arming("t", b"t--x", b"1", None, instant, "")])
    assert stage.entries() == stage.due() == {"t--x": 3}


def test_any_microsecond_is_read_as_it_was_written(stage: Stage) -> None:
    for number in range(60):
        stage.micros += 100_234_567_890_123 + number
        assert stage.micros < LAST_INSTANT - HOUR
        stage.arm("x")
        assert stage.scan() == ([], []), stage.micros
        claimed = stage.claim_one()
        assert claimed.due == stage.micros
        stage.claim(A, outcome(claimed))
        assert stage.is_empty(), stage.micros


def test_an_arming_that_is_sent_again_does_not_undo_what_came_in_between(stage: Stage) -> None:
    first = stage.arm("x", 5, request="r")
    assert 0 < stage.redis.ttl(stage.keys.request + b"r") <= 60
    stage.micros += 1
    stage.arm("x", 9, payload=b"2")
    stage.micros += 1
    assert stage.arm("x", 5, request="r") == first
    assert stage.due() == {"t--x": 8}
    stage.micros += 8
    assert stage.claim_one().payload == b"2"


def test_a_timer_that_would_have_the_name_of_another_topics_is_refused_again_and_again(
    stage: Stage,
) -> None:
    stage.arm("b--c", topic="a")
    for _ in range(2):
        answer = stage.arm_all([arming("x"), arming("c", topic="a--b")], "r")
        assert answer == (0, b"a--b--c")
    assert stage.due() == {"a--b--c": 0}


def test_a_timer_that_is_set_again_is_another_one(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.claim(A, outcome(claimed, "again", 5))
    stage.arm("x", 9, payload=b"2")
    assert stage.entries() == stage.due() == {"t--x": 9}
    stage.micros += 9
    claimed = stage.claim_one()
    assert claimed.payload == b"2" and claimed.attempt == 1


def test_timers_that_are_due_at_once_run_in_the_order_of_their_arming(stage: Stage) -> None:
    stage.arm_all([arming(each) for each in "cabd"])
    stage.micros -= HOUR
    stage.arm_all([replace_due(arming("0"), stage.micros + HOUR)])
    stage.micros += HOUR
    claimed = stage.claim()
    assert [each.member for each in claimed] == [b"t--c", b"t--a", b"t--b", b"t--d", b"t--0"]
    fences = [each.fence for each in claimed]
    assert fences == sorted(set(fences))
    stage.micros -= HOUR
    stage.arm("y")
    assert stage.claim_one().fence > fences[-1]


def replace_due(one: Arming, instant: int) -> Arming:
    return one._replace(period=None, instant=instant)


# Setting during a run


def test_what_is_set_during_a_run_begins_when_that_has_ended(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.micros += 3
    stage.arm("x", 7, payload=b"2")
    assert stage.due() == {"t--x": 7} and stage.entries() == {"t--x": LEASE - 3}
    assert stage.claim(B) == []
    stage.micros += 10
    assert stage.renew(claimed) == [1]
    assert stage.entries() == {"t--x": LEASE}
    fresh = stage.claim_one(A, outcome(claimed))
    assert fresh.payload == b"2" and fresh.attempt == 1 and fresh.due == stage.micros - 3
    stage.claim(A, outcome(fresh))
    assert stage.is_empty()


def test_what_is_set_for_later_during_a_run_is_not_looked_at_before(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.arm("x", HOUR)
    assert stage.entries() == {"t--x": HOUR}
    assert stage.renew(claimed) == [1]
    assert stage.entries() == {"t--x": HOUR}
    assert stage.claim(A, outcome(claimed, "dead", error="no")) == []
    assert stage.entries() == stage.due() == {"t--x": HOUR} and stage.dead() == {}
    assert stage.cancel("x") == "cancelled"


def test_what_is_set_during_a_run_can_be_removed_in_time(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.arm("x")
    assert stage.cancel("x") == "cancelled"
    assert stage.is_empty()
    assert stage.claim(A, outcome(claimed)) == []


def test_a_series_that_is_set_during_a_run_goes_on(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.arm("x", 5, every=f"{HOUR} once")
    stage.micros += 5
    again = stage.claim_one(A, outcome(claimed))
    assert stage.claim(A, outcome(again)) == []
    assert stage.due() == stage.entries() == {"t--x": HOUR}


def test_what_was_set_during_the_run_of_a_worker_that_died_is_like_any_other(stage: Stage) -> None:
    stage.arm("x")
    stage.claim_one()
    stage.arm("x", 5)
    stage.micros += LEASE
    fresh = stage.claim_one(B)
    assert fresh.attempt == 1 and fresh.due == stage.micros - LEASE + 5
    assert stage.claim(B, outcome(fresh)) == []
    assert stage.is_empty()


# Waking


def test_a_timer_that_is_due_before_a_worker_looks_leaves_one_token(stage: Stage) -> None:
    stage.arm("far", 20 * SECOND + 1)
    assert stage.tokens() == 0
    stage.arm("near", 20 * SECOND)
    assert stage.tokens() == 1
    stage.arm("nearer", SECOND)
    assert stage.tokens() == 1
    stage.redis.lpop(stage.keys.wake + b"t")
    stage.arm("later", SECOND + 1)
    assert stage.tokens() == 0
    stage.arm("sooner", SECOND - 1)
    assert stage.tokens() == 1


def test_a_token_that_got_lost_is_made_up_for_by_the_next_timer(stage: Stage) -> None:
    stage.arm("x")
    stage.redis.lpop(stage.keys.wake + b"t")
    stage.micros += SECOND // 10
    stage.arm("y")
    assert stage.tokens() == 0
    stage.micros += 1
    stage.arm("z")
    assert stage.tokens() == 1


def test_of_timers_that_are_set_together_the_first_one_counts(stage: Stage) -> None:
    stage.arm_all([arming("near", 5), arming("far", HOUR)])
    assert stage.tokens() == 1


def test_what_is_put_back_wakes_somebody(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    assert stage.tokens() == 0
    stage.claim(A, outcome(claimed, "back"), limit=0, mode="go")
    assert stage.tokens()
    assert stage.claim_one(B).attempt == 1
    assert stage.tokens() == 0


# Removing


def test_what_is_removed_in_time_leaves_nothing(stage: Stage) -> None:
    stage.arm("x")
    assert stage.cancel("x") == "cancelled"
    assert stage.is_empty()
    assert stage.cancel("x") == "absent"


def test_a_removal_that_is_sent_again_leaves_a_new_timer(stage: Stage) -> None:
    stage.arm("x")
    assert stage.cancel("x", request="r") == "cancelled"
    assert 0 < stage.redis.ttl(stage.keys.request + b"r") <= 60
    stage.arm("x", 5)
    assert stage.cancel("x", request="r") == "cancelled"
    assert stage.due() == {"t--x": 5}


def test_to_remove_what_has_begun_is_too_late(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    assert stage.cancel("x") == "started"
    assert stage.is_empty()
    assert stage.renew(claimed) == [0]
    assert stage.claim(A, outcome(claimed)) == []

    stage.arm("x")
    stage.claim(A, outcome(stage.claim_one(), "again", HOUR))
    assert stage.cancel("x") == "started"

    stage.arm("x")
    stage.claim(A, outcome(stage.claim_one(), "cut"), limit=0)
    stage.claim(B, outcome(stage.claim_one(B), "back"), limit=0)
    assert stage.cancel("x") == "started"
    stage.arm("x")
    stage.claim(A, outcome(stage.claim_one(), "back"), limit=0)
    assert stage.cancel("x") == "cancelled"


def test_to_remove_what_redis_timers_has_removed_clears_up(stage: Stage) -> None:
    stage.arm("x")
    stage.redis.zrem(stage.keys.timeline, "t--x")
    assert stage.cancel("x") == "absent"
    assert stage.is_empty()


def test_a_timer_of_another_topic_is_not_removed_by_its_name(stage: Stage) -> None:
    stage.arm("b--c", topic="a")
    assert stage.cancel("c", topic="a--b") == "absent"
    assert stage.due() == {"a--b--c": 0}


# Outcomes


def test_what_has_run_leaves_nothing(stage: Stage) -> None:
    stage.arm_all([arming("x"), arming("y"), arming("z", topic="u")])
    claimed = stage.claim()
    assert len(claimed) == 3
    assert stage.claim(A, *map(outcome, claimed)) == []
    assert stage.is_empty()


def test_what_has_failed_is_tried_again_after_its_pause(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    assert stage.claim(A, outcome(claimed, "again", 7 * SECOND)) == []
    assert stage.entries() == {"t--x": 7 * SECOND} and stage.due() == {"t--x": 0}
    stage.micros += 7 * SECOND
    again = stage.claim_one()
    assert again.attempt == 2 and again.fence > claimed.fence and not again.held


def test_what_was_not_begun_is_no_attempt(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    again = stage.claim_one(A, outcome(claimed, "back"))
    assert again.attempt == 1 and not again.held


def test_what_a_report_that_comes_late_says_changes_nothing(stage: Stage) -> None:
    stage.arm("x")
    late = stage.claim_one()
    stage.micros += LEASE
    claimed = stage.claim_one(B)
    assert claimed.attempt == 2 and claimed.fence > late.fence
    stage.micros += 5
    for what in ("completed", "dead", "again", "back", "cut"):
        assert stage.claim(A, outcome(late, what)) == []
    assert stage.renew(late) == [0]
    assert stage.entries() == {"t--x": LEASE - 5} and stage.dead() == {}
    assert stage.renew(claimed, late) == [1, 0]
    assert stage.entries() == {"t--x": LEASE}


def test_what_has_failed_for_good_is_kept_with_the_dead(stage: Stage) -> None:
    stage.arm("x", payload=b'{"a": 1}')
    stage.micros += 5
    claimed = stage.claim_one()
    stage.micros += 5
    stage.claim(A, outcome(claimed, "dead", error="it ç failed"))
    assert stage.is_empty()
    died = stage.micros
    assert stage.dead() == {
        "t--x": Letter("t", "x", b'{"a": 1}', "it ç failed", 1, died - 10, died)
    }


def test_who_dies_without_a_payload_has_none(stage: Stage) -> None:
    stage.arm("x")
    stage.redis.hdel(stage.keys.payloads, "t--x")
    claimed = stage.claim_one()
    assert claimed.payload is None
    stage.claim(A, outcome(claimed, "dead", error="gone"))
    assert stage.dead()["t--x"].payload is None
    assert stage.revive("x") == "revived"
    assert stage.claim_one().payload is None


def test_after_the_last_attempt_nobody_takes_over(stage: Stage) -> None:
    stage.arm("x")
    for attempt, worker in enumerate((A, B, A), 1):
        assert stage.claim_one(worker).attempt == attempt
        stage.micros += LEASE
    assert stage.claim(B) == []
    assert stage.is_empty()
    assert stage.dead()["t--x"].attempts == 3
    assert stage.dead()["t--x"].error == "the lease of the last attempt ran out"


# The dead


def bury(stage: Stage, timer_id: str = "x", topic: str = "t", payload: bytes = b"[1]") -> None:
    stage.arm(timer_id, topic=topic, payload=payload)
    terms = (Terms(topic, LEASE, 3),)
    claimed = stage.claim_one(terms=terms)
    stage.claim(A, outcome(claimed, "dead", error="no"), terms=terms)


def test_a_dead_timer_that_is_revived_is_due_at_once_with_all_its_attempts(stage: Stage) -> None:
    bury(stage)
    stage.micros += HOUR
    assert stage.revive("x", request="r") == "revived"
    assert 0 < stage.redis.ttl(stage.keys.request + b"r") <= 60
    assert stage.dead() == {} and stage.due() == stage.entries() == {"t--x": 0}
    assert stage.tokens() == 1
    claimed = stage.claim_one()
    assert claimed.attempt == 1 and claimed.payload == b"[1]" and claimed.due == stage.micros
    stage.claim(A, outcome(claimed))
    assert stage.is_empty()
    assert stage.revive("x", request="r") == "revived"
    assert stage.is_empty()
    assert stage.revive("x") == "absent"


def test_to_revive_again_what_has_died_again_does_not_revive_it_twice(stage: Stage) -> None:
    bury(stage)
    assert stage.revive("x", request="r") == "revived"
    stage.claim(A, outcome(stage.claim_one(), "dead", error="no"))
    assert stage.revive("x", request="r") == "revived"
    assert "t--x" in stage.dead() and stage.is_empty()


def test_a_dead_timer_is_not_revived_over_a_living_one(stage: Stage) -> None:
    bury(stage)
    stage.arm("x", HOUR, payload=b"2")
    assert stage.revive("x") == "armed"
    assert "t--x" in stage.dead() and stage.due() == {"t--x": HOUR}


def test_a_dead_timer_that_is_discarded_is_gone(stage: Stage) -> None:
    bury(stage)
    assert stage.discard("x", request="r") == "discarded"
    assert 0 < stage.redis.ttl(stage.keys.request + b"r") <= 60
    assert stage.dead() == {}
    bury(stage)
    assert stage.discard("x", request="r") == "discarded"
    assert "t--x" in stage.dead()
    assert stage.discard("y") == "absent"


def test_a_dead_timer_of_another_topic_is_left_alone(stage: Stage) -> None:
    bury(stage, "b--c", "a")
    assert stage.discard("c", "a--b") == "absent"
    assert stage.revive("c", "a--b") == "absent"
    assert "a--b--c" in stage.dead() and stage.is_empty()


# Leases


def test_a_renewal_lengthens_the_lease(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.micros += LEASE - 1
    assert stage.renew(claimed, lease=5 * SECOND) == [1]
    assert stage.entries() == {"t--x": 5 * SECOND}
    stage.micros += 5 * SECOND - 1
    assert stage.claim(B) == []
    stage.micros += 1
    assert stage.claim_one(B).attempt == 2
    assert stage.entries() == {"t--x": LEASE}


def test_without_memory_leases_are_renewed_and_what_has_run_is_noted(stage: Stage) -> None:
    stage.arm_all([arming("x"), arming("y", HOUR)])
    claimed = stage.claim_one()
    stage.redis.config_set("maxmemory", 1)
    try:
        stage.micros += 5
        assert stage.renew(claimed) == [1]
        assert stage.entries()["t--x"] == LEASE
        assert stage.claim(A, outcome(claimed)) == []
    finally:
        stage.redis.config_set("maxmemory", 0)
    assert stage.due() == {"t--y": HOUR - 5}


def test_a_worker_that_was_held_up_goes_on_with_its_own_run(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.micros += LEASE
    again = stage.claim_one()
    assert again == replace_held(claimed)
    assert stage.entries() == {"t--x": LEASE}


def replace_held(claimed: Claimed) -> Claimed:
    return claimed._replace(held=True)


def test_a_worker_that_was_held_up_looks_at_what_was_set_for_later_when_it_is_due(
    stage: Stage,
) -> None:
    stage.arm("x")
    stage.claim_one()
    stage.arm("x", 10 * SECOND)
    # As if the lease were over: what a longer one of the same worker would have left.
    [entry] = stage.redis.zrange(stage.keys.due + b"t", 0, -1)
    stage.redis.zadd(stage.keys.due + b"t", {entry: stage.micros / SECOND - 1})
    assert stage.claim_one().member == b"t--x"
    assert stage.entries() == {"t--x": 10 * SECOND}


# A turn that is taken again


def test_a_turn_that_is_taken_again_has_the_same_answer(stage: Stage) -> None:
    stage.arm_all([arming("x"), arming("y", topic="u")])
    claimed = stage.claim(number=7)
    assert 60 < stage.redis.ttl(stage.keys.claimed + A.encode()) <= 120
    stage.arm("z")
    assert stage.claim(number=7, again=True) == claimed
    assert [each.member for each in stage.claim(number=8, again=True)] == [b"t--z"]
    assert stage.claim(B, number=7, again=True) == []


def test_a_turn_that_is_taken_again_hands_out_nothing_that_has_changed_hands(stage: Stage) -> None:
    stage.arm_all([arming("x"), arming("y"), arming("z")])
    claimed = stage.claim(number=7)
    stage.arm("y", HOUR)
    stage.cancel("z")
    assert stage.claim(number=7, again=True) == claimed[:1]
    stage.micros += LEASE
    assert len(stage.claim(B)) == 1
    assert stage.claim(number=7, again=True) == []


def test_a_turn_that_is_taken_again_knows_what_was_its_own(stage: Stage) -> None:
    stage.arm("x")
    stage.claim_one()
    stage.micros += LEASE
    assert stage.claim_one(number=7).held
    assert stage.claim_one(number=7, again=True).held


# Recurring timers


def series(stage: Stage, policy: str, every: int = 10 * SECOND) -> None:
    stage.arm("x", every=f"{every} {policy}")


def test_a_series_keeps_its_instants_however_long_its_runs_take(stage: Stage) -> None:
    series(stage, "once")
    claimed = stage.claim_one()
    stage.micros += 3 * SECOND
    stage.claim(A, outcome(claimed))
    assert stage.due() == stage.entries() == {"t--x": 7 * SECOND}
    stage.micros += 7 * SECOND
    again = stage.claim_one()
    assert again.attempt == 1 and again.due == stage.micros and again.fence > claimed.fence
    assert stage.cancel("x") == "started" and stage.is_empty()


def test_of_missed_instants_the_latest_is_made_up_for(stage: Stage) -> None:
    series(stage, "once")
    stage.micros += 35 * SECOND
    claimed = stage.claim_one()
    assert claimed.due == stage.micros - 5 * SECOND
    assert stage.due() == {"t--x": -5 * SECOND}
    assert stage.claim(A, outcome(claimed)) == []
    assert stage.due() == stage.entries() == {"t--x": 5 * SECOND}


def test_each_missed_instant_may_be_made_up_for(stage: Stage) -> None:
    series(stage, "all")
    stage.micros += 15 * SECOND
    first = stage.claim_one()
    assert first.due == stage.micros - 15 * SECOND
    second = stage.claim_one(A, outcome(first))
    assert second.due == stage.micros - 5 * SECOND
    assert stage.claim(A, outcome(second)) == []
    assert stage.due() == {"t--x": 5 * SECOND}


@pytest.mark.parametrize(("late", "runs"), [(4, True), (5, True), (6, False), (14, True)])
def test_what_is_late_by_less_than_half_a_period_is_not_missed(
    stage: Stage, late: int, runs: bool
) -> None:
    series(stage, "skip")
    stage.micros += late * SECOND
    claimed = stage.claim()
    if runs:
        assert [each.due for each in claimed] == [stage.micros - late % 10 * SECOND]
    else:
        assert claimed == []
        assert stage.due() == stage.entries() == {"t--x": (10 - late) * SECOND}
        stage.micros += (10 - late) * SECOND
        assert stage.claim_one().due == stage.micros


def test_an_instant_that_failed_is_not_passed_over_for_a_later_one(stage: Stage) -> None:
    series(stage, "skip")
    claimed = stage.claim_one()
    due = stage.micros
    stage.claim(A, outcome(claimed, "again", 16 * SECOND))
    stage.micros += 16 * SECOND
    again = stage.claim_one()
    assert (again.due, again.attempt) == (due, 2)


def test_a_series_goes_on_after_an_instant_that_has_failed_for_good(stage: Stage) -> None:
    series(stage, "once")
    due = stage.micros
    stage.claim(A, outcome(stage.claim_one(), "dead", error="no"))
    assert stage.dead()["t--x"].due == due
    assert stage.due() == stage.entries() == {"t--x": 10 * SECOND}
    stage.micros += 10 * SECOND
    for worker in (A, B, A):
        stage.claim_one(worker)
        stage.micros += LEASE
    assert stage.claim(B) == []
    assert stage.due() == stage.entries() == {"t--x": 7 * SECOND}


# What redis-timers does beside us


def test_what_redis_timers_has_set_is_counted_found_and_adopted(stage: Stage) -> None:
    assert stage.turn().unindexed == 0
    stage.arm("x", HOUR)
    assert stage.turn().unindexed == 0
    for member in ("t--y", "t--z"):
        stage.redis.zadd(stage.keys.timeline, {member: stage.micros / SECOND})
    assert stage.turn().unindexed == 2
    unknown, wrong = stage.scan()
    assert (sorted(unknown), wrong) == ([b"t--y", b"t--z"], [])
    assert stage.adopt("t", b"t--y") == 1
    assert stage.adopt("t", b"t--y") == 0
    assert stage.adopt("t", b"t--nothing") == 0
    assert stage.tokens() == 1
    assert stage.turn().unindexed == 1
    assert stage.scan() == ([b"t--z"], [])
    assert stage.adopt("t--", b"t--y") == 0


def test_an_earlier_time_is_found_and_taken(stage: Stage) -> None:
    stage.arm("x", HOUR, every=f"{HOUR} once")
    stage.redis.zadd(stage.keys.timeline, {"t--x": stage.micros / SECOND})
    assert stage.scan() == ([], [b"t--x"])
    assert stage.adopt("t", b"t--x") == 1
    assert stage.scan() == ([], [])
    assert stage.entries() == {"t--x": 0}
    stage.claim(A, outcome(stage.claim_one()))
    assert stage.is_empty()  # it was one of a series


def test_a_run_is_no_reason_to_adopt_a_timer(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.redis.zadd(stage.keys.timeline, {"t--x": stage.micros / SECOND + 5})
    assert stage.scan() == ([], [])
    assert stage.adopt("t", b"t--x") == 0
    assert stage.renew(claimed) == [1]


def test_a_time_that_was_set_during_a_run_stands(stage: Stage) -> None:
    series(stage, "once")
    claimed = stage.claim_one()
    stage.redis.zadd(stage.keys.timeline, {"t--x": stage.micros / SECOND + 5})
    stage.claim(A, outcome(claimed))
    assert stage.entries() == stage.due() == {"t--x": 5 * SECOND}
    stage.micros += 5 * SECOND
    claimed = stage.claim_one()
    assert claimed.attempt == 1
    stage.claim(A, outcome(claimed))
    assert stage.is_empty()


def test_of_two_times_that_were_set_during_a_run_the_last_one_stands(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.arm("x", HOUR)
    stage.redis.zadd(stage.keys.timeline, {"t--x": stage.micros / SECOND + 5})
    assert stage.claim(A, outcome(claimed)) == []
    assert stage.entries() == {"t--x": 5 * SECOND}
    stage.micros += 5 * SECOND
    assert stage.claim(A, outcome(stage.claim_one())) == []
    assert stage.is_empty()


def test_a_new_time_makes_up_for_a_run_that_was_cut_off(stage: Stage) -> None:
    stage.arm("x", 0)
    stage.claim(A, outcome(stage.claim_one(), "cut"), limit=0)
    stage.redis.zadd(stage.keys.timeline, {"t--x": stage.micros / SECOND + 5})
    assert stage.adopt("t", b"t--x") == 1
    assert stage.cancel("x") == "cancelled"


def test_a_later_time_is_waited_for(stage: Stage) -> None:
    series(stage, "once")
    stage.redis.zadd(stage.keys.timeline, {"t--x": stage.micros / SECOND + 5})
    assert stage.claim() == []
    assert stage.entries() == {"t--x": 5 * SECOND}
    stage.micros += 5 * SECOND
    stage.claim(A, outcome(stage.claim_one()))
    assert stage.is_empty()


def test_a_timer_that_it_has_removed_does_not_run(stage: Stage) -> None:
    series(stage, "once")
    stage.redis.zrem(stage.keys.timeline, "t--x")
    assert stage.claim() == []
    assert stage.is_empty()


@pytest.mark.parametrize(
    ("score", "due"),
    [("-5", 0), ("-inf", 0), ("0", 0), ("inf", LAST_INSTANT), ("1e12", LAST_INSTANT)],
)
def test_scores_of_any_kind_are_taken(stage: Stage, score: str, due: int) -> None:
    stage.redis.execute_command("ZADD", stage.keys.timeline, score, "t--x")
    assert stage.adopt("t", b"t--x") == 1
    assert stage.scan() == ([], [])
    [found] = stage.redis.zrange(stage.keys.due + b"t", 0, -1, withscores=True)
    assert found[1] == due / SECOND
    assert len(stage.redis.hget(stage.keys.state, "t--x")) == 65


def test_a_score_between_two_microseconds_is_the_later_one(stage: Stage) -> None:
    stage.redis.execute_command("ZADD", stage.keys.timeline, "1800000000.1234562", "t--x")
    stage.adopt("t", b"t--x")
    stage.micros = 1_800_000_000_123_456
    assert stage.claim() == []
    stage.micros += 1
    stage.claim_one()


def test_a_lost_index_is_found_and_made_again(stage: Stage) -> None:
    stage.arm_all([arming("x", HOUR), arming("y"), arming("z", HOUR, topic="u")])
    claimed = stage.claim_one()
    stage.redis.delete(stage.keys.due + b"t", stage.keys.due + b"u")
    assert stage.scan("t") == ([], [b"t--x", b"t--y"]) or stage.scan("t") == (
        [],
        [b"t--y", b"t--x"],
    )
    assert stage.adopt("t", b"t--x") == 1
    assert stage.adopt("t", b"t--y") == 1
    # Whoever runs it renews its lease before that.
    assert stage.entries() == {"t--x": HOUR, "t--y": 20 * SECOND}
    assert stage.renew(claimed) == [1]


def test_what_a_loss_of_data_has_left_in_the_index_goes(stage: Stage) -> None:
    stage.arm("x", HOUR)
    due = stage.keys.due + b"t"
    stage.redis.zadd(due, {"0000000000000001t--gone": 1, "0000000000000001t--x": 1})
    assert stage.claim() == []
    assert stage.entries() == {"t--x": HOUR}


# How much a worker gets


def test_topics_share_the_room_and_use_what_others_leave(stage: Stage) -> None:
    stage.arm_all([arming(f"{each}") for each in range(9)])
    stage.arm("a", topic="u")
    assert [each.topic for each in stage.claim(limit=4)].count("t") == 3
    stage.arm_all([arming(f"{each}", topic="u") for each in range(9)])
    assert sorted(each.topic for each in stage.claim(B, limit=4)) == ["t", "t", "u", "u"]
    assert [each.topic for each in stage.claim(A, limit=1)] == ["t"]
    assert stage.claim(A, limit=0) == []


def test_an_answer_has_payloads_of_a_megabyte_or_one_timer(stage: Stage) -> None:
    large = b'"%b"' % (b"x" * (BUDGET * 2 // 3))
    for each in "abc":
        stage.arm(each, payload=large)
    stage.arm("d", topic="u", payload=large)
    turn = stage.turn()
    assert [each.member for each in turn.claimed] == [b"t--a", b"t--b"]
    assert turn.wait == 0
    stage.arm("e", -HOUR, payload=b"x" * 2 * BUDGET)
    turn = stage.turn()
    assert [each.member for each in turn.claimed] == [b"t--e"] and turn.wait == 0


# Who comes next


def test_one_worker_promises_and_another_one_comes_later(stage: Stage) -> None:
    stage.arm("x", 5 * SECOND)
    assert stage.turn(A).wait == 5 * SECOND
    assert stage.promise() == (5 * SECOND, A)
    assert stage.tokens() == 0
    assert stage.turn(B).wait == 5_300_000 + 187_000
    assert stage.promise() == (5 * SECOND, A)
    assert stage.turn(A).wait == 5 * SECOND
    assert stage.promise() == (5 * SECOND, A)


def test_who_was_woken_takes_the_promise_over(stage: Stage) -> None:
    stage.arm("x", 5 * SECOND)
    stage.turn(A)
    assert stage.turn(B, mode="woken").wait == 5 * SECOND
    assert stage.promise() == (5 * SECOND, B)


def test_nobody_relies_on_who_comes_too_late(stage: Stage) -> None:
    stage.arm("x", 5 * SECOND)
    stage.turn(A)
    stage.arm("y", 5 * SECOND - 1001)
    assert stage.turn(B).wait == 5 * SECOND - 1001
    assert stage.promise() == (5 * SECOND - 1001, B)


def test_nobody_relies_on_a_promise_that_was_broken(stage: Stage) -> None:
    stage.arm("x", HOUR)
    assert stage.turn(A).wait == HOUR
    assert stage.promise() == (SLICE, A)
    stage.micros += SLICE + 100_000
    assert stage.turn(B).wait == HOUR - SLICE - 100_000 + 487_000
    assert stage.promise() == (-100_000, A)
    stage.micros += 1
    stage.turn(B)
    assert stage.promise() == (SLICE, B)


def test_who_has_nothing_to_come_for_takes_its_promise_back(stage: Stage) -> None:
    stage.arm("x", 5 * SECOND)
    stage.turn(A)
    stage.cancel("x")
    assert stage.turn(B).wait is None
    assert stage.promise() == (5 * SECOND, A)
    assert stage.turn(A).wait is None
    assert stage.promise() is None


@pytest.mark.parametrize("how", ["it stops", "it is full"])
def test_who_does_not_come_has_somebody_else_woken(stage: Stage, how: str) -> None:
    options: dict[str, Any] = {"mode": "go"} if how == "it stops" else {"limit": 0}
    stage.arm("x", 20 * SECOND)
    stage.turn(A)
    assert stage.promise() == (SLICE, A) and stage.tokens() == 0
    assert stage.turn(A, **options).wait is None
    assert stage.promise() is None and stage.tokens() == 1
    assert stage.turn(B).wait == 20 * SECOND
    assert stage.promise() == (SLICE, B) and stage.tokens() == 0
    assert stage.turn(A, **options).wait is None
    assert stage.promise() == (SLICE, B) and stage.tokens() == 0


def test_nobody_is_woken_for_what_is_due_much_later(stage: Stage) -> None:
    stage.arm("x", 20 * SECOND + 1)
    stage.turn(A, mode="go")
    assert stage.tokens() == 0


def test_a_worker_that_has_just_become_full_promises_nothing(stage: Stage) -> None:
    stage.arm_all([arming("x"), arming("y")])
    stage.claim_one(A, limit=1)
    assert stage.promise() is None and stage.tokens() == 1


def test_who_is_late_promises_to_come_at_once(stage: Stage) -> None:
    large = b'"%b"' % (b"x" * BUDGET)
    stage.arm("a", payload=large)
    stage.arm("b", payload=large)
    stage.micros += SECOND
    assert stage.turn(A).wait == 0
    assert stage.promise() == (0, A)


def test_a_worker_comes_for_the_topic_that_is_due_first(stage: Stage) -> None:
    stage.arm("x", 5 * SECOND)
    stage.arm("x", 3 * SECOND, topic="u")
    assert stage.turn(A).wait == 3 * SECOND
    assert stage.promise("t") == (5 * SECOND, A) and stage.promise("u") == (3 * SECOND, A)
    stage.cancel("x", topic="u")
    stage.arm("x", 7 * SECOND, topic="u")
    assert stage.turn(A).wait == 5 * SECOND


# Found by mutations


def test_a_worker_knows_its_own_run_though_the_timer_was_set_anew_meanwhile(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.arm("x", 5)
    stage.micros += LEASE
    again = stage.claim_one()
    assert again.fence == claimed.fence
    assert again.held  # else it counts as a new run, and what was set meanwhile runs twice


def test_a_worker_that_has_just_become_full_of_large_payloads_promises_nothing(
    stage: Stage,
) -> None:
    large = b'"%b"' % (b"x" * BUDGET)
    stage.arm_all([arming("x", payload=large), arming("y", payload=large)])
    stage.claim_one(A, limit=1)
    assert stage.promise() is None and stage.tokens() == 1


def test_a_worker_that_gives_something_back_and_stops_leaves_one_token(stage: Stage) -> None:
    stage.arm("x")
    claimed = stage.claim_one()
    stage.claim(A, outcome(claimed, "back"), limit=0, mode="go")
    assert stage.tokens() == 1
