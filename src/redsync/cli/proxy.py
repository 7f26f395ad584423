"""A proxy that breaks the link to a server in controlled ways.

    with FaultProxy(server.address) as proxy:
        client = Redis(host=proxy.host, port=proxy.port, retry=None)

        fault = proxy.lose_reply("RPUSH q")  # the server runs the next "RPUSH q", its reply is lost
        with pytest.raises(ConnectionError):
            client.rpush("q", "a")
        assert fault.fired == 1 and proxy.sent("RPUSH q a") == 1

The traffic runs on an event loop in the proxy's own thread, and every method is an ordinary call
that returns once the change is in force (well under a millisecond).  So the same object serves
threads and coroutines.

* A partition *holds* bytes and ends of streams, it does not discard them: after `heal`, held
  requests reach the server even if their client has given up and gone, as they do in a network
  that retransmits.
* A connection opened during a partition is accepted but goes no further until `heal`.
* Requests and replies are paired by position.  That holds for ordinary and blocking commands,
  pipelines and MULTI in RESP2 and RESP3, not for MONITOR, CLIENT REPLY or SUBSCRIBE in RESP2.
* What is not RESP passes unparsed; faults that look for a command never fire on it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from .frames import Frames, request_line

__all__ = ["Direction", "Fault", "FaultProxy", "How"]

Direction = Literal["requests", "replies"]
"""``requests`` flow from client to server, ``replies`` from server to client."""

How = Literal["close", "reset", "stall"]
"""How a connection is cut.

``close``: the end of the stream to both sides.  ``reset``: RST to both sides (a unix socket is
closed).  ``stall``: both sides stay open and nothing passes any more, as after the death of a
machine; `heal` does not revive it, `reset_all` and `close_all` end it.
"""

T = TypeVar("T")

_HOST = "127.0.0.1"
_DIRECTIONS: tuple[Direction, Direction] = ("requests", "replies")
_CHUNK = 65536
_QUEUE_CHUNKS = 256  # per direction and connection; beyond that the sender is slowed down
_LOG_SIZE = 10_000
_CALL_TIMEOUT = 5.0

_End = Literal["eof", "reset"]
"""How a stream ended."""


class Fault:
    """A fault of single connections, armed and waiting for its traffic; `FaultProxy` makes it."""

    def __init__(
        self,
        kind: Literal["request", "reply", "replies", "bytes"],
        how: How,
        times: int | None,
        *,
        match: bytes = b"",
        allow: int = 0,
        direction: Direction = "replies",
    ) -> None:
        self.kind = kind
        self.how: How = how
        self.match = match
        self.allow = allow
        self.direction: Direction = direction
        self.left = times
        """How often it may still fire; None: every time."""
        self.fired = 0
        """How often it has fired."""


class FaultProxy:
    """A proxy on a free port of 127.0.0.1, or of another host, in front of one server address."""

    def __init__(self, target: tuple[str, int] | str, host: str = _HOST) -> None:
        self.target = target
        self.host = host
        self.port = 0
        """Where clients connect; known once the proxy runs, and the same after `heal`."""
        self.accepted = 0
        """Connections accepted so far."""
        self._links: set[_Link] = set()
        self._faults: list[Fault] = []
        self._log: deque[bytes] = deque(maxlen=_LOG_SIZE)
        self._delay: dict[Direction, float] = dict.fromkeys(_DIRECTIONS, 0.0)
        self._open: dict[Direction, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._begin)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT)

    # What it has seen

    @property
    def url(self) -> str:
        """A URL for ``Redis.from_url``."""
        return f"redis://{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def sent(self, match: str) -> int:
        """Return how many requests that contain ``match`` have been forwarded or lost so far.

        They are compared as ``NAME arg arg``, as they are on the wire: redis-py's ``incr()`` sends
        INCRBY.  Those held by a partition do not count yet.
        """
        wanted = match.encode()
        return self._call(lambda: sum(wanted in line for line in self._log))

    # Faults of the whole link, until `heal`

    def partition(self, *, requests: bool = True, replies: bool = True) -> None:
        """Hold everything in the given directions; the other one is opened."""

        def apply() -> None:
            cut: dict[Direction, bool] = {"requests": requests, "replies": replies}
            for direction, gate in self._open.items():
                if cut[direction]:
                    gate.clear()
                else:
                    gate.set()

        self._call(apply)

    def delay(self, *, requests: float = 0.0, replies: float = 0.0) -> None:
        """Add latency, in seconds, to each direction, at the same throughput."""

        def apply() -> None:
            self._delay = {"requests": requests, "replies": replies}

        self._call(apply)

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones go on."""
        self._call(self._stop_listening)

    def heal(self) -> None:
        """Undo `partition`, `delay` and `refuse`; armed faults stay armed."""

        def apply() -> None:
            self._delay = dict.fromkeys(_DIRECTIONS, 0.0)
            for gate in self._open.values():
                gate.set()
            if self._listener is None:
                self._listen()

        self._call(apply)

    def reset_all(self) -> int:
        """Reset every open connection on both sides; return how many there were."""
        return self._call(lambda: self._cut_all("reset"))

    def close_all(self) -> int:
        """Close every open connection on both sides; return how many there were."""
        return self._call(lambda: self._cut_all("close"))

    # Faults of single connections

    def lose_request(self, match: str = "", *, times: int | None = 1, how: How = "close") -> Fault:
        """Cut the connection instead of forwarding the next request that contains ``match``.

        The server never sees it.  Earlier requests of the same write are forwarded; their replies
        are lost if they have not arrived yet.
        """
        return self._arm(Fault("request", how, times, match=match.encode()))

    def lose_reply(self, match: str = "", *, times: int | None = 1, how: How = "close") -> Fault:
        """Drop the next reply to a request that contains ``match`` and cut the connection there.

        The server has executed the request, which may have been sent before this call: the reply to
        a blocked BLPOP can be lost.  Replies to earlier requests still arrive, later ones do not.
        """
        return self._arm(Fault("reply", how, times, match=match.encode()))

    def cut_after_replies(self, n: int, *, times: int | None = 1, how: How = "close") -> Fault:
        """Let ``n`` more replies through on a connection, drop the next one and cut it there.

        Counted from this call on, for each connection by itself; the handshake's count too.
        """
        return self._arm(Fault("replies", how, times, allow=n))

    def cut_after_bytes(
        self, n: int, *, direction: Direction = "replies", times: int | None = 1, how: How = "close"
    ) -> Fault:
        """Let ``n`` more bytes through on a connection, drop the rest and cut it there.

        Counted from this call on, for each connection by itself.  The client gets a torn reply, or
        the server a torn command, which it ignores.
        """
        return self._arm(Fault("bytes", how, times, allow=n, direction=direction))

    def disarm(self, fault: Fault) -> None:
        """Stop the fault from firing (again)."""
        self._call(lambda: self._drop(fault))

    # Everything below runs on the proxy's loop, except _run, _call and _arm

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _call(self, work: Callable[[], T] | Coroutine[Any, Any, T]) -> T:
        """Run a function or a coroutine on the proxy's loop and return its result."""

        async def run() -> T:
            return await work if isinstance(work, Coroutine) else work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_CALL_TIMEOUT)

    def _arm(self, fault: Fault) -> Fault:
        self._call(lambda: self._faults.append(fault))
        return fault

    def _drop(self, fault: Fault) -> None:
        if fault in self._faults:
            self._faults.remove(fault)

    def _claim(self, fault: Fault) -> None:
        """Count one firing down, before another connection can come in between."""
        if fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                self._drop(fault)

    def _begin(self) -> None:
        for direction in _DIRECTIONS:
            self._open[direction] = asyncio.Event()
            self._open[direction].set()
        self._listen()

    async def _end(self) -> None:
        self._stop_listening()
        self._cut_all("reset")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # let the transports close their sockets

    def _listen(self) -> None:
        listener = socket.create_server((self.host, self.port), backlog=128)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        # Not sock_accept(): if that is cancelled, it may have accepted one whom nobody serves then.
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client left at once
        client.setblocking(False)
        self.accepted += 1
        task = asyncio.ensure_future(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=client)
        except OSError:
            client.close()
            return
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.abort()

    def _cut_all(self, how: How) -> int:
        links = list(self._links)
        for link in links:
            link.cut(how)
        return len(links)


