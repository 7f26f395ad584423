"""A network of its own for one worker, and a cable to it that can be pulled out.

A proxy holds back what is sent, but the kernels at both ends still acknowledge it. Behind a cable
that was pulled out nothing is acknowledged: no connection breaks, none is refused, and what is sent
comes late even after the cable is back, as TCP tries again in its own time. That takes network
namespaces: Linux, root, and the programs of util-linux and iproute2.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from time import monotonic, sleep
from typing import Final

__all__ = ["Cable", "CableError"]

_PATIENCE: Final = 5.0
_SUBNETS: Final = 1 << 15
"""Of two addresses each, in 198.18.0.0/15, which is for the tests of networks (RFC 2544)."""


class CableError(RuntimeError):
    """There can be no cable here."""


class Cable:
    """A cable between this process's network and one that is made for it.

    Args:
        number: Which one of this process.
    """

    def __init__(self, number: int) -> None:
        self._name = f"rs{os.getpid()}-{number}"
        subnet = (os.getpid() * 8 + number) % _SUBNETS
        base = (198 << 24) + (18 << 16) + 4 * subnet
        self.near, self.far = _address(base + 1), _address(base + 2)
        """This end, and the one of the worker."""
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Cable:
        """Lay it.

        Raises:
            CableError: That is not possible.
        """
        if sys.platform != "linux" or os.geteuid() != 0:
            raise CableError("that takes Linux, and root")
        try:
            self._lay()
        except BaseException as error:
            self._remove()
            if isinstance(error, (OSError, subprocess.SubprocessError)):
                raise CableError(str(error)) from error
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._remove()

    @property
    def prefix(self) -> list[str]:
        """What a command has to begin with to run at the other end, under the same process id."""
        assert self._holder is not None
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    def pull(self) -> None:
        """Have nothing get through, either way, and nobody be told."""
        _run("ip", "link", "set", self._name, "down")

    def plug_in(self) -> None:
        """Have everything get through again."""
        _run("ip", "link", "set", self._name, "up")

    def _lay(self) -> None:
        # The network is there as long as a process is in it; this one ends with ours, at the latest
        # as its input does.
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        _await_own_network(self._holder)
        pid, far = str(self._holder.pid), f"{self._name}f"
        _run("ip", "link", "add", self._name, "type", "veth", "peer", "name", far, "netns", pid)
        _run("ip", "address", "add", f"{self.near}/30", "dev", self._name)
        _run(*self.prefix, "ip", "address", "add", f"{self.far}/30", "dev", far)
        _run(*self.prefix, "ip", "link", "set", far, "up")
        self.plug_in()

    def _remove(self) -> None:
        holder, self._holder = self._holder, None
        if holder is None:
            return
        holder.kill()
        holder.wait()
        assert holder.stdin is not None
        holder.stdin.close()
        with suppress(OSError, subprocess.SubprocessError):  # it may have gone with the network
            _run("ip", "link", "delete", self._name)


def _address(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE)


def _await_own_network(process: subprocess.Popen[bytes]) -> None:
    ours, deadline = os.readlink("/proc/self/ns/net"), monotonic() + _PATIENCE
    while os.readlink(f"/proc/{process.pid}/ns/net") == ours:
        if process.poll() is not None or monotonic() > deadline:
            raise OSError("there is no network namespace")
        sleep(0.005)
