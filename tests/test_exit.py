"""A program that ends while some wait and others hold permits: it does not hang, nor complain."""

from __future__ import annotations

from textwrap import dedent

import pytest

from redsync.cli.server import Server

from .support.program import Ended, run_program

pytestmark = pytest.mark.faults

WITHIN = 15.0
"""Seconds for all of it, however slow the machine."""

THREADS = """
client = redis.Redis.from_url(url)
semaphore = redsync.sync.RedisSemaphore(client, "n", count=1, permit_ttl=3)
event = redsync.sync.RedisEvent(client, "n")
began = time.monotonic()
held = semaphore.acquire()
ended = []

def blocked():
    return sum("b" in each["flags"] for each in client.client_list())

def attempt(call):
    try:
        call()
    except redsync.RedsyncError as error:
        ended.append(error)

def start(daemon, *calls):
    for call in calls:
        threading.Thread(target=attempt, args=(call,), daemon=daemon).start()

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)
"""

TASKS = """
import logging
logging.getLogger("asyncio").setLevel(logging.ERROR)  # a slow machine is nobody's fault
client = redis.asyncio.Redis.from_url(url)
semaphore = redsync.aio.RedisSemaphore(client, "n", count=1, permit_ttl=1)
event = redsync.aio.RedisEvent(client, "n")

async def blocked(number):
    async with redis.asyncio.Redis.from_url(url) as own:
        while sum("b" in each["flags"] for each in await own.client_list()) < number:
            await asyncio.sleep(0.005)
"""


def run(server: Server, setting: str, source: str, *, code: int = 0) -> Ended:
    """Run a program; all warnings are errors, and it says nothing."""
    options = ("-X", "dev", "-W", "error")
    ended = run_program(setting + dedent(source), server.url, *options)
    assert (ended.code, ended.err) == (code, ""), f"exit status {ended.code}\n{ended.err}"
    assert ended.seconds < WITHIN
    return ended


# Threads


def test_daemon_threads_that_wait_for_ever_end_with_the_program(server: Server) -> None:
    run(
        server,
        THREADS,
        """
        start(True, *[semaphore.acquire] * 5, *[event.wait] * 5)
        until(lambda: blocked() == 2)
        """,
    )


def test_other_threads_that_wait_for_ever_are_told_that_the_program_ends(server: Server) -> None:
    ended = run(
        server,
        THREADS,
        """
        import atexit
        start(False, *[semaphore.acquire] * 5, *[event.wait] * 5)
        until(lambda: blocked() == 2)
        atexit.register(lambda: print(len(ended), *{type(each).__name__ for each in ended}))
        """,
    )
    assert ended.out == "10 RedsyncError\n"


@pytest.mark.punctual
def test_threads_that_wait_with_a_timeout_do_not_wait_longer_than_that(server: Server) -> None:
    ended = run(
        server,
        THREADS,
        """
        def work():
            started = time.monotonic()
            try:
                semaphore.acquire(1.5)
            except redsync.RedsyncError:
                print(time.monotonic() - started < 1.5 + 1)

        threading.Thread(target=work).start()
        until(lambda: blocked() == 1)
        """,
    )
    assert ended.out == "True\n"


def test_a_thread_that_outlives_the_main_one_finishes_its_work(server: Server) -> None:
    ended = run(
        server,
        THREADS,
        """
        def work():
            threading.main_thread().join()
            first = time.monotonic() + 3
            while time.monotonic() + held.remaining() < first + 0.1:  # until it is renewed
                assert held.held
                time.sleep(0.01)
            held.release()
            with semaphore.permit(5) as permit:
                assert permit.held
            event.set()
            event.wait(5)
            print("done", semaphore.status().free)

        threading.Thread(target=work).start()
        """,
    )
    assert ended.out == "done 1\n"


@pytest.mark.parametrize(
    "holding",
    ["pass", "semaphore.release(); semaphore.__enter__()", "semaphore.close()"],
)
@pytest.mark.parametrize("daemon", [True, False])
def test_holders_do_not_keep_a_program_alive(server: Server, holding: str, daemon: bool) -> None:
    run(
        server,
        THREADS,
        f"""
        {holding}
        taken = threading.Event()

        def hold():
            with redsync.sync.RedisSemaphore(client, "another", count=3).permit():
                taken.set()
                time.sleep(60 if {daemon} else 0.5)

        threading.Thread(target=hold, daemon={daemon}).start()
        taken.wait()
        """,
    )