class _Link:
    """One client connection and its connection to the server."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.readers: dict[Direction, asyncio.StreamReader] = {"requests": reader}
        # Named after what goes into them.
        self.writers: dict[Direction, asyncio.StreamWriter] = {"replies": writer}
        self.queues: dict[Direction, asyncio.Queue[tuple[float, bytes | _End]]] = {
            direction: asyncio.Queue(_QUEUE_CHUNKS) for direction in _DIRECTIONS
        }
        self.frames: dict[Direction, Frames | None] = {
            "requests": Frames(inline=True),
            "replies": Frames(inline=False),
        }
        self.request = bytearray()  # the part of an incomplete request that has arrived
        self.unanswered: deque[bytes] = deque()
        self.inside_reply = False
        self.passed: dict[Fault, int] = {}  # replies or bytes let through since the fault was armed
        self.client_gone = False
        self.stalled = False
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Carry the traffic until either side ends it, or a fault does."""
        ended = asyncio.ensure_future(self.ended.wait())
        healthy = asyncio.ensure_future(self.until_open())
        tasks: list[asyncio.Future[Any]] = [ended, healthy]
        tasks.append(asyncio.ensure_future(self.read("requests")))
        try:
            _no_delay(self.writers["replies"])
            await asyncio.wait([healthy, ended], return_when=asyncio.FIRST_COMPLETED)
            if self.client_gone or self.ended.is_set() or not await self.connect():
                return
            pumps = [asyncio.ensure_future(self.pump(direction)) for direction in _DIRECTIONS]
            pumping = asyncio.ensure_future(asyncio.wait(pumps))
            tasks += [asyncio.ensure_future(self.read("replies")), *pumps, pumping]
            await asyncio.wait([pumping, ended], return_when=asyncio.FIRST_COMPLETED)
            if self.stalled:
                await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until_open(self) -> None:
        gates = self.proxy._open.values()
        while not all(gate.is_set() for gate in gates):
            for gate in gates:
                await gate.wait()

    async def connect(self) -> bool:
        """Connect to the server; False if it refuses, or if a fault came first."""
        target = self.proxy.target
        try:
            if isinstance(target, str):
                streams = await asyncio.open_unix_connection(target)
            else:
                streams = await asyncio.open_connection(*target)
        except OSError:
            return False
        self.readers["replies"], self.writers["requests"] = streams
        _no_delay(self.writers["requests"])
        return not self.ended.is_set()

    async def read(self, direction: Direction) -> None:
        """Move what arrives into the queue, stamped with the time at which it may go on."""
        loop = asyncio.get_running_loop()
        reader, queue = self.readers[direction], self.queues[direction]
        while True:
            item: bytes | _End
            try:
                item = await reader.read(_CHUNK) or "eof"
            except OSError:
                item = "reset"
            if direction == "requests" and isinstance(item, str):
                self.client_gone = True
            await queue.put((loop.time() + self.proxy._delay[direction], item))
            if isinstance(item, str):
                return

    async def pump(self, direction: Direction) -> None:
        """Move the queue to the other side, through the partition, the delay and the faults."""
        loop = asyncio.get_running_loop()
        queue, gate = self.queues[direction], self.proxy._open[direction]
        while True:
            due, item = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            while not gate.is_set():
                await gate.wait()
            if self.stalled or self.ended.is_set():
                return
            try:
                if not await self.hand_on(direction, item):
                    return
            except OSError:  # the receiver is gone
                self.cut("reset")
                return

    async def hand_on(self, direction: Direction, item: bytes | _End) -> bool:
        """Send one item to the other side; False if it was the last one."""
        writer = self.writers[direction]
        if item == "reset":
            self.cut("reset")
            return False
        if isinstance(item, str):
            if direction == "requests" and self.request:
                writer.write(bytes(self.request))
            writer.write_eof()
            return False
        data, fault = self.examine(direction, item)
        if data:
            writer.write(data)
            await writer.drain()
        if fault is not None:
            self.cut(fault.how)
            fault.fired += 1
        return fault is None

    def examine(self, direction: Direction, data: bytes) -> tuple[bytes, Fault | None]:
        """Return what may pass, and the fault that cuts the connection behind it."""
        data, fault = self.examine_frames(direction, data)
        for candidate in self.faults("bytes"):
            if candidate.direction != direction:
                continue
            passed = self.passed.get(candidate, 0)
            if passed + len(data) > candidate.allow:
                data, fault = data[: candidate.allow - passed], candidate
            self.passed[candidate] = passed + len(data)
        if fault is not None:
            self.proxy._claim(fault)
        return data, fault

    def examine_frames(self, direction: Direction, data: bytes) -> tuple[bytes, Fault | None]:
        frames = self.frames[direction]
        if frames is None:
            return data, None
        allowed = bytearray()
        check = self.check_request if direction == "requests" else self.check_reply
        try:
            for piece, complete in frames.feed(data):
                passing, fault = check(piece, complete)
                allowed += passing
                if fault is not None:
                    return bytes(allowed), fault
        except ValueError:  # not RESP: pass everything through from here on
            self.frames[direction] = None
            if direction == "requests":
                self.frames["replies"] = None
                data = bytes(self.request) + data
                self.request.clear()
            return data, None
        return bytes(allowed), None

    def check_request(self, piece: bytes, complete: bool) -> tuple[bytes, Fault | None]:
        """Let a request pass when it is complete."""
        self.request += piece
        if not complete:
            return b"", None
        frame = bytes(self.request)
        self.request.clear()
        line = request_line(frame)
        if not line:  # an empty inline command has no reply
            return frame, None
        self.proxy._log.append(line)
        for fault in self.faults("request"):
            if fault.match in line:
                return b"", fault
        self.unanswered.append(line)
        return frame, None

    def check_reply(self, piece: bytes, complete: bool) -> tuple[bytes, Fault | None]:
        """Let a reply pass piece by piece; decide at its first one."""
        if not self.inside_reply and not piece.startswith(b">"):  # > is a push, nobody's reply
            line = self.unanswered.popleft() if self.unanswered else None
            for fault in self.faults("reply"):
                if line is not None and fault.match in line:
                    return b"", fault
            for fault in self.faults("replies"):
                passed = self.passed.get(fault, 0)
                if passed >= fault.allow:
                    return b"", fault
                self.passed[fault] = passed + 1
        self.inside_reply = not complete
        return piece, None

    def faults(self, kind: str) -> list[Fault]:
        return [fault for fault in self.proxy._faults if fault.kind == kind]

    def cut(self, how: How) -> None:
        if how == "stall":
            self.stalled = True
            return
        for writer in self.writers.values():
            if how == "reset":
                _reset(writer)
            else:
                writer.close()
        self.ended.set()

    def abort(self) -> None:
        """Close whatever is still open."""
        for writer in self.writers.values():
            writer.close()


def _no_delay(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0 and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
