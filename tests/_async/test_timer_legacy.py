"""Timers that redis-timers has armed, re-armed or removed, in its layout."""

from __future__ import annotations

import time
from functools import partial

import pytest

from redsync._async import adoption
from redsync.aio import Router, Timers

from ..support.aio import Redis, eventually, spawn
from .timing import NOW, MakeTimers, Record, after, emptied, is_empty


class Predecessor:
    """Does to the keys what redis-timers 0.4.1 does."""

    def __init__(self, client: Redis, timers: Timers) -> None:
        self._client = client
        self._keys = timers._scripts.keys

    async def set(self, member: str, payload: str, seconds: float) -> None:
        pipeline = self._client.pipeline()
        pipeline.zadd(self._keys.timeline, {member: int(time.time() + seconds)})
        pipeline.hset(self._keys.payloads, member, payload)
        await pipeline.execute()

    async def remove(self, member: str) -> None:
        pipeline = self._client.pipeline()
        pipeline.zrem(self._keys.timeline, member)
        pipeline.hdel(self._keys.payloads, member)
        await pipeline.execute()


async def test_its_timers_are_picked_up_and_run(make_timers: MakeTimers, client: Redis) -> None:
    record = Record(schema=dict[str, int])
    timers = make_timers(record.router)
    old = Predecessor(client, timers)
    for number in range(1200):
        await client.zadd(timers._scripts.keys.timeline, {f"notes--{number}": 1_700_000_000})
        await client.hset(timers._scripts.keys.payloads, f"notes--{number}", f'{{"n":{number}}}')
    await old.set("notes--later", '{"n":-1}', 1.5)
    async with timers:
        await record.written(1201)
        await emptied(timers)
    assert sorted(each["n"] for each in record.payloads) == list(range(-1, 1200))  # type: ignore[index]
    assert all(run.lateness >= 0 for run in record.runs)


async def test_its_timers_can_be_replaced_and_removed(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router)
    old = Predecessor(client, timers)
    await old.set("notes--1", '"old"', 60)
    await old.set("notes--2", '"old"', 60)
    await timers.set_timer("notes", "1", "new", NOW)
    assert await timers.remove_timer("notes", "2") is True
    await timers.handle_ready_timers()
    assert record.payloads == ["new"] and await is_empty(timers)


async def test_one_is_noticed_though_others_have_taken_theirs_meanwhile(
    make_timers: MakeTimers, client: Redis
) -> None:
    ours, theirs = Record(), Record("letters")
    timers, others = make_timers(ours.router), make_timers(theirs.router)
    old = Predecessor(client, timers)
    await old.set("letters--1", '"theirs"', -5)
    assert await timers.handle_ready_timers() == 0
    assert await others.handle_ready_timers() == 1
    await old.set("notes--1", '"ours"', -5)
    assert await timers.handle_ready_timers() == 1
    assert (ours.payloads, theirs.payloads) == (["ours"], ["theirs"])


