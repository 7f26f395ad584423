"""Churn for minutes or hours, and a picture of what that costs: memory, files, threads, keys.

    python tools/soak.py --minutes 60 --out soak

Rounds of everything (tests/_async/churn.py) in both worlds: loops, threads, forks, clients,
instances and names come and go, waits are cancelled by the hundred.  Once a second what is in use
is noted.  In the end soak.json, soak.md and, where matplotlib is installed, soak.png are in the
folder; the exit status is 1 if something has grown.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import click
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

sys.path.insert(0, str(Path(__file__).parent.parent))

import redsync.aio
import redsync.sync
from redsync.cli.server import Server
from tests._async import churn as tasks
from tests._sync import churn as threads
from tests.support import aio, sync
from tests.support.resources import lasting_keys, measure, resident

TIMELINE: Final = "timeline"
"""One for all: each keeps its last number and its topics for good."""

MIBIBYTE: Final = 1 << 20


@dataclass(frozen=True)
class Sample:
    """What is in use at one time."""

    seconds: float
    rounds: int
    memory: float
    """MiB that the process has."""
    objects: float
    """MiB that Python objects have."""
    files: int
    threads: int
    connections: int
    keys: int
    lasting: int
    """Keys without a time to live."""
    server: float
    """MiB that the server has for data."""


ALLOWED: Final = {
    "memory": 8.0,
    "objects": 1.0,
    "files": 0,
    "threads": 0,
    "connections": 0,
    "lasting": 0,
    "server": 2.0,
}
"""By how much each may be higher in the last fifth than in the one after the warm-up, in the
median.  Keys with a time to live go up and down with the rounds of their last minutes."""


# Rounds


def rounds(server: Server) -> dict[str, Callable[[str], None]]:
    """What is done in turn; each one takes a name that no other has."""

    def with_tasks(name: str) -> None:
        asyncio.run(tasks.whole_round(server, name, [], TIMELINE))

    def with_threads(name: str) -> None:
        threads.whole_round(server, name, [], TIMELINE)

    def names_of_tasks(name: str) -> None:
        async def use() -> None:
            client = aio.connect(server)
            await tasks.names_round(client, name, [])
            await aio.disconnect(client)

        asyncio.run(use())

    def names_of_threads(name: str) -> None:
        with sync.connect(server) as client:
            threads.names_round(client, name, [])
            client.connection_pool.disconnect()

    return {
        "everything, tasks": with_tasks,
        "everything, threads": with_threads,
        "names, tasks": names_of_tasks,
        "names, threads": names_of_threads,
        "cancelled waits": lambda name: asyncio.run(cancelled(server, name)),
        "loops": lambda name: many_loops(server, name),
        "threads": lambda name: many_threads(server, name),
        "forks": lambda name: forks(server, name),
    }


async def cancelled(server: Server, name: str, number: int = 500) -> None:
    """Cancel waits for permits and signals."""
    client = aio.connect(server)
    semaphore = redsync.aio.RedisSemaphore(client, name, count=1, permit_ttl=2, lease_ttl=4)
    event = redsync.aio.RedisEvent(client, name)
    async with semaphore.permit(5):
        for wait in (semaphore.acquire, event.wait):
            waits = [asyncio.ensure_future(wait()) for _ in range(number)]
            await asyncio.sleep(0.001)
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    await semaphore.close()
    await event.close()
    await aio.disconnect(client)


def many_loops(server: Server, name: str, number: int = 20) -> None:
    """Use one instance in one loop after the other."""
    client = aio.Redis.from_url(server.url)
    semaphore = redsync.aio.RedisSemaphore(client, name, count=1, permit_ttl=2, lease_ttl=4)

    async def use() -> None:
        async with semaphore.permit(5):
            pass

    for _ in range(number):
        asyncio.run(use())


def many_threads(server: Server, name: str, number: int = 20) -> None:
    """Have threads share an instance, and end."""
    client = sync.connect(server)
    semaphore = redsync.sync.RedisSemaphore(client, name, count=2, permit_ttl=2, lease_ttl=4)

    def use() -> None:
        with semaphore.permit(20):
            pass

    users = [threading.Thread(target=use) for _ in range(number)]
    for each in users:
        each.start()
    for each in users:
        each.join()
    semaphore.close()
    sync.disconnect(client)


def forks(server: Server, name: str, number: int = 3) -> None:
    """Fork while connections are open, and use them on both sides."""
    client = sync.connect(server)
    semaphore = redsync.sync.RedisSemaphore(client, name, count=2, permit_ttl=2, lease_ttl=4)
    with semaphore.permit(5):
        for _ in range(number):
            child = os.fork()
            if child == 0:
                semaphore.acquire(5).release()
                os._exit(0)
            if os.waitpid(child, 0)[1] != 0:
                raise RuntimeError("a child has failed")
    semaphore.close()
    sync.disconnect(client)


# Samples


def sample(admin: Any, began: float, number: int) -> Sample:
    """Note what is in use."""
    gc.collect()
    used = measure(admin)
    return Sample(
        seconds=round(time.monotonic() - began, 3),
        rounds=number,
        memory=round(resident() / MIBIBYTE, 3),
        objects=round(sum(map(sys.getsizeof, gc.get_objects())) / MIBIBYTE, 3),
        files=used.files,
        threads=used.threads,
        connections=used.connections,
        keys=admin.dbsize(),
        lasting=len(lasting_keys(admin)),
        server=round(admin.info("memory")["used_memory"] / MIBIBYTE, 3),
    )


def growth(samples: list[Sample]) -> dict[str, float]:
    """How much more there is at the end than after the warm-up, by medians of a fifth each."""
    fifth = max(1, len(samples) // 5)
    first = samples[fifth : 2 * fifth] or samples
    last = samples[-fifth:]
    return {
        name: round(
            statistics.median(getattr(each, name) for each in last)
            - statistics.median(getattr(each, name) for each in first),
            3,
        )
        for name in ALLOWED
    }


# The run


def churn(seconds: float, progress: Progress) -> tuple[list[Sample], dict[str, int]]:
    """Make rounds for so long; returns what was in use once a second, and how many there were."""
    samples: list[Sample] = []
    counts: dict[str, int] = {}
    numbers = itertools.count()
    with Server("--hz", "100", tcp=True) as server:
        admin = redis.Redis.from_url(server.url)
        admin.ping()
        bar = progress.add_task("soak", total=seconds, now="")
        began = noted = time.monotonic()
        while time.monotonic() - began < seconds:
            for what, round_of in rounds(server).items():
                number = next(numbers)
                round_of(f"{number}")
                counts[what] = counts.get(what, 0) + 1
                now = time.monotonic()
                progress.update(bar, completed=now - began, now=what)
                if now - noted >= 1:
                    noted = now
                    samples.append(sample(admin, began, number + 1))
                if now - began >= seconds:
                    break
        samples.append(sample(admin, began, next(numbers)))
        admin.close()
    return samples, counts


def write(
    folder: Path, samples: list[Sample], counts: dict[str, int], grown: dict[str, float]
) -> None:
    """Write what was found, for programs and for people."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "python": sys.version.split()[0],
        "redis_py": redis.__version__,
        "rounds": counts,
        "growth": grown,
        "allowed": ALLOWED,
        "samples": [asdict(each) for each in samples],
    }
    (folder / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "soak.md").write_text(markdown(samples, counts, grown))
    plot(folder / "soak.png", samples)


