"""One semaphore that many threads share."""

from __future__ import annotations

import gc
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from redis.exceptions import ConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from redsync._runtime.sync import Line, Wire, connections
from redsync.cli.server import Server
from redsync.sync import (
    Permit,
    RedisSemaphore,
    RedisSemaphoreTimeoutError,
    SemaphoreInitStrategy,
)

from ._sync.helpers import in_line, left_alone, renewed
from ._sync.states import becomes_whole, is_whole, state
from .support.proxy import FaultProxy
from .support.sync import connect, disconnect, eventually, spawn, together

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in collections.abc from Python 3.12 on

THREADS = 200

Make = Callable[..., RedisSemaphore]


@pytest.fixture(params=list(SemaphoreInitStrategy), ids=lambda strategy: strategy.value)
def strategy(request: pytest.FixtureRequest) -> SemaphoreInitStrategy:
    chosen: SemaphoreInitStrategy = request.param
    return chosen


@pytest.fixture
def client(server: Server) -> Iterator[Redis]:
    """A client; when the test has ended, there is no thread and no connection but its own."""
    before = set(threading.enumerate())
    connected = connect(server)
    yield connected
    disconnect(connected)
    left_alone(connected)
    eventually(lambda: set(threading.enumerate()) <= before)
    disconnect(connected)


@pytest.fixture
def make(client: Redis, strategy: SemaphoreInitStrategy) -> Iterator[Make]:
    made = []
    name = f"sem-{secrets.token_hex(4)}"

    def construct(connected: Redis = client, *, count: int, **options: float) -> RedisSemaphore:
        made.append(
            RedisSemaphore(
                connected,
                name,
                count=count,
                permit_ttl=options.get("permit_ttl", 30),
                semaphore_init_strategy=strategy,
            )
        )
        return made[-1]

    yield construct
    for each in made:
        each.close()


