"""A cluster of three masters with a replica each, which tests break and mend.

with Cluster() as cluster:
    with RedisCluster(host=HOST, port=cluster.port, **CLIENT) as client:
        ...
        master = cluster.master(key)
        master.kill()
        eventually(lambda: cluster.master(key) is not master)
    cluster.mend()
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Final

from redis.exceptions import RedisError, ResponseError

from redsync._protocol.keys import slot_of
from redsync._protocol.resp import Reply

from . import CLIENT, HOST
from .nodes import Node, free_ports, started, version
from .sync import eventually

__all__ = ["Cluster"]

MASTERS = 3
SLOTS = 16384
_FORMING = 30.0


class Cluster:
    """Six nodes.

    Args:
        node_timeout: Seconds without an answer after which the others replace a master.
    """

    def __init__(self, node_timeout: float = 5.0) -> None:
        self.nodes: list[Node] = []
        self._node_timeout = str(int(node_timeout * 1000))
        self._names: dict[str, Node] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        with self._stack as stack:
            for _ in range(2 * MASTERS):
                self.nodes.append(started(self._node))
                stack.callback(self.nodes[-1].stop)
            self._form()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @property
    def port(self) -> int:
        """Of the first master, whom clients are to ask for the others."""
        return self.masters()[0].port

    service = None
    sentinels: Final[list[tuple[str, int]]] = []

    # Who has what

    def masters(self) -> list[Node]:
        """Those that have slots, by their first slot."""
        return list(dict.fromkeys(each.master for each in self._slots()))

    def master(self, key: str | bytes) -> Node:
        """Who has the slot of a key, as far as the others know; dead or alive."""
        return self._shard(key)[0]

    def replica(self, key: str | bytes) -> Node:
        """The replica of that."""
        [replica] = self._shard(key)[1]
        return replica

    def names(
        self, stem: str, number: int, key: Callable[[str], str | bytes], node: Node
    ) -> list[str]:
        """Names of objects whose keys are on this node."""
        ranges = self._slots()
        every = (f"{stem}-{n}" for n in count())
        return list(
            islice((name for name in every if _having(ranges, key(name))[0] is node), number)
        )

    # What may happen

    def kill(self, key: str | bytes) -> Callable[[], bool]:
        """Kill the master of a key.

        Returns:
            What is to be called until it tells that its replica has taken over.
        """
        old, new = self.master(key), self.replica(key)
        old.kill()
        return partial(self._takes_over, new)

    def stop_copying(self, key: str | bytes) -> Node:
        """From now on, what the master of a key does goes with it."""
        master = self.await_copies(key)
        master.cut_off_replicas()
        return master

    def await_copies(self, key: str | bytes) -> Node:
        """Wait until the replica has all that the master of a key has."""
        master = self.master(key)
        master.await_copies(self.replica(key))
        return master

    def move(
        self,
        key: str | bytes,
        meanwhile: Callable[[], None] = lambda: None,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        """Move the slot of a key to another master, with all that is in it.

        Args:
            key: One of the keys.
            meanwhile: Called while the first half of the keys is there already.
            arrived: Called when all keys are there, and the slot is not yet.
        """
        slot = _slot(key)
        source = self.master(key)
        target = next(each for each in self.masters() if each is not source)
        former, owner = _myid(source), _myid(target)
        target.tell("CLUSTER", "SETSLOT", slot, "IMPORTING", former)
        source.tell("CLUSTER", "SETSLOT", slot, "MIGRATING", owner)
        keys = source.tell("CLUSTER", "GETKEYSINSLOT", slot, 1000)
        assert isinstance(keys, list)
        for number, each in enumerate(keys):
            if number == len(keys) // 2:
                meanwhile()
            _migrate(source, target, each)
        # Others may have made some since.
        while keys := source.tell("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            assert isinstance(keys, list)
            for each in keys:
                _migrate(source, target, each)
        arrived()
        for node in (target, source, *self.masters()):
            node.tell("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def mend(self) -> None:
        """Have everybody back, with three masters and a replica each."""
        for node in self.nodes:
            if not node.running:
                node.start()
            node.resume()
            node.reconnect()
        eventually(self._whole, timeout=_FORMING)

    # How

    def _node(self) -> Node:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", self._node_timeout]
        # A replica that has been cut off from its master for a while may replace it all the same.
        options += ["--cluster-replica-validity-factor", "0"]
        if version() >= (7, 0):
            options += ["--cluster-port", str(free_ports(1)[0])]
        return Node(*options)

    def _form(self) -> None:
        first = self.nodes[0]
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, node in enumerate(self.nodes):
            self._names[_myid(node)] = node
            node.tell("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(masters):
            slots = range(SLOTS * number // MASTERS, SLOTS * (number + 1) // MASTERS)
            node.tell("CLUSTER", "ADDSLOTS", *slots)
        for node in self.nodes[1:]:
            first.tell("CLUSTER", "MEET", HOST, node.port, _bus(node))
        for master, replica in zip(masters, replicas, strict=True):
            self._replicate(replica, master)
        eventually(self._whole, timeout=_FORMING)

    def _takes_over(self, replica: Node) -> bool:
        """Have a replica be the master, before all agree that the old one is dead."""
        # It refuses if it has not noticed that itself.
        with suppress(RedisError):
            replica.tell("CLUSTER", "FAILOVER", "FORCE")
        return replica.is_master

    def _replicate(self, replica: Node, master: Node) -> None:
        def known() -> bool:
            with suppress(RedisError):
                replica.tell("CLUSTER", "REPLICATE", _myid(master))
                return True
            return False

        eventually(known, timeout=_FORMING)

    def _whole(self) -> bool:
        """Whether all know that all is well."""
        for node in self.nodes:
            if _facts(node)["cluster_state"] != "ok":
                return False
            if "fail" in _text(node.tell("CLUSTER", "NODES")):
                return False
            if node.info("replication").get("master_link_status", "up") != "up":
                return False
        shards = {each.master: each.replicas for each in self._slots()}
        return len(shards) == MASTERS and all(len(each) == 1 for each in shards.values())

    def _shard(self, key: str | bytes) -> tuple[Node, list[Node]]:
        return _having(self._slots(), key)

    def _slots(self) -> list[_Range]:
        """As those see it who have heard the latest."""
        alive = [node for node in self.nodes if node.answers]
        informed = max(alive, key=_epoch)
        ranges = []
        for first, last, *nodes in _lists(informed.tell("CLUSTER", "SLOTS")):
            assert isinstance(first, int)
            assert isinstance(last, int)
            master, *replicas = (self._names[_text(node[2])] for node in _lists(nodes))
            ranges.append(_Range(first, last, master, replicas))
        return sorted(ranges, key=lambda each: each.first)


@dataclass(frozen=True)
class _Range:
    """Slots, and who has them."""

    first: int
    last: int
    master: Node
    replicas: list[Node]


def _having(ranges: list[_Range], key: str | bytes) -> tuple[Node, list[Node]]:
    slot = _slot(key)
    [found] = [each for each in ranges if each.first <= slot <= each.last]
    return found.master, found.replicas


def _slot(key: str | bytes) -> int:
    return slot_of(key.encode() if isinstance(key, str) else key)


def _migrate(source: Node, target: Node, key: Reply) -> None:
    assert isinstance(key, bytes)
    name, password = CLIENT.values()
    with suppress(ResponseError):  # it has just gone
        source.tell("MIGRATE", HOST, target.port, key, 0, 2000, "AUTH2", name, password)


def _myid(node: Node) -> str:
    return _text(node.tell("CLUSTER", "MYID"))


def _facts(node: Node) -> dict[str, str]:
    lines = _text(node.tell("CLUSTER", "INFO")).split()
    return dict(line.split(":", 1) for line in lines)


def _epoch(node: Node) -> int:
    return int(_facts(node)["cluster_current_epoch"])


def _bus(node: Node) -> int:
    """The port on which it talks to other nodes."""
    if version() < (7, 0):
        return node.port + 10_000
    [[_, port]] = [_lists([node.tell("CONFIG", "GET", "cluster-port")])[0]]
    return int(_text(port))


def _lists(reply: Reply) -> list[list[Reply]]:
    assert isinstance(reply, list)
    return [each for each in reply if isinstance(each, list)]


def _text(reply: Reply) -> str:
    assert isinstance(reply, bytes)
    return reply.decode()
