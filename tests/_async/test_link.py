"""Where commands go, and who follows when they go elsewhere, with connections that lead nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any
from weakref import ref

import pytest
from redis import exceptions

from redsync._async.link import Hub, Link
from redsync._async.optimistic import Optimistic
from redsync._protocol.keys import SemaphoreKeys
from redsync._protocol.scripts import Command
from redsync._protocol.semaphore import Seat
from redsync._runtime.aio import Lock

HERE, THERE = ("here", 1), ("there", 2)
SEAT = Seat(slot=1, fence=2, owner="me", ttl=3, age=0, identifier="")


class End:
    """A connection, as far as its address tells; or the node that it is to."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.failure: str | None = None
        self.transactions = Lock()
        self.stalled = 0.0
        self.record: bytes | None = None
        self.answers: list[Exception] = []
        """What goes wrong first."""

    def close(self, why: object = "closed") -> None:
        self.failure = str(why)

    def stalled_for(self) -> float:
        return self.stalled

    async def call(self, packed: bytes, timeout: float) -> Any:
        if self.answers and isinstance(self.answers[0], exceptions.TimeoutError):
            raise self.answers[0]
        return self.answers.pop(0) if self.answers else b"an answer"

    async def exchange(self, commands: Sequence[bytes], timeout: float) -> list[Any]:
        if self.answers:
            return [await self.call(b"", timeout)]
        # The time, or records without leases.
        return [[b"1", b"0"]] if len(commands) == 1 else [0, [self.record], []]


def end(address: tuple[str, int]) -> Any:
    """It stands for what it is not."""
    return End(address)


class Scene:
    """A hub of a client that knows no server, and a link of it that has been here."""

    def __init__(self) -> None:
        self.moved = 0
        client: Any = object()
        self.hub: Any = Hub(client, self.move, lambda: False)
        self.link: Any = Link(self.hub, b"key")
        self.wire, self.line = end(HERE), end(HERE)
        self.link._wire = self.hub._wires[HERE] = self.wire
        self.hub._lines.add(self.line)
        self.link._line = ref(self.line)
        self.link._take_note(self.wire)

    def move(self) -> None:
        self.moved += 1

    def guess(self) -> None:
        """The node here does not answer, and another one is asked."""
        self.link._guess = self.link._node = end(THERE)
        self.link._wire = end(THERE)


async def test_what_leads_elsewhere_than_to_the_master_is_cut() -> None:
    scene = Scene()
    scene.hub.keep_to(HERE)
    assert (scene.wire.failure, scene.line.failure) == (None, None)
    scene.hub.keep_to(THERE)
    assert scene.wire.failure and scene.line.failure


async def test_what_is_opened_while_all_is_closed_is_not_forgotten() -> None:
    scene = Scene()
    late = end(THERE)

    def close(why: object = "closed") -> None:
        scene.hub._wires[THERE] = late  # by another thread

    scene.wire.close = close
    scene.hub.close()
    assert late.failure or late in scene.hub._wires.values()


async def test_each_other_master_counts_as_a_move() -> None:
    scene = Scene()
    for master, moves in ((HERE, 0), (HERE, 0), (THERE, 1), (THERE, 1), (HERE, 2)):
        scene.hub.keep_to(master)
        assert (scene.link.moves, scene.moved) == (moves, moves)


async def test_whoever_waits_follows_where_commands_go() -> None:
    scene = Scene()
    scene.link._take_note(scene.wire)
    assert (scene.link.moves, scene.moved) == (0, 0)
    scene.link._take_note(end(HERE))  # perhaps it was started again
    assert (scene.link.moves, scene.moved, scene.line.failure) == (1, 1, None)
    scene.link._take_note(end(THERE))
    assert (scene.link.moves, scene.moved) == (2, 2)
    assert scene.line.failure


@pytest.mark.parametrize("way", ["a command", "a transaction"])
async def test_a_node_that_was_guessed_is_the_right_one_once_it_answers(way: str) -> None:
    scene = Scene()
    scene.guess()
    wire, scene.link._wire = scene.link._wire, None
    scene.hub._wires[THERE] = wire
    if way == "a command":
        await scene.link.run(Command(b"PING"), monotonic() + 5)
    else:
        optimistic = Optimistic(scene.link, SemaphoreKeys.of("", "s"))
        assert await optimistic.renew([SEAT], monotonic() + 5) == [False]
    assert (scene.link.place, scene.link.moves) == (THERE, 1)
    assert scene.line.failure


@pytest.mark.parametrize("way", ["a command", "a transaction"])
async def test_what_the_server_said_counts_for_more_than_that_time_ran_out(way: str) -> None:
    scene = Scene()
    scene.wire.answers = [
        exceptions.BusyLoadingError("loading"),
        exceptions.TimeoutError("no answer in time"),
    ]
    optimistic = Optimistic(scene.link, SemaphoreKeys.of("", "s"))
    end = monotonic() + 0.1
    with pytest.raises(exceptions.BusyLoadingError):
        if way == "a command":
            await scene.link.run(Command(b"PING"), end)
        else:
            await optimistic.renew([SEAT], end)
    assert len(scene.wire.answers) == 1