class Room:
    """Notes who is inside, and complains if it is one too many."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.most = 0
        self.visits = 0
        self.fences: list[int] = []
        self._mutex = threading.Lock()
        self._inside: set[int] = set()

    def enter(self, permit: Permit) -> None:
        with self._mutex:
            assert permit.held
            assert permit.slot not in self._inside, "two hold the same slot"
            assert permit.slot in range(self.count)
            self._inside.add(permit.slot)
            self.most = max(self.most, len(self._inside))
            self.visits += 1
            self.fences.append(permit.fence)

    def leave(self, permit: Permit) -> None:
        with self._mutex:
            self._inside.remove(permit.slot)


def test_200_threads_share_a_semaphore(make: Make, strategy: SemaphoreInitStrategy) -> None:
    count, turns = 10, 20 if strategy is SemaphoreInitStrategy.LUA else 3
    semaphore, room = make(count=count), Room(count)

    def visit(permit: Permit) -> None:
        room.enter(permit)
        # All permits get used: the first ones stay until there are as many.
        eventually(lambda: room.most == count, timeout=20)
        time.sleep(0.0005)
        room.leave(permit)

    def work() -> None:
        for turn in range(turns):
            if turn % 2:
                with semaphore.permit(40) as permit:
                    visit(permit)
            else:
                visit(semaphore.acquire(40))
                semaphore.release()  # the one of this thread

    together(*[work] * THREADS, timeout=50)
    assert room.visits == THREADS * turns
    assert room.most == count
    assert len(set(room.fences)) == len(room.fences)


def test_the_first_use_may_be_made_by_many_threads_at_once(make: Make, client: Redis) -> None:
    semaphore = make(count=5)
    start = threading.Barrier(50)

    def work() -> None:
        start.wait(10)
        semaphore.acquire(20).release()

    together(*[work] * 50)
    becomes_whole(client, semaphore.name, 5)


def test_a_permit_may_be_released_by_another_thread(make: Make, client: Redis) -> None:
    semaphore = make(count=2)
    for release in (Permit.release, semaphore.release):
        (permit,) = together(lambda: semaphore.acquire(5))
        assert permit.held
        together(lambda: release(permit))  # noqa: B023
        assert not permit.held
        assert is_whole(client, semaphore.name, 2)


def test_a_permit_outlives_the_thread_that_acquired_it(make: Make, client: Redis) -> None:
    semaphore = make(count=1, permit_ttl=3)
    (permit,) = together(lambda: semaphore.acquire(5))
    renewed(permit)
    assert state(client, semaphore.name).seated(permit.slot, permit.fence)
    semaphore.release()
    assert is_whole(client, semaphore.name, 1)


def test_closing_leaves_no_thread_and_no_connection(
    make: Make, client: Redis, server: Server
) -> None:
    before = set(threading.enumerate())
    other = connect(server)
    semaphore = make(other, count=1)
    permit = semaphore.acquire(5)
    waiting = spawn(lambda: semaphore.acquire(5))
    eventually(lambda: in_line(semaphore) == 1)
    permit.release()
    waiting.result().release()
    assert len(client.client_list()) > 1
    semaphore.close()
    assert set(threading.enumerate()) <= before, "as soon as close() has returned"
    disconnect(other)
    left_alone(client)


def test_thousands_that_give_up_at_random_take_no_permit_with_them(
    make: Make, client: Redis, strategy: SemaphoreInitStrategy
) -> None:
    count, attempts = 3, 100
    # Such a lease that whatever comes back was given back; without scripts, one that was popped
    # and not claimed in time comes back after half of it.
    ttl = 60 if strategy is SemaphoreInitStrategy.LUA else 2
    semaphore, room = make(count=count, permit_ttl=ttl), Room(count)
    outcomes = {True: 0, False: 0}
    mutex = threading.Lock()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(attempts):
            patience = chance.choice([0, 0.001, 0.01, 0.1]) * chance.random()
            began = time.monotonic()
            try:
                permit = semaphore.acquire(patience)
            except RedisSemaphoreTimeoutError:
                granted = False
                assert time.monotonic() - began >= patience
            else:
                granted = True
                room.enter(permit)
                time.sleep(0.0005 * chance.random())
                room.leave(permit)
                permit.release()
            with mutex:
                outcomes[granted] += 1

    workers = [spawn(lambda seed=seed: work(seed)) for seed in range(100)]  # type: ignore[misc]
    for each in workers:
        each.result(50)
    assert sum(outcomes.values()) == 100 * attempts
    assert min(outcomes.values()) > attempts, outcomes
    permits = [semaphore.acquire(3) for _ in range(count)]
    assert {permit.slot for permit in permits} == set(range(count))
    for permit in permits:
        permit.release()
    becomes_whole(client, semaphore.name, count)


def test_a_connection_that_broke_is_not_left_to_the_garbage_collector(
    make: Make, server: Server
) -> None:
    from redsync._runtime.sync import Wire

    def sockets() -> int:
        return sum(
            isinstance(each, Wire) and each._socket.fileno() != -1 for each in gc.get_objects()
        )

    with FaultProxy(server.address) as proxy:
        connected = connect(proxy)
        semaphore = make(connected, count=1)
        gc.collect()
        gc.disable()
        try:
            before = sockets()
            for _ in range(5):
                permit = semaphore.acquire(5)
                proxy.reset_all()
                permit.release()
            assert sockets() <= before + 1
        finally:
            gc.enable()
        semaphore.close()
        disconnect(connected)


class Closing(socket.socket):
    """A socket whose connection another thread closes while this one uses it."""

    line: Line
    answer: bytes

    def send(self, data: Buffer, *_: object) -> int:
        self.line.close()
        return len(memoryview(data))

    def recv(self, *_: object) -> bytes:
        self.line.close()
        if not self.answer:
            raise TimeoutError
        return self.answer


class Opened:
    """A connection of redis-py."""

    def __init__(self, using: socket.socket) -> None:
        self._sock = using

    def disconnect(self) -> None:
        self._sock.close()


@pytest.mark.parametrize("use", ["send", "receive", "receive nothing"])
def test_whoever_uses_a_connection_that_another_thread_closes_lets_go_of_it(use: str) -> None:
    end, other = socket.socketpair()
    with other, Closing(fileno=end.detach()) as using:
        using.line = Line(Opened(using))
        using.answer = b"+OK\r\n" if use == "receive" else b""
        if use == "send":
            using.line.send(b"PING")
        elif use == "receive":
            assert using.line.receive(0.01) == b"OK"
        else:
            with pytest.raises((ConnectionError, RedisTimeoutError)):
                using.line.receive(0.01)
        assert using.fileno() == -1


def test_what_nobody_reads_cuts_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED", 0.3)
    monkeypatch.setattr(connections, "_SLICE", 0.1)
    end, other = socket.socketpair()
    with other, end:
        line = Line(Opened(end))
        with pytest.raises(ConnectionError, match=r"nothing can be sent for 0\.3 s"):
            line.send(bytes(10_000_000))
        assert end.fileno() == -1


def test_signals_that_are_handled_do_not_make_a_wait_longer() -> None:
    end, other = socket.socketpair()
    over, stops = threading.Event(), time.monotonic() + 5

    def disturb() -> None:
        while not over.wait(0.02) and time.monotonic() < stops:
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    disturbing = spawn(disturb)
    try:
        with other, end, pytest.raises(RedisTimeoutError):
            Line(Opened(end)).receive(0.2)
        assert time.monotonic() < stops, "it waited until there were no more signals"
    finally:
        over.set()
        disturbing.result(10)
        signal.signal(signal.SIGUSR1, before)


def test_whoever_has_its_reply_leaves_the_lead_to_the_next_one() -> None:
    end, server = socket.socketpair()
    with server, end:
        server.settimeout(5)
        wire = Wire(Opened(end))
        first = spawn(lambda: wire.call(b"first", 10))
        assert server.recv(100) == b"first"
        second = spawn(lambda: wire.call(b"second", 10))
        eventually(lambda: len(wire._unsent) == 1)
        server.send(b"+one\r\n")
        assert first.result(10) == b"one"
        assert server.recv(100) == b"second"
        server.send(b"+two\r\n")
        assert second.result(10) == b"two"


def test_threads_that_take_turns_at_once_find_their_own_permits(
    make: Make, client: Redis, hurried: None
) -> None:
    semaphore = make(count=40)
    end = time.monotonic() + 2

    def by_name() -> None:
        while time.monotonic() < end:
            semaphore.acquire(5)
            semaphore.release()

    def by_statement() -> None:
        while time.monotonic() < end:
            with semaphore.permit(5):
                time.sleep(0.001)

    together(*[by_name] * 10, *[by_statement] * 20)
    becomes_whole(client, semaphore.name, 40)
