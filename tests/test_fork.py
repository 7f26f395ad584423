"""fork() after use: both sides work on, and neither has what is the other's."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from redsync.cli.server import Server

from .support.checker import Hold, check, most_at_once
from .support.program import Ended, run_program

pytestmark = pytest.mark.faults

HELPERS = """
import traceback
import redsync._async.link, redsync._sync.link

for module in (redsync._async.link, redsync._sync.link):
    module.ALLOWANCE = module.PATIENCE  # the machine may stand still for as long

def fork(call):
    # Run a call in a child; returns its process id.
    pid = os.fork()
    if pid == 0:
        try:
            call()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid

def join(*pids, seconds=25):
    # Wait for children, all of which have to succeed.
    end = time.monotonic() + seconds
    for pid in pids:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                assert status == 0, f"a child has failed: {status}"
                break
            assert time.monotonic() < end, "a child hangs"
            time.sleep(0.005)

def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)

def renewals(permit, ttl):
    # Go on until its lease is renewed; it must not be lost.
    end = time.monotonic() + ttl + 0.1
    while time.monotonic() + permit.remaining() < end:
        assert permit.held
        yield

def renewed(permit, ttl):
    for _ in renewals(permit, ttl):
        time.sleep(0.01)

def raises(error, call):
    try:
        call()
    except error:
        return True
    return False

def blocked():
    with redis.Redis.from_url(url) as client:
        return sum("b" in each["flags"] for each in client.client_list())

def report(permit, asked, granted, ended):
    line = {"slot": permit.slot, "fence": permit.fence, "asked": asked, "granted": granted,
            "ended": ended, "process": str(os.getpid())}
    os.write(1, json.dumps(line).encode() + b"\\n")

def rounds(semaphore, number):
    for _ in range(number):
        asked = time.monotonic()
        permit = semaphore.acquire(10)
        granted = time.monotonic()
        time.sleep(0.002)
        assert permit.held
        report(permit, asked, granted, time.monotonic())
        permit.release()
