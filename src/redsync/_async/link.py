"""One command connection for each node, and what is asked for on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, TypeVar
from weakref import WeakSet, ref

from redis import exceptions

from .._backoff import Backoff, Pauses
from .._protocol.resp import Reply, pack
from .._protocol.scripts import Command
from .._protocol.trouble import advised, demoted, passes
from .._runtime.aio import Client, Line, Lock, Mutex, Network, Node, Wire, sleep

PATIENCE: Final = 5.0
"""Seconds for which a command is tried at most: over reconnects, failovers, servers that load."""

ALLOWANCE: Final = 0.75
"""Seconds that a command has at least, be its caller's timeout 0: it has to get there and back."""

_CONNECTING: Final = 2.0
"""Seconds for one attempt: by the next one, somebody else may be the master."""

_BACKOFF: Final = Backoff(0.01, maximum=0.5, jitter=0.2)

_STALLED: Final = 0.5
"""Seconds without an answer after which others are asked rather than this node."""

_ASKING: Final = pack("ASKING")

Address = tuple[str, int] | None
"""None: the only node, or whichever Sentinel names."""

S = TypeVar("S", Line, Wire)


class Hub:
    """The command connections of one client, one for each node.

    Args:
        client: The user's.
        moved: Called when a key turns out to be on another server than before.
        deserted: Whether nobody would close what is opened now.
    """

    def __init__(
        self, client: Client, moved: Callable[[], None], deserted: Callable[[], bool]
    ) -> None:
        self.network = Network(client)
        self.moved = moved
        self._deserted = deserted
        self._wires: dict[Address, Wire] = {}
        self._locks: dict[Address, Lock] = {}
        self._failures: dict[Address, tuple[Pauses, float]] = {}
        """Where connecting failed the last time, and when to try again."""
        self._lines: WeakSet[Line] = WeakSet()
        self._mutex = Mutex()
        self._master: object = None
        self.replacements = 0
        """How often Sentinel has named another master than before."""

    async def wire(self, node: Node, deadline: float) -> Wire:
        """The connection to a node, opened if there is none; callers share one attempt."""
        lock = self._locks.setdefault(node.address, Lock())
        try:
            if not await lock.acquire(deadline - monotonic()):
                raise exceptions.TimeoutError("no connection in time")
            wire = self._wires.get(node.address)
            if wire is None or wire.failure is not None:
                wire = await self._connect(node, deadline)
        finally:
            lock.release()
        return wire

    async def _connect(self, node: Node, deadline: float) -> Wire:
        pauses, due = self._failures.get(node.address) or (Pauses(_BACKOFF), 0.0)
        await sleep(max(0.0, min(due, deadline) - monotonic()))
        try:
            wire = await node.open(Wire, min(_CONNECTING, deadline - monotonic()))
        except Exception:
            self._failures[node.address] = (pauses, monotonic() + pauses.next())
            raise
        self._failures.pop(node.address, None)
        self._wires[node.address] = wire
        self._arrive(wire)
        return wire

    def _arrive(self, connection: Line | Wire) -> None:
        if self.network.guarded:  # it asked Sentinel
            self.keep_to(connection.address)

    async def line(self, node: Node, timeout: float) -> Line:
        """A connection to a node for one user."""
        line = await node.open(Line, timeout)
        with self._mutex:
            self._lines.add(line)
        self._arrive(line)
        return line

    async def leave_old_master(self) -> None:
        """Ask Sentinel who is the master, and cut what leads elsewhere.

        An old master may go on serving and call itself master for many seconds after a failover,
        or, cut off from the sentinels, for ever. Nobody who is answered by it would notice.
        """
        master = await self.network.master(ALLOWANCE)
        if master is not None:
            self.keep_to(master)

    def keep_to(self, master: object) -> None:
        """Cut what leads to another server than the master."""
        with self._mutex:
            lines = list(self._lines)
        for each in (*list(self._wires.values()), *lines):
            if each.address != master:
                each.close("there is a new master")
        before, self._master = self._master, master
        if before not in (None, master):
            self.replacements += 1
            self.moved()

    def suspects(self) -> set[Address]:
        """The nodes that did not answer the last time."""
        return set(self._failures) | {
            address
            for address, wire in list(self._wires.items())
            if wire.failure is not None or wire.stalled_for() > _STALLED
        }

    def unlock(self) -> None:
        """Release what an interrupt has left locked by the running thread."""
        for lock in list(self._locks.values()):
            lock.release()
        for wire in list(self._wires.values()):
            wire.transactions.release()

    def settle(self) -> None:
        """After a call: one that outlasts everything else has opened its connection for itself."""
        if self._deserted():
            self.close()

    def close(self) -> None:
        """Cut all connections."""
        # One by one: what another thread opens meanwhile must not be forgotten without being cut.
        with suppress(KeyError):
            while True:
                self._wires.popitem()[1].close()


