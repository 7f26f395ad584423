"""What CI runs, and what may be run before a change is sent in.

nox                    lint, test, proof and dist
nox -s test            the tests, but for those that take long; README
nox -s proof           those: failovers, random courses, the model against the scripts, soaks
nox -s model           explore the model of the protocol, all of it, for some minutes
nox -s twin            only bring the blocking twin up to date (-- --check: only compare)
nox -s test -- -k fork hand arguments to pytest
nox -s servers clients the tests against many servers, and with many versions of redis-py: hours
nox -s torture         a minute of work under faults; arguments go to `redsync torture`
nox -s soak            ten minutes of churn, and a picture of memory, files, threads and keys
nox -s mutants         break the package line by line, and see that tests notice
nox -s bench           how fast it is beside its peers (-- --quick: a look, in a minute)
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "test", "proof", "dist"]

PYPROJECT = nox.project.load_toml("pyproject.toml")

WITHOUT_ZADD_GT = (
    "timer or optimistic or without_scripts or acl or permission or torture or demo or soak"
    " or test_watch or test_sentinel or test_cluster_failover or several_at_once"
    " or property_semaphore or property_timers or property_faults or renewal_by_itself"
    " or leave_nothing_behind or each_loop_takes_along or whatever_a_payload_is"
    " or README.md-7 or README.md-8 or strategies or many_permits"
)
"""What uses timers, or semaphores without scripts, if only beside other things; and what uses
permissions for channels, which came with Redis 6.2.
"""

SERVERS = {
    "redis-6.0": WITHOUT_ZADD_GT,
    "redis-6.2": "",
    "redis-7.0": "",
    "redis-7.2": "",
    "redis-7.4": "",
    "redis-8.2": "",
    "valkey-8.1": "",
    "valkey-9.0": "",
    "valkey-9.1": "",
}
"""Of tools/fetch_servers.py, and which tests are of what each lacks: an expression for pytest."""

CLIENTS = ["redis==5.0.0", "redis==5.3.1", "redis==6.4.0", "redis==7.1.0", "redis>=8,<9"]
"""The oldest redis-py that is promised, and the last of each line since."""

PARALLEL = ["-n", "7", "--dist", "worksteal"]
"""Most tests wait most of the time. Each process of pytest has a server of its own."""


def groups(*names: str) -> list[str]:
    """Return the requirements of dependency groups."""
    return list(nox.project.dependency_groups(PYPROJECT, *names))


@nox.session
def twin(session: nox.Session) -> None:
    """Generate what is blocking: src/redsync/_sync, and the twins of tests and benchmarks."""
    session.install(*groups("gen"))
    session.run("python", "tools/gen_sync.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style and types, the types of the generated twins included."""
    session.install("-e", ".[demo]", *groups("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("python", "tools/gen_sync.py", silent=True)
    session.run("mypy")


@nox.session
def test(session: nox.Session) -> None:
    """Run the tests with the Python that runs nox."""
    session.install("-e", ".[demo]", *groups("test"))
    # In front of the user's options, which may choose others.
    options = f"-m 'not proof' {os.environ.get('PYTEST_ADDOPTS', '')}"
    session.run("pytest", *PARALLEL, *session.posargs, env={"PYTEST_ADDOPTS": options})


@nox.session
def proof(session: nox.Session) -> None:
    """Run the tests that take long."""
    session.install("-e", ".[demo]", *groups("test"))
    session.run("pytest", "-m", "proof", *PARALLEL, *session.posargs)


@nox.session
def model(session: nox.Session) -> None:
    """Explore the model of the protocol in its full size; names of configurations may follow."""
    session.install("-e", ".")
    session.run("python", "-m", "redsync._protocol.model", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Build the sdist, from it the wheel, and use the wheel with nothing but what it requires."""
    session.install("build")
    out = Path(session.create_tmp()).resolve()
    for old in [*out.glob("*.whl"), *out.glob("*.tar.gz")]:
        old.unlink()
    # Without an option, `build` makes the wheel from the sdist and not from the checkout.
    session.run("python", "-m", "build", "--outdir", str(out))
    [wheel] = out.glob("*.whl")
    [sdist] = out.glob("*.tar.gz")
    bare = out / "bare"
    session.run("python", "-m", "venv", "--clear", str(bare))
    python = str(bare / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    checks = Path("tools/check_dist.py").resolve()
    session.run(python, "-I", str(checks), str(wheel), str(sdist), external=True)


def run_and_note(session: nox.Session, left_out: str = "", **environment: str) -> None:
    """Run the tests, and note in docs/compatibility.md what they came to."""
    report = Path(session.create_tmp()).resolve() / "report.xml"
    chosen = ["-k", f"not ({left_out})"] if left_out else []
    session.run(
        *["pytest", *PARALLEL, *chosen, f"--junitxml={report}", *session.posargs],
        env=environment,
        success_codes=[0, 1],
    )
    note = ["python", "tools/compatibility.py", "add", str(report), "--left-out", left_out]
    session.run(*note, env=environment)


@nox.session
def torture(session: nox.Session) -> None:
    """Work under faults for a minute, or as the arguments say: -- --seconds 3600 --seed 1."""
    session.install("-e", ".[demo]", *groups("torture"))
    session.run("redsync", "torture", *session.posargs)


@nox.session
@nox.parametrize("server", list(SERVERS), ids=list(SERVERS))
def servers(session: nox.Session, server: str) -> None:
    """Run the tests against another server."""
    folder = Path(".servers").resolve()
    session.install("-e", ".[demo]", *groups("test"))
    session.run("python", "tools/fetch_servers.py", str(folder), server)
    executable = str(folder / server / "server")
    run_and_note(session, SERVERS[server], REDSYNC_SERVER=executable)


@nox.session
@nox.parametrize("hiredis", [False, True], ids=["plain", "hiredis"])
@nox.parametrize("redis", CLIENTS, ids=CLIENTS)
def clients(session: nox.Session, redis: str, hiredis: bool) -> None:
    """Run the tests with another redis-py, with or without its parser in C."""
    parser = ["hiredis"] if hiredis else []
    session.install("-e", ".[demo]", redis, *parser, *groups("test"))
    run_and_note(session)


@nox.session
def soak(session: nox.Session) -> None:
    """Make everything, use it and give it up, again and again (-- --minutes 60 --out soak)."""
    session.install("-e", ".[demo]", *groups("soak"))
    session.run("python", "tools/gen_sync.py", silent=True)
    session.run("python", "-W", "ignore::DeprecationWarning", "tools/soak.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure how fast it is, beside its peers, for docs/benchmarks (-- --quick; -- --rows 1,2)."""
    session.install("-e", ".[demo]", *groups("bench"))
    session.run("python", "tools/gen_sync.py", silent=True)
    out = [] if "--quick" in session.posargs else ["--out", "docs/benchmarks"]
    session.run("python", "-m", "benchmarks", *out, *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the package, one line at a time, and see that the tests notice (-- --only TEXT)."""
    session.install("-e", ".[demo]", *groups("test"))
    session.run("python", "tools/mutants.py", *session.posargs)