async def test_a_record_without_a_lease_is_not_renewed() -> None:
    scene = Scene()
    scene.wire.record = b"2 me 3"
    optimistic = Optimistic(scene.link, SemaphoreKeys.of("", "s"))
    assert await optimistic.renew([SEAT], monotonic() + 5) == [False]


async def test_a_late_answer_from_elsewhere_confirms_nothing() -> None:
    scene = Scene()
    scene.guess()
    scene.link.confirm(scene.wire)
    assert scene.link._guess is not None and scene.link.moves == 0
    scene.link.confirm(scene.link._wire)
    assert scene.link._guess is None and scene.link.moves == 1


async def test_a_node_that_is_guessed_is_no_move_before_it_answers() -> None:
    scene = Scene()
    scene.guess()
    wire, scene.link._wire = scene.link._wire, None
    scene.hub._wires[THERE] = wire
    assert await scene.link.connected(monotonic() + 5) is wire
    assert (scene.link.place, scene.link.moves, scene.line.failure) == (None, 0, None)


class Cluster:
    """A client's view of one, in which each other node that is asked for is a new one."""

    clustered = True
    guarded = False

    def __init__(self) -> None:
        self.avoided: list[Any] = []

    async def another(self, node: Any, suspects: Any) -> Any:
        self.avoided.append(suspects)
        return end(THERE)


def clustered() -> tuple[Scene, Cluster]:
    scene, cluster = Scene(), Cluster()
    scene.hub.network = cluster
    scene.link._node = scene.link._line_node = end(HERE)
    return scene, cluster


LOST = exceptions.ConnectionError("lost")


async def test_of_those_whose_connection_breaks_the_first_one_looks_elsewhere() -> None:
    scene, cluster = clustered()
    for _ in range(3):
        await scene.link.look_again(LOST, scene.wire, monotonic() + 5)
        await scene.link.leave_line(LOST)
    assert len(cluster.avoided) == 1
    assert scene.link._node.address == THERE


@pytest.mark.parametrize("site", ["a cluster", "a server"])
async def test_a_late_word_of_a_former_master_cuts_nothing(site: str) -> None:
    scene = clustered()[0] if site == "a cluster" else Scene()
    sound = scene.link._wire = end(THERE)
    demoted = exceptions.ReadOnlyError("a replica")
    await scene.link.look_again(demoted, scene.wire, monotonic() + 5)
    assert scene.link._wire is sound and sound.failure is None


async def test_who_connects_in_vain_where_nobody_goes_any_more_leads_nobody_away() -> None:
    scene, cluster = clustered()
    right = end(THERE)

    async def fail(*_: Any) -> None:
        scene.link._node = right  # somebody was told meanwhile
        raise LOST

    for way, connect in (("wire", scene.link.connected), ("line", scene.link.open_line)):
        scene.link._node, scene.link._wire = end(HERE), None
        setattr(scene.hub, way, fail)
        with pytest.raises(exceptions.ConnectionError):
            await connect(monotonic() + 5)
        assert scene.link._node is right and cluster.avoided == []


async def test_who_connects_where_nobody_goes_any_more_leads_nobody_away() -> None:
    scene, _ = clustered()
    right, wire = end(THERE), end(HERE)

    async def connect(*_: Any) -> Any:
        scene.link._node, scene.link._wire = right, None
        return wire

    scene.link._wire = None
    scene.hub.wire = connect
    assert await scene.link.connected(monotonic() + 5) is wire
    assert scene.link._wire is None and scene.link.moves == 0


async def test_whoever_connects_in_vain_looks_elsewhere() -> None:
    scene, cluster = clustered()

    async def fail(*_: Any) -> None:
        raise LOST

    for number, (way, connect) in enumerate(
        (("wire", scene.link.connected), ("line", scene.link.open_line)), 1
    ):
        scene.link._wire = None
        setattr(scene.hub, way, fail)
        with pytest.raises(exceptions.ConnectionError):
            await connect(monotonic() + 5)
        assert len(cluster.avoided) == number


async def test_nodes_that_did_not_answer_are_asked_last() -> None:
    scene, cluster = clustered()
    broken, stalled, refused = ("a", 1), ("b", 2), ("c", 3)
    for address in (broken, stalled):
        scene.hub._wires[address] = end(address)
    scene.hub._wires[broken].close("no answer")
    scene.hub._wires[stalled].stalled = 1.0
    scene.hub._failures[refused] = (None, 0.0)
    await scene.link.look_again(LOST, scene.wire, monotonic() + 5)
    assert cluster.avoided == [{broken, stalled, refused}]
