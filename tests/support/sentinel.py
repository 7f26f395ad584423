"""A master with two replicas and three sentinels that watch over them.

with Watched() as watched:
    client = Sentinel(watched.sentinels).master_for(watched.service, **CLIENT)
    old = watched.master()
    old.kill()
    eventually(lambda: watched.master() is not old, 20)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from . import HOST
from .nodes import Node, Sentinel, ask, free_ports, started
from .sync import eventually

__all__ = ["Watched"]

_REPLICAS = 2
_SENTINELS = 3


class Watched:
    """Six processes; ready in some tenths of a second, as everybody knows the others already.

    Args:
        down_after: Seconds without an answer after which the master counts as dead.
    """

    service = "the-master"

    def __init__(self, down_after: float = 1.0) -> None:
        self.nodes: list[Node] = []
        """The first one begins as the master."""
        self.watchers: list[Sentinel] = []
        """The sentinels."""
        self._down_after = int(down_after * 1000)
        self._stack = ExitStack()

    def __enter__(self) -> Watched:
        with self._stack as stack:
            for _ in range(1 + _REPLICAS):
                self.nodes.append(started(Node))
                stack.callback(self.nodes[-1].stop)
            for replica in self.nodes[1:]:
                replica.tell("REPLICAOF", HOST, self.nodes[0].port)
            self.nodes[0].await_copies(*self.nodes[1:])
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="redsync-")))
            self._start_watchers(folder)
            for watcher in self.watchers:
                stack.callback(watcher.stop)
            eventually(self._complete, timeout=20)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """For a Sentinel of redis-py."""
        return [(HOST, watcher.port) for watcher in self.watchers]

    @property
    def port(self) -> int:
        """Of whom the sentinels call the master."""
        return max(ports := self._named(), key=ports.count)

    def master(self, key: str | bytes = "") -> Node:
        """Whom the sentinels call the master."""
        return next(node for node in self.nodes if node.port == self.port)

    def kill(self, key: str | bytes = "") -> Callable[[], bool]:
        """Kill the master.

        Returns:
            What is to be called until it tells that a replica has taken over.
        """
        old = self.master()
        old.kill()
        return partial(self.has_replaced, old)

    def has_replaced(self, old: Node) -> bool:
        """Whether somebody else calls itself master."""
        return any(node.is_master for node in self.nodes if node is not old)

    def stop_copying(self, key: str | bytes = "") -> Node:
        """From now on, what the master does goes with it."""
        master = self.await_copies()
        master.cut_off_replicas()
        return master

    def await_copies(self, key: str | bytes = "") -> Node:
        """Wait until the replicas have all that the master has."""
        master = self.master()
        master.await_copies(*(node for node in self.nodes if node is not master))
        return master

    def fail_over(self) -> None:
        """Have the sentinels choose a new master. The old one goes on for some seconds as if
        nothing had happened.
        """
        ask(self.watchers[0], ("SENTINEL", "FAILOVER", self.service))

    def cut_off(self) -> None:
        """Have sentinels and replicas lose touch with the master, which clients still reach."""
        self.master().cut_off_sentinels()

    def agree_on(self, node: Node) -> bool:
        """Whether all sentinels call it the master."""
        return set(self._named()) == {node.port}

    # How

    def _start_watchers(self, folder: Path) -> None:
        ports = free_ports(_SENTINELS)
        self.watchers = [self._watcher(folder, ports, each) for each in range(_SENTINELS)]
        for watcher in self.watchers:
            watcher.start()

    def _watcher(self, folder: Path, ports: list[int], number: int) -> Sentinel:
        master, *replicas = self.nodes
        others = [each for each in range(_SENTINELS) if each != number]
        settings = [
            f"sentinel myid {_id(number)}",
            f"sentinel monitor {self.service} {HOST} {master.port} {_SENTINELS // 2 + 1}",
            f"sentinel down-after-milliseconds {self.service} {self._down_after}",
            f"sentinel failover-timeout {self.service} {4 * self._down_after}",
            *[
                f"sentinel known-sentinel {self.service} {HOST} {ports[each]} {_id(each)}"
                for each in others
            ],
            *[f"sentinel known-replica {self.service} {HOST} {each.port}" for each in replicas],
        ]
        return Sentinel(ports[number], "\n".join(settings) + "\n", folder)

    def _complete(self) -> bool:
        for watcher in self.watchers:
            [facts] = ask(watcher, ("SENTINEL", "MASTER", self.service))
            assert isinstance(facts, list)
            known = dict(zip(facts[::2], facts[1::2], strict=True))
            if known[b"num-other-sentinels"] != b"2" or known[b"num-slaves"] != b"2":
                return False
            if known[b"flags"] != b"master":
                return False
        return True

    def _named(self) -> list[int]:
        ports = []
        for watcher in self.watchers:
            if watcher.running:
                [address] = ask(watcher, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service))
                assert isinstance(address, list)
                assert isinstance(address[1], bytes)
                ports.append(int(address[1]))
        return ports


def _id(number: int) -> str:
    return str(number + 1) * 40