"""


def run(server: Server, source: str, *options: str) -> Ended:
    """Run a program that may fork; it must not complain."""
    # Python says of every fork of a program with threads that it may go wrong.
    quiet = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
    ended = run_program(HELPERS + dedent(source), server.url, *quiet, *options)
    ended.assert_clean()
    return ended


def holds(ended: Ended) -> list[Hold]:
    facts = [json.loads(line) for line in ended.out.splitlines()]
    return [Hold.reported(each["process"], each) for each in facts]


# Threads


def test_a_child_does_not_own_the_permits_of_its_parent(server: Server) -> None:
    run(
        server,
        """
        client = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "n", count=3, permit_ttl=3)
        permit = semaphore.acquire()
        body = semaphore.permit()
        body.__enter__()
        semaphore.__enter__()

        def child():
            assert not permit.held and not permit.lost and permit.remaining() == 0
            permit.release()
            assert raises(redsync.RedisSemaphoreNotAcquiredError, semaphore.release)
            refused = lambda: semaphore.release(permit)
            assert raises(redsync.RedisSemaphoreNotAcquiredError, refused)
            body.__exit__(None, None, None)
            semaphore.__exit__(None, None, None)
            semaphore.close()
            gc.collect()

        join(fork(child), fork(child))
        renewed(permit, 3)
        assert len(semaphore.status().held) == 3
        body.__exit__(None, None, None)
        semaphore.__exit__(None, None, None)
        permit.release()
        assert semaphore.status().free == 3
        """,
    )


def test_a_child_does_not_wait_for_the_loss_of_what_it_does_not_own(server: Server) -> None:
    run(
        server,
        """
        client = redis.Redis.from_url(url)
        permit = redsync.sync.RedisSemaphore(client, "n", count=1, permit_ttl=20).acquire()

        def child():
            began = time.monotonic()
            assert permit.wait_lost() is False
            assert permit.wait_lost(5) is False
            assert time.monotonic() < began + 4

        join(fork(child))
        assert permit.held
        """,
    )


def test_both_sides_go_on_with_the_same_semaphore(server: Server) -> None:
    run(
        server,
        """
        client = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "n", count=2, permit_ttl=3)
        mine = semaphore.acquire()

        def child():
            theirs = semaphore.acquire(0)
            assert theirs.held and theirs.slot != mine.slot and theirs.fence > mine.fence
            assert raises(redsync.RedisSemaphoreTimeoutError, lambda: semaphore.acquire(0.05))
            renewed(theirs, 3)
            semaphore.release()
            semaphore.close()
            assert threading.active_count() == 1

        pid = fork(child)
        until(lambda: semaphore.status().free == 0)
        assert raises(redsync.RedisSemaphoreTimeoutError, lambda: semaphore.acquire(0))
        semaphore.acquire(20).release()
        join(pid)
        assert mine.held
        """,
    )


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit()", "gc.collect(); sys.exit()"])
def test_waiters_and_connections_of_the_parent_are_unharmed(server: Server, end: str) -> None:
    run(
        server,
        f"""
        client = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "n", count=1, permit_ttl=20)
        event = redsync.sync.RedisEvent(client, "n")
        first, got = semaphore.acquire(), []
        threads = [threading.Thread(target=lambda: got.append(semaphore.acquire(8))),
                   threading.Thread(target=lambda: got.append(event.wait(8)))]
        [thread.start() for thread in threads]
        until(lambda: blocked() == 2)
        ids = {{each["id"] for each in client.client_list()}}

        pid = os.fork()
        if pid == 0:
            redsync.sync.RedisSemaphore(client, "other", count=1).acquire(1).release()
            assert raises(redsync.RedisSemaphoreTimeoutError, lambda: semaphore.acquire(0.1))
            threading._shutdown = lambda: None  # the parent's threads are none of its own
            {end}
        join(pid)
        began = time.monotonic()
        assert ids <= {{each["id"] for each in client.client_list()}}
        first.release()
        event.set()
        [thread.join() for thread in threads]
        assert time.monotonic() < began + 2  # a slice takes longer
        assert [each and each.held for each in got].count(True) == 1 and len(got) == 2
        semaphore.release(next(each for each in got if each))
        semaphore.close()
        event.close()
        """,
    )


def test_a_program_loaded_before_its_workers_are_forked(server: Server) -> None:
    # As gunicorn does with --preload: the master has used it, and forks again what has died.
    ended = run(
        server,
        """
        client = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "n", count=2, permit_ttl=5)
        with semaphore:
            pass
        first = [fork(lambda: rounds(semaphore, 40)) for _ in range(4)]
        rounds(semaphore, 40)
        second = [fork(lambda: rounds(semaphore, 40)) for _ in range(2)]
        join(*first, *second)
        assert semaphore.status().free == 2
        """,
    )
    found = holds(ended)
    assert len(found) == 7 * 40
    assert len({hold.process for hold in found}) == 7
    check(found, 2)
    assert most_at_once(found) == 2


def test_a_pool_of_processes(server: Server) -> None:
    ended = run(
        server,
        """
        client = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "n", count=3, permit_ttl=5)
        kept = semaphore.acquire()

        def work(number):
            rounds(semaphore, number)
            return os.getpid()

        with multiprocessing.get_context("fork").Pool(4) as pool:
            answer = pool.map_async(work, [15] * 12, chunksize=1)
            rounds(semaphore, 30)
            assert os.getpid() not in answer.get(25)
            pool.close()
            pool.join()
        assert kept.held
        kept.release()
        assert semaphore.status().free == 3
        """,
    )
    found = holds(ended)
    assert len(found) == 12 * 15 + 30
    check(found, 2)  # the third one was kept


@pytest.mark.parametrize("strategy", ["lua", "optimistic_locking"])
def test_a_child_of_a_busy_program_does_not_inherit_a_locked_lock(
    server: Server, strategy: str
) -> None:
    run(
        server,
        f"""
        client = redis.Redis.from_url(url)
        strategy = redsync.SemaphoreInitStrategy({strategy!r})
        semaphore = redsync.sync.RedisSemaphore(
            client, "n", count=5, permit_ttl=5, semaphore_init_strategy=strategy)
        event = redsync.sync.RedisEvent(client, "n")
        stop, failed, permits = False, [], []

        def busy(number):
            try:
                while not stop:
                    with semaphore.permit(10) as permit:
                        permits[number:number + 1] = [permit]
                        if number % 4 == 0:
                            semaphore.status()
                    if number % 5 == 0:
                        event.set()
                        event.wait(10)
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=busy, args=(number,)) for number in range(20)]
        [thread.start() for thread in threads]

        def child():
            # Whatever the parent's threads were about to do, what is theirs can be touched.
            for permit in list(permits):
                assert not permit.held and not permit.lost
                repr(permit), permit.remaining(), permit.release(), permit.wait_lost(0)
            semaphore.acquire(10).release()
            event.set()
            event.wait(10)
            semaphore.close()
            event.close()

        for _ in range(25):
            join(*[fork(child) for _ in range(4)])
        stop = True
        [thread.join(10) for thread in threads]
        assert not failed and not any(thread.is_alive() for thread in threads)
        until(lambda: semaphore.status().free == 5)
        """,
    )


SLOW = """
    opening, lock = threading.Event(), threading.Lock()

    class Slow(redis.Connection):
        # Like an import, or the C library's look-up of a host.
        def connect(self):
            with lock:
                opening.set()
                time.sleep({seconds})
            super().connect()

    pool = redis.ConnectionPool.from_url(url, connection_class=Slow)
    client = redis.Redis(connection_pool=pool)
    semaphore = redsync.sync.RedisSemaphore(client, "n", count=2)
    thread = threading.Thread(target=semaphore.acquire)
    thread.start()
    opening.wait()