async def test_what_it_arms_while_others_work_is_noticed(
    make_timers: MakeTimers, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_INTERVAL", 0.05)
    record = Record()
    async with make_timers(record.router) as timers:
        await timers.set_timer("notes", "ours", 0, NOW)
        await record.written(1)
        await Predecessor(client, timers).set("notes--theirs", "1", -1)
        await timers.set_timer("notes", "a reason for a look", 2, NOW)
        await timers.set_timer("notes", "and another one", 2, after(0.2))
        await eventually(lambda: 1 in record.payloads)
        await emptied(timers)


async def test_what_it_arms_is_noticed_though_it_has_removed_others(
    make_timers: MakeTimers, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many timers as records, and yet one of them has none.
    monkeypatch.setattr(adoption, "_WHOLE", 0.05)
    record = Record()
    async with make_timers(record.router) as timers:
        await timers.set_timer("notes", "removed", 0, after(600))
        await timers.set_timer("notes", "ours", 0, NOW)
        await record.written(1)
        old = Predecessor(client, timers)
        await old.remove("notes--removed")
        await old.set("notes--theirs", "1", -1)

        async def found() -> bool:
            await timers.set_timer("notes", "a reason for a look", 2, NOW)
            return 1 in record.payloads

        await eventually(found)


async def test_its_timers_run_without_a_worker_that_runs_for_ever(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router)
    await Predecessor(client, timers).set("notes--1", "1", -1)
    assert await timers.handle_ready_timers() == 1
    assert record.payloads == [1] and await is_empty(timers)


async def test_its_removals_and_new_times_are_honoured(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router)
    old = Predecessor(client, timers)
    for each in ("removed", "later", "same"):
        await timers.set_timer("notes", each, each, NOW)
    await old.remove("notes--removed")
    await old.set("notes--later", '"later, with another payload"', 60)
    assert await timers.handle_ready_timers() == 1
    assert record.payloads == ["same"]
    names, payloads = await timers.fetch_all_timers()
    assert names == ["notes--later"] and len(payloads) == 1
    assert await timers.remove_timer("notes", "later")


async def test_an_earlier_time_is_found_by_a_worker_that_starts(
    make_timers: MakeTimers, client: Redis
) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", 1, after(600))
    await Predecessor(client, timers).set("notes--1", "2", -5)
    async with timers:
        await record.written(1)
        await emptied(timers)
    assert record.payloads == [2]


async def test_what_it_arms_anew_during_a_run_is_not_lost(
    make_timers: MakeTimers, client: Redis
) -> None:
    router = Router()
    seen: list[object] = []

    @router.handler(topic="chain")
    async def handle(data: object, old: Predecessor) -> None:
        seen.append(data)
        if data == 1:
            await old.set("chain--1", "2", -5)

    timers = make_timers(router)
    timers.context = Predecessor(client, timers)
    await timers.set_timer("chain", "1", 1, NOW)
    assert await timers.handle_ready_timers() == 1
    assert await timers.handle_ready_timers() == 1
    assert seen == [1, 2] and await is_empty(timers)


async def test_the_longest_topic_has_a_timer_that_may_be_of_several(
    make_timers: MakeTimers, client: Redis
) -> None:
    short, long = Record("a"), Record("a--b")
    both = make_timers(long.router)
    async with both:  # its topics are known to everybody from now on
        await eventually(partial(client.exists, both._scripts.keys.topics))
    timers = make_timers(short.router)
    old = Predecessor(client, timers)
    await old.set("a--b--c", "1", -1)
    await old.set("a--c", "2", -1)
    await old.set("b--c", "3", -1)
    async with timers:
        await short.written(1)
        assert short.payloads == [2]
        async with make_timers(long.router):
            await long.written(1)
        assert long.payloads == [1]
    assert (await make_timers().fetch_all_timers())[0] == ["b--c"]


@pytest.mark.parametrize("score", [-1.0, 0.0, 1e-9, 1_700_000_000.123456789, 1e300])
async def test_scores_of_any_kind_are_understood(
    make_timers: MakeTimers, client: Redis, score: float
) -> None:
    record = Record()
    timers = make_timers(record.router)
    await client.zadd(timers._scripts.keys.timeline, {"notes--1": score})
    await client.hset(timers._scripts.keys.payloads, "notes--1", "1")
    await timers.set_timer("notes", "2", 2, NOW)
    async with timers:
        await record.written(1 if score > 1e10 else 2)
        if score > 1e10:
            assert record.payloads == [2]
            assert await timers.remove_timer("notes", "1")
        await emptied(timers)


async def test_lost_records_are_made_anew(make_timers: MakeTimers, client: Redis) -> None:
    record = Record()
    timers = make_timers(record.router)
    for number in range(5):
        await timers.set_timer("notes", str(number), number, NOW)
    keys = timers._scripts.keys
    await client.delete(keys.state, keys.meta, keys.due + b"notes")
    async with timers:
        await record.written(5)
        await emptied(timers)
    assert sorted(record.payloads) == list(range(5))  # type: ignore[type-var]


async def test_a_lost_index_is_made_anew(make_timers: MakeTimers, client: Redis) -> None:
    record = Record()
    timers = make_timers(record.router)
    await timers.set_timer("notes", "1", 1, NOW)
    await client.delete(timers._scripts.keys.due + b"notes")
    async with timers:
        await record.written(1)
        await emptied(timers)


async def test_what_it_arms_after_a_worker_has_ended_is_found_on_all_pages(
    make_timers: MakeTimers, client: Redis
) -> None:
    timers = make_timers(Record().router)
    keys = timers._scripts.keys
    running = spawn(timers.run_forever)
    await eventually(partial(client.exists, keys.topics))
    await timers.stop()
    await running.result()
    late = int(time.time()) + 600
    await client.zadd(keys.timeline, {f"notes--{number}": late for number in range(1200)})
    assert await timers.handle_ready_timers() == 0
    assert len(set(await client.hkeys(keys.state)) - {b""}) == 1200


def test_a_name_belongs_to_a_topic_that_it_begins_with_separator_included() -> None:
    looking = adoption.Adoption("--")
    topics = [b"a--b", b"ab", b"a"]
    assert looking._topic_of(b"a--b--c", topics) == "a--b"
    assert looking._topic_of(b"ab--c", topics) == "ab"
    assert looking._topic_of(b"abc--c", topics) == ""


def test_only_more_than_was_left_alone_is_a_reason_to_look() -> None:
    looking = adoption.Adoption("--")
    looking._left = 5
    assert not looking._others(5) and looking._others(6)
    assert not looking._others(2)  # redis-timers has removed some
    assert looking._others(3)
    assert not looking._others(-1) and looking._others(1)