@pytest.mark.punctual
@pytest.mark.parametrize("with_waiters", [True, False])
def test_sys_exit_inside_of_a_held_body(server: Server, with_waiters: bool) -> None:
    run(
        server,
        THREADS,
        f"""
        held.release()
        with semaphore.permit(cancel_on_loss=True):
            if {with_waiters}:
                start(True, lambda: semaphore.acquire() and time.sleep(60), event.wait)
                until(lambda: blocked() == 2)
            sys.exit(3)
        """,
        code=3,
    )
    if not with_waiters:
        # It was given back on the way out, or else this one would have to wait for it.
        run(server, THREADS, "assert time.monotonic() < began + 0.5")


@pytest.mark.punctual
def test_the_end_comes_in_time_with_a_server_that_does_not_answer(server: Server) -> None:
    run(
        server,
        THREADS,
        """
        start(True, *[semaphore.acquire] * 3)
        start(False, *[lambda: semaphore.acquire(1)] * 3)
        until(lambda: blocked() == 1)
        pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(3, os.kill, (pid, signal.SIGCONT)).start()
        """,
    )


def test_an_interrupted_program_ends_with_a_traceback_and_nothing_else(server: Server) -> None:
    ended = run_program(
        THREADS
        + """
main = threading.main_thread().ident
threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT)).start()
start(True, semaphore.acquire)
semaphore.acquire()
""",
        server.url,
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert ended.err.splitlines()[-1] == "KeyboardInterrupt"
    assert ended.err.count("Traceback") == 1
    assert ended.seconds < WITHIN


# Tasks


@pytest.mark.parametrize("then", ["return", "sys.exit(0)", "await held.release()"])
def test_a_loop_ends_while_tasks_wait(server: Server, then: str) -> None:
    run(
        server,
        TASKS,
        f"""
        async def main():
            held = await semaphore.acquire()
            tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(5)]
            tasks += [asyncio.create_task(event.wait()) for _ in range(5)]
            await blocked(2)
            await client.connection_pool.disconnect()
            {then}

        asyncio.run(main())
        """,
    )


def test_sys_exit_inside_of_a_body_held_by_a_task(server: Server) -> None:
    run(
        server,
        TASKS,
        """
        async def main():
            async with semaphore.permit(cancel_on_loss=True):
                waiting = asyncio.create_task(semaphore.acquire())
                await blocked(1)
                sys.exit(3)

        asyncio.run(main())
        """,
        code=3,
    )


def test_a_second_loop_works_after_the_first_has_ended_in_the_middle(server: Server) -> None:
    ended = run(
        server,
        TASKS,
        """
        async def first():
            await semaphore.acquire()
            waiting = asyncio.create_task(semaphore.acquire())
            await blocked(1)

        async def second():
            permit = await semaphore.acquire(5)  # the first one's comes back by its lease
            await permit.release()
            await semaphore.close()
            print(permit.held, len(asyncio.all_tasks()))

        asyncio.run(first())
        gc.collect()
        asyncio.run(second())
        """,
    )
    assert ended.out == "False 1\n"


def test_everything_is_cancelled_at_once(server: Server) -> None:
    # As asyncio.run() does at the end, and some do on SIGTERM, but the loop goes on.
    ended = run(
        server,
        TASKS,
        """
        async def main():
            held = await semaphore.acquire()
            tasks = [asyncio.create_task(semaphore.acquire()) for _ in range(5)]
            await blocked(1)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            began = time.monotonic()
            while time.monotonic() < began + 1.5:
                if not held.held:
                    break
                await asyncio.sleep(0.01)
            await held.release()
            again = await semaphore.acquire(5)
            await again.release()
            print((await semaphore.status()).free)
            await semaphore.close()

        asyncio.run(main())
        """,
    )
    assert ended.out == "1\n"