"""


def test_a_child_does_not_inherit_what_is_locked_while_a_connection_is_opened(
    server: Server,
) -> None:
    run(
        server,
        SLOW.format(seconds=0.3)
        + """
    join(fork(lambda: semaphore.acquire(5).release()))
    thread.join(5)
    assert len(semaphore.status().held) == 1
    """,
    )


@pytest.mark.punctual
def test_a_fork_does_not_wait_long_for_a_connection_to_a_dead_host(server: Server) -> None:
    run(
        server,
        SLOW.format(seconds=3)
        + """
    began = time.monotonic()
    join(fork(lambda: None))
    assert 0.9 < time.monotonic() - began < 2
    thread.join(5)
    """,
    )


@pytest.mark.punctual
def test_a_child_that_outlives_its_parent_keeps_nothing_of_it_alive(server: Server) -> None:
    # It has inherited the connections too, so the server does not see that the parent has gone.
    run(
        server,
        """
        client = redis.Redis.from_url(url)
        semaphore = redsync.sync.RedisSemaphore(client, "n", count=2, permit_ttl=1)
        given = semaphore.acquire()

        def parent():
            held = semaphore.acquire(0)
            threading.Thread(target=semaphore.acquire, daemon=True).start()
            until(lambda: blocked() == 1)
            fork(lambda: (os.close(1), os.close(2), time.sleep(30)))
            os.kill(os.getpid(), signal.SIGKILL)

        os.waitpid(fork(parent), 0)
        killed = time.monotonic()
        given.release()
        semaphore.acquire(5), semaphore.acquire(5)
        assert time.monotonic() < killed + 1 + 1
        """,
    )


# Tasks


ASYNC = """
client = redis.asyncio.Redis.from_url(url)
semaphore = redsync.aio.RedisSemaphore(client, "n", count=2, permit_ttl=3)

async def use(semaphore):
    async with semaphore.permit(5) as permit:
        assert permit.held and len((await semaphore.status()).held) == 2
        for _ in renewals(permit, 3):
            await asyncio.sleep(0.01)
    await semaphore.close()

async def afresh():
    async with redis.asyncio.Redis.from_url(url) as mine:
        await use(redsync.aio.RedisSemaphore(mine, "n", count=2, permit_ttl=3))

async def again():
    # The same object; what it has kept belongs to the parent's loop.
    await use(semaphore)

async def main(start, join):
    mine = await semaphore.acquire()
    theirs = await semaphore.acquire()
    waiting = asyncio.create_task(semaphore.acquire(8))
    while not blocked():
        await asyncio.sleep(0.005)
    child = start(mine)
    await theirs.release()
    third = await waiting
    began = time.monotonic()
    assert (await semaphore.status()).count == 2
    assert time.monotonic() < began + 3
    await third.release()
    await asyncio.to_thread(join, child)
    assert mine.held and len((await semaphore.status()).held) == 1
    await mine.release()
    await semaphore.close()
    await client.connection_pool.disconnect()
"""


@pytest.mark.parametrize("call", ["afresh", "again"])
@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
def test_a_child_of_a_running_loop_runs_its_own(server: Server, call: str, how: str) -> None:
    run(
        server,
        ASYNC
        + f"""
def child(permit):
    assert not permit.held and not permit.lost and permit.remaining() == 0
    asyncio.run({call}())
    gc.collect()

def start(permit):
    if {how!r} == "os.fork":
        return fork(lambda: child(permit))
    process = multiprocessing.get_context("fork").Process(target=child, args=(permit,))
    process.start()
    return process

def ended(process):
    if {how!r} == "os.fork":
        return join(process)
    process.join(25)
    assert process.exitcode == 0, process.exitcode

asyncio.run(main(start, ended))
""",
    )