class Link:
    """The way to the node that has one key."""

    def __init__(self, hub: Hub, key: bytes) -> None:
        self.clustered = hub.network.clustered
        """Whether the client knows of other nodes."""
        self._hub = hub
        self._key = key
        self._node: Node | None = None
        self._wire: Wire | None = None
        self._guess: Node | None = None
        """A node that was asked because the right one does not answer: it may know better."""
        self._introduced: Wire | None = None
        self._last_wire: Wire | None = None
        self._changes = 0
        self._line: ref[Line] | None = None
        self._line_node: Node | None = None
        self.place: Address = None
        """The node that it is on, as far as anybody knows."""

    @property
    def moves(self) -> int:
        """How often commands may have come to another server than before, or a restarted one."""
        return self._changes + self._hub.replacements

    async def run(self, command: Command, deadline: float) -> Reply:
        """Have a command run, once, even if it has to be sent several times.

        Args:
            command: What to run.
            deadline: Until when to try, on the monotonic clock.

        Raises:
            redis.exceptions.RedisError: The server refused it, or could not be asked.
        """
        try:
            return await self._run(command, deadline)
        except BaseException:
            # An interrupt may have left a lock in the hands of the running thread.
            self._hub.unlock()
            raise
        finally:
            self._hub.settle()

    async def _run(self, command: Command, deadline: float) -> Reply:
        again = whole = False
        pauses: Pauses | None = None
        told: exceptions.RedisError | None = None
        while True:
            wire: Wire | None = None
            try:
                # As in `connected`: another coroutine costs each command more than these lines.
                wire = self._wire
                if wire is None or wire.failure is not None:
                    wire = None
                    wire = await self._connect(deadline)
                again = again or (command.introduces and wire is not self._introduced)
                packed = command.packed(again=again, whole=whole)
                if command.before:
                    packets = (*command.before, packed)
                    reply = (await wire.exchange(packets, deadline - monotonic()))[-1]
                else:
                    reply = await wire.call(packed, deadline - monotonic())
                # To redis-py, MOVED is a kind of ASK.
                if (
                    isinstance(reply, exceptions.AskError)
                    and not isinstance(reply, exceptions.MovedError)
                    and self.clustered
                ):
                    reply = await self._ask(reply, command, again, deadline)
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as failure:
                error: Exception = failure
                again = again or wire is not None
            else:
                if not isinstance(reply, exceptions.RedisError):
                    if command.introduces:
                        self._introduced = wire
                    self.confirm(wire)
                    return reply
                error = reply
                if isinstance(error, exceptions.NoScriptError):
                    whole = True
                    continue
                told = reply
            if isinstance(error, exceptions.AskError) and not self.clustered:
                raise advised(error)
            if wire is not None:
                await self.look_again(error, wire, deadline)
            if not (passes(error) or isinstance(error, exceptions.MovedError)):
                raise advised(error)
            pauses = pauses or Pauses(_BACKOFF)
            pause = 0.0 if isinstance(error, exceptions.MovedError) else pauses.next()
            if monotonic() + pause >= deadline:
                # A last try that ran out of time tells less than what the server said before.
                raise advised(told or error)
            await sleep(pause)

    async def connected(self, deadline: float) -> Wire:
        """The connection, for what is no `Command`."""
        wire = self._wire
        if wire is None or wire.failure is not None:
            wire = await self._connect(deadline)
        return wire

    def confirm(self, wire: Wire) -> None:
        """After what `connected` was for, if it was done: as `run` does itself."""
        guess = self._guess
        # It was asked whether it knows better, and has the key itself; unless the answer is a late
        # one, from where commands went before.
        if guess is not None and wire is self._wire:
            self._guess = None
            if guess is self._node:
                self._go_to(guess)
                self._take_note(wire)

    async def open_line(self, timeout: float) -> Line:
        """A connection of one's own to the node."""
        end = monotonic() + timeout
        node = self._node
        try:
            node = await self._find(timeout)
            line = await self._hub.line(node, end - monotonic())
        except (exceptions.RedisError, OSError) as error:
            await self._reroute(error, node is self._node, monotonic() + ALLOWANCE)
            raise
        wire = self._wire
        if wire is not None and wire.failure is None and wire.address != line.address:
            line.close("commands go elsewhere by now")
            raise exceptions.ConnectionError(line.failure)
        self._line, self._line_node = ref(line), node
        return line

    async def look_again(self, error: Exception, wire: Wire, deadline: float) -> None:
        """Forget where the key was, if an error of `connected`'s says that it is elsewhere."""
        await self._reroute(error, wire is self._wire, deadline)

    async def leave_line(self, error: Exception) -> None:
        """The same for an error that the connection of `open_line` has met."""
        current = self._line_node is self._node
        await self._reroute(error, current, monotonic() + ALLOWANCE)

    def give_up_stalled(self, seconds: float, error: Exception) -> None:
        """Have a new connection for the next command if this one has not answered for so long; what
        is on its way is sent again there.
        """
        wire = self._wire
        if wire is not None and wire.stalled_for() >= seconds:
            wire.close(error)

    def unlock(self) -> None:
        """After what `connected` was for, if it raised: as `run` does itself."""
        self._hub.unlock()

    def settle(self) -> None:
        """After what `connected` was for: as `run` does itself."""
        self._hub.settle()

    def close(self) -> None:
        """Let go of the connection, which others may use; a socket that nobody has is closed."""
        self._wire = None

    async def _connect(self, deadline: float) -> Wire:
        node = self._node
        try:
            node = await self._find(deadline - monotonic())
            wire = await self._hub.wire(node, deadline)
        except (exceptions.RedisError, OSError) as error:
            await self._reroute(error, node is self._node, deadline)
            raise
        if node is self._node:  # nobody has been sent elsewhere meanwhile
            self._wire = wire
            if self._guess is None:
                self._take_note(wire)
        return wire

    def _take_note(self, wire: Wire) -> None:
        """Of where commands go now; whoever waits follows."""
        before, self._last_wire = self._last_wire, wire
        if before not in (None, wire):
            line = self._line() if self._line is not None else None
            if line is not None and line.address != wire.address:
                line.close("commands go elsewhere by now")  # it may be dead and not know
            self._changes += 1
            self._hub.moved()

    async def _find(self, timeout: float) -> Node:
        node = self._node  # another thread may be told meanwhile that it is elsewhere
        return node or self._go_to(await self._hub.network.node_of(self._key, timeout))

    def _go_to(self, node: Node) -> Node:
        self._node = node
        if node.address != self.place:
            self.place = node.address
            self._hub.moved()
        return node

    async def _ask(
        self, error: exceptions.AskError, command: Command, again: bool, deadline: float
    ) -> Reply:
        """Send it where the key is moving to, this once."""
        node = await self._hub.network.node_at((error.host, error.port))
        wire = await self._hub.wire(node, deadline)
        # It holds for one command only, or for a transaction as a whole.
        commands = (_ASKING, *command.before, command.packed(again=again, whole=True))
        return (await wire.exchange(commands, deadline - monotonic()))[-1]

    async def _reroute(self, error: Exception, current: bool, deadline: float) -> None:
        """Forget where the key was, if the error says that it is elsewhere.

        Args:
            error: What went wrong.
            current: Whether that was where commands go. Of those whose connection breaks, the
                first one goes elsewhere, and the others must not lead away from there again.
            deadline: Until when to ask others, on the monotonic clock.
        """
        network = self._hub.network
        if isinstance(error, exceptions.MovedError):
            self._go_to(await network.node_at((error.host, error.port)))
            self._guess = self._wire = None
        elif not current or isinstance(error, exceptions.TryAgainError):
            pass  # where commands go by now all is well; or half of the keys have moved so far
        elif network.clustered and passes(error):
            # Somebody else names the one that has it now, with MOVED. The client's own look asks
            # one after the other, without a deadline, and may begin with the one that died.
            self._guess = other = await network.another(self._node, self._hub.suspects())
            if other is None:
                with suppress(exceptions.RedisError, OSError):
                    await network.refresh(deadline - monotonic())
            self._node = other
            self._wire = None
        elif demoted(error):
            self.give_up_stalled(0.0, error)  # Sentinel is asked by every new connection


def deadline_for(timeout: float | None) -> float:
    """Until when to try to reach the server, for a caller who has so many seconds."""
    patience = PATIENCE if timeout is None else min(PATIENCE, max(ALLOWANCE, timeout))
    return monotonic() + patience
