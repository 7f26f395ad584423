"""What each step of the semaphore decides, at the very millisecond at which it matters.

Scripts and transactions take the same step at an instant that the test chooses, and have to agree.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis, WatchError

from redsync._protocol.semaphore import Contents, Facts, Return, Terms, Token
from redsync._protocol.transitions import has, renewal
from redsync.cli.server import Server

from .test_transitions import TERMS, Both, Grant

MILLISECOND = 1000
SECOND = 1_000_000
HOUR = 3600 * SECOND

ALL = ("free", "held", "meta")


@pytest.fixture
def both(server: Server) -> Iterator[Both]:
    with Redis.from_url(server.url) as redis:
        yield Both(redis)


def held(both: Both) -> dict[int, int]:
    """The ends of leases, in milliseconds from now."""
    both.check()
    contents = both.contents(both.lua)
    return {slot: deadline - contents.now for slot, deadline in contents.held.items()}


def contents(both: Both) -> Contents:
    both.check()
    return both.contents(both.lua)


def free(both: Both) -> list[int]:
    """The slots in the list, the next one first."""
    return [int(token.split(":")[0]) for token in contents(both).free]


def fences(both: Both) -> list[int]:
    """Those of the tokens."""
    return [int(token.split(":")[1]) for token in contents(both).free]


def take(both: Both, ttl: int = 1000) -> Grant:
    grant = both.acquire(ttl)
    assert grant is not None
    return grant


def keys(both: Both) -> list[bytes]:
    return [getattr(which, name) for which in (both.lua, both.drafts) for name in ALL]


def known_facts(both: Both) -> tuple[int, int, int]:
    """Of what the caller of a tend knows: grace, count and version."""
    assert both.known is not None
    return both.known.grace, both.known.count, both.known.version


def lives(both: Both) -> dict[str, int]:
    """Milliseconds that the keys of the scripts live; those of transactions are not shorter."""
    found = {name: both.redis.pttl(getattr(both.lua, name)) for name in ALL}
    for name in ALL:
        assert abs(both.redis.pttl(getattr(both.drafts, name)) - found[name]) < 1000, name
    return found


# Taking a free permit


def test_a_token_that_belongs_to_no_slot_any_more_is_passed_over(both: Both) -> None:
    both.create(2)
    both.damaged = True
    for which in (both.lua, both.drafts):
        both.redis.lpush(which.free, "1:5", "0:4")
    first = take(both)
    assert first.token.slot == 0 and first.token.fence > 5
    both.redis.lpush(both.lua.free, "1:6")
    both.redis.lpush(both.drafts.free, "1:6")
    assert take(both).token.slot == 1
    assert both.acquire(1000) is None


def test_whoever_finds_nothing_free_tells_how_long_its_leases_are(both: Both) -> None:
    both.create(1)
    take(both)
    assert both.acquire(2500) is None
    assert contents(both).meta["ttl"] == "2500"


def test_whoever_finds_nothing_free_is_told_when_the_next_lease_ends(both: Both) -> None:
    both.create(2)
    take(both, 1000)
    take(both, 300)
    answer = both.script("acquire", "me:x", *TERMS, both.seen, "some one", "0")
    assert answer[:2] == [300, 0]


def test_what_ran_out_is_set_free_for_those_who_wait_and_not_taken(both: Both) -> None:
    both.create(2)
    take(both, 300)
    take(both, 300)
    both.micros += 300 * MILLISECOND
    answer = both.script("acquire", "me:x", *TERMS, both.seen, "some one", "0")
    assert answer[:2] == [-1, 2]
    assert len(both.contents(both.lua).free) == 2


def test_both_ways_tell_what_they_have_set_free(both: Both) -> None:
    both.create(1)
    take(both, 300)
    both.micros += 300 * MILLISECOND
    assert both.acquire(300) is None
    assert free(both) == [0]


def test_a_request_that_is_sent_again_finds_its_grant(both: Both) -> None:
    both.create(3)
    first, again = (
        [f"me:{who}", *TERMS, 0, "some one", sent] for who, sent in (("a", "0"), ("a", "1"))
    )
    other = both.script("acquire", "me:other", *TERMS, 0, "some one", "0")
    token = both.script("acquire", *first)
    assert both.script("acquire", *again) == token  # in the same millisecond
    both.micros += 400 * MILLISECOND
    assert both.script("acquire", *again) == token != other
    found = both.contents(both.lua)
    assert found.held[int(token.split(b":")[0])] == found.now + TERMS.ttl
    assert found.held[int(other.split(b":")[0])] == found.now + TERMS.ttl - 400
    assert len(found.free) == 1


def test_a_request_that_is_sent_again_makes_no_lease_out_of_nothing(both: Both) -> None:
    both.create(2)
    token = both.script("acquire", "me:a", *TERMS, 0, "some one", "0")
    both.redis.delete(both.lua.held)
    assert both.script("acquire", "me:a", *TERMS, 0, "some one", "1") != token
    assert both.redis.ttl(both.lua.held) > 0


# Fences


def given_back(both: Both, grant: Grant, way: str) -> bool:
    """By a release, or by what a process does in the background."""
    if way == "release":
        return both.give_back(grant.handback())
    both.seat([], [grant.handback()])
    return not held(both)


@pytest.mark.parametrize("way", ["release", "tend"])
def test_fences_rise_though_the_clock_is_set_back(both: Both, way: str) -> None:
    both.create(1)
    grant = take(both)
    both.micros -= HOUR
    both.seen = 0
    assert given_back(both, grant, way)
    assert fences(both) == [grant.token.fence + 1]


@pytest.mark.parametrize("way", ["release", "tend"])
def test_fences_rise_above_what_the_caller_has_seen(both: Both, way: str) -> None:
    both.create(1)
    grant = take(both)
    seen = both.seen = grant.token.fence + HOUR
    assert given_back(both, grant, way)
    assert fences(both) == [seen + 1]
    assert contents(both).meta["fence"] == str(seen + 1)


def test_fences_are_not_below_the_clock(both: Both) -> None:
    both.create(1)
    assert fences(both) == [both.micros + 1]
    assert contents(both).meta["version"] == str(both.micros)
    grant = take(both)
    both.micros += SECOND // 2
    assert both.give_back(grant.handback())
    assert fences(both) == [both.micros]


def test_tokens_of_one_microsecond_have_fences_of_their_own_in_the_order_of_the_list(
    both: Both,
) -> None:
    both.create(3)
    assert fences(both) == [both.micros + 1, both.micros + 2, both.micros + 3]
    grant = take(both)
    assert both.give_back(grant.handback())
    assert free(both) == [1, 2, 0]
    assert fences(both) == sorted(fences(both))


# Giving back


def test_a_late_release_ends_nothing_that_it_does_not_name(both: Both) -> None:
    both.create(1)
    grant = take(both)
    slot, fence, owner = grant.handback()
    assert not both.give_back(Return(slot, fence, "me:other"))
    assert not both.give_back(Return(slot, int(fence) - 1, owner))
    assert held(both) == {0: 1000}
    assert both.give_back(grant.handback())
    assert not both.give_back(grant.handback())
    assert not both.give_back(Return(slot, int(fence) - 1, owner))
    assert not both.give_back(Return(7, fence, owner))
    assert free(both) == [0] and held(both) == {}


def test_a_token_that_is_there_again_after_a_failover_is_not_doubled_by_its_return(
    both: Both,
) -> None:
    both.create(1)
    both.damaged = True
    [fence] = fences(both)
    assert both.give_back(Return(0, fence, "me:9"))
    assert free(both) == [0] and fences(both) != [fence]


def test_a_permit_whose_token_is_in_the_list_and_not_its_lease_is_free_once(both: Both) -> None:
    both.create(1)
    grant = take(both)
    both.damaged = True
    for which in (both.lua, both.drafts):
        both.redis.zrem(which.held, grant.token.slot)
        both.redis.rpush(which.free, f"{grant.token.slot}:{grant.token.fence}")
    assert both.give_back(grant.handback())
    assert free(both) == [0] and fences(both) != [grant.token.fence]


def test_all_that_a_request_was_granted_goes_back_and_nothing_else(both: Both) -> None:
    both.create(3)
    first, second, third = take(both), take(both), take(both)
    both.seat([], [Return.all_of(first.owner), third.handback()])
    assert held(both) == {second.token.slot: 1000}
    assert sorted(free(both)) == sorted([first.token.slot, third.token.slot])


# Leases


def test_a_lease_is_over_at_its_last_millisecond_and_not_before(both: Both) -> None:
    both.create(1)
    take(both, 300)
    both.micros += 299 * MILLISECOND
    both.seat([])
    assert held(both) == {0: 1}
    both.micros += 1 * MILLISECOND
    both.seat([])
    assert held(both) == {} and free(both) == [0]


def test_a_renewal_lengthens_a_lease(both: Both) -> None:
    both.create(1)
    grant = take(both)
    both.micros += 400 * MILLISECOND
    assert both.seat([grant.seat()]) == [True]
    assert held(both) == {0: 1000}


def test_a_renewal_that_comes_too_late_takes_nothing_from_who_has_the_slot_now(both: Both) -> None:
    both.create(1)
    late = take(both, 300)
    both.micros += 300 * MILLISECOND
    both.seat([])
    grant = take(both)
    both.micros += 100 * MILLISECOND
    assert both.seat([late.seat()]) == [False]
    assert both.seat([grant.seat()._replace(owner="me:9")]) == [False]
    assert held(both) == {0: 900}
    assert contents(both).records[0].startswith(f"{grant.token.fence} {grant.owner} ")


def test_a_renewal_of_a_lease_that_ran_out_is_too_late_though_nobody_has_the_slot(
    both: Both,
) -> None:
    both.create(1)
    late = take(both, 300)
    both.micros += 300 * MILLISECOND
    both.seat([])
    assert both.seat([late.seat()]) == [False]
    assert free(both) == [0]


def test_a_claim_looks_for_nothing_that_ran_out(both: Both) -> None:
    # Others wait for the connection, and for the end of the script.
    both.create(1)
    take(both, 300)
    both.micros += 400 * MILLISECOND
    facts = known_facts(both)
    answer = both.script("tend", both.seen, *TERMS, *facts, 0, 0, 0)
    assert answer[0] == 0 and both.contents(both.lua).free == []
    answer = both.script("tend", both.seen, *TERMS, *facts, 1, 0, 0)
    assert answer[0] == -1 and len(both.contents(both.lua).free) == 1


def test_a_claim_writes_down_whose_the_permit_is_and_since_when(both: Both) -> None:
    both.create(1)
    [fence] = fences(both)
    both.pop()
    both.micros += 100 * MILLISECOND
    seat = Grant(Token(0, fence), "me:7", 1000).seat()
    assert both.seat([seat]) == [True]
    since = both.micros // 1000 - seat.age
    assert contents(both).records[0] == f"{fence} me:7 1000 {since} some one"
    assert both.redis.ttl(both.lua.held) > 0


def test_a_seat_makes_no_key_that_lives_for_ever(both: Both) -> None:
    both.create(1)
    [fence] = fences(both)
    both.pop()
    facts = known_facts(both)
    seat = Grant(Token(0, fence), "me:7", 1000).seat()
    assert both.script("tend", both.seen, *TERMS, *facts, 0, 0, 1, *seat)[1] == b"1"
    assert both.redis.ttl(both.lua.held) > 0


def test_a_renewal_by_itself_neither_brings_back_nor_shortens_a_lease(both: Both) -> None:
    both.create(2)
    first, second = take(both, 1000), take(both, 1000)
    both.give_back(first.handback())
    now = both.micros // 1000
    for command in renewal(both.drafts, [first.seat(), second.seat()], now - 500):
        both.redis.execute_command(*command)
    assert held(both) == {1: 1000}
    for command in renewal(both.drafts, [second.seat()], now + 500):
        both.redis.execute_command(*command)
    assert both.contents(both.drafts).held == {1: now + 1500}


def test_a_record_is_theirs_whose_fence_and_name_it_has() -> None:
    seat = Grant(Token(3, 17), "me:7", 1000).seat()
    assert has("17 me:7 1000 5 some one", seat)
    assert not has("17 me:8 1000 5 some one", seat)
    assert not has("18 me:7 1000 5 some one", seat)
    assert not has("17", seat)


# What is missing


def test_what_was_popped_is_back_after_the_grace_and_not_before(both: Both) -> None:
    both.create(3)
    take(both)
    both.pop()
    both.micros += 100 * MILLISECOND
    both.seat([])
    assert held(both) == {0: 900, 1: TERMS.grace} and free(both) == [2]
    both.micros += (TERMS.grace - 1) * MILLISECOND
    both.seat([])
    assert free(both) == [2]
    both.micros += 1 * MILLISECOND
    both.seat([])
    assert free(both) == [2, 1]


def test_what_is_missing_gets_a_lease_in_a_key_that_does_not_live_for_ever(both: Both) -> None:
    both.create(1)
    both.pop()
    assert both.acquire(1000) is None
    assert held(both) == {0: TERMS.grace}


def test_a_holder_whose_lease_was_evicted_has_a_whole_one_again(both: Both) -> None:
    both.create(2)
    take(both, 2500)
    both.lose("held")
    both.seat([])
    assert held(both) == {0: 2500} and free(both) == [1]


def test_whoever_watches_notices_that_a_slot_was_leased_to_nobody(both: Both) -> None:
    both.create(1)
    both.pop()
    with both.redis.pipeline() as watching:
        watching.watch(both.drafts.meta)
        draft = both.draft()
        draft.reap()  # and nothing else that would change meta
        both.apply(draft)
        watching.multi()
        watching.get("anything")
        with pytest.raises(WatchError):
            watching.execute()


# The clock is set back


def test_no_lease_is_longer_because_the_clock_was_set_back(both: Both) -> None:
    both.create(3)
    take(both, 1000)
    take(both, 300)
    both.pop()
    both.seat([])
    both.micros -= HOUR
    both.seat([])
    assert held(both) == {0: 1000, 1: 300, 2: TERMS.grace}


def test_no_recovery_is_longer_because_the_clock_was_set_back(both: Both) -> None:
    both.create(2)
    both.lose("all")
    both.seat([])
    both.micros -= HOUR
    both.seat([])
    assert held(both) == {0: TERMS.ttl, 1: TERMS.ttl}
    both.lose("held")
    both.micros -= HOUR
    both.seat([])
    assert held(both) == {0: TERMS.ttl, 1: TERMS.ttl}
    both.micros += TERMS.ttl * MILLISECOND
    both.seat([])
    assert free(both) == [0, 1]


def test_a_recovery_is_not_longer_because_leases_are(both: Both) -> None:
    both.create(1)
    both.lose("all")
    both.seat([])
    both.micros += 400 * MILLISECOND
    for which in (both.lua, both.drafts):
        both.redis.zadd(which.held, {"0": both.micros // 1000 + 3_600_000})
    both.seat([])
    assert held(both) == {0: 600}


# A loss of data


def test_after_a_loss_of_data_nothing_is_free_before_the_longest_lease_is_over(both: Both) -> None:
    both.create(3)
    first, second = take(both), take(both)
    both.lose("meta")  # the list and the leases are left
    assert both.seat([first.seat()]) == [True]
    assert held(both) == {0: 1000, 1: 1000, 2: 1000} and free(both) == []
    assert contents(both).meta["fence"] == str(both.seen)
    assert both.give_back(first.handback())
    assert contents(both).records[0] == str(first.token.fence)
    assert both.redis.ttl(both.lua.held) > 0
    both.seat([])
    assert both.acquire(1000) is None
    both.micros += (TERMS.ttl - 1) * MILLISECOND
    assert both.seat([second.seat()]) == [True]
    assert both.acquire(1000) is None
    both.micros += 1 * MILLISECOND
    both.seat([])
    assert sorted(free(both)) == [0, 2]
    assert held(both) == {1: 999}


def test_after_a_loss_of_data_the_higher_fence_has_the_seat(both: Both) -> None:
    both.create(1)
    low = take(both)
    both.give_back(low.handback())
    high = take(both)
    both.lose("all")
    both.seen = high.token.fence + 5
    assert both.seat([low.seat(), high.seat(), low.seat()]) == [True, True, False]
    found = contents(both)
    assert found.records[0].startswith(f"{high.token.fence} {high.owner} ")
    assert found.meta["fence"] == str(high.token.fence + 5)


def test_what_is_released_during_a_recovery_gets_a_lease_in_a_key_that_does_not_live_for_ever(
    both: Both,
) -> None:
    both.create(1)
    grant = take(both)
    both.lose("all")
    assert both.seat([grant.seat()]) == [True]
    both.give_back(grant.handback())
    assert held(both) == {0: 1000}


def test_what_is_evicted_during_a_recovery_stays_nobodys_until_its_end(both: Both) -> None:
    both.create(2)
    both.lose("all")
    both.seat([])
    both.lose("held")
    both.micros += 100 * MILLISECOND
    both.seat([])
    assert held(both) == {0: 900, 1: 900}
    assert both.redis.ttl(both.lua.held) > 0


def test_a_resize_during_a_recovery_makes_permits_at_its_end(both: Both) -> None:
    both.create(1)
    both.lose("all")
    both.seat([])
    both.resize(3)
    assert free(both) == []
    both.seat([])
    assert both.acquire(1000) is None
    assert free(both) == []
    both.micros += TERMS.ttl * MILLISECOND
    both.seat([])
    assert sorted(free(both)) == [0, 1, 2]


def test_whoever_knew_it_makes_it_anew_with_nothing_free(both: Both) -> None:
    both.create(2)
    take(both)
    version = contents(both).meta["version"]
    both.lose("all")
    both.micros += 10 * MILLISECOND
    both.create(2)
    assert free(both) == [] and held(both) == {0: 1000, 1: 1000}
    assert contents(both).meta["version"] == version


def test_who_makes_it_for_the_first_time_finds_nothing_of_an_earlier_one(both: Both) -> None:
    for which in (both.lua, both.drafts):
        both.redis.rpush(which.free, "0:1", "7:2")
        both.redis.zadd(which.held, {"1": both.micros // 1000 + 1000})
    both.create(2)
    assert free(both) == [0, 1] and held(both) == {}
    assert contents(both).meta["grace"] == str(TERMS.grace)
    both.seat([])
    assert take(both).token.slot == 0


# A rewind


def test_a_grant_that_a_failover_has_lost_gets_its_seat_back(both: Both) -> None:
    both.create(2)
    both.give_back(take(both).handback())
    both.save()
    first, second = take(both), take(both)
    both.give_back(first.handback())
    third = take(both)
    both.seen = 0
    both.rewind()
    assert both.seat([second.seat(), third.seat()]) == [True, True]
    assert held(both) == {0: 1000, 1: 1000} and free(both) == []
    assert contents(both).meta["fence"] == str(third.token.fence)


def test_after_a_rewind_the_later_grant_has_the_slot(both: Both) -> None:
    both.create(1)
    former = take(both)
    both.save()
    both.give_back(former.handback())
    later = take(both)
    both.rewind()
    assert both.seat([former.seat(), later.seat(), former.seat()]) == [True, True, False]
    assert contents(both).records[0].startswith(f"{later.token.fence} {later.owner} ")


def test_whoever_comes_from_another_server_has_fences_rise_above_the_clock_and_the_last_one(
    both: Both,
) -> None:
    both.create(1)
    grant = take(both)
    both.seat([], lead=5 * SECOND)
    assert contents(both).meta["fence"] == str(both.micros + 5 * SECOND + 1)
    both.seat([], lead=SECOND)  # it never falls
    assert contents(both).meta["fence"] == str(both.micros + 5 * SECOND + 2)
    both.give_back(grant.handback())
    assert fences(both)[0] > both.micros + 5 * SECOND


def test_whoever_comes_to_another_server_has_what_is_free_refreshed(both: Both) -> None:
    both.create(3)
    both.save()
    lost = take(both)
    both.seen = 0
    both.rewind()
    later = both.acquire(1000, moved=True)
    assert later is not None and later.token.slot == lost.token.slot
    tokens = [Token.parse(each.encode()) for each in contents(both).free]
    assert [each.slot for each in tokens] == [1, 2]
    fences = [lost.token.fence, later.token.fence, *(each.fence for each in tokens)]
    assert fences == sorted(set(fences)), "a refresh keeps the order"


def test_a_refresh_makes_no_token_of_a_left_over(both: Both) -> None:
    both.create(2)
    for which in (both.lua, both.drafts):
        both.redis.lpush(which.free, "1:5")
    both.damaged = True
    first, second = both.acquire(1000, moved=True), both.acquire(1000)
    assert first is not None and second is not None
    assert both.acquire(1000) is None and free(both) == []


def test_a_resize_that_a_failover_has_lost_is_made_again(both: Both) -> None:
    both.create(1)
    both.save()
    both.resize(3)
    both.rewind()
    both.seat([])
    assert len(free(both)) == 3
    assert contents(both).meta["count"] == "3"


def test_who_has_not_heard_of_a_resize_does_not_undo_it(both: Both) -> None:
    both.create(1)
    before = both.known
    both.micros += 3
    both.resize(3)
    both.known = before
    both.seat([])
    assert len(free(both)) == 3


# Resizing


def test_of_two_resizes_at_once_the_second_changes_nothing(both: Both) -> None:
    both.create(1)
    before = both.known
    both.micros += 3
    both.resize(2)
    both.known = before
    both.resize(4)
    assert contents(both).meta["count"] == "2" and len(free(both)) == 2


def test_a_shrink_takes_what_is_free_beyond_the_count_and_no_more(both: Both) -> None:
    both.create(4)
    before = fences(both)
    both.micros += 3
    both.resize(2)
    assert free(both) == [0, 1]
    assert fences(both) == before[:2]
    assert sorted(contents(both).records) == [0, 1]


def test_a_shrink_takes_what_is_beyond_the_count_wherever_in_the_list_it_is(both: Both) -> None:
    both.create(3)
    low, middle = take(both), take(both)
    both.give_back(low.handback())
    both.give_back(middle.handback())
    before = fences(both)
    both.micros += 3
    both.resize(2)
    assert free(both) == [0, 1] and fences(both) == before[1:]


def test_a_shrink_takes_a_lower_slot_if_a_higher_one_is_held(both: Both) -> None:
    both.create(3)
    low, middle, high = take(both), take(both), take(both)
    both.give_back(low.handback())
    both.give_back(middle.handback())
    both.micros += 3
    both.resize(2)
    assert free(both) == [0] and sorted(contents(both).records) == [0, 2]
    both.give_back(high.handback())
    assert free(both) == [0, 1] and sorted(contents(both).records) == [0, 1]


def test_after_a_shrink_what_comes_back_leaves_until_there_are_as_many_as_permits(
    both: Both,
) -> None:
    both.create(4)
    grants = [take(both) for _ in range(4)]
    both.micros += 3
    both.resize(2)
    both.give_back(grants[0].handback())
    assert sorted(contents(both).records) == [1, 2, 3] and free(both) == []
    both.give_back(grants[3].handback())
    assert sorted(contents(both).records) == [1, 2] and free(both) == []
    both.give_back(grants[1].handback())
    assert free(both) == [1]
    both.give_back(grants[2].handback())
    assert sorted(free(both)) == [0, 1]


def test_only_what_takes_tokens_out_of_the_list_minds_that_others_pop(both: Both) -> None:
    both.create(2)
    shrink, grow = both.draft(), both.draft()
    shrink.resize(1)
    grow.resize(3)
    assert shrink.watches_free and not grow.watches_free


def test_a_grow_makes_as_many_as_are_lacking(both: Both) -> None:
    both.create(1)
    take(both)
    both.pop()
    both.micros += 3
    both.resize(3)
    assert free(both) == [1, 2]
    both.seat([])
    assert free(both) == [1, 2]


def test_the_fence_of_a_resize_is_that_of_no_permit(both: Both) -> None:
    both.create(1)
    both.micros += 3
    both.resize(2)
    version = int(contents(both).meta["version"])
    assert version == both.micros and fences(both)[-1] == version + 1


# How long the keys live


def test_the_keys_live_as_long_as_anybody_wants_them(both: Both) -> None:
    both.create(2)
    grant = take(both)
    patient = Terms(ttl=500, keep=60_000)
    both.seat([grant.seat()], terms=patient)
    for name in ALL:
        assert 59_000 < lives(both)[name] <= 60_000, name
    assert contents(both).meta["ttl"] == "1000" and contents(both).meta["keep"] == "60000"
    both.seat([grant.seat()], terms=Terms(ttl=2000, keep=5000))
    assert contents(both).meta["ttl"] == "2000" and contents(both).meta["keep"] == "60000"
    for name in ALL:
        assert 59_000 < lives(both)[name] <= 60_000, name


@pytest.mark.parametrize("who", ["tend", "acquire", "resize", "create"])
def test_whoever_comes_keeps_all_keys_alive(both: Both, who: str) -> None:
    both.create(2)
    take(both)
    if who == "acquire":
        take(both)
    if who != "create":
        both.resize(3)
    for key in keys(both):
        both.redis.pexpire(key, 1500)
    if who == "tend":
        both.seat([])
    elif who == "acquire":
        take(both)
        assert both.acquire(1000) is None
    elif who == "resize":
        both.resize(4)
    else:
        both.create(2)
    for key in keys(both):
        assert both.redis.pttl(key) > 4000 or not both.redis.exists(key), key


def test_who_wants_another_count_changes_nothing(both: Both) -> None:
    both.create(2)
    for key in keys(both):
        both.redis.pexpire(key, 1500)
    asked = both.script("create", both.seen, *TERMS, TERMS.grace, 3, "", "")
    assert Facts.parse(asked).count == 2
    assert both.redis.pttl(both.lua.meta) <= 1500


def test_a_key_that_comes_back_has_a_time_to_live(both: Both) -> None:
    both.create(1)
    assert both.redis.ttl(both.lua.free) > 0 and both.redis.ttl(both.lua.meta) > 0
    grant = take(both)  # the list is gone, and the leases are there for the first time
    assert both.redis.ttl(both.lua.held) > 0
    both.give_back(grant.handback())
    assert both.redis.ttl(both.lua.free) > 0
    both.pop()
    both.script("tend", 0, *TERMS, *known_facts(both), 1, 0, 0)
    assert both.redis.ttl(both.lua.held) > 0
