"""Bytes to replies and names to keys, without a server."""

from __future__ import annotations

from enum import Enum

import pytest
from redis import exceptions

from redsync._protocol.keys import EventKeys, SemaphoreKeys, TimerKeys, slot_of
from redsync._protocol.resp import Parser, Reply, pack
from redsync._protocol.scripts import Script
from redsync._protocol.semaphore import Contents, Terms, parse_acquired, parse_facts, parse_tended
from redsync._protocol.timers import (
    BUDGET,
    MOST,
    Arming,
    batches,
    parse_letter,
    parse_record,
    parse_turn,
)
from redsync._protocol.timers import Terms as TimerTerms
from redsync._protocol.trouble import advised, demoted, is_temporary, passes

REPLIES = (
    b"+OK\r\n"
    b":-12\r\n"
    b"$5\r\na\r\nbc\r\n"
    b"$0\r\n\r\n"
    b"$-1\r\n"
    b"*-1\r\n"
    b"*0\r\n"
    b"*3\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n+y\r\n"
    b"$1\r\nz\r\n"
)
VALUES: list[Reply] = [b"OK", -12, b"a\r\nbc", b"", None, None, [], [1, [b"x", None], b"y"], b"z"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_replies_are_the_same_however_the_stream_is_cut(size: int) -> None:
    parser = Parser()
    found: list[Reply] = []
    for start in range(0, len(REPLIES), size):
        found += parser.feed(REPLIES[start : start + size])
    assert found == VALUES


def test_each_reply_comes_as_soon_as_it_is_complete() -> None:
    parser = Parser()
    assert parser.feed(b"$3\r\nab") == []
    assert parser.feed(b"c\r") == []
    assert parser.feed(b"\n:1\r\n+") == [b"abc", 1]
    assert parser.feed(b"OK\r\n") == [b"OK"]


def test_an_error_is_the_exception_that_redis_py_has_for_it() -> None:
    [moved, asked, unknown, other] = Parser().feed(
        b"-MOVED 5 host:7\r\n-ASK 6 host:8\r\n-ERR unknown command\r\n-WRONGTYPE no\r\n"
    )
    assert isinstance(moved, exceptions.MovedError) and (moved.host, moved.port) == ("host", 7)
    assert type(asked) is exceptions.AskError and asked.port == 8
    assert type(unknown) is exceptions.ResponseError and str(unknown) == "unknown command"
    assert str(other) == "WRONGTYPE no"


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises(exceptions.InvalidResponse):
        Parser().feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_commands_are_packed_by_bytes() -> None:
    assert pack("SET", "ä", b"\r\n", 17) == (
        b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa4\r\n$2\r\n\r\n\r\n$2\r\n17\r\n"
    )


def test_whatever_is_a_text_or_a_number_is_packed_as_what_it_is() -> None:
    class Name(str, Enum):
        GPUS = "gpus"

    assert pack(Name.GPUS, True, "x" * 100) == pack("gpus", 1, b"x" * 100)


def test_a_request_says_if_it_may_have_been_executed_before() -> None:
    request = Script("event/take", b"k").request("me", "0", again=("me", "1"))
    [first], [again], [whole] = (
        Parser().feed(request.packed(**how)) for how in ({}, {"again": True}, {"whole": True})
    )
    assert isinstance(first, list) and isinstance(again, list) and isinstance(whole, list)
    assert first[0] == again[0] == b"EVALSHA" and first[1] == again[1]
    assert first[2:] == [b"1", b"k", b"me", b"0"] and again[2:] == [b"1", b"k", b"me", b"1"]
    assert whole[0] == b"EVAL" and whole[2:] == first[2:]
    once = Script("event/set").request_on((b"a", b"b"), "me")
    assert once.packed() == once.packed(again=True)
    assert Parser().feed(once.packed())[0][2:] == [b"2", b"a", b"b", b"me"]  # type: ignore[index]


# Keys


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        # Of the specification of Redis clusters, and by CLUSTER KEYSLOT.
        (b"123456789", 12739),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
        (b"foo{}{bar}", 8363),
        (b"foo{{bar}}zap", 4015),
        (b"foo{bar}{zap}", 5061),
        (b"", 0),
    ],
)
def test_the_slot_of_a_key_is_that_of_the_cluster(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


@pytest.mark.parametrize("name", ["x", "{x}", "a}b", "a{b}c", "ä"])
def test_all_keys_of_an_object_are_in_one_slot(name: str) -> None:
    semaphore, event = SemaphoreKeys.of("p", name), EventKeys.of("p", name)
    assert len({slot_of(key) for key in semaphore}) == 1
    assert len({slot_of(key) for key in event}) == 1
    assert len(set(semaphore)) == 4
    if "}" in name and "{" not in name:
        return  # the name of a timeline is its key
    timers = TimerKeys.of(name, None, clustered=True)
    assert len({slot_of(key) for key in timers}) == 1
    assert len(set(timers)) == len(timers)


def test_keys_that_a_cluster_would_scatter_are_refused() -> None:
    with pytest.raises(ValueError, match="payloads_key"):
        TimerKeys.of("x", "y", clustered=True)
    assert TimerKeys.of("x", "y", clustered=False).payloads == b"y"
    with pytest.raises(ValueError, match="a key of its own"):
        TimerKeys.of("x", "x", clustered=False)
    with pytest.raises(ValueError, match="hash tag"):
        SemaphoreKeys.of("{}", "x")


# What answers mean


def test_an_acquisition_has_a_token_or_says_why_not() -> None:
    assert parse_acquired(b"3:17") == (3, 17)
    assert parse_acquired(None) is None
    facts: list[Reply] = [b"5", b"6", b"7", b"8", b"9"]
    empty = parse_acquired([-1, 2, *facts])
    assert empty is not None and empty[:2] == (None, 2)
    empty = parse_acquired([0, 0, *facts])
    assert empty is not None and empty[0] == 0
    known = parse_facts(facts)
    assert known is not None
    assert (known.count, known.version, known.fence, known.grace, known.ttl) == (5, 6, 7, 8, 9)
    tended = parse_tended([4, b"101", *facts])
    assert tended.seated == [True, False, True] and tended.wait == 4 and tended.facts == known


def test_the_grace_is_half_a_lease_and_five_seconds_at_most() -> None:
    assert Terms(1000, 1).grace == 500 and Terms(60_000, 1).grace == 5000


def test_contents_tell_what_is_granted() -> None:
    meta: list[Reply] = [
        b"count",
        b"3",
        b"s0",
        b"17 me:1 1000 500 some one",
        b"s1",
        b"18",
        b"s2",
        b"19 b 9 9 i",
    ]
    found = Contents.parse([[b"1", b"500000"], meta, [b"1:18"], [b"0", b"2500"]])
    assert (found.now, found.micros, found.meta) == (1500, 1_500_000, {"count": "3"})
    [lease] = found.leases()
    assert (lease.slot, lease.fence, lease.owner, lease.since) == (0, 17, "me:1", 500)
    assert (lease.deadline, lease.identifier) == (2500, "some one")


def test_a_turn_is_read_by_lengths() -> None:
    heads = b"2 0000000000000017 0000000000000005 1 4 3\n1 18 6 -3 4 -1\n1 19 7 3 4 0"
    turn = parse_turn(
        [b"99", -1, 5, heads, b"u--x[1]t--yt--z"], [TimerTerms("t", 1, 1), TimerTerms("u", 1, 1)]
    )
    assert (turn.now, turn.wait, turn.unindexed) == (99, None, 5)
    assert [each[:6] for each in turn.claimed] == [
        ("u", b"u--x", 17, 5, 1, b"[1]"),
        ("t", b"t--y", 18, 6, 2, None),
        ("t", b"t--z", 19, 7, 3, b""),
    ]
    assert [each.held for each in turn.claimed] == [False, True, False]


def test_a_dead_timer_and_a_record_are_read_by_lengths() -> None:
    letter = parse_letter(b"a--b--c", b"4 5 6 7 1 3\nno\n[\n1]", "--")
    assert letter == ("a--b", "c", b"[\n1]", "no\n", 6, 5, 7)
    assert parse_letter(b"t--x", b"1 5 6 7 0 2\nno", "--").payload is None
    text = b"%016d%016d%016d%d%04d%04d%s" % (1, 2, 3, 0, 4, 5, b"aa000000")
    assert parse_record(text) == (5, True, 4, None)
    assert parse_record(text + b"60000000 once").every == 60_000_000
    assert not parse_record(b"%016d%016d" % (1, 0) + text[32:]).runs


def test_one_call_is_about_five_hundred_timers_or_a_megabyte() -> None:
    small = [Arming("t", b"%d" % number, b"1", 0, 0, "") for number in range(2 * MOST + 1)]
    assert [len(batch) for batch in batches(small)] == [MOST, MOST, 1]
    large = [each._replace(payload=b"x" * (BUDGET // 2)) for each in small[:5]]
    assert [len(batch) for batch in batches(large)] == [2, 2, 1]
    assert list(batches([])) == []
    huge = [each._replace(payload=b"x" * 2 * BUDGET) for each in small[:2]]
    assert [len(batch) for batch in batches(huge)] == [1, 1]


# What may be tried again


@pytest.mark.parametrize(
    ("error", "waited_for"),
    [
        (exceptions.ConnectionError("gone"), True),
        (exceptions.TimeoutError("slow"), True),
        (OSError("no route"), True),
        (exceptions.BusyLoadingError("loading"), True),
        (exceptions.ReadOnlyError("a replica"), True),
        (exceptions.ClusterDownError("down"), True),
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), True),
        (exceptions.ResponseError("-READONLY script: on @user_script:7"), True),
        (exceptions.AuthenticationError("wrong password"), False),
        (exceptions.NoPermissionError("no"), False),
        (exceptions.ResponseError("WRONGTYPE"), False),
        (exceptions.OutOfMemoryError("full"), False),
    ],
)
def test_what_passes_by_itself_is_waited_for(error: Exception, waited_for: bool) -> None:
    assert passes(error) is waited_for


def test_a_worker_lives_with_what_somebody_may_mend() -> None:
    for mended in ("BUSY running a script", "MISCONF no disk", "NOREPLICAS too few"):
        assert is_temporary(exceptions.ResponseError(mended))
    assert is_temporary(exceptions.OutOfMemoryError("full"))
    assert not is_temporary(exceptions.NoPermissionError("no"))


def test_a_server_tells_that_it_is_not_the_master_any_more() -> None:
    for told in ("UNBLOCKED force", "-READONLY script"):
        assert demoted(exceptions.ResponseError(told))
    assert demoted(exceptions.ReadOnlyError("a replica"))
    assert demoted(exceptions.MasterDownError("down"))
    assert not demoted(exceptions.ResponseError("WRONGTYPE"))


def test_a_server_that_asks_for_a_password_in_other_words_is_understood() -> None:
    told = advised(exceptions.ResponseError("Protocol error: unauthenticated multibulk length"))
    assert isinstance(told, exceptions.AuthenticationError)
    assert "give the client a password" in str(told)
    assert "use Redis 6.2" in str(advised(exceptions.ResponseError("syntax error")))
    other = exceptions.ResponseError("something else")
    assert advised(other) is other
