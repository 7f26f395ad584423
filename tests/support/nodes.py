"""Servers that replicate, and ways to have them lose touch with each other.

Sentinels, and tests that look, are the default user of a server, replicas are another one, and
clients a third.  So one of these can be cut off, while the others do not notice: no packet filter,
no proxy, and it is in force when the call returns.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from redsync._protocol.resp import Argument, Parser, Reply, pack
from redsync.cli.server import Server, ServerStartError, find_server

from . import CLIENT, HOST
from .sync import eventually

__all__ = ["Node", "Sentinel", "ask", "free_ports", "started", "version"]

_COPIER = ("copier", "of-the-data")


class Node(Server):
    """A server that may be the master or the replica of others."""

    def __init__(self, *options: str, executable: str | Path | None = None) -> None:
        name, password = _COPIER
        all_of_it = ["~*", "&*", "+@all"] if version(executable) >= (6, 2) else ["~*", "+@all"]
        self._suspended = False
        super().__init__(
            *("--hz", "100", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
            *("--masteruser", name, "--masterauth", password),
            *("--user", name, "on", f">{password}", "+@all"),
            *("--user", CLIENT["username"], "on", f">{CLIENT['password']}", *all_of_it),
            *options,
            tcp=True,
            executable=executable,
        )

    def tell(self, *command: Argument) -> Reply:
        """Have a command run, whatever the cluster thinks of it."""
        _, reply = ask(self, ("AUTH", *CLIENT.values()), command)
        return reply

    def info(self, section: str) -> dict[str, str]:
        """What it says of itself."""
        try:
            text = self.tell("INFO", section)
        except ConnectionError:  # sentinels have all clients cut off from whom they promote
            text = self.tell("INFO", section)
        assert isinstance(text, bytes)
        lines = (line.partition(":") for line in text.decode().splitlines() if ":" in line)
        return {name: value for name, _, value in lines}

    @property
    def is_master(self) -> bool:
        """Whether it calls itself a master."""
        return self.info("replication")["role"] == "master"

    @property
    def users(self) -> int:
        """How many connections of clients there are, apart from the one that asks."""
        reply = self.tell("CLIENT", "LIST")
        assert isinstance(reply, bytes)
        return sum("user=client" in line for line in reply.decode().splitlines()) - 1

    @property
    def is_copying(self) -> bool:
        """Whether it is a replica that has got the data and gets what is written."""
        return self.info("replication").get("master_link_status") == "up"

    def await_copies(self, *replicas: Node) -> None:
        """Wait until these have all that was written here.

        A link that is up may not have brought anything: after a synchronisation without a file the
        master waits for the first acknowledgement, which takes up to a second.
        """
        offset = self._offset

        def copied() -> bool:
            return all(each.is_copying and each._offset >= offset for each in replicas)

        eventually(copied, timeout=20)

    @property
    def _offset(self) -> int:
        """How much of the stream of writes it has sent or got."""
        return int(self.info("replication")["master_repl_offset"])

    def cut_off_replicas(self) -> None:
        """From now on nothing that is written here is copied."""
        self.tell("ACL", "SETUSER", _COPIER[0], "off")
        self.tell("CLIENT", "KILL", "USER", _COPIER[0])

    def cut_off_sentinels(self) -> None:
        """From now on this is dead to sentinels and to replicas; not to clients."""
        self.tell("ACL", "SETUSER", "default", "off")
        self.tell("CLIENT", "KILL", "USER", "default")
        self.cut_off_replicas()

    def reconnect(self) -> None:
        """Let everybody in again."""
        self.tell("ACL", "SETUSER", "default", "on")
        self.tell("ACL", "SETUSER", _COPIER[0], "on")

    @property
    def answers(self) -> bool:
        """Whether it is there and not suspended."""
        return self.running and not self._suspended

    def suspend(self) -> None:
        """Stop the process: its connections stay open, and nothing is answered."""
        self._suspended = True
        super().suspend()

    def resume(self) -> None:
        """Let it go on."""
        super().resume()
        self._suspended = False

    def kill(self) -> None:
        """End it by SIGKILL."""
        super().kill()
        self._suspended = False


class Sentinel(Server):
    """A sentinel, on a port that others know already.

    Args:
        port: The port.
        settings: What it is to watch over.
        folder: For its configuration, which it writes.
    """

    def __init__(self, port: int, settings: str, folder: Path) -> None:
        file, program = folder / f"{port}.conf", folder / str(port)
        file.write_text(settings)
        # The file has to come first, and the server has it followed by other options.
        program.write_text(f'#!/bin/sh\nexec {find_server()} {file} "$@" --sentinel\n')
        program.chmod(0o755)
        super().__init__("--hz", "100", tcp=True, executable=program)
        self._port = port


def ask(server: Server, *commands: tuple[Argument, ...]) -> list[Reply]:
    """Send commands, and return the replies; raises the last one, if that is an error."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(server.unix_socket)
        connection.sendall(b"".join(pack(*command) for command in commands))
        parser, replies = Parser(), list[Reply]()
        while len(replies) < len(commands):
            data = connection.recv(65536)
            if not data:
                raise ConnectionError(f"the server has hung up: {commands}")
            replies += parser.feed(data)
    if isinstance(replies[-1], RedisError):
        raise replies[-1]
    return replies


def free_ports(number: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


N = TypeVar("N", bound=Server)


def started(make: Callable[[], N]) -> N:
    """A node that runs; with other ports if somebody has just taken those."""
    for _ in range(20):
        node = make()
        try:
            node.start()
        except ServerStartError as error:
            text = str(error).lower()
            if not ("already in use" in text or "bind" in text or "port number too high" in text):
                raise
        else:
            return node
    raise ServerStartError("no ports are free")


@cache
def version(executable: str | Path | None = None) -> tuple[int, int]:
    """Of the server that the tests run with; that of Redis which a Valkey is compatible with."""
    said = subprocess.run(
        [executable or find_server(), "--version"], capture_output=True, text=True, check=True
    ).stdout
    number = said.partition("v=")[2].split()[0].split(".")
    return int(number[0]), int(number[1])