def markdown(samples: list[Sample], counts: dict[str, int], grown: dict[str, float]) -> str:
    """The same as two tables."""
    first, last = samples[len(samples) // 5], samples[-1]
    lines = [
        f"{last.rounds:,} rounds in {last.seconds / 60:.1f} min",
        "",
        "| In use | After the warm-up | At the end | Growth of the median | Allowed |",
        "|---|---|---|---|---|",
    ]
    for name, allowed in ALLOWED.items():
        lines.append(
            f"| {name} | {getattr(first, name):g} | {getattr(last, name):g} |"
            f" {grown[name]:+g} | {allowed:g} |"
        )
    lines += ["", "| Round | Times |", "|---|---|"]
    lines += [f"| {what} | {count:,} |" for what, count in counts.items()]
    return "\n".join(lines) + "\n"


def plot(path: Path, samples: list[Sample]) -> None:
    """Draw what was in use over time, if that is possible here."""
    try:
        import matplotlib
    except ImportError:
        click.echo("no picture: matplotlib is not installed (dependency group 'soak')", err=True)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [each.name for each in fields(Sample) if each.name not in ("seconds", "rounds")]
    figure, axes = pyplot.subplots(4, 2, sharex=True, figsize=(10, 10), layout="constrained")
    minutes = [each.seconds / 60 for each in samples]
    for name, axis in zip(names, axes.flat, strict=True):
        values = [getattr(each, name) for each in samples]
        axis.plot(minutes, values, linewidth=1)
        axis.set_title(f"{name} (MiB)" if name in ("memory", "objects", "server") else name)
        axis.set_ylim(0, 1.1 * max(*values, 1))
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.05), default=10.0, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("soak"),
    show_default=True,
    help="A folder for soak.json, soak.md and soak.png.",
)
def main(minutes: float, out: Path) -> None:
    """Make everything, use it and give it up, again and again, and see whether something grows."""
    logging.getLogger("redsync").disabled = True  # what is to fail does
    columns = (TextColumn("{task.fields[now]:20}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        samples, counts = churn(minutes * 60, progress)
    grown = growth(samples)
    write(out, samples, counts, grown)
    click.echo((out / "soak.md").read_text())
    too_much = [name for name, more in grown.items() if more > ALLOWED[name]]
    if too_much:
        click.echo(f"grown by more than is allowed: {', '.join(too_much)}", err=True)
    sys.exit(1 if too_much else 0)


if __name__ == "__main__":
    main()
